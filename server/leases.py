"""A room that is open or being opened, and those who hold it."""

import asyncio
from typing import Protocol

from plait.persistence import LoggedUpdate
from plait.server.changes import Clock
from plait.server.room import Room


class Table(Protocol):
    """What keeps entries."""

    def held(self, entry: "Entry") -> None:
        """Note that somebody holds a room."""

    def left(self, entry: "Entry") -> None:
        """Note that nobody holds a room any more."""


class Entry:
    """A room that is open or being opened."""

    __slots__ = (
        "followed",
        "idle_since",
        "leases",
        "loaded",
        "memory_bytes",
        "name",
        "room",
        "slot",
        "state_bytes",
        "table",
        "waiting",
    )

    def __init__(self, name: str, idle_since: float, slot: int, table: "Table | None") -> None:
        self.name = name
        self.leases = 0
        self.table = table
        """What has to know whether anybody holds the room; None once the room was forgotten."""
        self.memory_bytes = self.state_bytes = 0
        """What the document and its encoded state took when they were weighed."""
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

    def begin_lease(self) -> None:
        """Note that one more holds the room."""
        self.leases += 1
        if self.table is not None:
            self.table.held(self)

    def end_lease(self, clock: Clock) -> None:
        """Note that one who held the room does not any more."""
        self.leases -= 1
        self.idle_since = clock.monotonic()
        if self.table is not None and not self.leases:
            self.table.left(self)


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
