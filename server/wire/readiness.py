"""Cut an update into what a document can take in now and what builds upon structs that are missing.

Yjs does the same when it applies an update (`src/utils/encoding.js`, `integrateStructs`, and
`src/utils/DeleteSet.js`, `readAndApplyDeleteSet`), and keeps the second part as pending structs.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

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
from plait.server.wire.update import GC, SKIP, Id

_NAMED_MAX: Final = 5
"""Gaps that a sentence names."""


class Missing(NamedTuple):
    """Structs of a client that a document lacks: the clocks from `first` up to `end`."""

    client: int
    first: int
    end: int


class Split(NamedTuple):
    """An update in two parts, each of which is an update; empty bytes stand for none."""

    ready: bytes
    """Everything in it is known, or builds upon what is known or comes with it."""
    rest: bytes
    missing: tuple[Missing, ...]
    """What has to come before more of the rest is ready. None at all if its structs wait for one
    another, which no genuine client makes.
    """


class _Line:
    """The structs of one client; those before `head` are ready."""

    def __init__(self, update: bytes, section: Section) -> None:
        self.section = section
        self._structs = read_section(update, section)
        self.head: Struct | None = next(self._structs, None)
        self.passed = 0
        """Structs before it, gaps included."""
        self.first: Struct | None = None
        self.last: Struct | None = None
        """The first and the last of those, leaving out gaps (Skip structs)."""
        self.count = 0
        """Structs from the first to the last."""
        self._gaps = 0

    def advance(self) -> None:
        """Go on to the next struct."""
        struct = self.head
        assert struct is not None
        self.passed += 1
        if struct.kind == SKIP:
            self._gaps += 1
        else:
            if self.first is None:
                self.first = struct
            else:
                self.count += self._gaps
            self.count += 1
            self.last = struct
            self._gaps = 0
        self.head = next(self._structs, None)


def split(update: bytes, known: Mapping[int, int]) -> Split:
    """Cut an update, which `inspect` has accepted, for a document with these clocks."""
    found, position = sections(update)
    lines = {section.client: _Line(update, section) for section in found}
    clocks = dict(known)
    awaited = _advance(lines, clocks)
    now, later = _split_deletes(read_deletes(update, position), clocks)
    blocked = [line for line in lines.values() if line.head is not None]
    if not blocked and not later:
        return Split(update, b"", ())
    needs = list(awaited.values())
    needs += [(client, min(ranges)[0] + 1) for client, ranges in later.items()]
    return Split(
        _written(update, lines.values(), now),
        _rest(update, blocked, later),
        _missing(needs, clocks, blocked),
    )


def in_words(missing: Sequence[Missing]) -> str:
    """Return for a sentence what is missing."""
    if not missing:
        return "structs wait for one another"
    named = [
        f"client {gap.client}, clocks {gap.first} to {gap.end - 1}" for gap in missing[:_NAMED_MAX]
    ]
    if len(missing) > _NAMED_MAX:
        named.append(f"and {len(missing) - _NAMED_MAX} more")
    return f"structs are missing ({'; '.join(named)})"


def without_clients(update: bytes, clients: Collection[int]) -> bytes:
    """Return an update less the structs of some clients; empty bytes if nothing is left."""
    found, position = sections(update)
    kept = [_Line(update, section) for section in found if section.client not in clients]
    for line in kept:
        while line.head is not None:
            line.advance()
    return _written(update, kept, read_deletes(update, position))


def _advance(lines: Mapping[int, _Line], clocks: dict[int, int]) -> dict[int, Id]:
    """Go as far as possible in each line, and count that in the clocks.

    Returns:
        For each client whose line has not ended, what its next struct waits for: another client,
        or itself, and the clock up to which that one's structs are needed.
    """
    awaited: dict[int, Id] = {}
    waiting: dict[int, list[int]] = {}
    turns = list(lines)
    while turns:
        client = turns.pop()
        line = lines[client]
        before = clocks.get(client, 0)
        while line.head is not None:
            needed = _needed(line.head, clocks)
            if needed is not None:
                awaited[client] = needed
                waiting.setdefault(needed[0], []).append(client)
                break
            if line.head.kind != SKIP:
                end = line.head.clock + line.head.length
                if end > clocks.get(client, 0):
                    clocks[client] = end
            line.advance()
        else:
            awaited.pop(client, None)
        if clocks.get(client, 0) > before:
            turns += waiting.pop(client, ())
    return awaited


def _needed(struct: Struct, clocks: Mapping[int, int]) -> Id | None:
    have = clocks.get(struct.client, 0)
    if struct.kind == SKIP or struct.clock + struct.length <= have:
        return None
    if struct.clock > have:
        return struct.client, struct.clock
    if struct.kind != GC:
        for reference in (struct.origin, struct.right_origin, struct.parent):
            if reference is not None and reference[1] >= clocks.get(reference[0], 0):
                if reference[0] != struct.client:
                    return reference[0], reference[1] + 1
    return None


def _split_deletes(deletes: Deletes, clocks: Mapping[int, int]) -> tuple[Deletes, Deletes]:
    now: Deletes = {}
    later: Deletes = {}
    for client, ranges in deletes.items():
        have = clocks.get(client, 0)
        for clock, length in ranges:
            end = clock + length
            if clock < have:
                now.setdefault(client, []).append((clock, min(end, have) - clock))
            if end > have:
                first = max(clock, have)
                later.setdefault(client, []).append((first, end - first))
    return now, later


def _written(update: bytes, lines: Iterable[_Line], deletes: Deletes) -> bytes:
    """Return what the lines have passed as an update."""
    parts: list[bytes] = []
    count = 0
    for line in lines:
        if line.first is not None and line.last is not None:
            count += 1
            parts += (
                write_var_uint(line.count),
                write_var_uint(line.section.client),
                write_var_uint(line.first.clock),
                update[line.first.start : line.last.end],
            )
    if not count and not deletes:
        return b""
    return b"".join((write_var_uint(count), *parts, write_deletes(deletes)))


def _rest(update: bytes, blocked: list[_Line], deletes: Deletes) -> bytes:
    parts: list[bytes] = []
    for line in blocked:
        head = line.head
        assert head is not None
        count = line.section.structs - line.passed
        end = head.end
        for struct in read_section(update, Section(head.client, head.clock, count, head.start)):
            end = struct.end
        parts += (
            write_var_uint(count),
            write_var_uint(head.client),
            write_var_uint(head.clock),
            update[head.start : end],
        )
    return b"".join((write_var_uint(len(blocked)), *parts, write_deletes(deletes)))


def _missing(
    needs: Iterable[Id], clocks: Mapping[int, int], blocked: list[_Line]
) -> tuple[Missing, ...]:
    """Return what is needed and does not come with the rest itself."""
    starts = {line.section.client: line.head.clock for line in blocked if line.head is not None}
    ends: dict[int, int] = {}
    for client, clock in needs:
        # What the rest has of that client waits for something itself.
        end = min(clock, starts.get(client, clock))
        if end > max(clocks.get(client, 0), ends.get(client, 0)):
            ends[client] = end
    return tuple(Missing(client, clocks.get(client, 0), end) for client, end in ends.items())
