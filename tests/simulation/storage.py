"""A store that several nodes share, slow and unreliable, and what is known to be in it."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

from pycrdt import Doc

from plait.persistence import (
    Changes,
    DocumentInfo,
    Segment,
    Snapshot,
    Stored,
    StoreUnavailable,
    Update,
)
from plait.persistence.memory import MemoryStore
from plait.server.wire.state_vector import decode_state_vector, encode_state_vector
from plait.server.wire.update import Id
from tests.simulation.faults import Faults
from tests.support.units import Unit, units_of


class Vault:
    """What was ever committed, and what a document loaded from it would hold."""

    def __init__(self) -> None:
        self.content = MemoryStore()
        self._docs: dict[str, Doc[Any]] = {}

    def note(self, updates: Sequence[Update]) -> None:
        """Take note of a commit."""
        for update in updates:
            doc = self._docs.setdefault(update.document, Doc())
            doc.apply_update(update.update)

    def clocks(self, document: str) -> dict[int, int]:
        """Return what is stored of a document with all that it builds upon."""
        doc = self._docs.get(document)
        return decode_state_vector(doc.get_state()) if doc is not None else {}

    def units(self, document: str, client: int, first: int) -> dict[Id, Unit]:
        """Return what is stored of a client from a clock on."""
        doc = self._docs[document]
        clocks = decode_state_vector(doc.get_state())
        clocks[client] = first
        return units_of(doc.get_update(encode_state_vector(clocks)), frozenset((client,)))

    def doc(self, document: str) -> Doc[Any]:
        """Return what is stored of a document."""
        return self._docs.setdefault(document, Doc())


class SimulatedStore(MemoryStore):
    """One node's connection to the store."""

    def __init__(self, vault: Vault, faults: Faults, chance: random.Random) -> None:
        super().__init__()
        self._content = vault.content._content
        self._vault = vault
        self.faults = faults
        self._chance = chance
        self.dead = False
        """Whether the node was killed: nothing of it reaches the store any more."""

    async def _trip(self, mean: float) -> None:
        await asyncio.sleep(self._chance.expovariate(1 / mean) if mean else 0)
        if self.dead:
            await asyncio.Event().wait()

    async def append(self, updates: Sequence[Update]) -> Sequence[int]:
        """Append, or fail before or after it."""
        await self._trip(self.faults.store_delay)
        fails = self._chance.random() < self.faults.store_fails
        if fails and self._chance.random() < 0.5:
            raise StoreUnavailable("simulated, before the commit")
        seqs = await super().append(updates)
        self._vault.note(updates)
        await self._trip(self.faults.store_delay)
        if fails:
            raise StoreUnavailable("simulated, after the commit")
        return seqs

    async def load(self, document: str) -> Stored:
        """Load, slowly: what is read is of some moment in between."""
        await self._trip(self.faults.load_delay)
        stored = await super().load(document)
        await self._trip(self.faults.load_delay)
        if self._chance.random() < self.faults.store_fails:
            raise StoreUnavailable("simulated, on loading")
        return stored

    async def changes(self, after: Mapping[str, int]) -> Changes:
        """Tell what others wrote, as of some moment in between."""
        await self._trip(self.faults.store_delay)
        changes = await super().changes(after)
        await self._trip(self.faults.store_delay)
        if self._chance.random() < self.faults.store_fails:
            raise StoreUnavailable("simulated, on asking for changes")
        return changes

    async def info(self, document: str) -> DocumentInfo | None:
        """Tell of a document."""
        await self._trip(self.faults.store_delay)
        return await super().info(document)

    async def compact(
        self, document: str, snapshot: Snapshot, segment: Segment | None = None
    ) -> bool:
        """Compact, later than it was decided."""
        await self._trip(self.faults.store_delay)
        return await super().compact(document, snapshot, segment)
