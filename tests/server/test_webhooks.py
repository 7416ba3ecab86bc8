"""Events reach a real receiver: in order, at least once, and no more often than need be, from one
node and from several on one store.
"""

import asyncio
from collections import Counter
from typing import Any

import pytest
from standardwebhooks import Webhook
from starlette.responses import Response

from plait.persistence import ANNOUNCED
from plait.persistence.memory import MemoryStore
from plait.server import webhooks
from plait.server.counters import Counters
from plait.server.errors import ConfigError
from plait.server.settings import Settings
from plait.server.webhooks import Webhooks, announced, build, chosen
from tests.support.clock import FakeClock
from tests.support.deadlines import eventually
from tests.support.receiver import HookReceiver
from tests.support.webhooks import (
    SECRET,
    Pair,
    delivering,
    looked,
    nothing_more,
    per_document,
    post,
    told,
    typed,
    woken,
)

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
