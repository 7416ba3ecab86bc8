"""What time demands of the rooms of a node: once a second, a few rooms in each turn of the loop, so
that whoever types waits no longer because many others have rooms open.
"""

import asyncio
import logging
from collections.abc import Callable
from itertools import islice

from plait.server.answers import IDLE_SECONDS as STATE_IDLE_SECONDS
from plait.server.changes import Clock
from plait.server.compaction import Compactor
from plait.server.leases import Entry
from plait.server.limits import Limits
from plait.server.memory import give_back
from plait.server.room import Room
from plait.server.rooms import ROOM_TICKS, Rooms

log = logging.getLogger(__name__)

ROOMS_A_TURN = 32
"""Rooms that are looked at in one turn of the loop: a third of a millisecond."""
UNLOADED_A_TURN = 8
UNLOADED_BYTES_A_TURN = 1 << 20
"""Rooms that are unloaded in one turn, or a larger one: freeing a megabyte takes a millisecond."""
SPARE_MAX = 1000
"""Idle rooms among which one is looked for that can make way for another at once."""
GIVE_BACK_BYTES = 1 << 20
"""Unloading less than this is not worth the 26 ms that returning memory to the system may take."""


class Upkeep:
    """Keeps rooms in order, and unloads those that nobody wants.

    Args:
        forget: takes a room out of all tables.
        idle_seconds: how long a room is kept that nobody holds.
        memory_bytes_max: what documents may take in all before idle ones have to go at once.
    """

    def __init__(
        self,
        rooms: Rooms,
        forget: Callable[[Entry], None],
        compactor: Compactor,
        limits: Limits,
        clock: Clock,
        *,
        idle_seconds: float,
        memory_bytes_max: int,
    ) -> None:
        self._rooms = rooms
        self._forget = forget
        self._compactor = compactor
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._memory_bytes_max = memory_bytes_max
        self._states_bytes_max = limits.states_bytes_max
        self._ticks = 0

    async def tick(self) -> None:
        """Look at the rooms whose turn it is, and unload those that were idle for long enough."""
        self._ticks += 1
        slot = self._rooms.slots[self._ticks % ROOM_TICKS]
        for number, entry in enumerate(list(slot)):
            if number % ROOMS_A_TURN == ROOMS_A_TURN - 1:
                await asyncio.sleep(0)
            if entry in slot and (room := entry.loaded) is not None:
                try:
                    for _ in room.care():
                        await asyncio.sleep(0)
                    self._look_at(entry, room)
                except Exception:
                    log.exception("room %r: a tick failed", entry.name)
        if self._rooms.states_bytes > self._states_bytes_max:
            self._drop_states()
        await self._unload_idle()

    def _look_at(self, entry: Entry, room: Room) -> None:
        answers = room.answers
        if answers.size and self._clock.monotonic() - answers.asked_at > STATE_IDLE_SECONDS:
            answers.drop()
        if entry.table is not None:  # It may have been unloaded meanwhile.
            self._rooms.weigh(entry, room)
        if room.saving.worth_compacting():
            self._compactor.consider(entry.name)

    def _drop_states(self) -> None:
        """Drop the least wanted of too many encoded states."""
        kept = [
            (room.answers.asked_at, entry.name, entry, room)
            for slot in self._rooms.slots
            for entry in slot
            if entry.state_bytes and (room := entry.loaded) is not None
        ]
        for _, _, entry, room in sorted(kept):
            if self._rooms.states_bytes <= self._states_bytes_max:
                break
            room.answers.drop()
            self._rooms.weigh(entry, room)

    async def _unload_idle(self) -> None:
        """Unload rooms that were idle for long enough, or all that can be spared if they take too
        much memory, the longest idle first.
        """
        freed = number = size = 0
        for looked_at, entry in enumerate(list(self._rooms.idle)):
            if looked_at % ROOMS_A_TURN == ROOMS_A_TURN - 1:
                await asyncio.sleep(0)
            kept = self._clock.monotonic() - entry.idle_since < self._idle_seconds
            if kept and self._rooms.memory_bytes <= self._memory_bytes_max:
                break
            if not spare(entry):
                continue
            number, size = number + 1, size + entry.memory_bytes
            freed += self._unload(entry)
            if number >= UNLOADED_A_TURN or size >= UNLOADED_BYTES_A_TURN:
                number = size = 0
                await asyncio.sleep(0)
        if freed > GIVE_BACK_BYTES:
            give_back()

    def make_place(self) -> bool:
        """Unload the room that is idle for longest, of those that can be; return whether there was
        one.
        """
        entry = next(filter(spare, islice(self._rooms.idle, SPARE_MAX)), None)
        if entry is not None:
            self._unload(entry)
        return entry is not None

    def _unload(self, entry: Entry) -> int:
        room = entry.loaded
        assert room is not None
        self._forget(entry)
        room.unload()
        if room.saving.logged:
            self._compactor.consider(entry.name)
        return room.document.memory_bytes


def spare(entry: Entry) -> bool:
    """Whether a room may be unloaded: nobody holds it, and nothing of it is unsaved."""
    room = entry.loaded
    return entry.table is not None and not entry.leases and room is not None and not room.busy
