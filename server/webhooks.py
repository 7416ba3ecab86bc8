"""Tell an application of events of documents: take them from the store's outbox, and post them
until they are heard.

Theory of operation. Events are written with what they tell, in one transaction, so none is missed;
and an event is ended after it was answered, so that it is told *at least once*. Every node
delivers. What it takes from the outbox is its own for `LEASE_MS`; the store gives out one event of
a document at a time, the oldest, so that a document's events are told in order. A node that dies
lets its leases run out.

A change is held in hand until the document was left alone for a while. Most often that ends within
the lease; what has to wait longer, and what failed, is put back with the time at which it is due.

Rules:

1. Nothing is done to an event after its lease, since it may be somebody else's by then.
2. A document is looked up after its event was taken: what is told holds all that the event is for.
"""

import asyncio
import heapq
import logging
import random
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from plait.persistence import ANNOUNCED, CHANGED, CREATED, Event, Store, StoreError
from plait.server.counters import Counters
from plait.server.settings import Settings
from plait.server.visits import Visits
from plait.server.webhook_message import Target, message, state_of, target
from plait.server.webhook_pace import RETRY_MS_MIN, Pace, quiet_at, retry_at
from plait.server.webhook_post import Outcome, Receiver

log = logging.getLogger(__name__)

LEASE_MS = 60_000
MARGIN_MS = 15_000
"""An attempt and noting its outcome fit into this; nothing is begun in the end of a lease."""
READY_MAX = 64
"""Events in hand that could be sent now; more would wait for their turn until the lease ends."""
HELD_MAX = 10_000
"""Events in hand in all, at a kilobyte or so: changes of documents that are being edited."""
TOLD_MAX = 10_000
"""Documents of which is known what was told last."""
POLL_SECONDS = 1.0
TAKE_SECONDS = 0.2
"""The outbox is not looked at more often than this while there is little in it."""
COUNT_SECONDS = 10.0
"""How old the numbers for metrics may be."""
STOP_SECONDS = 3.0
"""How long stopping may take; what is on its way gets a third of it to be answered."""
GIVEN_UP_SECONDS = 10.0
"""A line of the log tells of all that was given up since the last."""


@dataclass(slots=True)
class _Held:
    """An event in hand."""

    event: Event
    lease_ms: int
    """When it is nobody's again."""

    def usable(self, now: int) -> bool:
        return now < self.lease_ms - MARGIN_MS


class Webhooks:
    """Delivers events, while it is `running`.

    Args:
        store: opened with `announce=announced(target)`.
        quiet_ms, delay_ms: how long a document has to be left alone before its change is told, and
            how long that is put off at most.
        wall_ms: milliseconds since 1970.
        jitter: gives numbers from 0 to 1.
    """

    def __init__(
        self,
        store: Store,
        target: Target,
        counters: Counters,
        wall_ms: Callable[[], int],
        *,
        quiet_ms: int = 2_000,
        delay_ms: int = 30_000,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.visits = Visits(store, target.kinds, counters, wall_ms, self.wake)
        self.waiting = 0
        """Events in the outbox, as of the last look."""
        self._oldest_ms = 0
        self._store = store
        self._target = target
        self._counters = counters
        self._wall_ms = wall_ms
        self._quiet_ms, self._delay_ms = quiet_ms, delay_ms
        self._jitter = jitter
        self._pace = Pace(jitter)
        self._identity = ""
        self._ready: deque[_Held] = deque()
        """What is in hand and could be sent now."""
        self._later: list[tuple[int, int, _Held]] = []
        """A heap of what is in hand for later: when, its id, and the event."""
        self._sending: dict[asyncio.Task[None], _Held] = {}
        self._done: list[_Held] = []
        self._back: list[tuple[_Held, int]] = []
        """What is to be put back, and when it is due."""
        self._told: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._woken = asyncio.Event()
        self._ending = False
        self._take_at = self._count_at = self._given_up_at = 0.0
        self._given_up: list[str] = []
        self._store_away = False

    @property
    def oldest_seconds(self) -> float:
        """How old the oldest event in the outbox is; 0 if there is none."""
        return max(0.0, (self._wall_ms() - self._oldest_ms) / 1000) if self.waiting else 0.0

    @property
    def announced(self) -> frozenset[str]:
        """What the store has to write into its outbox by itself."""
        return announced(self._target)

    def wake(self) -> None:
        """Look at the outbox soon: this node wrote something. Costs nothing."""
        self._woken.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Deliver, and gather visits. The store has to be open before and after; rooms that end
        within are told of as well, if not now then by another node or after the next start.
        """
        self._ending = False
        async with Receiver(self._target) as receiver:
            tasks = [asyncio.create_task(work) for work in (self.visits.run(), self._run(receiver))]
            try:
                yield
            finally:
                self._ending = True
                self.visits.end()
                self.wake()
                _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS)
                for task in (*late, *self._sending):
                    task.cancel()
                await asyncio.gather(*late, *self._sending, return_exceptions=True)

    async def _run(self, receiver: Receiver) -> None:
        while not self._ending:
            self._woken.clear()
            seconds = POLL_SECONDS
            try:
                seconds = await self.turn(receiver)
                self._store_away = False
            except StoreError as error:
                if not self._store_away:
                    log.error("events can't be looked up for webhooks, retrying: %s", error)
                self._store_away = True
            except Exception:
                log.exception("a turn of the webhooks failed")
            if not self._ending:
                await self._pause(seconds)
        await self._let_go()

    async def _pause(self, seconds: float) -> None:
        """Wait to be woken. If the store is away, there is no use in that."""
        try:
            async with asyncio.timeout(seconds):
                if self._store_away:
                    await asyncio.get_running_loop().create_future()
                await self._woken.wait()
        except TimeoutError:
            pass

    async def turn(self, receiver: Receiver) -> float:
        """Do what is due; return for how many seconds there is nothing more, unless woken.

        Raises:
            StoreError: the store is away.
        """
        loop = asyncio.get_running_loop()
        if not self._identity:
            self._identity = await self._store.identity()
        self._tell_given_up(loop.time())
        await self._settle()
        wait = await self._take(loop.time())
        now = self._wall_ms()
        self._start(receiver, now)
        if loop.time() >= self._count_at:
            self._count_at = loop.time() + COUNT_SECONDS
            self.waiting, self._oldest_ms = await self._store.event_counts()
        if self._later:
            wait = min(wait, (self._later[0][0] - now) / 1000)
        return max(0.0, wait)

    async def _settle(self) -> None:
        """Note in the store what came of what was in hand."""
        done, self._done = self._done, []
        back, self._back = self._back, []
        try:
            now = self._wall_ms()
            if ended := [held.event.id for held in done if now < held.lease_ms]:
                await self._store.end_events(ended)
                self._take_at = 0.0
            done.clear()
            while back:
                held, due = back[-1]
                if self._wall_ms() < held.lease_ms:
                    await self._store.put_back_event(held.event.id, due)
                back.pop()
        finally:
            self._done += done
            self._back += back

    async def _take(self, time: float) -> float:
        """Take events, if more could be sent; return for how many seconds not to."""
        now = self._wall_ms()
        places = self._pace.places(now)
        most = READY_MAX if places > 1 else places
        limit = min(most - len(self._ready), HELD_MAX - len(self._ready) - len(self._later))
        if limit * 2 <= most or len(self._sending) >= places:
            return POLL_SECONDS
        if time < self._take_at:
            return self._take_at - time
        events = await self._store.take_events(now, lease_ms=LEASE_MS, limit=limit)
        self._ready.extend(_Held(event, now + LEASE_MS) for event in events)
        self._take_at = 0.0 if len(events) == limit else time + TAKE_SECONDS
        return POLL_SECONDS

    def _start(self, receiver: Receiver, now: int) -> None:
        """Begin with what may be sent now."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heapq.heappop(self._later)[2])
        places = self._pace.places(now)
        while self._ready and len(self._sending) < places:
            held = self._ready.popleft()
            if not held.usable(now):
                self._back.append((held, now))  # It waited too long for its turn.
                continue
            task = asyncio.create_task(self._handle(receiver, held))
            self._sending[task] = held
            task.add_done_callback(self._handled)

    def _handled(self, task: "asyncio.Task[None]") -> None:
        held, now = self._sending.pop(task), self._wall_ms()
        self.wake()
        if task.cancelled():
            self._back.append((held, now))
        elif (error := task.exception()) is not None:
            if not isinstance(error, StoreError):
                log.error("the webhook of an event failed", exc_info=error)
            self._back.append((held, now + RETRY_MS_MIN))

    async def _handle(self, receiver: Receiver, held: _Held) -> None:
        """Send one event, or find that it is not to be sent now."""
        event = held.event
        if event.kind not in self._target.kinds:
            self._done.append(held)  # It was wanted once.
            return
        info = None
        if event.kind in (CREATED, CHANGED):
            info = await self._store.info(event.document)
        if event.kind == CHANGED:
            if info is None or self._told.get(event.document) == state_of(info):
                self._done.append(held)  # There is nothing to say any more.
                return
            now = self._wall_ms()
            due = quiet_at(event, info, now, self._quiet_ms, self._delay_ms)
            if due > now:
                self._hold(held, due)
                return
        outcome = await receiver.post(message(self._identity, event, info), self._wall_ms())
        if outcome.problem:
            self._fail(held, outcome)
            return
        self._counters.webhooks["delivered"] += 1
        if self._pace.succeeded():
            log.warning("webhooks to %s are delivered again", self._target.name)
        if event.kind == CHANGED and info is not None:
            self._told[event.document] = state_of(info)
            self._told.move_to_end(event.document)
            if len(self._told) > TOLD_MAX:
                self._told.popitem(last=False)
        self._done.append(held)

    def _hold(self, held: _Held, due: int) -> None:
        if held.usable(due):
            heapq.heappush(self._later, (due, held.event.id, held))
        else:
            self._back.append((held, due))

    def _fail(self, held: _Held, outcome: Outcome) -> None:
        event, now = held.event, self._wall_ms()
        became_away = not outcome.final and self._pace.failed(
            event.document, now, away=outcome.away, wait_ms=outcome.wait_ms
        )
        put_off_ms = self._delay_ms if event.kind == CHANGED else 0
        due = retry_at(event, now, put_off_ms, self._jitter())
        if outcome.final or due is None:
            self._counters.webhooks["given_up"] += 1
            self._given_up.append(f"{event.kind} of document {event.document!r}: {outcome.problem}")
            self._done.append(held)
            return
        self._counters.webhooks["failed"] += 1
        if became_away:
            log.error(
                "webhooks to %s can't be delivered, retrying: %s",
                *(self._target.name, outcome.problem),
            )
        elif not self._pace.away:
            log.warning(
                "a webhook to %s failed and is tried again (%s of document %r): %s",
                *(self._target.name, event.kind, event.document, outcome.problem),
            )
        self._back.append((held, self._pace.resume_at if self._pace.away else due))

    def _tell_given_up(self, time: float) -> None:
        if self._given_up and time >= self._given_up_at:
            self._given_up_at = time + GIVEN_UP_SECONDS
            count, first = len(self._given_up), self._given_up[0]
            self._given_up.clear()
            log.error("%d events were given up and are not told by webhook; %s", count, first)

    async def _let_go(self) -> None:
        """Give back what is in hand, for another node or the next start."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=STOP_SECONDS / 3)
        for task in self._sending:
            task.cancel()
        if self._sending:
            await asyncio.wait(self._sending)
        now = self._wall_ms()
        self._back += [(held, now) for held in self._ready]
        self._back += [(held, now) for _, _, held in self._later]
        self._ready.clear()
        self._later.clear()
        self._tell_given_up(float("inf"))
        try:
            await self._settle()
        except StoreError as error:
            log.warning("what is not told yet by webhook is told in a minute: %s", error)


def announced(target: Target | None) -> frozenset[str]:
    """Return what the store has to write into its outbox by itself."""
    return target.kinds & ANNOUNCED if target is not None else frozenset()


def chosen(settings: Settings) -> Target | None:
    """Return whom the settings want to be told; None for nobody.

    Raises:
        ConfigError: one of them can't be used.
    """
    if not settings.webhook_url:
        return None
    return target(settings.webhook_url, settings.webhook_secret, settings.webhook_events)


def build(
    settings: Settings, store: Store, counters: Counters, wall_ms: Callable[[], int]
) -> Webhooks | None:
    """Return what tells whom the settings want to be told; raises like `chosen`."""
    found = chosen(settings)
    if found is None:
        return None
    return Webhooks(
        store,
        found,
        counters,
        wall_ms,
        quiet_ms=round(settings.webhook_quiet_seconds * 1000),
        delay_ms=round(settings.webhook_delay_seconds * 1000),
    )
