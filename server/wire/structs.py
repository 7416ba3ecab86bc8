"""Take an update apart into its structs.

For work that is rare and that needs to know where everything is: cutting a state into slices, and
putting bytes into an update that pycrdt would write differently. Clear before fast; what an update
looks like is told in `update`, which must have accepted one before it is read here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from plait.server.wire.lib0 import read_var_uint, write_var_uint
from plait.server.wire.update import (
    ANY,
    BINARY,
    DELETED,
    DOC,
    EMBED,
    FORMAT,
    GC,
    HAS_KEY,
    HAS_ORIGIN,
    HAS_RIGHT_ORIGIN,
    JSON,
    KIND,
    SKIP,
    STRING,
    TYPE,
    XML_ELEMENT,
    XML_HOOK,
    Id,
)
from plait.server.wire.values import value_end

Deletes = dict[int, list[tuple[int, int]]]
"""For each client, the (clock, length) of its deleted ranges."""


_LENGTH: Final = rb"[\x80-\xff]{0,4}[\x01-\x7f]"
_MAY_BE_GARBAGE: Final = re.compile(rb"\x00" + _LENGTH + rb"\x00" + _LENGTH)


class Struct(NamedTuple):
    """One struct and where its bytes are: update[start:end], of which [content:end] is the content.

    A GC or a Skip has its length for content.
    """

    client: int
    clock: int
    length: int
    kind: int
    start: int
    content: int
    end: int
    origin: Id | None
    right_origin: Id | None
    parent: Id | None
    root: bytes | None
    """UTF-8 name of the root type that it is in. Known only without origins, as is the parent."""
    key: bytes | None
    """UTF-8 key that it has in its parent, likewise."""


class Section(NamedTuple):
    """All structs that an update has of one client: their number, and where the first is."""

    client: int
    clock: int
    structs: int
    position: int


def sections(update: bytes) -> tuple[list[Section], int]:
    """Return the sections of an update, and the position of its delete set."""
    count, position = read_var_uint(update, 0)
    found = []
    for _ in range(count):
        structs, position = read_var_uint(update, position)
        client, position = read_var_uint(update, position)
        clock, position = read_var_uint(update, position)
        section = Section(client, clock, structs, position)
        found.append(section)
        for struct in read_section(update, section):
            position = struct.end
    return found, position


def read_section(update: bytes, section: Section) -> Iterator[Struct]:
    """Return the structs of one client, one after another."""
    clock, position = section.clock, section.position
    for _ in range(section.structs):
        struct = _read_struct(update, position, section.client, clock)
        yield struct
        clock += struct.length
        position = struct.end


def read_structs(update: bytes) -> Iterator[Struct]:
    """Return all structs of an update, one after another."""
    count, position = read_var_uint(update, 0)
    for _ in range(count):
        structs, position = read_var_uint(update, position)
        client, position = read_var_uint(update, position)
        clock, position = read_var_uint(update, position)
        for struct in read_section(update, Section(client, clock, structs, position)):
            yield struct
            position = struct.end


def read_deletes(update: bytes, position: int) -> Deletes:
    """Return the delete set, which is at a position (`sections` tells it)."""
    clients, position = read_var_uint(update, position)
    deletes: Deletes = {}
    for _ in range(clients):
        client, position = read_var_uint(update, position)
        count, position = read_var_uint(update, position)
        ranges = deletes[client] = []
        for _ in range(count):
            clock, position = read_var_uint(update, position)
            length, position = read_var_uint(update, position)
            ranges.append((clock, length))
    return deletes


def write_deletes(deletes: Deletes) -> bytes:
    """Return the bytes of a delete set."""
    parts = [write_var_uint(len(deletes))]
    for client, ranges in deletes.items():
        parts += write_var_uint(client), write_var_uint(len(ranges))
        for clock, length in ranges:
            parts += write_var_uint(clock), write_var_uint(length)
    return b"".join(parts)


def in_order(deletes: bytes) -> bytes:
    """Return the bytes of a delete set with the higher clients first, as Yjs writes them; pycrdt
    has them in the order of a hash table.
    """
    clients, position = read_var_uint(deletes, 0)
    if clients < 2:
        return deletes
    parts: list[tuple[int, bytes]] = []
    for _ in range(clients):
        start = position
        client, position = read_var_uint(deletes, start)
        count, position = read_var_uint(deletes, position)
        for _ in range(2 * count):
            while deletes[position] > 127:
                position += 1
            position += 1
        parts.append((client, deletes[start:position]))
    parts.sort(key=lambda part: -part[0])
    return write_var_uint(clients) + b"".join([part for _, part in parts])


def replace_parts(update: bytes, parts: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return an update in which each [start:end] is exchanged; they come in order."""
    pieces: list[bytes] = []
    position = 0
    for start, end, piece in parts:
        pieces += update[position:start], piece
        position = end
    if not pieces:
        return update
    pieces.append(update[position:])
    return b"".join(pieces)


def exchange(update: bytes, others: Callable[[Struct], Sequence[bytes] | None]) -> bytes:
    """Return an update with other structs, of the same length together, in place of some.

    Args:
        others: returns those for a struct, or None if it is to stay.
    """
    found, position = sections(update)
    pieces = [write_var_uint(len(found))]
    for section in found:
        body: list[bytes] = []
        for struct in read_section(update, section):
            changed = others(struct)
            body += (update[struct.start : struct.end],) if changed is None else changed
        pieces += (
            write_var_uint(len(body)),
            write_var_uint(section.client),
            write_var_uint(section.clock),
            *body,
        )
    pieces.append(update[position:])
    return b"".join(pieces)


def join_garbage(update: bytes) -> bytes:
    """Return an update with garbage of one client that follows other garbage as one struct.

    pycrdt joins it only when a document is loaded, so one has other bytes before and
    after.
    """
    if _MAY_BE_GARBAGE.search(update) is None:
        return update
    garbage: dict[Id, int] = {}
    joined: set[Id] = set()
    before = None
    for struct in read_structs(update):
        if struct.kind != GC:
            before = None
        elif before is None or before[0] != struct.client:
            before = struct.client, struct.clock
            garbage[before] = struct.length
        else:
            garbage[before] += struct.length
            joined.add((struct.client, struct.clock))

    def others(struct: Struct) -> Sequence[bytes] | None:
        place = struct.client, struct.clock
        if place in joined:
            return ()
        if place in garbage:
            return (bytes((GC,)) + write_var_uint(garbage[place]),)
        return None

    return exchange(update, others) if joined else update


def _read_struct(update: bytes, position: int, client: int, clock: int) -> Struct:
    start = position
    info = update[position]
    position += 1
    kind = info & KIND
    origin = right_origin = parent = root = key = None
    if kind != GC and kind != SKIP:
        if info & HAS_ORIGIN:
            origin, position = _read_id(update, position)
        if info & HAS_RIGHT_ORIGIN:
            right_origin, position = _read_id(update, position)
        if origin is None and right_origin is None:
            named, position = read_var_uint(update, position)
            if named:
                root, position = _read_bytes(update, position)
            else:
                parent, position = _read_id(update, position)
            if info & HAS_KEY:
                key, position = _read_bytes(update, position)
    length, end = _read_content(update, position, kind)
    return Struct(
        client, clock, length, kind, start, position, end, origin, right_origin, parent, root, key
    )


def _read_content(update: bytes, position: int, kind: int) -> tuple[int, int]:
    """Return the length of a content in clocks, and the position after it."""
    if kind == STRING:
        text, position = _read_bytes(update, position)
        return len(text.decode().encode("utf-16-le")) // 2, position
    if kind == GC or kind == SKIP or kind == DELETED:
        return read_var_uint(update, position)
    if kind == ANY:
        length, position = read_var_uint(update, position)
        for _ in range(length):
            position, _ = value_end(update, position)
        return length, position
    if kind == JSON:
        length, position = read_var_uint(update, position)
        for _ in range(length):
            _, position = _read_bytes(update, position)
        return length, position
    if kind == FORMAT:
        _, position = _read_bytes(update, position)
        return 1, _read_bytes(update, position)[1]
    if kind == TYPE:
        reference, position = read_var_uint(update, position)
        if reference == XML_ELEMENT or reference == XML_HOOK:
            position = _read_bytes(update, position)[1]
        return 1, position
    if kind == DOC:
        _, position = _read_bytes(update, position)
        return 1, value_end(update, position)[0]
    assert kind == EMBED or kind == BINARY, f"inspect lets no struct of kind {kind} pass"
    return 1, _read_bytes(update, position)[1]


def _read_id(update: bytes, position: int) -> tuple[Id, int]:
    client, position = read_var_uint(update, position)
    clock, position = read_var_uint(update, position)
    return (client, clock), position


def _read_bytes(update: bytes, position: int) -> tuple[bytes, int]:
    size, position = read_var_uint(update, position)
    return update[position : position + size], position + size
