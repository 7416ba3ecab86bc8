"""What other nodes and the command line put into the store is learnt of within a moment."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from plait.persistence import Record, RecordChanges, StoreUnavailable
from plait.persistence.memory import MemoryStore
from plait.server import records as records_module
from plait.server.records import KEY_KIND, Records, shared_key
from tests.support.deadlines import eventually


class Store(MemoryStore):
    """A store that can be away."""

    away = False

    async def records_since(self, seq: int) -> RecordChanges:
        if self.away:
            raise StoreUnavailable("away")
        return await super().records_since(seq)


class Node:
    """One that learns."""

    def __init__(self, store: Store) -> None:
        self.known: dict[tuple[str, str], str] = {}
        self.learnt = 0
        self.records = Records(store, self.learn)

    async def learn(self, changes: RecordChanges) -> None:
        self.learnt += 1
        for key in changes.removed:
            self.known.pop(key, None)
        for record in changes.records:
            self.known[record.kind, record.id] = record.value


@asynccontextmanager
async def following(node: Node) -> AsyncIterator[None]:
    task = asyncio.create_task(node.records.run())
    try:
        yield
    finally:
        task.cancel()


def record(id: str, value: str = "{}") -> Record:
    return Record("key", id, value, 1)


async def test_a_store_without_records_tells_no_news() -> None:
    """It tells all that there is each time, which made the node forget twice a second what it had
    verified: an application was asked about every token anew.
    """
    store = Store()
    node = Node(store)
    for _ in range(3):
        await node.records.catch_up()
    assert node.learnt == 0
    await store.put_record(record("a"))
    await store.remove_record("key", "a")
    for _ in range(3):
        await node.records.catch_up()
    assert node.learnt == 1, "what came and went may have been used meanwhile"
    await store.put_record(record("b"))
    for _ in range(3):
        await node.records.catch_up()
    assert node.learnt == 2 and node.known == {("key", "b"): "{}"}


async def test_what_is_kept_or_dropped_is_obeyed_when_that_returns() -> None:
    node = Node(Store())
    told: list[str] = []
    node.records.on_change = lambda: told.append("others")
    assert await node.records.keep(record("a"), new=True)
    assert not await node.records.keep(record("a", "[]"), new=True)
    assert node.known == {("key", "a"): "{}"}
    assert await node.records.drop("key", "a")
    assert not await node.records.drop("key", "a")
    assert node.known == {}
    assert told == ["others"] * 4


async def test_what_was_there_before_is_learnt_first_and_once() -> None:
    store = Store()
    for id in "ab":
        await store.put_record(record(id))
    node = Node(store)
    await node.records.catch_up()
    await node.records.catch_up()
    assert sorted(id for _, id in node.known) == ["a", "b"]
    assert node.learnt == 1


def test_a_right_is_gone_within_a_second() -> None:
    """The time between two looks, if no other node says that there is something new."""
    assert records_module.PAUSE_SECONDS <= 0.5


async def test_what_another_puts_in_is_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "PAUSE_SECONDS", 0.01)
    store = Store()
    node = Node(store)
    async with following(node):
        await store.put_record(record("a"))
        await eventually(lambda: node.known)
        await store.remove_record("key", "a")
        await eventually(lambda: not node.known)


async def test_it_is_found_at_once_when_another_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "PAUSE_SECONDS", 3600)
    store = Store()
    node = Node(store)
    async with following(node):
        await store.put_record(record("a"))
        node.records.look()
        await eventually(lambda: node.known)


async def test_a_store_that_is_away_is_told_once_and_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(records_module, "PAUSE_SECONDS", 0.001)
    store = Store()
    await store.put_record(record("a"))
    node = Node(store)
    async with following(node):
        await eventually(lambda: node.known)
        store.away = True
        await eventually(lambda: caplog.records)
        await store.put_record(record("b"))
        await eventually(lambda: node.records._failing)
        assert node.known == {("key", "a"): "{}"}, "what was known goes on to count"
        store.away = False
        await eventually(lambda: len(node.known) == 2)
    assert len(caplog.records) == 1


async def test_one_that_fails_to_learn_is_told_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(records_module, "PAUSE_SECONDS", 0.001)
    store = Store()
    node = Node(store)
    fails = 2

    async def learn(changes: RecordChanges) -> None:
        nonlocal fails
        fails -= 1
        if fails >= 0:
            raise ValueError
        await node.learn(changes)

    node.records = Records(store, learn)
    async with following(node):
        await store.put_record(record("a"))
        await eventually(lambda: node.known)
    assert caplog.text.count("following the records failed") == 2


async def test_all_nodes_of_a_store_have_one_key_and_others_another() -> None:
    store = Store()
    keys = {bytes(key) for key in await asyncio.gather(*(shared_key(store) for _ in range(9)))}
    (key,) = keys
    assert len(key) == 32
    assert await shared_key(Store()) != key
    assert [each.kind for each in await store.records(KEY_KIND)] == [KEY_KIND]
