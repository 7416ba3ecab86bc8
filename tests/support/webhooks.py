"""Nodes that tell a receiver of events, and what a test does to their store.

Time is the test's, but for the poll of the outbox, which `wake` cuts short.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from plait.persistence import Event, Store, Update
from plait.server.counters import Counters
from plait.server.webhook_message import KINDS, target
from plait.server.webhooks import Webhooks
from tests.support.clock import FakeClock
from tests.support.deadlines import eventually
from tests.support.receiver import HookReceiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Pair = tuple[Store, Store]
"""Of two nodes: their content is the same."""


@asynccontextmanager
async def delivering(
    store: Store, hook: HookReceiver, clock: FakeClock, **options: Any
) -> AsyncIterator[Webhooks]:
    """Run the webhooks of a node."""
    found = Webhooks(
        store,
        target(hook.url, SECRET, options.pop("kinds", KINDS)),
        Counters(),
        clock.wall_ms,
        jitter=lambda: 0.5,
        **{"quiet_ms": 2_000, "delay_ms": 30_000, **options},
    )
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


async def looked(*nodes: Webhooks) -> None:
    """Let every node look at its outbox, and do what comes of it."""
    for node in nodes:
        for _ in range(3):  # Only a turn that was begun after the first is sure to see everything.
            node._take_at = 0.0
            node.wake()
            await eventually(lambda: not node._woken.is_set() and not node._sending)  # noqa: B023


async def nothing_more(hook: HookReceiver, *nodes: Webhooks) -> None:
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
