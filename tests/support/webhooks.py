"""Nodes that tell a receiver of events, and what a test does to their store.

Time is the test's, but for the poll of the outbox, which `wake` cuts short.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

from plait.persistence import Event, Store, Update
from plait.server import webhooks
from plait.server.counters import Counters
from plait.server.webhook_message import KINDS, target
from plait.server.webhook_post import Receiver
from plait.server.webhooks import Webhooks
from tests.support.clock import FakeClock
from tests.support.deadlines import eventually
from tests.support.receiver import HookReceiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

TURNS_MAX = 10
"""While the store is away there is always something to do."""

Pair = tuple[Store, Store]
"""Of two nodes: their content is the same."""


class Watched(Webhooks):
    """Webhooks whose turns are counted."""

    begun = ended = 0

    async def turn(self, receiver: Receiver) -> float:
        self.begun += 1
        try:
            return await super().turn(receiver)
        finally:
            self.ended += 1

    @property
    def busy(self) -> bool:
        """Whether there is something to do, apart from the outbox, or a turn does it just now."""
        left = self._sending or self._done or self._back or self._woken.is_set()
        return bool(left) or self.begun > self.ended


@asynccontextmanager
async def delivering(
    store: Store, hook: HookReceiver, clock: FakeClock, **options: Any
) -> AsyncIterator[Watched]:
    """Run the webhooks of a node."""
    found = Watched(
        store,
        target(hook.url, SECRET, options.pop("kinds", KINDS)),
        Counters(),
        clock.wall_ms,
        jitter=lambda: 0.5,
        **{"quiet_ms": 2_000, "delay_ms": 30_000, **options},
    )
    # Each turn looks at the outbox, also if the one before has just done so.
    with patch.object(webhooks, "TAKE_SECONDS", 0.0):
        async with found.running():
            yield found


async def typed(store: Store, clock: FakeClock, *documents: str) -> None:
    """Have documents edited, each once."""
    await store.append([Update(name, b"\x00\x00", "ann", clock.wall_ms()) for name in documents])


async def post(store: Store, clock: FakeClock, document: str, *kinds: str) -> None:
    """Have events of a document wait to be told."""
    await store.post([Event(document, kind, clock.wall_ms()) for kind in kinds])


async def woken(condition: Callable[[], object], *nodes: Webhooks) -> None:
    """Wait for something, and have nodes look at the outbox meanwhile."""

    def wake() -> object:
        for node in nodes:
            node.wake()
        return condition()

    await eventually(wake)


async def looked(*nodes: Watched) -> None:
    """Let every node look at its outbox, and do what comes of it, until nothing does."""
    for node in nodes:
        for _ in range(TURNS_MAX):
            before = node.begun
            node.wake()
            await eventually(lambda: node.ended > before and not node._sending)  # noqa: B023
            if not node.busy:
                break


async def nothing_more(hook: HookReceiver, *nodes: Watched) -> None:
    """Let every node look at its outbox again; nothing may come of it."""
    before = hook.asked
    await looked(*nodes)
    assert hook.asked == before


def per_document(events: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the kinds that each document was told of, in order."""
    found: dict[str, list[str]] = {}
    for document, kind in events:
        found.setdefault(document, []).append(kind)
    return found


async def told(store: Store, counts: tuple[int, int]) -> bool:
    """Return whether so many events wait, and the oldest of them since then."""
    return await store.event_counts() == counts
