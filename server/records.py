"""Follow the store's records: what another node, or the command line, says about keys and rights.

Asked twice a second, and at once when another node says that there is something new; so a right
that is taken away anywhere is gone everywhere within a second, with a relay or without.
"""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

from plait.persistence import Record, RecordChanges, Store, StoreError
from plait.server.clock import SystemClock

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5

KEY_KIND = "node"
"""The kind of the record that has the key of the relay."""


class Records:
    """The store's records, as far as they were read.

    Args:
        learn: called with what is new, and first with all that there is.
    """

    def __init__(self, store: Store, learn: Callable[[RecordChanges], Awaitable[None]]) -> None:
        self.store = store
        self._learn = learn
        self.on_change: Callable[[], None] = lambda: None
        """Called when this node has changed something, to tell the others."""
        self._seq = 0
        self._hurry = asyncio.Event()
        self._one = asyncio.Lock()
        self._failing = False

    def look(self) -> None:
        """Ask the store soon."""
        self._hurry.set()

    async def catch_up(self) -> None:
        """Take in what is new.

        Raises:
            StoreError: it can't be read; what was known goes on to count.
        """
        async with self._one:
            changes = await self.store.records_since(self._seq)
            # Of a store without records all is told each time, which is no news.
            news = changes.whole and changes.seq != self._seq
            if changes.records or changes.removed or news:
                await self._learn(changes)
            self._seq = changes.seq

    async def keep(self, record: Record, *, new: bool = False) -> bool:
        """Put a record into the store and obey it; return whether it was put (`Store.put_record`).

        Raises:
            StoreError
        """
        put = await self.store.put_record(record, new=new)
        await self._changed()
        return put

    async def drop(self, kind: str, id: str) -> bool:
        """Take a record out of the store and obey that; return whether it was there.

        Raises:
            StoreError
        """
        there = await self.store.remove_record(kind, id)
        await self._changed()
        return there

    async def _changed(self) -> None:
        self.on_change()
        await self.catch_up()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS):
                    await self._hurry.wait()
            self._hurry.clear()
            try:
                await self.catch_up()
            except StoreError as error:
                if not self._failing:
                    log.error("the store does not tell whose rights were taken away: %s", error)
                self._failing = True
            except Exception:
                log.exception("following the records failed")
            else:
                self._failing = False


async def shared_key(store: Store) -> bytes:
    """Return the key that the nodes of a store share, made by the first of them.

    Raises:
        StoreError
    """
    made = Record(KEY_KIND, "relay", json.dumps({"key": secrets.token_hex(32)}), _now_ms())
    await store.put_record(made, new=True)
    record = await store.record(KEY_KIND, "relay")
    assert record is not None
    return bytes.fromhex(json.loads(record.value)["key"])


def _now_ms() -> int:
    return SystemClock().wall_ms()
