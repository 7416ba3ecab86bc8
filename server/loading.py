"""Load documents from the store without stopping the world.

pycrdt holds the interpreter while it applies an update, 20 to 50 ms for a megabyte. So a document
is loaded slice by slice and row by row, with rests in between, and what needs a whole document at
once is done in another process.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from plait.persistence import (
    DocumentDeleted,
    LoggedUpdate,
    Store,
    Stored,
    StoreError,
    Update,
    Writer,
)
from plait.server.apart import run_apart_now
from plait.server.cutting import CUT_SECONDS, row_parts
from plait.server.document import Document
from plait.server.errors import DocumentBroken, DocumentGone, RoomUnavailable, UpdateRefused
from plait.server.limits import Limits
from plait.server.pace import Pace
from plait.server.remote import REMOTE_BYTES, RemoteDocument, may_be_remote
from plait.server.replay import restore
from plait.server.state import state_and_clocks, stored_bytes
from plait.server.updates import difference, merge
from plait.server.wire.slices import SLICE_BYTES

log = logging.getLogger(__name__)

ROW_BYTES_MAX = 4 * SLICE_BYTES
"""Rows of the log above this are cut before they are applied. A large update is logged in parts of
a slice each, and one more struct.
"""
STATE_SECONDS = 120.0
"""How long encoding a document may take."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A document with all that there is of it."""

    document: Document
    seq: int = 0
    """The last row of the store that it holds, with all before it."""
    rows: int = 0
    """Rows that had to be replayed beside the snapshot."""
    waiting: list[LoggedUpdate] = field(default_factory=list)
    """Rows that build upon rows which are not in the log yet."""


class Loader:
    """Loads documents as they are: what is stored, and what the writer still holds.

    Args:
        borrowed: returns what other nodes have of a document that may not be stored yet.
        seconds: the time that its rests go by.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        limits: Limits,
        borrowed: Callable[[str], Sequence[Update]],
        seconds: Callable[[], float],
    ) -> None:
        self._store = store
        self._writer = writer
        self._limits = limits
        self._borrowed = borrowed
        self._seconds = seconds

    async def load(self, name: str, *, remote: bool = False) -> Loaded:
        """Return a document; a large one is kept in another process.

        Args:
            remote: keep it there in any case.

        Raises:
            StoreError, DocumentBroken, UpdateRefused: it can't be loaded whole.
        """
        # In this order: what is committed between the two is in both, which does no harm.
        unsaved = self._unsaved(name)
        stored = await self._store.load(name)
        count = len(stored.updates)
        size = stored_bytes(stored) + sum(len(row.update) for row in unsaved)
        if (remote or size > REMOTE_BYTES) and may_be_remote():
            document, waiting = await RemoteDocument.load(_with(stored, unsaved), self._limits)
            return Loaded(document, stored.seq, count, waiting)
        stored = replace(stored, updates=await self._in_parts(stored.updates))
        loaded = Loaded(Document(self._limits), stored.seq, count)
        pace = Pace(self._seconds)
        for _ in restore(loaded.document, stored, loaded.waiting):
            await pace.rest()
        for row in unsaved:
            loaded.document.apply(row.update)
            await pace.rest()
        return loaded

    async def state(self, name: str) -> tuple[bytes, dict[int, int]]:
        """Return a document's state as one update, and its state vector; encoded in another
        process.

        Raises:
            StoreError, DocumentBroken, UpdateRefused: it can't be read.
        """
        stored = await self._all(name)
        return await run_apart_now(state_and_clocks, STATE_SECONDS, stored, self._limits)

    async def missing(self, name: str, state_vector: bytes) -> bytes:
        """Return what a holder of a state vector misses, put together from the log instead of a
        document.

        Raises:
            StoreError, DocumentBroken, UpdateRefused: it can't be read.
        """
        stored = await self._all(name)
        slices = stored.snapshot.slices if stored.snapshot is not None else ()
        updates = [*slices, *(row.update for row in stored.updates)]
        if sum(map(len, updates)) <= SLICE_BYTES:
            return merged_difference(updates, state_vector)
        return await run_apart_now(merged_difference, STATE_SECONDS, updates, state_vector)

    async def _all(self, name: str) -> Stored:
        """Return what is stored, with the updates that are not committed yet behind it."""
        unsaved = self._unsaved(name)
        return _with(await self._store.load(name), unsaved)

    def _unsaved(self, name: str) -> Sequence[Update]:
        return [*self._borrowed(name), *self._writer.pending(name)]

    async def _in_parts(self, rows: tuple[LoggedUpdate, ...]) -> tuple[LoggedUpdate, ...]:
        """Cut those rows that would take pycrdt long. An import may have made them, or an earlier
        version of this program.
        """
        if all(len(row.update) <= ROW_BYTES_MAX for row in rows):
            return rows
        parts: list[LoggedUpdate] = []
        for row in rows:
            if len(row.update) <= ROW_BYTES_MAX:
                parts.append(row)
                continue
            found = await run_apart_now(row_parts, CUT_SECONDS, row.update, self._limits)
            parts += (row._replace(update=part) for part in found)
        return tuple(parts)


def _with(stored: Stored, unsaved: Sequence[Update]) -> Stored:
    rows = (
        LoggedUpdate(stored.seq, row.document, row.update, row.who, row.at_ms) for row in unsaved
    )
    return replace(stored, updates=(*stored.updates, *rows))


def merged_difference(updates: Sequence[bytes], state_vector: bytes) -> bytes:
    """Return what a holder of a state vector misses of updates."""
    return difference(merge(updates), state_vector)


def refusal(name: str, error: BaseException) -> BaseException:
    """Return what those are told who wait for a document that can't be loaded."""
    match error:
        case DocumentDeleted():
            return DocumentGone("this document was deleted")
        case StoreError() | DocumentBroken() | UpdateRefused():
            log.error("document %r can't be loaded: %s", name, error)
            return RoomUnavailable("the document can't be loaded now; connect again")
        case _:
            return error
