"""Who came into a document and who left it, for those who are told of such events.

Rooms and sockets tell it, and wait for nothing. About once a second what has come together goes
into the store's outbox, from where it is told as other events are. It is not for keeping: what came
together in the last second before a crash is lost, and so is the oldest if the store is away for so
long that there are too many.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Collection

from plait.persistence import Event, Store, StoreError
from plait.server.counters import Counters
from plait.server.webhook_message import CONNECTED, DISCONNECTED

log = logging.getLogger(__name__)

POST_SECONDS = 1.0
VISITS_MAX = 20_000
"""Events that wait for the store."""
BATCH = 1_000
"""Events that are put into the store in one transaction."""


class Visits:
    """Gathers who connects and disconnects.

    Args:
        kinds: what is wanted; the rest is not gathered.
        wall_ms: milliseconds since 1970.
        posted: called when there is something new in the outbox.
    """

    def __init__(
        self,
        store: Store,
        kinds: Collection[str],
        counters: Counters,
        wall_ms: Callable[[], int],
        posted: Callable[[], None],
    ) -> None:
        self._store = store
        self._kinds = frozenset(kinds) & {CONNECTED, DISCONNECTED}
        self._counters = counters
        self._wall_ms = wall_ms
        self._posted = posted
        self._waiting: deque[Event] = deque()
        self._failing = False
        self._ending = asyncio.Event()

    def connected(self, document: str, subject: str) -> None:
        """Note that somebody came into a document; empty if unknown who."""
        self._note(CONNECTED, document, subject)

    def disconnected(self, document: str, subject: str) -> None:
        """Note that somebody left a document."""
        self._note(DISCONNECTED, document, subject)

    def _note(self, kind: str, document: str, subject: str) -> None:
        if kind not in self._kinds:
            return
        if len(self._waiting) >= VISITS_MAX:
            self._waiting.popleft()
            self._counters.webhooks["dropped"] += 1
        data = json.dumps({"subject": subject or None})
        self._waiting.append(Event(document, kind, self._wall_ms(), data))

    def end(self) -> None:
        """Let `run` post what is left, and return."""
        self._ending.set()

    async def run(self) -> None:
        """Post what was noted, until `end`."""
        ending = False
        while not ending:
            try:
                async with asyncio.timeout(POST_SECONDS):
                    ending = await self._ending.wait()
            except TimeoutError:
                pass
            await self.flush()

    async def flush(self) -> None:
        """Post what was noted; if the store is away it stays noted."""
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            try:
                await self._store.post(batch)
            except StoreError as error:
                self._waiting.extendleft(reversed(batch))
                if not self._failing:
                    log.error("who connects can't be told, retrying: %s", error)
                self._failing = True
                return
            self._failing = False
            self._posted()
