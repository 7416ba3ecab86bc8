"""The updates that are not known to be committed, in order: those that wait, and those that are in
the transaction under way.

What the writer does for each update is here, and nothing of this waits. So it can be compiled
(`setup.py`), unlike the writer's loop.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from plait.persistence.store import DocumentDeleted, StoreError, StoreUnavailable, Update

logger = logging.getLogger(__name__)

UPDATE_OVERHEAD_BYTES: Final = 256
"""Memory of a queued update beside its content, so that a flood of empty ones is bounded too."""

FAILED: Final = "a callback of the writer failed"

Done = Callable[[Sequence[int]], None]
Failed = Callable[[StoreError], None]


class Entry:
    """The updates of one call to `append`."""

    __slots__ = ("done", "failed", "length", "number", "updates")

    def __init__(
        self,
        number: int,
        updates: Sequence[Update],
        done: Done,
        failed: Failed | None,
        length: int,
    ) -> None:
        self.number = number
        self.updates = updates
        self.done = done
        self.failed = failed
        self.length = length


class Unsaved:
    """A writer's updates. Belongs to one event loop.

    Args:
        bytes_max: what they may take before they are too much.
        work: called when there is something to commit, and was nothing.
        hurry: called when a commit is due, see `due`.
        changed: called when `full` has changed.
    """

    def __init__(
        self,
        bytes_max: int,
        work: Callable[[], object],
        hurry: Callable[[], object],
        changed: Callable[[], object],
    ) -> None:
        self.bytes_max = bytes_max
        self._work = work
        self._hurry = hurry
        self._changed = changed
        self._time: Callable[[], float] | None = None
        self._queue: deque[Entry] = deque()
        self._in_flight: list[Entry] = []
        self.number = 0
        """How many times something was appended."""
        self.count = 0
        self.bytes = 0
        """The memory that they take, about."""
        self.since = 0.0
        """When the oldest of them came, or a little later."""
        self.full = False
        """Whether callers should stop reading from their sockets."""
        self.due = inf
        """When the next update is to bring the commit about."""
        self.closed = False

    def append(self, updates: Sequence[Update], done: Done, failed: Failed | None = None) -> None:
        """Queue updates; see `Writer.append`."""
        if self.closed:
            raise StoreUnavailable("the writer is closed")
        length = 0
        for document, update, who, _ in updates:
            # Within a transaction one such name would hold up everybody's updates for ever.
            if not document.isascii():
                document.encode()
            if not who.isascii():
                who.encode()
            length += len(update) + UPDATE_OVERHEAD_BYTES
        if self._time is None:  # Asking for the loop is a system call.
            self._time = asyncio.get_running_loop().time
        now = self._time()
        if now >= self.due:
            self._hurry()
        if not self.count:
            self.since = now
        self.number += 1
        self._queue.append(Entry(self.number, updates, done, failed, length))
        self.count += len(updates)
        self.bytes += length
        if self.bytes > self.bytes_max:
            self.measure()
        if len(self._queue) == 1:
            self._work()

    def pending(self, document: str) -> list[Update]:
        """Return the updates of a document, in order."""
        return [
            update
            for entry in (*self._in_flight, *self._queue)
            for update in entry.updates
            if update.document == document
        ]

    @property
    def waiting(self) -> bool:
        """Whether there are some that are not in the transaction under way."""
        return bool(self._queue)

    def settled(self, number: int) -> bool:
        """Whether nothing is left of what was appended up to a `number`."""
        if self._in_flight:
            return self._in_flight[0].number > number
        return not self._queue or self._queue[0].number > number

    # The transaction under way

    def take(self, bytes_max: int) -> list[Update]:
        """Take as many as a transaction may have, but something; return them."""
        length = 0
        taken = self._in_flight
        while self._queue:
            length += self._queue[0].length
            if taken and length > bytes_max:
                break
            taken.append(self._queue.popleft())
        return [update for entry in taken for update in entry.updates]

    @property
    def taken(self) -> bool:
        """Whether a transaction is under way."""
        return bool(self._in_flight)

    def put_back(self) -> None:
        """Have what was taken wait again, before all else."""
        entries, self._in_flight = self._in_flight, []
        self._queue.extendleft(reversed(entries))

    def succeed(self, seqs: Sequence[int]) -> None:
        """Tell everybody whose updates were taken that they are committed."""
        entries, self._in_flight = self._in_flight, []
        for entry in entries:
            self.count -= len(entry.updates)
            self.bytes -= entry.length
        self.measure()
        at = 0
        for entry in entries:
            until = at + len(entry.updates)
            try:
                entry.done(seqs[at:until])
            except Exception:
                logger.exception(FAILED)
            at = until

    def take_out(self, error: DocumentDeleted) -> bool:
        """Put back all but the updates of a deleted document, and tell their owners; return whether
        there were any. If not, nothing has changed.
        """
        document = error.document
        hit = [
            entry
            for entry in self._in_flight
            if any(update.document == document for update in entry.updates)
        ]
        if document is None or not hit:
            return False
        for entry in hit:
            self._remove(entry, document)
        self._in_flight = [each for each in self._in_flight if each.updates or each not in hit]
        self.put_back()
        self.measure()
        for entry in hit:
            if entry.failed is not None:
                try:
                    entry.failed(error)
                except Exception:
                    logger.exception(FAILED)
        return True

    def _remove(self, entry: Entry, document: str) -> None:
        kept = [update for update in entry.updates if update.document != document]
        length = sum(len(update.update) + UPDATE_OVERHEAD_BYTES for update in kept)
        self.count += len(kept) - len(entry.updates)
        self.bytes += length - entry.length
        entry.updates, entry.length = kept, length

    def measure(self) -> None:
        """Find out whether they are too many."""
        full = self.bytes > self.bytes_max
        if full != self.full:
            self.full = full
            self._changed()
