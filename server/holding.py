"""Members' updates that can't be applied now: they build upon what is missing, the document is
full, or it is being loaded anew; and those that it can't take at all.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from plait.server.capacity import Capacity
from plait.server.changes import Change, Clock
from plait.server.counters import Counters
from plait.server.document import Document
from plait.server.errors import (
    DocumentFull,
    LimitReached,
    MessageTooBig,
    PlaitError,
    UpdateRefused,
)
from plait.server.limits import Limits
from plait.server.member import Member
from plait.server.pending import ASKS_MAX, Pending, Piece
from plait.server.wire.readiness import Missing, in_words
from plait.server.wire.update import Runs

log = logging.getLogger(__name__)

READ_ONLY = "you may read this document, not edit it; what you typed is not saved"
SHADOWED = (
    "somebody else has used the client id {client} of your document, and what you typed under it "
    "is not saved; open the document anew"
)


class Host(Protocol):
    """The room, as far as it is needed here."""

    name: str
    document: Document
    ready: asyncio.Event

    @property
    def members(self) -> Collection[Member]:
        """Those who are in it."""

    def ask(self, member: Member) -> None:
        """Ask a member for what it has."""

    def before_this_turn(self) -> dict[int, int]:
        """Return clocks that everybody has been sent."""

    def apply_of(self, member: Member, update: bytes) -> None:
        """Apply a member's update; raises what its author is to be closed with."""

    def apply_left(self, update: bytes, who: str) -> None:
        """Apply an update whose author has left."""


class Holding:
    """Keeps such updates, and tries them again."""

    def __init__(
        self,
        room: Host,
        capacity: Capacity[Member],
        limits: Limits,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self._room = room
        self._capacity = capacity
        self._limits = limits
        self._clock = clock
        self._counters = counters
        self.pending: Pending[Member] = Pending(limits)
        """What builds upon structs that are missing."""
        self._kept = False
        """Whether there may be anything."""
        self._waiting: dict[Member, None] = {}
        """Members whose sessions hold updates until there is a document again."""
        self._told: set[Member] = set()
        """Members that know that their client id is in use."""

    def __bool__(self) -> bool:
        return self._kept or bool(self._waiting)

    def leave(self, member: Member) -> None:
        """Note that a member has left. What is pending of it stays, if it might write."""
        self._waiting.pop(member, None)
        self._told.discard(member)
        if member.session.may_write:
            self.pending.leave(member)
        else:
            self.forget(member)

    def forget(self, member: Member) -> None:
        """Keep nothing of a member that may not write any more."""
        before = self.pending.bytes
        self.pending.forget(member)
        self._counters.pending_bytes += self.pending.bytes - before

    def close(self) -> None:
        """Keep nothing: the room goes."""
        self._counters.pending_bytes -= self.pending.bytes
        self.pending.clear()

    # Gaps

    def hold(self, member: Member, update: bytes, missing: tuple[Missing, ...]) -> None:
        """Keep an update that builds upon structs that are missing, and ask its author for them, if
        that was not done before.
        """
        self._counters.updates_pending += 1
        if self._capacity.lacks(member):
            self._capacity.refuse(member, len(update))
            return
        self._kept = True
        before = self.pending.bytes
        now = self._clock.monotonic()
        room = self._counters.pending_bytes + len(update) <= self._limits.all_pending_bytes_max
        kept, asks = self.pending.add(member, member.who, update, missing, now, room_for_more=room)
        self._counters.pending_bytes += self.pending.bytes - before
        self._counters.pending_dropped += not kept
        if asks:
            log.warning(
                "room %r: %s; what builds upon them is kept, %d bytes, and asked for",
                self._room.name,
                in_words(missing),
                self.pending.bytes,
            )
            self._ask(member)

    def tick(self) -> None:
        """Ask again for what is still missing."""
        for member in self.pending.due(self._room.document.clocks(), self._clock.monotonic()):
            self._ask(member)
            if self.pending.gave_up(member):
                log.warning(
                    "room %r: %s; a member was asked for them %d times and is asked no more",
                    self._room.name,
                    in_words(self.pending.missing()),
                    ASKS_MAX,
                )
        self._kept = bool(self.pending)

    def _ask(self, member: Member) -> None:
        self._counters.gap_asks += 1
        self._room.ask(member)

    def came(self, runs: Iterable[Runs]) -> None:
        """Apply what was kept and is ready, now that these structs have come."""
        if self.pending:
            clients = {client for each in runs for client, _, _ in each}
            self._apply(self.pending.take(clients, self._room.document.clocks()))

    def _apply(self, pieces: Sequence[Piece[Member]]) -> None:
        for piece in pieces:
            self._counters.pending_bytes -= piece.size
        for number, piece in enumerate(pieces):
            if not self._room.ready.is_set():  # One of them was too much for it.
                for each in pieces[number:]:
                    if each.author is not None:
                        self._wait_quietly(each.author, each.update)
                return
            author = piece.author
            try:
                if author is None:
                    self._room.apply_left(piece.update, piece.who)
                else:
                    self._room.apply_of(author, piece.update)
            except PlaitError as error:
                if author is not None:
                    author.socket.close(error)
                else:
                    log.warning("room %r: %s", self._room.name, error)

    def shadow(self, member: Member, shadowed: Runs) -> None:
        """Tell a member, once, and the log that it uses another author's client id."""
        self._counters.updates_shadowed += 1
        if member in self._told:
            return
        client, first, end = shadowed[0]
        log.warning(
            "room %r: client id %d is used by several authors: its clocks %d to %d, which %s sent, "
            "are others in the document, and are not acknowledged",
            *(self._room.name, client, first, end, repr(member.who) if member.who else "somebody"),
        )
        reason = SHADOWED.format(client=client)
        if member.send(member.codec.denied(reason), self._clock.monotonic()):
            self._told.add(member)

    # A document that is loaded anew, or full

    def wait(self, member: Member, update: bytes) -> None:
        """Keep an update until there is a document again; `retry` is called then.

        Raises:
            RoomUnavailable: it would be too much.
        """
        self._waiting[member] = None
        member.session.hold(update)

    def _wait_quietly(self, member: Member, update: bytes) -> None:
        try:
            self.wait(member, update)
        except PlaitError as error:
            member.socket.close(error)

    def turn_away_or_close(self, member: Member, update: bytes, error: PlaitError) -> None:
        """Tell a member that its update can't be taken, or close its socket for it."""
        try:
            self.turn_away(member, update, error)
        except PlaitError:
            member.socket.close(error)

    def turn_away(self, member: Member, update: bytes, error: PlaitError) -> None:
        """Tell a member that its update can't be taken, and why. If it was closed it would come
        back at once with the same, and its user could neither read nor put it right.

        Raises:
            PlaitError: this one, if no genuine client sends such an update, or one that makes the
                document be loaded anew a second time.
        """
        if isinstance(error, UpdateRefused):
            if not error.genuine or (error.broke and self._capacity.lacks(member)):
                raise error
        elif not isinstance(error, LimitReached | MessageTooBig):
            raise error
        self._counters.updates_refused += 1
        self._counters.reach(error)
        # Only a document that is full may have room for the same again.
        size = len(update) if isinstance(error, DocumentFull) else None
        if self._capacity.refuse(member, size) and member.send(
            member.codec.denied(str(error)), self._clock.monotonic()
        ):
            self._capacity.told(member)

    def refuse(self, member: Member) -> None:
        """Tell a member that it may not edit; what it sent is dropped."""
        self._counters.updates_refused += 1
        now = self._clock.monotonic()
        if member.session.tells_refused(now):
            member.send(member.codec.denied(READ_ONLY), now)

    def take_back(self, typed: Sequence[Change]) -> None:
        """Hold again what was typed in a transaction that pycrdt could not end: it may have failed
        on any of it. The next document is given one after another, so the poison stays out of the
        log, reaches nobody, and costs nobody else anything.
        """
        for change in typed:
            member = change.author
            if member is None:  # Another node's, and in the document when that is loaded.
                for each in self._room.members:
                    each.lagging_from = each.lagging_from or self._room.before_this_turn()
                continue
            if member not in self._room.members:
                continue
            member.unacknowledged -= 1
            self._wait_quietly(member, change.update)

    def retry(self) -> None:
        """Apply what was held, now that there is a document again."""
        waiting, self._waiting = self._waiting, {}
        for member in waiting:
            if not self._room.ready.is_set():  # One of them was too much for it.
                self._waiting[member] = None
                continue
            try:
                for update in member.session.take_held():
                    self._room.apply_of(member, update)
            except PlaitError as error:
                member.socket.close(error)
        if self._room.ready.is_set() and self.pending:
            self._apply(self.pending.take_all(self._room.document.clocks()))
