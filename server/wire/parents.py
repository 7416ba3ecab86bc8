"""Keep out of pycrdt what is in nothing.

A struct without neighbours tells what it is in: a root type, by its name, or another struct that
has to be a shared type. Yjs discards a struct whose parent is something else, or is deleted and
nobody knows any more what it was (yjs `src/structs/Item.js`, `getMissing` and `integrate`). yrs
0.28 does so only with the latter, and fails in the middle of an update with the former. Then it
matters in which order an update and a deletion come: whoever gets the deletion first takes what
others can never apply, and a log in which they are the other way round can't be loaded. So such
structs are discarded before anybody sees them, by what all nodes agree upon: a struct is kept if
its parent is known to be a type. A document knows all its types but those that were deleted before
it was loaded, and what is in those is deleted as well.
"""

from collections import defaultdict
from collections.abc import Collection

from plait.server.wire.lib0 import write_var_uint
from plait.server.wire.structs import Struct, read_structs, replace_parts
from plait.server.wire.update import GC, TYPE, Id


def without(update: bytes, strangers: Collection[Id], structs: Collection[Id] = ()) -> bytes:
    """Return an update in which everything is garbage that is in one of these places, which are no
    shared types, and what is in that.

    Args:
        structs: those that are to be garbage themselves, by their first clocks.
    """
    inside: defaultdict[Id, list[Struct]] = defaultdict(list)
    found: list[Struct] = []
    left = list(strangers)
    for each in read_structs(update):
        if (each.client, each.clock) in structs:
            found.append(each)
            if each.kind == TYPE:
                left.append((each.client, each.clock))
        elif each.parent is not None:
            inside[each.parent].append(each)
    while left:
        for each in inside.pop(left.pop(), ()):
            found.append(each)
            if each.kind == TYPE:
                left.append((each.client, each.clock))
    found.sort(key=lambda each: each.start)
    return replace_parts(
        update,
        ((each.start, each.end, bytes((GC,)) + write_var_uint(each.length)) for each in found),
    )
