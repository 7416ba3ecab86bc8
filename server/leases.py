"""A room that is open or being opened, and those who hold it."""

import asyncio

from plait.persistence import LoggedUpdate
from plait.server.changes import Clock
from plait.server.room import Room


class Entry:
    """A room that is open or being opened."""

    __slots__ = ("followed", "idle_since", "leases", "loaded", "room", "slot", "waiting")

    def __init__(self, idle_since: float, slot: int) -> None:
        self.leases = 0
        self.loaded: Room | None = None
        """The room, once it is there."""
        self.slot = slot
        """In which of the ticks it has its turn."""
        self.idle_since = idle_since
        self.room: asyncio.Future[Room]
        self.followed = 0
        """The last row of the store that the room has, with all before it."""
        self.waiting: list[LoggedUpdate] = []
        """Rows of the log that build upon rows yet to come."""

    def end_lease(self, clock: Clock) -> None:
        """Note that one who held the room does not any more."""
        self.leases -= 1
        self.idle_since = clock.monotonic()


class Lease:
    """Keeps a room open until it is released."""

    __slots__ = ("_clock", "_entry", "room")

    def __init__(self, room: Room, entry: Entry, clock: Clock) -> None:
        self.room = room
        self._entry: Entry | None = entry
        self._clock = clock

    def release(self) -> None:
        """Let go of the room. A second time there is nothing to do."""
        entry, self._entry = self._entry, None
        if entry is not None:
            entry.end_lease(self._clock)
