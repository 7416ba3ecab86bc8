"""Take care of what a key of a map holds, which pycrdt must be told one value at a time.

The values that a key has had are a chain: each has the one before it for its origin, from which it
takes the key as well, and all but the last are deleted. yrs 0.28 relies on that when a shared type
is deleted: it deletes the last value of each of its keys and what is linked to that, and frees the
type. What is left over refers to freed memory from then on. pycrdt writes there, and sends clients
what it finds there. Two things make something be left over:

*   Several values in one struct. When yrs cuts it in two, the left part is neither deleted nor the
    last one. Yjs writes such structs, of values that are all deleted, if it does not collect
    garbage or an `Y.UndoManager` keeps them. So pycrdt is given the last value, which is what Yjs
    shows, and that those before it are deleted.
*   A struct with another one to its right that has a key. yrs takes the key from there if what is
    to the left has none, and forgets which value the key had. Yjs never writes that: a new value is
    to the right of all others. It comes about when two authors use one client id, so that what was
    text for one is a value for the other. So it is refused, or made garbage for everybody.

A key is on the wire only in a struct that has no origin, so a document keeps which of its places
have one.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Generator, Iterable, Sequence
from typing import Final

from plait.server.errors import UpdateRefused
from plait.server.wire.lib0 import read_var_uint, var_bytes, write_var_uint
from plait.server.wire.places import Places
from plait.server.wire.structs import Struct, exchange, read_structs
from plait.server.wire.update import (
    DELETED,
    GC,
    HAS_KEY,
    HAS_ORIGIN,
    HAS_RIGHT_ORIGIN,
    JSON,
    KIND,
    SKIP,
    STRING,
    TYPE,
    Id,
    Runs,
)
from plait.server.wire.values import value_end

STEP_STRUCTS: Final = 500
_HALF = "\ufffd"


def one_by_one(update: bytes, keyed: Places) -> tuple[bytes, Runs]:
    """Return an update as pycrdt may have it, and the runs of its places that have a key.

    Args:
        keyed: what the document has already.

    Raises:
        UpdateRefused: something is to be put to the left of a place that has a key.
    """
    steps = one_by_one_in_steps(update, keyed)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: tuple[bytes, Runs] = end.value
            return found


def one_by_one_in_steps(
    update: bytes, keyed: Places, types: list[Id] | None = None
) -> Generator[None, None, tuple[bytes, Runs]]:
    """Do the same, and give others a chance after some `STEP_STRUCTS`, which take 2 ms or so.

    Args:
        types: receives the shared types.
    """
    found, wrong = yield from _survey(update, keyed, types)
    if wrong:
        raise UpdateRefused(
            f"Struct {wrong[0][1]} of client {wrong[0][0]} is left of a value that has a key."
        )
    joined = {
        (each.client, each.clock) for each in found if each.length > 1 and each.kind != DELETED
    }
    return _separated(update, joined) if joined else update, _runs(found)


def misplaced(update: bytes, keyed: Places) -> list[Id]:
    """Return the structs for which `one_by_one` refuses an update."""
    steps = _survey(update, keyed, None)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: tuple[list[Struct], list[Id]] = end.value
            return found[1]


def _survey(
    update: bytes, keyed: Places, types: list[Id] | None
) -> Generator[None, None, tuple[list[Struct], list[Id]]]:
    """Return the structs that have a key, and the places of those that are left of such."""
    found: list[Struct] = []
    others: list[Struct] = []
    rights: list[Struct] = []
    lasts: set[Id] = set()
    for number, each in enumerate(read_structs(update), 1):
        if number % STEP_STRUCTS == 0:
            yield
        if each.kind == GC or each.kind == SKIP:
            continue
        if each.kind == TYPE and types is not None:
            types.append((each.client, each.clock))
        origin = each.origin
        # Yjs always builds upon the last place of a struct.
        if each.key is not None or origin in lasts or (origin is not None and origin in keyed):
            found.append(each)
            lasts.add((each.client, each.clock + each.length - 1))
        elif origin is not None:
            others.append(each)
        if each.right_origin is not None:
            rights.append(each)
    new = Places(_runs(found)) if others or rights else Places()
    if any(each.origin in new for each in others):
        found += _following(found, others)
        new = Places(_runs(found))
    wrong = [
        (each.client, each.clock)
        for each in rights
        if each.right_origin in keyed or each.right_origin in new
    ]
    return found, wrong


def _runs(structs: Iterable[Struct]) -> Runs:
    """Return the runs of structs, those as one that follow one another."""
    runs: Runs = []
    before, first, end = -1, 0, 0
    for each in structs:
        if each.client != before or each.clock != end:
            if end > first:
                runs.append((before, first, end))
            before, first = each.client, each.clock
        end = each.clock + each.length
    if end > first:
        runs.append((before, first, end))
    return runs


def _following(found: Sequence[Struct], others: Sequence[Struct]) -> list[Struct]:
    """Return those of the other structs that build upon what was found, or upon each other and so
    upon that: upon the middle of a struct, or upon one further on, of another client.
    """
    places: defaultdict[int, list[int]] = defaultdict(list)
    for each in sorted([*found, *others], key=lambda each: each.clock):
        places[each.client].append(each.clock)
    following: defaultdict[Id, list[tuple[int, Struct]]] = defaultdict(list)
    for each in others:
        assert each.origin is not None
        client, clock = each.origin
        clocks = places.get(client, [])
        index = bisect_right(clocks, clock)
        if index:
            following[client, clocks[index - 1]].append((clock, each))
    seen = {(each.client, each.clock) for each in found}
    reached = list(found)
    for each in reached:  # It grows meanwhile.
        for clock, other in following.get((each.client, each.clock), ()):
            place = other.client, other.clock
            # There may be something else in between.
            if place not in seen and clock < each.clock + each.length:
                seen.add(place)
                reached.append(other)
    return reached[len(found) :]


def _separated(update: bytes, joined: set[Id]) -> bytes:
    """Return an update in which these structs are two: all values but the last, and the last."""
    return exchange(
        update,
        lambda struct: _two(update, struct) if (struct.client, struct.clock) in joined else None,
    )


def _two(update: bytes, struct: Struct) -> tuple[bytes, ...]:
    info = update[struct.start]
    kind = info & KIND
    before = struct.clock + struct.length - 2
    right = b""
    if struct.right_origin is not None:
        right = b"".join(map(write_var_uint, struct.right_origin))
    return (
        bytes((info - kind + DELETED,))
        + update[struct.start + 1 : struct.content]
        + write_var_uint(struct.length - 1),
        bytes((kind | HAS_KEY | HAS_ORIGIN | (HAS_RIGHT_ORIGIN if right else 0),))
        + write_var_uint(struct.client)
        + write_var_uint(before)
        + right
        + _last(update, struct),
    )


def _last(update: bytes, struct: Struct) -> bytes:
    """Return the last value of a struct as the content of another one. Only text and JSON-like
    values can be several.
    """
    size, position = read_var_uint(update, struct.content)
    if struct.kind == STRING:
        last = update[position : position + size].decode()[-1]
        return var_bytes((last if last < "\U00010000" else _HALF).encode())
    for _ in range(size - 1):
        if struct.kind == JSON:
            length, position = read_var_uint(update, position)
            position += length
        else:
            position, _ = value_end(update, position)
    return b"\x01" + update[position : struct.end]
