"""Writes updates as Yjs does: one keystroke, or a whole document with a long history.

A load generator needs many editors and little CPU, so nobody keeps a document here; an editor knows
its own last keystroke, and that is enough to append the next one. The bytes are those of yjs
`src/utils/encoding.js` (version 1), as `wire/update.py` lists them.
"""

import random

from plait.server.wire.lib0 import var_bytes, var_string, write_var_uint
from plait.server.wire.update import DELETED, HAS_ORIGIN, HAS_RIGHT_ORIGIN, STRING

TEXT = "text"
"""The name of the shared text that is typed into."""

_NO_STRUCTS = _NO_DELETIONS = b"\x00"
_ONE = b"\x01"
"""How many clients an update is of, and the id of the one that types long documents."""

_LETTERS = "etaoin shrdlu cmfwyp "
_RUN_MAX, _ERASED_MAX, _JUMPS = 60, 30, 0.3
"""Keystrokes in a row, letters that are taken back at once, and the share of times at which the
cursor is put somewhere else; they make histories much like recorded ones.
"""


class Typist:
    """The keystrokes of one client, each appended to the one before.

    Args:
        client: the client's id, which nobody else may have in the document.
    """

    __slots__ = ("_append", "_client", "_clock", "_first", "_head")

    def __init__(self, client: int) -> None:
        self._client = write_var_uint(client)
        self._head = _ONE + _ONE + self._client
        self._first = bytes((STRING,)) + _root()
        self._append = bytes((HAS_ORIGIN | STRING,)) + self._client
        self._clock = 0

    def type(self, text: bytes) -> bytes:
        """Return the update that appends ASCII text."""
        clock = self._clock
        self._clock = clock + len(text)
        where = self._append + write_var_uint(clock - 1) if clock else self._first
        return self._head + write_var_uint(clock) + where + var_bytes(text) + _NO_DELETIONS


def long_document(edits: int, seed: int = 1) -> bytes:
    """Return the state of a text that one client made by that many keystrokes, a fifth of which
    took a letter back. The same arguments give the same bytes.
    """
    rng = random.Random(seed)
    follower: list[int | None] = []
    """The letter to the right of each, deleted ones included: what Yjs calls the right origin."""
    head: int | None = None
    structs: list[bytes] = []
    erased: list[tuple[int, int]] = []
    cursor: int | None = None
    left = edits
    while left:
        if follower and rng.random() < _JUMPS:
            cursor = rng.randrange(len(follower))
        length = min(rng.randint(1, _RUN_MAX), left)
        gone = min(rng.randint(0, _ERASED_MAX) if rng.random() < 0.7 else 0, length, left - length)
        start, right = len(follower), head if cursor is None else follower[cursor]
        if kept := length - gone:
            structs.append(_struct(STRING, cursor, right, "".join(rng.choices(_LETTERS, k=kept))))
        if gone:
            before = start + kept - 1 if kept else cursor
            structs.append(_struct(DELETED, before, right, gone))
            erased.append((start + kept, gone))
        follower += [*range(start + 1, start + length), right]
        if cursor is None:
            head = start
        else:
            follower[cursor] = start
        cursor = start + length - 1
        left -= length + gone
    if not structs:
        return _NO_STRUCTS + _NO_DELETIONS
    count = write_var_uint(len(structs))
    return _ONE + count + _ONE + b"\x00" + b"".join(structs) + _deletions(erased)


def _struct(kind: int, left: int | None, right: int | None, content: str | int) -> bytes:
    """Return a struct between two letters: others, or how many there were."""
    origins = b""
    for neighbour, flag in ((left, HAS_ORIGIN), (right, HAS_RIGHT_ORIGIN)):
        if neighbour is not None:
            kind |= flag
            origins += _ONE + write_var_uint(neighbour)
    written = var_string(content) if isinstance(content, str) else write_var_uint(content)
    return bytes((kind,)) + (origins or _root()) + written


def _root() -> bytes:
    """Return the parent of a struct without neighbours: the shared text, by its name."""
    return _ONE + var_string(TEXT)


def _deletions(ranges: list[tuple[int, int]]) -> bytes:
    """Return the delete set of client 1."""
    if not ranges:
        return _NO_DELETIONS
    listed = b"".join(write_var_uint(clock) + write_var_uint(length) for clock, length in ranges)
    return _ONE + _ONE + write_var_uint(len(ranges)) + listed
