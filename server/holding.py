"""Members' updates that can't be applied now: they build upon what is missing, or the document is
full.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

from plait.server.capacity import Capacity
from plait.server.changes import Change, Clock
from plait.server.counters import Counters
from plait.server.errors import DocumentFull, PlaitError
from plait.server.member import Member

READ_ONLY = "you may read this document, not edit it; what you typed is not saved"


class Host(Protocol):
    """The room, as far as it is needed here."""

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


class Holding:
    """Keeps such updates in the sessions of their authors, and tries them again."""

    def __init__(
        self, room: Host, capacity: Capacity[Member], clock: Clock, counters: Counters
    ) -> None:
        self._room = room
        self._capacity = capacity
        self._clock = clock
        self._counters = counters
        self._members: dict[Member, None] = {}
        """Members whose sessions may hold updates that are not ready."""

    def __bool__(self) -> bool:
        return bool(self._members)

    def forget(self, member: Member) -> None:
        """Try a member's updates no more."""
        self._members.pop(member, None)

    def hold(self, member: Member, update: bytes) -> None:
        """Keep an update that builds upon what is missing, and ask its author for that.

        Raises:
            LimitReached: it would be too much.
        """
        self._counters.updates_pending += 1
        if self._capacity.lacks(member):
            self._capacity.refuse(member, len(update))
            return
        self._members[member] = None
        if member.session.hold(update):
            self._room.ask(member)

    def wait(self, member: Member, update: bytes) -> None:
        """Keep an update until there is a document again; `retry` is called then.

        Raises:
            LimitReached: it would be too much.
        """
        self._members[member] = None
        member.session.hold(update)

    def turn_away(self, member: Member, update: bytes, error: DocumentFull) -> None:
        """Tell a member that there is no room for its update."""
        self._counters.updates_refused += 1
        self._counters.reach(error)
        if self._capacity.refuse(member, len(update)) and member.send(
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
            try:
                self.wait(member, change.update)
            except PlaitError as error:
                member.socket.close(error)

    def retry(self) -> None:
        """Apply what was held, now that the document has changed; hold again what is not ready."""
        holding, self._members = self._members, {}
        for member in holding:
            if not self._room.ready.is_set():  # One of them was too much for it.
                self._members[member] = None
                continue
            try:
                for update in member.session.take_held():
                    self._room.apply_of(member, update)
            except PlaitError as error:
                member.socket.close(error)
