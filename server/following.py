"""Edit into the open rooms what others wrote into the store: the command line, a restore script,
other nodes.

Each room remembers up to which row of the store it has everything, from the moment it was loaded,
and is asked about only then. So nothing that is committed while a room is being loaded, or while
the store is being asked about others, can be missed.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress

from plait.persistence import LoggedUpdate, Store, StoreError
from plait.server.errors import PlaitError
from plait.server.leases import Entry
from plait.server.room import Room

log = logging.getLogger(__name__)

NAMES_A_TURN = 250
"""Rooms that are gathered in one turn of the loop."""


class Following:
    """Asks the store, again and again.

    Args:
        entries: the rooms, at any time.
        deleted: called for each of them whose document was deleted.
        pause_seconds: tells how long to wait until the store is asked again.
    """

    def __init__(
        self,
        store: Store,
        entries: Mapping[str, Entry],
        deleted: Callable[[str], None],
        pause_seconds: Callable[[], float],
    ) -> None:
        self._store = store
        self._entries = entries
        self._deleted = deleted
        self._pause_seconds = pause_seconds
        self._wanted: set[str] = set()
        self._hurry = asyncio.Event()

    def look(self, name: str | None) -> None:
        """Ask soon: about one room, or about all."""
        self._wanted |= self._entries.keys() if name is None else {name}
        self._hurry.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        loop = asyncio.get_running_loop()
        asked_all_at = loop.time()
        while True:
            all_at = asked_all_at + self._pause_seconds()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(all_at):
                    await self._hurry.wait()
            names: set[str] | None
            names, self._wanted = self._wanted, set()
            if loop.time() >= all_at or not self._hurry.is_set():
                # It is time to ask about all, however much of a hurry there is with some.
                names = None
            self._hurry.clear()
            try:
                await self.follow(names)
            except StoreError as error:
                log.warning("other writers of the store can't be followed now: %s", error)
            except Exception:
                log.exception("following other writers of the store failed")
            if names is None:
                asked_all_at = loop.time()

    async def follow(self, names: set[str] | None = None) -> None:
        """Take in what is new in some rooms, or in all.

        Raises:
            StoreError: the store can't be asked now.
        """
        more = True
        while more:
            asked: dict[str, Entry] = {}
            after: dict[str, int] = {}
            async for name in _paced(self._entries if names is None else sorted(names)):
                entry = self._entries.get(name)
                if entry is not None and (room := entry.loaded) is not None and room.ready.is_set():
                    asked[name], after[name] = entry, entry.followed
            changes = await self._store.changes(after)
            for name in changes.deleted:
                if self._entries.get(name) is asked[name]:
                    self._deleted(name)
            news: dict[str, list[LoggedUpdate]] = {}
            for row in changes.updates:
                news.setdefault(row.document, []).append(row)
            for name, rows in news.items():
                if self._entries.get(name) is asked[name]:
                    await self._take_in(asked[name], rows)
            async for name in _paced(changes.seqs):
                asked[name].followed = max(asked[name].followed, changes.seqs[name])
            more = changes.more

    async def _take_in(self, entry: Entry, rows: list[LoggedUpdate]) -> None:
        room = entry.loaded
        assert room is not None
        entry.leases += 1  # It must not be unloaded meanwhile.
        try:
            await room.ready.wait()
            entry.waiting = [*entry.waiting, *rows]
            before = -1
            while entry.waiting and len(entry.waiting) != before:
                tried = entry.waiting
                before = len(tried)
                left = [row for row in tried if not await _applied(room, row)]
                if entry.waiting is tried:  # else the document was loaded anew, with these rows
                    entry.waiting = left
        finally:
            entry.leases -= 1


async def _paced(names: Iterable[str]) -> AsyncIterator[str]:
    """Yield names, as many as there may be, and give way in between."""
    for number, name in enumerate(list(names), 1):
        yield name
        if number % NAMES_A_TURN == 0:
            await asyncio.sleep(0)


async def _applied(room: Room, row: LoggedUpdate) -> bool:
    """Apply a row of the log; return whether it has not to be tried again."""
    try:
        return await room.apply_logged(row)
    except PlaitError as error:
        log.error("room %r: row %d of the log: %s", room.name, row.seq, error)
        return True
