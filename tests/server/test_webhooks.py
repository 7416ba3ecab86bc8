"""Events reach a real receiver: in order, at least once, and no more often than need be, while it
fails, is slow, goes away and comes back, and with several nodes on one store.

Time is the test's, but for the poll of the outbox, which `wake` cuts short.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook
from starlette.responses import Response

from plait.persistence import (
    ANNOUNCED,
    Event,
    Store,
    StoreUnavailable,
    Update,
    open_store,
)
from plait.persistence.memory import MemoryStore
from plait.server import webhooks
from plait.server.counters import Counters
from plait.server.errors import ConfigError
from plait.server.settings import Settings
from plait.server.webhook_message import KINDS, target
from plait.server.webhook_pace import AT_ONCE
from plait.server.webhooks import Webhooks, announced, build, chosen
from tests.support.clock import FakeClock
from tests.support.deadlines import eventually
from tests.support.receiver import HookReceiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DAY_SECONDS = 24 * 3600


@pytest.fixture
def clock() -> FakeClock:
    """Today's time, since another's implementation verifies timestamps."""
    clock = FakeClock()
    clock.now = time.time()
    return clock


Pair = tuple[Store, Store]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    """Two stores with the same content, as two nodes have them."""
    if request.param == "memory":
        first = MemoryStore(announce=ANNOUNCED)
        yield first, first.sibling()
        return
    url = f"sqlite:///{tmp_path / 'plait.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    async with AsyncExitStack() as stack:
        pair = open_store(url, announce=ANNOUNCED), open_store(url, announce=ANNOUNCED)
        for store in pair:
            await store.open()
            stack.push_async_callback(store.close)
        yield pair


@asynccontextmanager
async def delivering(
    store: Store, hook: HookReceiver, clock: FakeClock, **options: Any
) -> AsyncIterator[Webhooks]:
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
    await store.append([Update(name, b"\x00\x00", "ann", clock.wall_ms()) for name in documents])


async def post(store: Store, clock: FakeClock, document: str, *kinds: str) -> None:
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


async def until_heard(hook: HookReceiver, count: int, clock: FakeClock, *nodes: Webhooks) -> None:
    """Let time pass until so many events were accepted. Only between the nodes' looks: what is
    answered and not noted when its lease ends is told once more, as it should be.
    """
    async with asyncio.timeout(60):
        while len(hook.accepted) < count:
            await looked(*nodes)
            clock.now += 20


def per_document(events: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for document, kind in events:
        found.setdefault(document, []).append(kind)
    return found


# What is told


async def test_a_documents_life_is_told_in_order(stores: Pair, clock: FakeClock) -> None:
    store, _ = stores
    async with HookReceiver() as hook, delivering(store, hook, clock) as node:
        await typed(store, clock, "a")
        node.visits.connected("a", "ann")
        await node.visits.flush()
        await eventually(lambda: hook.accepted == [("a", "created")])
        clock.now += 2
        node.wake()
        await eventually(lambda: len(hook.accepted) == 3)
        await store.delete("a", clock.wall_ms())
        await store.undelete("a")
        node.wake()
        await eventually(lambda: len(hook.accepted) == 5)
        kinds = [kind for _, kind in hook.accepted]
        assert kinds == ["created", "changed", "connected", "deleted", "undeleted"]
        assert len({heard.id for heard in hook.heard}) == 5
        for heard in hook.heard:
            Webhook(SECRET).verify(heard.body, heard.headers)
        info = await store.info("a")
        assert info is not None
        facts = hook.heard[1].told["data"]
        assert (facts["updates"], facts["log_bytes"]) == (1, info.log_bytes)
        assert hook.heard[2].told["data"]["subject"] == "ann"
        await eventually(lambda: told(store, (0, 0)))
        assert node._counters.webhooks == Counter(delivered=5)


async def told(store: Store, counts: tuple[int, int]) -> bool:
    return await store.event_counts() == counts


async def test_a_change_is_told_when_the_document_is_left_alone(
    stores: Pair, clock: FakeClock
) -> None:
    store, _ = stores
    async with (
        HookReceiver() as hook,
        delivering(store, hook, clock, kinds=("changed",)) as node,
    ):
        for _ in range(5):
            await typed(store, clock, "a")
            await nothing_more(hook, node)
            clock.now += 1.5
        assert not hook.asked
        clock.now += 0.5
        node.wake()
        await eventually(lambda: hook.asked == 1)
        await eventually(lambda: hook.heard and hook.heard[0].told["data"]["updates"] == 5)
        await looked(node)  # Its lease would be over with the next minute.
        # What the store noted meanwhile says nothing that was not told.
        clock.now += 60
        await nothing_more(hook, node)
        assert await store.event_counts() == (0, 0)


async def test_a_document_that_is_edited_all_the_time_is_told_of_now_and_then(
    stores: Pair, clock: FakeClock
) -> None:
    store, _ = stores
    async with (
        HookReceiver() as hook,
        delivering(store, hook, clock, kinds=("changed",)) as node,
    ):
        times: list[int] = []
        for second in range(70):
            await typed(store, clock, "a")
            # The clock waits: between a look at the document and one at the time it must not jump.
            await looked(node)
            if hook.asked > len(times):
                times.append(second)
            clock.now += 1
        assert times == [30, 61]


async def test_a_long_delay_outlasts_the_lease(stores: Pair, clock: FakeClock) -> None:
    store, other = stores
    how = {"kinds": ("changed",), "delay_ms": 600_000, "quiet_ms": 300_000}
    async with (
        HookReceiver() as hook,
        delivering(store, hook, clock, **how) as node,
        delivering(other, hook, clock, **how) as second,
    ):
        await typed(store, clock, "a")
        for _ in range(5):
            await nothing_more(hook, node, second)
            assert not node._later and not second._later, "it is put back, not kept from others"
            clock.now += 59
        clock.now += 6
        node.wake()
        second.wake()
        await eventually(lambda: hook.asked == 1)
        await nothing_more(hook, node, second)


async def test_what_is_not_wanted_any_more_is_not_told(clock: FakeClock) -> None:
    store = MemoryStore(announce=ANNOUNCED)
    await typed(store, clock, "a", "b")
    await store.delete("a", clock.wall_ms())
    async with HookReceiver() as hook, delivering(store, hook, clock, kinds=("deleted",)) as node:
        await eventually(lambda: hook.accepted == [("a", "deleted")])
        node.wake()
        await eventually(lambda: told(store, (0, 0)))


async def test_a_document_that_was_forgotten(clock: FakeClock) -> None:
    store = MemoryStore(announce=ANNOUNCED)
    await typed(store, clock, "a")
    await store.delete("a", clock.wall_ms())
    await store.purge(document="a")
    async with HookReceiver() as hook, delivering(store, hook, clock):
        await eventually(lambda: hook.accepted == [("a", "created"), ("a", "deleted")])
        assert hook.heard[0].told["data"]["updates"] is None


# Failures


async def test_order_is_kept_while_the_receiver_fails_at_random(
    stores: Pair, clock: FakeClock
) -> None:
    store, other = stores
    seen: Counter[tuple[str, str]] = Counter()

    async def fail_twice(document: str, kind: str) -> Response:
        seen[document, kind] += 1
        return Response(status_code=500 if seen[document, kind] % 3 else 200)

    documents = [f"{number}" for number in range(12)]
    kinds = ["connected", "deleted", "disconnected", "undeleted"]
    async with (
        HookReceiver() as hook,
        delivering(store, hook, clock) as first,
        delivering(other, hook, clock) as second,
    ):
        hook.answer = fail_twice
        for document in documents:
            await post(store, clock, document, *kinds)

        await until_heard(hook, len(documents) * len(kinds), clock, first, second)
        assert per_document(hook.accepted) == dict.fromkeys(documents, kinds)
        # The same id for each attempt, and another for each event.
        ids: dict[tuple[str, str], set[str]] = {}
        for heard in hook.heard:
            ids.setdefault(heard.event, set()).add(heard.id)
        assert all(len(each) == 1 for each in ids.values())
        assert len(set.union(*ids.values())) == len(ids)
        await eventually(lambda: told(store, (0, 0)))


async def test_one_document_that_fails_does_not_hold_up_others(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()

    async def fail(document: str, kind: str) -> Response:
        return Response(status_code=500 if document == "bad" else 200)

    async with HookReceiver() as hook, delivering(store, hook, clock) as node:
        hook.answer = fail
        await post(store, clock, "bad", "deleted", "undeleted")
        await eventually(lambda: hook.asked == 1)
        for number in range(50):
            await post(store, clock, f"{number}", "deleted")
        node.wake()
        await eventually(lambda: len(hook.accepted) == 50)
        await nothing_more(hook, node)
        clock.now += 5
        node.wake()
        await eventually(lambda: len(hook.heard) == 52 and not node._sending)
        assert [heard.event for heard in hook.heard if heard.status == 500] == 2 * [
            ("bad", "deleted")
        ]
        assert "500" in caplog.text and "s3cret" not in caplog.text
        # After three days it is given up, and what comes after it is told.
        clock.now += 3 * DAY_SECONDS + 1
        await woken(lambda: len(hook.heard) == 54, node)
        assert hook.heard[-1].event == ("bad", "undeleted")
        assert node._counters.webhooks["given_up"] >= 1
    assert "given up" in caplog.text


async def test_a_receiver_that_wants_no_more_of_an_event_is_not_asked_again(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()

    async def gone(document: str, kind: str) -> Response:
        return Response(status_code=410)

    async with HookReceiver() as hook, delivering(store, hook, clock) as node:
        hook.answer = gone
        await post(store, clock, "a", "deleted")
        await eventually(lambda: told(store, (0, 0)))
        clock.now += 3600
        await nothing_more(hook, node)
        assert node._counters.webhooks == Counter(given_up=1)
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "document 'a': it answered 410" in record.getMessage()


async def test_while_the_receiver_is_away_the_queue_waits(
    stores: Pair, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    store, _ = stores
    async with HookReceiver() as hook, delivering(store, hook, clock) as node:
        await hook.stop()
        for number in range(100):
            await post(store, clock, f"{number}", "deleted", "undeleted")
        node.wake()
        failed = node._counters.webhooks
        await eventually(lambda: failed["failed"] and not node._sending)
        assert failed["failed"] <= AT_ONCE
        before = failed["failed"]
        for probe in range(1, 7):  # after 1 s, 2 s, 4 s, …
            await nothing_more(hook, node)
            assert failed["failed"] == before + probe - 1, "it was tried too soon"
            clock.now += 2 ** (probe - 1)
            node.wake()
            await eventually(lambda: failed["failed"] == before + probe)  # noqa: B023
        alarms = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert len(alarms) == 1 and "can't be delivered" in alarms[0].getMessage()
        await hook.start()
        clock.now += 61
        node.wake()

        await until_heard(hook, 200, clock, node)  # when leases of what was in hand have ended
        assert set(map(tuple, per_document(hook.accepted).values())) == {("deleted", "undeleted")}
        assert any("delivered again" in each.getMessage() for each in caplog.records)
        assert failed["given_up"] == 0


async def test_a_receiver_that_fails_for_everybody_is_left_alone(clock: FakeClock) -> None:
    store = MemoryStore()

    async def fail(document: str, kind: str) -> Response:
        return Response(status_code=500)

    async with HookReceiver() as hook, delivering(store, hook, clock) as node:
        hook.answer = fail
        for number in range(200):
            await post(store, clock, f"{number}", "deleted")
        node.wake()
        await eventually(lambda: node._pace.away and not node._sending)
        await nothing_more(hook, node)
        assert hook.asked < 2 * AT_ONCE


async def test_a_slow_receiver_gets_few_at_a_time_and_one_of_each_document(
    clock: FakeClock,
) -> None:
    store = MemoryStore()
    may_answer = asyncio.Event()
    open_now: Counter[str] = Counter()
    most: Counter[str] = Counter()

    async def slow(document: str, kind: str) -> Response:
        open_now[document] += 1
        most[document] = max(most[document], open_now[document])
        await may_answer.wait()
        open_now[document] -= 1
        return Response()

    async with HookReceiver() as hook, delivering(store, hook, clock) as node:
        hook.answer = slow
        for number in range(20):
            await post(store, clock, f"{number}", "connected", "deleted", "disconnected")
        node.wake()
        await eventually(lambda: hook.asked == AT_ONCE)
        await nothing_more_while_waiting(hook, node)
        may_answer.set()
        await woken(lambda: len(hook.accepted) == 60, node)
        assert hook.at_once == AT_ONCE
        assert set(most.values()) == {1}


async def nothing_more_while_waiting(hook: HookReceiver, node: Webhooks) -> None:
    before = hook.asked
    for _ in range(20):
        node.wake()
        await asyncio.sleep(0)
    assert hook.asked == before


async def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_id(
    clock: FakeClock,
) -> None:
    """A change meanwhile is not dropped as a double, though."""
    store = MemoryStore(announce=ANNOUNCED)
    lost = asyncio.Event()

    async def lose(document: str, kind: str) -> Response:
        return Response(status_code=502 if not lost.is_set() else 200)

    async with (
        HookReceiver() as hook,
        delivering(store, hook, clock, kinds=("changed",), quiet_ms=0) as node,
    ):
        hook.answer = lose
        await typed(store, clock, "a")
        await woken(lambda: len(hook.heard) == 1 and not node._sending, node)
        clock.now += 40
        await woken(lambda: len(hook.heard) == 2 and not node._sending, node)
        clock.now += 1
        await typed(store, clock, "a")
        lost.set()
        clock.now += 600
        await woken(lambda: len(hook.heard) == 3, node)
        first, second, third = (heard.id for heard in hook.heard)
        assert first == second != third


async def test_a_store_that_is_away_is_waited_for(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class AwayStore(MemoryStore):
        away = False
        ends = 0

        async def take_events(
            self, now_ms: int, *, lease_ms: int, limit: int = 100
        ) -> Sequence[Event]:
            self.present()
            return await super().take_events(now_ms, lease_ms=lease_ms, limit=limit)

        async def end_events(self, ids: Sequence[int]) -> None:
            self.ends += 1
            self.present()
            await super().end_events(ids)

        def present(self) -> None:
            if self.away:
                raise StoreUnavailable("the store is away")

    store = AwayStore()

    async def and_the_store_goes(document: str, kind: str) -> Response:
        store.away = True
        return Response()

    async with HookReceiver() as hook, delivering(store, hook, clock) as node:
        hook.answer = and_the_store_goes
        await post(store, clock, "a", "deleted", "undeleted")
        node.wake()
        await eventually(lambda: store.ends > 0 and node._store_away)
        store.away = False
        await eventually(lambda: len(hook.heard) == 2, "the poll after a second")
        store.away = False
        await eventually(lambda: told(store, (0, 0)))
        assert [heard.event[1] for heard in hook.heard] == ["deleted", "undeleted"]
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) <= 2


# Several nodes, and the end of one


async def test_two_nodes_tell_everything_once(stores: Pair, clock: FakeClock) -> None:
    one, other = stores
    async with (
        HookReceiver() as hook,
        delivering(one, hook, clock, quiet_ms=0) as first,
        delivering(other, hook, clock, quiet_ms=0) as second,
    ):
        for number in range(100):
            await typed(stores[number % 2], clock, f"{number}")
            await post(stores[number % 2], clock, f"{number}", "connected", "disconnected")
            first.wake()
            second.wake()
        await woken(lambda: len(hook.accepted) >= 400, first, second)
        await eventually(lambda: told(one, (0, 0)))
        assert len(hook.heard) == 400
        assert len({heard.id for heard in hook.heard}) == 400
        assert set(map(tuple, per_document(hook.accepted).values())) == {
            ("created", "changed", "connected", "disconnected")
        }
        deliveries = [node._counters.webhooks["delivered"] for node in (first, second)]
        assert all(deliveries), f"one node did all the work: {deliveries}"


async def test_who_stops_gives_back_what_it_has_in_hand(stores: Pair, clock: FakeClock) -> None:
    one, other = stores
    async with HookReceiver() as hook:
        async with delivering(one, hook, clock, kinds=("changed",)) as node:
            await typed(one, clock, *(f"{number}" for number in range(20)))
            await woken(lambda: len(node._later) == 20, node)
        clock.now += 2
        async with delivering(other, hook, clock, kinds=("changed",)) as node:
            await woken(lambda: len(hook.accepted) == 20, node)


async def test_who_stops_in_the_middle_of_an_attempt_leaves_it_to_others(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.3)
    store = MemoryStore()
    may_answer = asyncio.Event()

    async def slow(document: str, kind: str) -> Response:
        await may_answer.wait()
        return Response()

    async with HookReceiver() as hook:
        hook.answer = slow
        async with delivering(store, hook, clock):
            await post(store, clock, "a", "deleted")
            await eventually(lambda: hook.asked == 1)
        may_answer.set()
        async with delivering(store.sibling(), hook, clock):
            await eventually(lambda: hook.asked == 2)
        await eventually(lambda: told(store, (0, 0)))


async def test_what_a_node_had_in_hand_when_it_died_is_told_by_another(
    stores: Pair, clock: FakeClock
) -> None:
    dead, other = stores
    await post(dead, clock, "a", "deleted", "undeleted")
    assert await dead.take_events(clock.wall_ms(), lease_ms=webhooks.LEASE_MS)
    async with HookReceiver() as hook, delivering(other, hook, clock) as node:
        clock.now += 59
        await nothing_more(hook, node)
        clock.now += 1
        await woken(lambda: len(hook.accepted) == 2, node)
        assert hook.accepted == [("a", "deleted"), ("a", "undeleted")]


async def test_after_its_lease_an_event_is_left_alone(clock: FakeClock) -> None:
    """What another node has in hand by then would be taken from it."""
    store = MemoryStore()

    async def take_long(document: str, kind: str) -> Response:
        if hook.asked == 1:
            clock.now += 61
            assert await store.sibling().take_events(clock.wall_ms(), lease_ms=60_000)
        return Response(status_code=500 if document == "bad" else 200)

    for document in ("good", "bad"):
        async with HookReceiver() as hook, delivering(store, hook, clock) as node:
            hook.answer = take_long
            await post(store, clock, document, "deleted")
            node.wake()
            await eventually(lambda: len(hook.heard) == 1 and not node._sending)
            await nothing_more(hook, node)
            count, _ = await store.event_counts()
            assert count == 1
            clock.now += 3600
            taken = await store.take_events(clock.wall_ms(), lease_ms=60_000)
            await store.end_events([event.id for event in taken])


# Numbers and settings


async def test_how_much_waits_is_known(clock: FakeClock) -> None:
    store = MemoryStore()
    await post(store, clock, "a", "deleted")
    clock.now += 10
    await post(store, clock, "a", "undeleted")
    async with HookReceiver() as hook:
        await hook.stop()
        async with delivering(store, hook, clock) as node:
            assert (node.waiting, node.oldest_seconds) == (0, 0)
            await eventually(lambda: node.waiting == 2)
            assert node.oldest_seconds == pytest.approx(10, abs=0.01)


def test_settings_become_webhooks(clock: FakeClock) -> None:
    def chosen_by(**settings: Any) -> Webhooks | None:
        store = MemoryStore()
        return build(Settings(**settings), store, Counters(), clock.wall_ms)

    assert chosen_by() is None
    assert announced(chosen(Settings())) == frozenset()
    url = "https://app.example.org/"
    found = chosen_by(webhook_url=url, webhook_secret=SECRET)
    assert found is not None
    assert found.announced == ANNOUNCED
    events = ("changed", "connected")
    found = chosen_by(webhook_url=url, webhook_secret=SECRET, webhook_events=events)
    assert found is not None
    assert found.announced == {"changed"}
    with pytest.raises(ConfigError, match="webhook_secret"):
        chosen_by(webhook_url=url)
