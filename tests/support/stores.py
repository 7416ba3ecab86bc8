"""Stores that fail when a test says so."""

import asyncio
from collections.abc import Sequence

from plait.persistence import Stored, StoreUnavailable, Update
from plait.persistence.memory import MemoryStore


class FaultyStore(MemoryStore):
    """A store in memory that is away, or waits. Unrealistic: it never commits and then fails."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.loads = 0
        self.may_load = asyncio.Event()
        self.may_load.set()

    async def append(self, updates: Sequence[Update]) -> Sequence[int]:
        """Append, unless away."""
        self._check()
        return await super().append(updates)

    async def load(self, document: str) -> Stored:
        """Load, when `may_load` is set, unless away."""
        self.loads += 1
        await self.may_load.wait()
        self._check()
        return await super().load(document)

    async def ping(self) -> None:
        """Return, unless away."""
        self._check()

    def _check(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")
