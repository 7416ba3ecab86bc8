"""Give a room's updates to the store's writer, and acknowledge them once they are committed.

One commit holds the updates of many turns and rooms. What it settles is acknowledged at the end of
the turn in which its outcome becomes known, to each author in one frame: its own updates are the
acknowledgement in the dialect of y-websocket.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

from plait.persistence import DocumentDeleted, StoreError, Update
from plait.server.changes import Change, Clock, Log, lower, merged
from plait.server.counters import Counters
from plait.server.errors import DocumentGone, PlaitError, RoomUnavailable
from plait.server.member import Member
from plait.server.wire.frames import framed

log = logging.getLogger(__name__)

_new_update: Final = tuple.__new__
"""Makes an `Update` without the function that its class would call."""

LOGGED_UNIT_BYTES: Final = 1024
"""What a row that is replayed counts for in bytes; see `Saving.logged`."""


LOGGED_MAX: Final = 200
"""Rows that an open room logs before it is considered for compaction, once nothing is logged."""
LOGGED_BUSY_MAX: Final = 5_000
"""Those that are too many to wait for that: replaying them takes 20 ms."""


class Host(Protocol):
    """The room, as far as it is needed here."""

    name: str
    dead: bool

    @property
    def members(self) -> Collection[Member]:
        """Those who are in it."""

    def send(self, member: Member, frames: Iterable[bytes]) -> bool:
        """Send frames; return whether all arrive. If not, a diff will, later."""

    def catch_up(self, member: Member) -> None:
        """Bring a member up to date that lagged."""

    def close(self, error: PlaitError) -> None:
        """Close the connections of all members."""


class Saving:
    """What a room has given to the writer.

    Args:
        call_soon: calls something at the end of the turn.
    """

    def __init__(
        self,
        room: Host,
        writer: Log,
        clock: Clock,
        call_soon: Callable[[Callable[[], None]], object],
        counters: Counters,
    ) -> None:
        self._room = room
        self._counters = counters
        self._writer = writer
        self._clock = clock
        self._call_soon = call_soon
        self._acknowledged: dict[Member, list[Change]] = {}
        """What was committed and is acknowledged at the end of the turn."""
        self.given = 0
        """Turns given to the writer."""
        self.settled = 0
        """Those of them that are committed, or can't be."""
        self.on_settled: Callable[[], None] | None = None
        """Called when there are more of the latter."""
        self.logged = 0
        """Rows replayed or logged since somebody last considered compaction and set it to 0; long
        ones count for more.
        """
        self._logged_before = 0
        """The same, when somebody asked last."""

    def worth_compacting(self) -> bool:
        """Whether so much was logged that a snapshot pays, and the room rests from it, or there is
        too much; to be asked now and then. Afterwards counting begins anew.
        """
        rests = self.logged == self._logged_before
        worth = self.logged > (LOGGED_MAX if rests else LOGGED_BUSY_MAX)
        if worth:
            self.logged = 0
        self._logged_before = self.logged
        return worth

    @property
    def unsaved(self) -> int:
        """Turns given to the writer and not committed yet."""
        return self.given - self.settled

    def keep(self, updates: Iterable[tuple[str, bytes]]) -> None:
        """Have updates committed that other nodes took, by their authors."""
        name, now = self._room.name, self._clock.wall_ms()
        rows = [Update(name, update, who, now) for who, update in updates]
        self.given += 1
        self.logged += len(rows)
        self._writer.append(rows, partial(self._committed, ()), partial(self._not_committed, ()))

    def store(self, turn: Sequence[Change]) -> None:
        """Have the updates of a turn committed, and acknowledged."""
        name, now = self._room.name, self._clock.wall_ms()
        if len(turn) == 1 and turn[0].frame:  # What somebody typed, as most turns are.
            change = turn[0]
            rows = [_new_update(Update, (name, change.update, change.who, now))]
            waiting = turn
            self.logged += 1
        else:
            rows = [
                Update(name, row, change.who, now)
                for change in turn
                if change.append
                for row in change.parts or (change.update,)
            ]
            waiting = [each for each in turn if each.author or each.commitment]
            if not rows and not waiting:
                return
            for row in rows:
                self.logged += 1 + len(row.update) // LOGGED_UNIT_BYTES
        self.given += 1
        # Without rows, too: what changed nothing is acknowledged when what it repeats is committed.
        committed = partial(self._committed, waiting)
        self._writer.append(rows, committed, partial(self._not_committed, waiting))

    def _committed(self, changes: Sequence[Change], _: Sequence[int]) -> None:
        self.settled += 1
        if self.on_settled is not None:
            self.on_settled()
        for change in changes:
            if change.author is not None:
                if not self._acknowledged:
                    self._call_soon(self._acknowledge_all)
                self._acknowledged.setdefault(change.author, []).append(change)
            elif change.commitment is not None:
                change.commitment.keep()

    def _acknowledge_all(self) -> None:
        acknowledged, self._acknowledged = self._acknowledged, {}
        members, now = self._room.members, self._clock.monotonic()
        for member, changes in acknowledged.items():
            member.unacknowledged -= sum(each.count for each in changes)
            if member not in members:
                continue
            fast, frame = member.outbox.fast, changes[0].frame
            if len(changes) == 1 and frame and fast is not None and not member.behind:
                fast(framed(frame))
                member.sent_at = now
                self._counters.frames_sent += 1
                self._counters.bytes_sent += len(frame)
            else:
                self._acknowledge(member, changes)

    def _acknowledge(self, member: Member, changes: list[Change]) -> None:
        if len(changes) == 1:
            change = changes[0]
            frames = [change.frame or member.codec.sync_update(change.echo or change.update)]
        else:
            frames = [member.codec.sync_update(each) for each in merged(changes, echo=True)]
        if not self._room.send(member, frames):
            assert member.lagging_from is not None
            for change in changes:
                lower(member.lagging_from, change.shape.runs)
        if member.behind and member.outbox.lagging_since is None:
            self._room.catch_up(member)

    def _not_committed(self, changes: Sequence[Change], error: StoreError) -> None:
        self.settled += 1
        for change in changes:
            if change.commitment is not None:
                change.commitment.fail(error)
        room = self._room
        if isinstance(error, DocumentDeleted):
            room.dead = True
            room.close(DocumentGone("this document was deleted"))
        else:
            log.error("room %r: an update could not be stored: %s", room.name, error)
            room.close(RoomUnavailable("the update could not be stored; connect again"))
