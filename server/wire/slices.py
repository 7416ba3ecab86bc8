"""Cut the state of a document into updates that are applied one after another.

pycrdt never releases the interpreter, so a large state that is applied, sent or stored whole stalls
everything else. Each slice builds only upon those before it: between two of them the loop may run,
and a document that has got some of them is a correct, if incomplete, document.

Slices are for pycrdt and for the store. A client of Yjs must not be shown a part of a state: after
each update it tidies formatted text (`cleanupYTextFormatting`), takes formats whose text is yet to
come for superfluous, and deletes them for everybody. For clients there is `portions`.
"""

from collections.abc import Iterator
from typing import Final

from plait.server.wire.lib0 import write_var_uint
from plait.server.wire.structs import (
    Deletes,
    Section,
    Struct,
    read_deletes,
    read_section,
    sections,
    write_deletes,
)
from plait.server.wire.update import SKIP

SLICE_BYTES: Final = 64 << 10
"""Takes pycrdt 3 ms when it consists of small structs. An edit in another room may have to wait for
one slice several times on its way.
"""

_NO_STRUCTS = _NO_DELETES = b"\x00"


def slice_state(state: bytes, slice_bytes: int = SLICE_BYTES) -> list[bytes]:
    """Return updates of about `slice_bytes` that together are the whole state.

    Applied in order, none of them ever waits for a later one. A single struct is not cut, however
    large. Deleted ranges come last: a document that collects its garbage has deleted structs
    written as such anyway. A diff may be cut as well: what it builds upon is taken as known.

    Raises:
        ValueError: the structs can't be put in order, or there are gaps between them.
    """
    return list(iterate_slices(state, slice_bytes))


def iterate_slices(state: bytes, slice_bytes: int = SLICE_BYTES) -> Iterator[bytes]:
    """Return the same as `slice_state`, each slice being cut when it is asked for."""
    if len(state) <= slice_bytes:
        yield state
        return
    found, position = sections(state)
    yield from _cut_structs(state, in_causal_order(state, found), slice_bytes)
    yield from _cut_deletes(read_deletes(state, position), slice_bytes)


def in_causal_order(state: bytes, found: list[Section]) -> Iterator[Struct]:
    """Return the structs so that each comes after all that it refers to.

    A client's structs are taken until one of them refers to what another client has still to give;
    then that client's are taken first, and so on, as Yjs does when it integrates an update.
    """
    following = {section.client: read_section(state, section) for section in found}
    heads = {client: next(structs) for client, structs in following.items()}
    for section in found:
        stack = [section.client] if section.client in heads else []
        while stack:
            client = stack[-1]
            head = heads[client]
            needed = _needed(head, heads)
            if needed is not None:
                if needed in stack:
                    raise ValueError(f"Structs of clients {client} and {needed} need each other.")
                stack.append(needed)
                continue
            if head.kind == SKIP:
                raise ValueError(f"Structs of client {client} are missing.")
            yield head
            successor = next(following[client], None)
            if successor is None:
                del heads[client]
            else:
                heads[client] = successor
            if successor is None or len(stack) > 1:
                # Back to the client that needed this one, which looks whether it is enough.
                stack.pop()


def _needed(struct: Struct, heads: dict[int, Struct]) -> int | None:
    """Return a client that has to give more structs before this one can be applied."""
    for reference in (struct.origin, struct.right_origin, struct.parent):
        if reference is not None and reference[0] != struct.client:
            head = heads.get(reference[0])
            if head is not None and reference[1] >= head.clock:
                return head.client
    return None


class _Part:
    """The structs of one client in a slice, which follow each other in the state as well."""

    def __init__(self, first: Struct) -> None:
        self.client = first.client
        self.clock = first.clock
        self.start = self.end = first.start
        self.structs = 0


def _cut_structs(state: bytes, ordered: Iterator[Struct], slice_bytes: int) -> Iterator[bytes]:
    parts: dict[int, _Part] = {}
    size = 0
    for struct in ordered:
        part = parts.get(struct.client)
        if part is None:
            part = parts[struct.client] = _Part(struct)
        part.end = struct.end
        part.structs += 1
        size += struct.end - struct.start
        if size >= slice_bytes:
            yield _write_slice(state, parts)
            parts = {}
            size = 0
    if parts:
        yield _write_slice(state, parts)


def _write_slice(state: bytes, parts: dict[int, _Part]) -> bytes:
    pieces = [write_var_uint(len(parts))]
    # Higher clients first, as Yjs writes them: that makes integrating faster.
    for part in sorted(parts.values(), key=lambda part: -part.client):
        pieces += (
            write_var_uint(part.structs),
            write_var_uint(part.client),
            write_var_uint(part.clock),
            state[part.start : part.end],
        )
    pieces.append(_NO_DELETES)
    return b"".join(pieces)


def _cut_deletes(deletes: Deletes, slice_bytes: int) -> Iterator[bytes]:
    # A range takes four bytes or more.
    ranges_max = max(slice_bytes // 8, 1)
    part: Deletes = {}
    count = 0
    for client, ranges in deletes.items():
        for start in range(0, len(ranges), ranges_max):
            part[client] = ranges[start : start + ranges_max]
            count += len(part[client])
            if count >= ranges_max:
                yield _NO_STRUCTS + write_deletes(part)
                part = {}
                count = 0
    if part:
        yield _NO_STRUCTS + write_deletes(part)
