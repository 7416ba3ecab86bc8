"""What can't be applied to a document yet, since it builds upon structs that are missing.

The document has a *gap*: structs of a client that somebody has built upon and nobody has sent.
Mostly they come a moment later. If they are lost for good, all that builds upon them stays pending
for ever, in Yjs as well; everything else must not suffer from that. Rules:

1. Only what is not ready is kept, and it is kept for the document, until its foundation comes from
   whomever. A member that leaves does not take it along.
2. Each member is asked for the same gap `ASKS_MAX` times, with pauses that double from
   `ASK_SECONDS`, and about any gaps at most once a second.
3. What is kept of one member, of all members of a room, and of all rooms, has limits. What comes
   when they are reached is dropped; in a room, what was sent by members that have left makes way
   first. It was not acknowledged, so its author still has it, and sends it when it is asked again
   or connects anew.
4. What a member sends again takes the place of what it sent before.

Pure: time is an argument, and the room sends what is to be asked.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from plait.server.limits import Limits
from plait.server.wire.readiness import Missing
from plait.server.wire.structs import read_deletes, sections
from plait.server.wire.update import inspect

M = TypeVar("M", bound=Hashable)

ASK_SECONDS: Final = 5.0
"""The pause after the first question for a gap; each further one is twice as long."""
ASKS_MAX: Final = 6
"""Questions to one member for the same gap."""
HURRY_SECONDS: Final = 1.0
"""A member is asked no more often than this, whatever gaps come up."""
PIECE_BYTES: Final = 512
"""What keeping a piece takes beside its bytes."""
PIECES_MAX: Final = 256
"""Pieces of one member. A client that is asked again sends everything in one."""

Ranges = dict[int, list[tuple[int, int]]]
"""Unbroken ranges of clocks by client, ascending."""


@dataclass(eq=False, slots=True)
class Piece(Generic[M]):
    """A part of an update that waits."""

    update: bytes
    missing: tuple[Missing, ...]
    author: M | None
    """Who sent it; None if that member has left."""
    who: str
    structs: Ranges
    deletes: Ranges

    @property
    def size(self) -> int:
        """The memory that it takes, about."""
        return len(self.update) + PIECE_BYTES

    def holds(self, other: "Piece[M]") -> bool:
        """Whether everything in another piece is in this one, going by clients and clocks."""
        return _within(other.structs, self.structs) and _within(other.deletes, self.deletes)


@dataclass(eq=False, slots=True)
class _Asked:
    """What a member was asked for."""

    gaps: dict[int, int] = field(default_factory=dict)
    """By client, the clock from which its structs were missing."""
    asks: int = 0
    next_at: float = 0.0
    last_at: float = float("-inf")
    pieces: int = 0
    bytes: int = 0
    """What is kept of the member."""
    dropped: bool = False
    """Whether something of it was not kept."""


class Pending(Generic[M]):
    """The pieces of one room."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pieces: dict[Piece[M], None] = {}
        self._blocked: dict[int, dict[Piece[M], None]] = {}
        """By client, the pieces that wait for structs of it."""
        self._asked: dict[M, _Asked] = {}
        self.bytes = 0
        """What all pieces take."""

    def __bool__(self) -> bool:
        return bool(self._pieces or self._asked)

    def __len__(self) -> int:
        return len(self._pieces)

    def missing(self) -> list[Missing]:
        """Return the gaps, each client once."""
        found: dict[int, Missing] = {}
        for piece in self._pieces:
            for gap in piece.missing:
                other = found.get(gap.client, gap)
                first, end = min(gap.first, other.first), max(gap.end, other.end)
                found[gap.client] = Missing(gap.client, first, end)
        return list(found.values())

    def of(self, member: M) -> bool:
        """Whether anything of a member waits, or was dropped and is to be asked for."""
        return member in self._asked

    def add(
        self,
        author: M,
        who: str,
        update: bytes,
        missing: tuple[Missing, ...],
        now: float,
        *,
        room_for_more: bool = True,
    ) -> tuple[bool, bool]:
        """Keep what is not ready of a member's update.

        Args:
            room_for_more: whether the node may keep more, of all rooms.

        Returns:
            Whether it is kept, or was before; and whether to ask the member for what it builds
            upon.
        """
        asked = self._asked.setdefault(author, _Asked())
        asks = self._asks(asked, missing, now)
        structs = _joined(inspect(update, any_depth_max=self._limits.any_depth_max).runs)
        deletes = _joined(
            (client, clock, clock + length)
            for client, ranges in read_deletes(update, sections(update)[1]).items()
            for clock, length in ranges
        )
        piece = Piece(update, missing, author, who, structs, deletes)
        kept = bool(missing) and (
            self._repeats(piece) or (room_for_more and self._keep(piece, asked))
        )
        asked.dropped = asked.dropped or not kept
        return kept, asks

    def take(self, clients: Iterable[int], clocks: Mapping[int, int]) -> list[Piece[M]]:
        """Return the pieces of which more is ready now, and keep them no more.

        Args:
            clients: those whose structs have come.
            clocks: the document's state vector.
        """
        ready: dict[Piece[M], None] = {}
        for client in clients:
            for piece in self._blocked.get(client, ()):
                if any(clocks.get(each.client, 0) > each.first for each in piece.missing):
                    ready[piece] = None
        for piece in ready:
            self._remove(piece)
        return list(ready)

    def take_all(self, clocks: Mapping[int, int]) -> list[Piece[M]]:
        """Return the same, whoever's structs have come."""
        return self.take(list(self._blocked), clocks)

    def due(self, clocks: Mapping[int, int], now: float) -> list[M]:
        """Return the members that are to be asked now; to be called now and then."""
        found = []
        for member, asked in list(self._asked.items()):
            open_gaps = {
                client: clock
                for client, clock in asked.gaps.items()
                if clocks.get(client, 0) <= clock
            }
            closed = len(open_gaps) < len(asked.gaps)
            asked.gaps = open_gaps
            if closed and asked.dropped:
                # What was dropped may be ready now.
                asked.dropped = False
                asked.asks, asked.next_at = 0, now
                found.append(member)
                self._count(asked, now)
            elif not asked.gaps and not asked.bytes:
                del self._asked[member]
            elif asked.gaps and asked.asks < ASKS_MAX and now >= asked.next_at:
                found.append(member)
                self._count(asked, now)
        return found

    def gave_up(self, member: M) -> bool:
        """Whether a member is not asked any more for what it builds upon."""
        asked = self._asked.get(member)
        return asked is not None and asked.asks >= ASKS_MAX

    def leave(self, member: M) -> None:
        """Note that a member has left; what it sent stays."""
        self._asked.pop(member, None)
        for piece in self._pieces:
            if piece.author is member:
                piece.author = None

    def forget(self, member: M) -> None:
        """Keep nothing of a member, which may not write any more."""
        self._asked.pop(member, None)
        for piece in [piece for piece in self._pieces if piece.author is member]:
            self._remove(piece)

    def clear(self) -> None:
        """Keep nothing."""
        self._pieces.clear()
        self._blocked.clear()
        self._asked.clear()
        self.bytes = 0

    # Keeping

    def _asks(self, asked: _Asked, missing: tuple[Missing, ...], now: float) -> bool:
        new = [gap for gap in missing if asked.gaps.get(gap.client) != gap.first]
        if not new:
            return False
        for gap in new:
            asked.gaps[gap.client] = gap.first
        asked.asks = 0
        if now - asked.last_at < HURRY_SECONDS:
            asked.next_at = asked.last_at + HURRY_SECONDS
            return False
        self._count(asked, now)
        return True

    @staticmethod
    def _count(asked: _Asked, now: float) -> None:
        asked.last_at = now
        asked.next_at = now + ASK_SECONDS * 2**asked.asks
        asked.asks += 1

    def _repeats(self, piece: Piece[M]) -> bool:
        """Whether a piece is here already. One that its author sent before makes way for one that
        has more.
        """
        for other in list(self._pieces):
            own = other.author is None or other.author is piece.author
            if not own or other.who != piece.who:
                continue
            if other.holds(piece):
                self._belongs(other, piece.author)
                return True
            if piece.holds(other):
                self._remove(other)
        return False

    def _belongs(self, piece: Piece[M], author: M | None) -> None:
        if piece.author is None and author is not None:
            piece.author = author
            self._asked[author].bytes += piece.size
            self._asked[author].pieces += 1

    def _keep(self, piece: Piece[M], asked: _Asked) -> bool:
        limits = self._limits
        if asked.pieces >= PIECES_MAX or asked.bytes + piece.size > limits.pending_bytes_max:
            return False
        if self.bytes + piece.size > limits.document_pending_bytes_max:
            for other in [each for each in self._pieces if each.author is None]:
                if self.bytes + piece.size <= limits.document_pending_bytes_max:
                    break
                self._remove(other)
            if self.bytes + piece.size > limits.document_pending_bytes_max:
                return False
        self._pieces[piece] = None
        for gap in piece.missing:
            self._blocked.setdefault(gap.client, {})[piece] = None
        self.bytes += piece.size
        asked.bytes += piece.size
        asked.pieces += 1
        return True

    def _remove(self, piece: Piece[M]) -> None:
        del self._pieces[piece]
        for gap in piece.missing:
            waiting = self._blocked.get(gap.client)
            if waiting is not None:
                waiting.pop(piece, None)
                if not waiting:
                    del self._blocked[gap.client]
        self.bytes -= piece.size
        if piece.author is not None and piece.author in self._asked:
            self._asked[piece.author].bytes -= piece.size
            self._asked[piece.author].pieces -= 1


def _joined(runs: Iterable[tuple[int, int, int]]) -> Ranges:
    ranges: Ranges = {}
    for client, first, end in sorted(runs):
        joined = ranges.setdefault(client, [])
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((first, end))
    return ranges


def _within(inner: Ranges, outer: Ranges) -> bool:
    for client, ranges in inner.items():
        there = outer.get(client)
        if there is None:
            return False
        for first, end in ranges:
            if not any(start <= first and end <= stop for start, stop in there):
                return False
    return True
