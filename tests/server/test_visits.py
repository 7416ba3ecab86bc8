"""Who comes and goes is noted, and posted in batches."""

import json
from collections.abc import Sequence

import pytest

from plait.persistence import Event, StoreUnavailable
from plait.persistence.memory import MemoryStore
from plait.server import visits
from plait.server.counters import Counters
from plait.server.visits import Visits
from plait.server.webhook_message import KINDS


class AwayStore(MemoryStore):
    """A store whose outbox is away, and that counts transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.posts = 0

    async def post(self, events: Sequence[Event]) -> None:
        """Post, unless away."""
        if self.away:
            raise StoreUnavailable("the store is away")
        self.posts += 1
        await super().post(events)


def noting(store: AwayStore, *kinds: str) -> tuple[Visits, Counters, list[int]]:
    counters, posted = Counters(), list[int]()
    return (
        Visits(store, kinds or KINDS, counters, lambda: 1234, lambda: posted.append(1)),
        counters,
        posted,
    )


async def test_what_is_noted_is_posted_at_once_and_in_order() -> None:
    store = AwayStore()
    visits, _, posted = noting(store)
    visits.connected("a", "ann")
    visits.connected("b", "")
    visits.disconnected("a", "ann")
    assert not await store.events()
    await visits.flush()
    events = await store.events()
    assert [(e.document, e.kind, e.at_ms) for e in events] == [
        ("a", "connected", 1234),
        ("b", "connected", 1234),
        ("a", "disconnected", 1234),
    ]
    assert [json.loads(event.data)["subject"] for event in events] == ["ann", None, "ann"]
    assert store.posts == len(posted) == 1
    await visits.flush()
    assert store.posts == 1, "there was nothing new"


async def test_what_nobody_wants_is_not_noted() -> None:
    store = AwayStore()
    visits, _, _ = noting(store, "changed", "disconnected")
    visits.connected("a", "ann")
    visits.disconnected("a", "ann")
    await visits.flush()
    assert [event.kind for event in await store.events()] == ["disconnected"]


async def test_while_the_store_is_away_a_bounded_number_waits(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(visits, "VISITS_MAX", 5)
    monkeypatch.setattr(visits, "BATCH", 2)
    store = AwayStore()
    noted, counters, _ = noting(store)
    store.away = True
    for number in range(7):
        noted.connected(f"{number}", "ann")
        await noted.flush()
    assert len(caplog.records) == 1, "it is logged once"
    store.away = False
    await noted.flush()
    assert [event.document for event in await store.events()] == ["2", "3", "4", "5", "6"]
    assert counters.webhooks["dropped"] == 2
    assert store.posts == 3


async def test_at_the_end_what_is_left_is_posted() -> None:
    store = AwayStore()
    visits, _, _ = noting(store)
    visits.connected("a", "ann")
    visits.end()
    await visits.run()
    assert len(await store.events()) == 1
