"""Events reach a receiver that fails, is slow, goes away and comes back, and a store that is away
is waited for.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

import pytest
from starlette.responses import Response

from plait.persistence import ANNOUNCED, Event, StoreUnavailable
from plait.persistence.memory import MemoryStore
from plait.server.webhook_pace import AT_ONCE
from plait.server.webhooks import Webhooks
from tests.support.clock import FakeClock
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.receiver import HookReceiver
from tests.support.webhooks import (
    Pair,
    Watched,
    delivering,
    looked,
    nothing_more,
    per_document,
    post,
    told,
    typed,
    woken,
)

DAY_SECONDS = 24 * 3600


async def until_heard(hook: HookReceiver, count: int, clock: FakeClock, *nodes: Watched) -> None:
    """Let time pass until so many events were accepted. Only between the nodes' looks: what is
    answered and not noted when its lease ends is told once more, as it should be.
    """
    async with asyncio.timeout(4 * DEADLINE_SECONDS):
        while len(hook.accepted) < count:
            await looked(*nodes)
            clock.now += 20


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
