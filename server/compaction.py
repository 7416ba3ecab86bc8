"""Keep loading fast and the log small, in the background, one document at a time.

Planning is pure and lives with the store (`plait.persistence.compaction`); folding is pure and
lives in `plait.server.folding`. This module brings them together: it reads, lets fold, and hands
the result to the store, which refuses it if anything has changed that matters. Nobody has to hold
the room for it, and nodes need not agree on who does it.
"""

import asyncio
import logging
from collections.abc import Callable

from plait.persistence import (
    CompactionPolicy,
    DocumentInfo,
    Store,
    StoreError,
    may_fold,
    needs_snapshot,
    plan_fold,
)
from plait.server.apart import run_apart
from plait.server.errors import DocumentBroken, PlaitError
from plait.server.folding import fold_rows, fold_snapshot
from plait.server.limits import Limits

log = logging.getLogger(__name__)

APART_BYTES = 32 << 10
"""Documents above this are folded in another process: below, it takes less than 5 ms."""
APART_SECONDS = 300.0
PAGE_ROWS = 1000


class Compactor:
    """Folds the documents that it is told to consider.

    Args:
        wall_clock_ms: milliseconds since 1970; decides which rows are old.
    """

    def __init__(
        self,
        store: Store,
        policy: CompactionPolicy,
        limits: Limits,
        wall_clock_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._policy = policy
        self._limits = limits
        self._wall_clock_ms = wall_clock_ms
        self._considered: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self.compactions = 0
        """Documents that it did something about since it runs."""

    def consider(self, name: str) -> None:
        """Have a document looked at, soon."""
        if name not in self._queued:
            self._queued.add(name)
            self._considered.put_nowait(name)

    async def run(self) -> None:
        """Compact what is considered, for ever."""
        while True:
            name = await self._considered.get()
            self._queued.discard(name)
            try:
                self.compactions += await self.compact(name)
            except (StoreError, PlaitError) as error:
                log.error("document %r was not compacted: %s", name, error)
            except Exception:
                log.exception("compacting %r failed", name)

    async def compact(self, name: str, *, force: bool = False) -> bool:
        """Make a snapshot if it pays (or if `force`d), and fold old rows; return whether anything
        was done.

        Raises:
            StoreError, PlaitError: it could not be done; the document is stored as before.
        """
        info = await self._store.info(name)
        if info is None or info.deleted_ms is not None:
            return False
        done = False
        if needs_snapshot(info, self._policy) or (force and info.tail_updates):
            done = await self._snapshot(name, info)
            info = await self._store.info(name) or info
        if may_fold(info, self._policy, self._wall_clock_ms()):
            done = await self._fold(name) or done
        return done

    async def _snapshot(self, name: str, info: DocumentInfo) -> bool:
        stored = await self._store.load(name)
        now = self._wall_clock_ms()
        try:
            if info.snapshot_bytes + info.tail_bytes > APART_BYTES:
                raise DocumentBroken("it is too large to be folded here")
            snapshot = fold_snapshot(stored, self._limits, now, strict=True)
        except DocumentBroken as reason:
            log.debug("document %r is folded in another process: %s", name, reason)
            snapshot = await run_apart(fold_snapshot, APART_SECONDS, stored, self._limits, now)
        return snapshot is not None and await self._store.compact(name, snapshot)

    async def _fold(self, name: str) -> bool:
        """Fold every run of old rows that the plan finds."""
        done = False
        after = 0
        while True:
            stored = await self._store.load(name)
            rows = await self._store.log(name, after, PAGE_ROWS)
            if stored.snapshot is None or not rows:
                return done
            plan = plan_fold(rows, stored.snapshot.upto, self._policy, self._wall_clock_ms())
            if plan is None:
                after = rows[-1].seq
                continue
            size = sum(len(row.update) for row in plan.rows)
            if size > APART_BYTES:
                segment = await run_apart(fold_rows, APART_SECONDS, plan.rows)
            else:
                segment = fold_rows(plan.rows)
            done = await self._store.compact(name, stored.snapshot, segment) or done
            after = plan.last
