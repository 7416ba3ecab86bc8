"""Cut a state for a client of Yjs whose line is slow, so that something complete arrives often.

A client that hears nothing complete for 30 s gives up and begins again, for ever, so 12 MB can't be
one message at 250 KB/s. Nor can they be slices like those for pycrdt (`slices`): after each update
Yjs tidies formatted text, takes formats whose text is yet to come for superfluous, and deletes them
for everybody; and an editor that is shown a part of a tree deletes what its schema does not allow.

So a client must not see a part, and there is a way to have it wait: an update that builds upon what
is missing is kept by Yjs (`store.pendingStructs`), and shows nowhere. Each portion lacks the first
struct of each client, without which all others of that client wait. The last portion, the *key*,
has nothing but these. With it everything is integrated in one transaction, exactly as if it had
come in one update.

Text without formats is the exception. Nothing can go wrong with a part of it, and what has arrived
counts when the client connects anew. So its portions are in causal order, and there is no key.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from plait.server.wire.lib0 import read_var_uint, var_bytes, write_var_uint
from plait.server.wire.slices import in_causal_order
from plait.server.wire.structs import (
    Deletes,
    Struct,
    read_deletes,
    read_structs,
    sections,
    write_deletes,
)
from plait.server.wire.update import (
    DELETED,
    GC,
    HAS_ORIGIN,
    HAS_RIGHT_ORIGIN,
    SKIP,
    STRING,
)

KEY_BYTES: Final = 256
"""What a text may have in the key."""

_HALF: Final = re.compile(rb"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair in the JSON of a format or an embed."""

_NO_STRUCTS = _NO_DELETES = b"\x00"
_PLAIN: Final = frozenset((STRING, DELETED, GC))

Known = Mapping[int, int]
Piece = tuple[int, int, bytes]
"""Client, clock, and a struct's bytes."""


def portions(state: bytes, size: int, known: Known, *, whole: bool) -> list[bytes]:
    """Return updates of about `size` bytes that are the whole state when the last one has come.

    Of structs only texts are cut; another that is larger makes a portion as large.

    Args:
        known: clocks of what the client has, which is left out.
        whole: the state is all of a document, so that it tells whether that is text alone.

    Raises:
        ValueError: there are gaps in it, or it can't be put in order; or Yjs would replace half of
            a surrogate pair by something else while it waits.
    """
    found, position = sections(state)
    deletes = read_deletes(state, position)
    if whole and _is_plain(state):
        ordered = _pieces(state, in_causal_order(state, found), size, known)
        cut = list(_pack(ordered, size))
        return cut + _deletions(deletes, {}, size) or [_NO_STRUCTS + _NO_DELETES]
    rest: list[Piece] = []
    key: list[Piece] = []
    for piece, is_first in _with_firsts(_pieces(state, read_structs(state), size, known)):
        (key if is_first else rest).append(piece)
    if _HALF.search(state):
        raise ValueError("A format or an embed has half of a surrogate pair.")
    later, first = _split_deletes(deletes, known)
    early = _deletions(later, {}, size) if len(write_deletes(later)) > size // 2 else []
    last = _write(key, first if early else deletes)
    return [*_pack(iter(rest), size), *early, last]


def opening(state: bytes, size: int) -> bytes:
    """Return the first portion of a state, without looking at the rest of it."""
    pieces: list[Piece] = []
    taken = 0
    for piece, is_first in _with_firsts(_pieces(state, read_structs(state), size, {})):
        if not is_first:
            pieces.append(piece)
        taken += len(piece[2])
        if taken >= size:
            break
    return _write(pieces, {})


def _is_plain(state: bytes) -> bool:
    return all(each.kind in _PLAIN and each.key is None for each in read_structs(state))


def _with_firsts(pieces: Iterator[Piece]) -> Iterator[tuple[Piece, bool]]:
    """Tell of each piece whether it is the first of its client."""
    before = -1
    for piece in pieces:
        yield piece, piece[0] != before
        before = piece[0]


def _pieces(state: bytes, structs: Iterator[Struct], size: int, known: Known) -> Iterator[Piece]:
    """Return the structs that are not known; texts in several, the first one of a client short."""
    begun: set[int] = set()
    for struct in structs:
        if struct.kind == SKIP:
            raise ValueError(f"Structs of client {struct.client} are missing.")
        if struct.clock + struct.length <= known.get(struct.client, 0):
            continue
        first_size = size if struct.client in begun else KEY_BYTES
        begun.add(struct.client)
        if (
            struct.kind == STRING
            and struct.key is None
            and struct.end - struct.content > first_size
        ):
            yield from _cut_text(state, struct, first_size, size)
        else:
            yield struct.client, struct.clock, state[struct.start : struct.end]


def _cut_text(state: bytes, struct: Struct, first_size: int, size: int) -> Iterator[Piece]:
    """Return a text as several, between characters, as Yjs itself would split it."""
    length, position = read_var_uint(state, struct.content)
    end = position + length
    clock, taken = struct.clock, first_size
    while position < end:
        stop = min(position + taken, end)
        while stop < end and state[stop] & 0xC0 == 0x80:  # within a character
            stop += 1
        part = state[position:stop]
        if clock == struct.clock:
            head = state[struct.start : struct.content]
        else:
            right = struct.right_origin
            head = bytes((STRING | HAS_ORIGIN | (HAS_RIGHT_ORIGIN if right else 0),))
            head += write_var_uint(struct.client) + write_var_uint(clock - 1)
            if right is not None:
                head += write_var_uint(right[0]) + write_var_uint(right[1])
        yield struct.client, clock, head + var_bytes(part)
        clock += len(part.decode().encode("utf-16-le")) // 2
        position, taken = stop, size


def _pack(pieces: Iterator[Piece], size: int) -> Iterator[bytes]:
    taken: list[Piece] = []
    length = 0
    for piece in pieces:
        if taken and length + len(piece[2]) > size:
            yield _write(taken, {})
            taken, length = [], 0
        taken.append(piece)
        length += len(piece[2])
    if taken:
        yield _write(taken, {})


def _write(pieces: list[Piece], deletes: Deletes) -> bytes:
    """Return the update with these pieces; those of a client follow one another."""
    by_client: dict[int, list[Piece]] = {}
    for piece in pieces:
        by_client.setdefault(piece[0], []).append(piece)
    written = [write_var_uint(len(by_client))]
    for client in sorted(by_client, reverse=True):
        each = by_client[client]
        written += write_var_uint(len(each)), write_var_uint(client), write_var_uint(each[0][1])
        written += [piece[2] for piece in each]
    written.append(write_deletes(deletes))
    return b"".join(written)


def _split_deletes(deletes: Deletes, known: Known) -> tuple[Deletes, Deletes]:
    """Return the ranges of what the client has not got, which wait for it, and the others."""
    later: Deletes = {}
    first: Deletes = {}
    for client, ranges in deletes.items():
        have = known.get(client, 0)
        for each in ranges:
            (later if each[0] >= have else first).setdefault(client, []).append(each)
    return later, first


def _deletions(deletes: Deletes, part: Deletes, size: int) -> list[bytes]:
    """Return updates with nothing but deleted ranges. One takes four bytes or more."""
    found, count, most = [], 0, max(size // 8, 1)
    for client, ranges in deletes.items():
        for start in range(0, len(ranges), most):
            part[client] = ranges[start : start + most]
            count += len(part[client])
            if count >= most:
                found.append(_NO_STRUCTS + write_deletes(part))
                part, count = {}, 0
    if part:
        found.append(_NO_STRUCTS + write_deletes(part))
    return found
