"""The rooms of a node in tables: by name, in the order of names, by the tick in which they have
their turn, and those that nobody holds, longest first. So nobody who asks, and nothing that comes
with time, has to walk through all of them.
"""

from bisect import bisect_left, bisect_right, insort
from zlib import crc32

from plait.server.changes import Clock
from plait.server.leases import Entry
from plait.server.room import Room

ROOM_TICKS = 5
"""A room's own tick comes every so many of the hub's, different rooms' at different ones."""


class Rooms:
    """The tables."""

    def __init__(self, clock: Clock) -> None:
        self.entries: dict[str, Entry] = {}
        """Rooms that are open or being opened."""
        self.idle: dict[Entry, None] = {}
        """Those that nobody holds, the longest idle first."""
        self.slots: list[dict[Entry, None]] = [{} for _ in range(ROOM_TICKS)]
        """Open rooms by the tick in which they have their turn."""
        self.memory_bytes = 0
        """What documents take, each as of when it was weighed."""
        self.states_bytes = 0
        """The same of encoded states."""
        self._clock = clock
        self._names: list[str] = []
        """Of open rooms, in order."""

    def __len__(self) -> int:
        return len(self._names)

    def open(self, name: str) -> Room | None:
        """Return a room if it is open."""
        entry = self.entries.get(name)
        return entry.loaded if entry is not None else None

    def all(self) -> dict[str, Room]:
        """Return the rooms that are open, by name; takes as long as there are many."""
        return {
            name: room for name, entry in self.entries.items() if (room := entry.loaded) is not None
        }

    def names(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return names of open rooms that begin with a prefix and are above another, in order."""
        names = self._names
        first = max(bisect_left(names, prefix), bisect_right(names, after))
        found = names[first : first + limit]
        if found and not found[-1].startswith(prefix):
            found = [name for name in found if name.startswith(prefix)]
        return found

    def add(self, name: str) -> Entry:
        """Note that a room is being opened; one of that name that is dead is forgotten."""
        if (dead := self.entries.get(name)) is not None:
            self._take_out(dead)
        slot = crc32(name.encode(errors="replace")) % ROOM_TICKS
        entry = self.entries[name] = Entry(name, self._clock.monotonic(), slot, self)
        return entry

    def opened(self, entry: Entry, room: Room) -> None:
        """Note that a room is open."""
        entry.loaded = room
        insort(self._names, entry.name)
        self.slots[entry.slot][entry] = None
        self.weigh(entry, room)

    def remove(self, entry: Entry) -> None:
        """Forget a room."""
        del self.entries[entry.name]
        self._take_out(entry)

    # Implements leases.Table

    def held(self, entry: Entry) -> None:
        """Note that somebody holds a room."""
        self.idle.pop(entry, None)

    def left(self, entry: Entry) -> None:
        """Note that nobody holds a room any more."""
        self.idle[entry] = None
        if entry.loaded is not None:
            self.weigh(entry, entry.loaded)

    # Memory

    def weigh(self, entry: Entry, room: Room) -> None:
        """Note how much memory a room takes now."""
        memory, state = room.document.memory_bytes, room.answers.size
        self.memory_bytes += memory - entry.memory_bytes
        self.states_bytes += state - entry.state_bytes
        entry.memory_bytes, entry.state_bytes = memory, state

    def _take_out(self, entry: Entry) -> None:
        entry.table = None
        self.idle.pop(entry, None)
        if entry.loaded is not None:
            del self._names[bisect_left(self._names, entry.name)]
            del self.slots[entry.slot][entry]
            self.memory_bytes -= entry.memory_bytes
            self.states_bytes -= entry.state_bytes
