"""Commit the updates of all rooms in groups, and tell each room when its own are safe.

A commit costs the same for one update as for a thousand, so the writer takes whatever has queued
up while the last commit ran. Rules:

1. Order is kept: what was appended first is committed first, also after a failure.
2. Nothing is dropped. An update leaves the queue when it is committed, or when its document was
   deleted; then its owner is told.
3. At most one transaction is under way. Until it is known to be committed, its updates count as
   pending. One whose outcome stays unknown is committed again, which is harmless: to apply a Yjs
   update twice changes nothing.
4. While the store fails, edits go on and stay queued. Above a limit the writer is `full`, and it
   is the callers who wait: the writer never refuses.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import NoReturn, TypeVar

from plait.persistence.store import DocumentDeleted, Store, StoreError, StoreUnavailable, Update
from plait.persistence.unsaved import FAILED, Done, Failed, Unsaved

logger = logging.getLogger(__name__)

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 5.0

SLACK = 0.125
"""The part of the interval for which a commit that is due may wait for the next update: waking up
for it alone costs as much as what it commits.
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WriterState:
    """What operators want to know of the writer."""

    failing_since: float | None
    """When the store began to fail, by the writer's clock; None if the last commit went well."""
    last_error: StoreError | None
    """Why the store fails; None if it does not."""
    unsaved_updates: int
    unsaved_bytes: int
    full: bool


class Writer:
    """Append updates to a store, in order and in groups. Belongs to one event loop."""

    def __init__(
        self,
        store: Store,
        *,
        interval_seconds: float = 0.02,
        unsaved_bytes_max: int = 64 << 20,
        transaction_bytes_max: int = 16 << 20,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        on_state: Callable[[WriterState], None] | None = None,
        on_commit: Callable[[float], None] | None = None,
    ) -> None:
        self._store = store
        self._interval_seconds = interval_seconds
        self._transaction_bytes_max = transaction_bytes_max
        self._clock = clock
        """Stamps `failing_since`, nothing else; waiting goes by the loop's time."""
        self._jitter = jitter
        """Gives numbers from 0 to 1, so that nodes do not retry in step."""
        self._on_state = on_state
        self._on_commit = on_commit
        """Told how many seconds each commit took."""

        self._commit: asyncio.Task[Sequence[int]] | None = None
        self._commit_begun = 0.0
        self._failing_since: float | None = None
        self._last_error: StoreError | None = None
        self._retry_seconds = 0.0
        self._reported = (False, False)

        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._outcome = asyncio.Event()
        """Set when a commit is settled."""
        self._not_full = asyncio.Event()
        self._not_full.set()
        self.unsaved = Unsaved(
            unsaved_bytes_max, self._work.set, self._hurry.set, self._filled_or_not
        )
        """What rooms append to, without a detour."""
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []
        self._runs = False

    # What rooms use

    def append(self, updates: Sequence[Update], done: Done, failed: Failed | None = None) -> None:
        """Queue updates, a sequence that stays as it is; never blocks.

        `done` is called with their sequence numbers after the commit. If one of their documents
        was deleted, its updates are taken out and `failed` is called with `DocumentDeleted`; if
        others remain, `done` is still called, with the numbers of those.

        Raises:
            StoreUnavailable: the writer was closed.
            UnicodeEncodeError: a name or author that no store can keep.
        """
        self.unsaved.append(updates, done, failed)

    def pending(self, document: str) -> Sequence[Update]:
        """Return the updates of a document that are not known to be committed, in order."""
        return self.unsaved.pending(document)

    async def wait_not_full(self) -> None:
        """Wait until the unsaved updates are within the limit."""
        await self._not_full.wait()

    async def flush(self, timeout_seconds: float | None = None) -> None:
        """Wait until everything appended before is committed. Cuts a pause short.

        Raises:
            StoreError: it took longer than the time-out; what the store said last, if anything.
        """
        target = self.unsaved.number
        if self.unsaved.settled(target):
            return
        self._hurry.set()
        waiter = asyncio.get_running_loop().create_future()
        self._flushes.append((target, waiter))
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter
        except TimeoutError:
            self._raise_unsaved()
        finally:
            self._flushes = [flush for flush in self._flushes if flush[1] is not waiter]

    async def close(self, timeout_seconds: float) -> None:
        """Commit what is queued, then stop `run`. Works after `run` was cancelled as well.

        Raises:
            StoreError: how much could not be committed in time, and why.
        """
        driver = None if self._runs else asyncio.create_task(self.run())
        try:
            await self.flush(timeout_seconds)
        finally:
            self.unsaved.closed = True
            self._work.set()
            self._hurry.set()
            if driver is not None:
                driver.cancel()
                await asyncio.wait([driver])
            if self.unsaved.count:
                logger.error("%d updates were not saved", self.unsaved.count)

    @property
    def state(self) -> WriterState:
        """How it goes."""
        return WriterState(
            self._failing_since,
            self._last_error,
            self.unsaved.count,
            self.unsaved.bytes,
            self.unsaved.full,
        )

    @property
    def full(self) -> bool:
        """Whether callers should stop reading from their sockets."""
        return self.unsaved.full

    @property
    def failing_since(self) -> float | None:
        """When the store began to fail, by the writer's clock; None if it does not."""
        return self._failing_since

    @property
    def last_error(self) -> StoreError | None:
        """Why the store fails; None if it does not."""
        return self._last_error

    @property
    def unsaved_updates(self) -> int:
        """Updates that are not known to be committed."""
        return self.unsaved.count

    @property
    def unsaved_seconds(self) -> float:
        """How old the oldest of them is, or a little less than that; 0 if there is none."""
        if not self.unsaved.count:
            return 0.0
        return asyncio.get_running_loop().time() - self.unsaved.since

    @property
    def unsaved_bytes(self) -> int:
        """The memory that they take, about."""
        return self.unsaved.bytes

    # The loop

    async def run(self) -> None:
        """Commit what is appended until `close`. If cancelled, nothing is forgotten."""
        assert not self._runs, "one loop at a time"
        self._runs = True
        loop = asyncio.get_running_loop()
        begun = float("-inf")
        try:
            while True:
                await self._work.wait()
                if self.unsaved.closed:
                    return
                if self._retry_seconds:
                    await self._pause(self._retry_seconds * (0.75 + 0.5 * self._jitter()))
                elif begun + self._interval_seconds > loop.time():
                    self.unsaved.due = begun + self._interval_seconds
                    slack = SLACK * self._interval_seconds
                    await self._pause(self.unsaved.due + slack - loop.time())
                self.unsaved.due = inf
                self._hurry.clear()
                if self.unsaved.closed:
                    return
                begun = loop.time()
                await self._commit_some()
        finally:
            self._runs = False

    async def _pause(self, seconds: float) -> None:
        """Wait, unless somebody is in a hurry."""
        # Cheaper than a time-out, which cancels what waits.
        timer = asyncio.get_running_loop().call_later(seconds, self._hurry.set)
        try:
            await self._hurry.wait()
        finally:
            timer.cancel()

    async def _commit_some(self) -> None:
        """Commit one transaction's worth; learn its outcome even if this is cancelled."""
        if self._commit is None:
            updates = self.unsaved.take(self._transaction_bytes_max)
            if not self.unsaved.taken:
                return
            self._commit_begun = asyncio.get_running_loop().time()
            self._outcome.clear()
            self._commit = asyncio.ensure_future(self._store.append(updates))
            # First in line: when anybody who waits for the commit wakes up, it is settled.
            self._commit.add_done_callback(self._settle)
        # Unlike awaiting the commit, this leaves it alone when the waiting is cancelled.
        await self._outcome.wait()

    def _settle(self, commit: asyncio.Task[Sequence[int]]) -> None:
        """Act on the outcome of a commit."""
        self._commit = None
        self._outcome.set()
        error = asyncio.CancelledError() if commit.cancelled() else commit.exception()
        if error is None:
            self._recovered()
            self.unsaved.since = self._commit_begun  # What is queued came later.
            if self._on_commit is not None:
                _call(self._on_commit, asyncio.get_running_loop().time() - self._commit_begun)
            self.unsaved.succeed(commit.result())
        elif not (isinstance(error, DocumentDeleted) and self.unsaved.take_out(error)):
            self.unsaved.put_back()
            # A cancelled commit says nothing about the store.
            if not isinstance(error, asyncio.CancelledError):
                self._fail(error)
        if not self.unsaved.waiting:
            self._work.clear()
        self._wake_flushes()
        self._report()

    def _fail(self, error: BaseException) -> None:
        """Note a failure, and wait longer than after the one before."""
        if not isinstance(error, StoreError):
            logger.error("the store raised what it must not", exc_info=error)
            error = StoreUnavailable(f"the store failed ({error!r})")
        if self._failing_since is None:
            self._failing_since = self._clock()
            logger.error("updates can't be saved, retrying: %s", error)
        self._last_error = error
        doubled = min(max(2 * self._retry_seconds, RETRY_SECONDS_MIN), RETRY_SECONDS_MAX)
        self._retry_seconds = doubled

    def _recovered(self) -> None:
        if self._failing_since is not None:
            logger.warning("updates are saved again")
        self._failing_since = self._last_error = None
        self._retry_seconds = 0.0

    # What others wait for and are told

    def _filled_or_not(self) -> None:
        """Let callers read from their sockets, or not."""
        if self.unsaved.full:
            self._not_full.clear()
        else:
            self._not_full.set()
        self._report()

    def _report(self) -> None:
        """Tell of a change for the worse or the better; numbers alone are not told."""
        now = (self._failing_since is not None, self.unsaved.full)
        if now != self._reported:
            self._reported = now
            if self._on_state is not None:
                _call(self._on_state, self.state)

    def _wake_flushes(self) -> None:
        for target, waiter in self._flushes:
            if not waiter.done() and self.unsaved.settled(target):
                waiter.set_result(None)

    def _raise_unsaved(self) -> NoReturn:
        message = f"{self.unsaved.count} updates are not saved yet"
        if self._last_error is not None:
            raise StoreUnavailable(f"{message}: {self._last_error}") from self._last_error
        raise StoreUnavailable(f"{message}: the store did not answer in time")


def _call(callback: Callable[[T], None], value: T) -> None:
    """Call back; whatever that raises is the callee's trouble and must not stop the writer."""
    try:
        callback(value)
    except Exception:
        logger.exception(FAILED)
