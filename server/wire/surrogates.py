"""Take care of characters that an edit tears apart.

Yjs counts text in UTF-16 units, so a character above U+FFFF, such as an emoji, has two places, and
an edit may fall between them: an index that is off by one deletes half an emoji, or inserts between
both halves. Yjs then replaces each half with U+FFFD (`ContentString.splice`). pycrdt keeps the
character and shifts the clocks of what follows, which corrupts the document for whoever loads it.

The remedy is to do what Yjs does before pycrdt sees the edit: the character becomes two U+FFFD,
which has the same length in UTF-16, in everything that pycrdt is given. A document keeps the places
of its pairs. When an update cuts one of them, the document is made anew from its rewritten state,
and the update is rewritten as well.
"""

from collections.abc import Mapping, Set

from plait.server.wire.lib0 import read_var_uint, var_bytes
from plait.server.wire.structs import read_deletes, read_structs, replace_parts
from plait.server.wire.update import GC, SKIP, STRING, Id

_TORN = "\ufffd\ufffd"
_BEYOND = "\U00010000"


def pairs(update: bytes) -> set[Id]:
    """Return the (client, clock) of the first half of every surrogate pair in an update's text.

    Only text is ever cut; names, keys and values are whole.
    """
    found: set[Id] = set()
    for struct in read_structs(update):
        if struct.kind == STRING:
            text = _text(update, struct.content)
            if not text.isascii():
                clock = struct.clock
                for character in text.decode():
                    if character >= _BEYOND:
                        found.add((struct.client, clock))
                        clock += 1
                    clock += 1
    return found


def cuts(update: bytes, known: Mapping[int, int] | None = None) -> set[Id]:
    """Return the (client, clock) before which structs are cut when an update is integrated.

    These are the ends of deleted ranges and the neighbours of inserted structs; and, given the
    state vector of the document, the place in the update from which on it is new.
    """
    found: set[Id] = set()
    _, position = read_var_uint(update, 0)
    for struct in read_structs(update):
        position = struct.end
        if struct.kind == GC or struct.kind == SKIP:
            continue
        if struct.origin is not None:
            client, clock = struct.origin
            found.add((client, clock + 1))
        if struct.right_origin is not None:
            found.add(struct.right_origin)
        if known is not None and known.get(struct.client, 0) > struct.clock:
            found.add((struct.client, known[struct.client]))
    for client, ranges in read_deletes(update, position).items():
        for clock, length in ranges:
            found.add((client, clock))
            found.add((client, clock + length))
    return found


def broken(pairs: Set[Id], cuts: Set[Id]) -> set[Id]:
    """Return the pairs that are cut in the middle."""
    return {(client, clock - 1) for client, clock in cuts if (client, clock - 1) in pairs}


def rewrite(update: bytes, broken: Set[Id]) -> bytes:
    """Return an update in which these pairs are two U+FFFD each; nothing else changes."""
    torn: dict[int, set[int]] = {}
    for client, clock in broken:
        torn.setdefault(client, set()).add(clock)
    parts = []
    for struct in read_structs(update):
        if struct.kind == STRING and struct.client in torn:
            text = _text(update, struct.content)
            if not text.isascii():
                rewritten = _tear(text.decode(), struct.clock, torn[struct.client])
                if rewritten != text:
                    parts.append((struct.content, struct.end, var_bytes(rewritten)))
    return replace_parts(update, parts)


def _tear(text: str, clock: int, torn: Set[int]) -> bytes:
    characters = []
    for character in text:
        if character >= _BEYOND:
            characters.append(_TORN if clock in torn else character)
            clock += 1
        else:
            characters.append(character)
        clock += 1
    return "".join(characters).encode()


def _text(update: bytes, position: int) -> bytes:
    size, position = read_var_uint(update, position)
    return update[position : position + size]
