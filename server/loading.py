"""Load documents from the store without stopping the world.

pycrdt holds the interpreter while it applies an update, about 20 ms for a megabyte. So a document
is loaded slice by slice and row by row, and the event loop runs in between.
"""

import asyncio
from dataclasses import dataclass, field

from plait.persistence import LoggedUpdate, Store, Writer
from plait.server.document import Document, difference, merge
from plait.server.limits import Limits
from plait.server.replay import restore

YIELD_BYTES = 64 << 10
"""After this much the loop runs once: about a millisecond of pycrdt's time."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document with all that there is of it."""

    document: Document
    rows: int = 0
    """Rows that had to be replayed beside the snapshot."""
    waiting: list[LoggedUpdate] = field(default_factory=list)
    """Rows that build upon rows which are not in the log yet."""


class Loader:
    """Loads documents as they are: what is stored, and what the writer still holds."""

    def __init__(self, store: Store, writer: Writer, limits: Limits) -> None:
        self._store = store
        self._writer = writer
        self._limits = limits

    async def load(self, name: str) -> Loaded:
        """Return a document.

        Raises:
            StoreError, DocumentBroken, UpdateRefused: it can't be loaded whole.
        """
        # In this order: what is committed between the two is in both, which does no harm.
        unsaved = self._writer.pending(name)
        stored = await self._store.load(name)
        loaded = Loaded(Document(self._limits), len(stored.updates))
        size = 0
        for step in restore(loaded.document, stored, loaded.waiting):
            size += step
            if size >= YIELD_BYTES:
                size = 0
                await asyncio.sleep(0)
        for row in unsaved:
            loaded.document.apply(row.update)
        return loaded

    async def missing(self, name: str, state_vector: bytes) -> bytes:
        """Return what a holder of a state vector misses, put together from the log instead of a
        document.

        Raises:
            StoreError, DocumentBroken, UpdateRefused: it can't be read.
        """
        unsaved = self._writer.pending(name)
        stored = await self._store.load(name)
        slices = stored.snapshot.slices if stored.snapshot is not None else ()
        rows = [row.update for row in stored.updates]
        return difference(merge([*slices, *rows, *(row.update for row in unsaved)]), state_vector)
