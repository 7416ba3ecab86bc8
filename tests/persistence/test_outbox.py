"""Events that wait to be told, in every store."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from plait.persistence import (
    ANNOUNCED,
    DocumentDeleted,
    Event,
    Store,
    StoreError,
    Update,
    open_store,
)
from plait.persistence.archive import Archive
from plait.persistence.memory import MemoryStore
from plait.persistence.transfer import copy_store, differences
from tests.persistence.conftest import Opener

LEASE_MS = 100


@pytest.fixture
async def announcing(opener: Opener) -> Store:
    return await opener.open(ANNOUNCED)


def outline(events: Sequence[Event]) -> list[tuple[str, str]]:
    return [(event.document, event.kind) for event in events]


async def waiting(store: Store) -> list[tuple[str, str]]:
    return outline(await store.events())


async def take(store: Store, now_ms: int = 0, limit: int = 100) -> Sequence[Event]:
    return await store.take_events(now_ms, lease_ms=LEASE_MS, limit=limit)


def posted(*names: str) -> list[Event]:
    return [Event(name, f"kind {n}", n, f'"{name}"') for n, name in enumerate(names)]


# What is announced


async def test_without_announcing_nothing_is_put_in(store: Store) -> None:
    assert not store.announces
    await store.append([Update("a", b"1")])
    await store.delete("a", 1)
    await store.undelete("a")
    assert await waiting(store) == []
    assert await store.event_counts() == (0, 0)


async def test_an_append_tells_what_came_into_being_and_what_changed(announcing: Store) -> None:
    assert announcing.announces
    await announcing.append([Update("a", b"1", "", 7), Update("b", b"", "", 9)])
    await announcing.append([Update("a", b"2", "", 8)])
    assert [(e.document, e.kind, e.at_ms) for e in await announcing.events()] == [
        ("a", "created", 7),
        ("a", "changed", 7),
        ("b", "created", 9),
        ("b", "changed", 9),
    ]
    assert await announcing.event_counts() == (4, 7)


async def test_the_last_time_of_a_batch_is_told(announcing: Store) -> None:
    await announcing.append([Update("a", b"1", "", at_ms) for at_ms in (5, 9, 6)])
    assert [event.at_ms for event in await announcing.events()] == [5, 9]


@pytest.mark.parametrize(
    ("announce", "expected"),
    [
        (["created"], ["created"]),
        (["changed"], ["changed"]),
        (["deleted"], ["deleted"]),
        (["undeleted"], ["undeleted"]),
    ],
)
async def test_only_wanted_kinds_are_told(
    opener: Opener, announce: list[str], expected: list[str]
) -> None:
    store = await opener.open(announce)
    await store.append([Update("a", b"1")])
    await store.delete("a", 1)
    await store.undelete("a")
    await store.append([Update("a", b"1")])
    assert [kind for _, kind in await waiting(store)] == expected


async def test_deleting_is_told_if_it_did_something(announcing: Store, opener: Opener) -> None:
    opener.seconds = 6.0
    await announcing.append([Update("a", b"1")])
    assert not await announcing.delete("b", 1)
    assert not await announcing.undelete("a")
    await announcing.delete("a", 5)
    assert not await announcing.delete("a", 6)
    await announcing.undelete("a")
    assert [(e.kind, e.at_ms) for e in (await announcing.events())[2:]] == [
        ("deleted", 5),
        ("undeleted", 6000),
    ]


async def test_a_purge_leaves_what_is_to_be_told(announcing: Store) -> None:
    await announcing.append([Update("a", b"1")])
    await announcing.delete("a", 5)
    await announcing.purge(document="a")
    assert [kind for _, kind in await waiting(announcing)] == ["created", "changed", "deleted"]


async def test_a_document_that_comes_again_is_told_to_have_changed(announcing: Store) -> None:
    await announcing.append([Update("a", b"1")])
    await announcing.delete("a", 5)
    await announcing.purge(document="a")
    await announcing.append([Update("a", b"2")])
    assert [kind for _, kind in (await waiting(announcing))[3:]] == ["created", "changed"]


async def test_a_change_after_a_deletion_is_told_after_it(announcing: Store) -> None:
    await announcing.append([Update("a", b"1")])
    await announcing.delete("a", 5)
    await announcing.undelete("a")
    for _ in range(3):
        await announcing.append([Update("a", b"2")])
    assert [kind for _, kind in (await waiting(announcing))[2:]] == [
        "deleted",
        "undeleted",
        "changed",
    ]


async def test_a_change_is_told_once_though_others_are_posted_after_it(announcing: Store) -> None:
    await announcing.append([Update("a", b"1")])
    await announcing.post([Event("a", "connected", 1)])
    await announcing.append([Update("a", b"2")])
    assert [kind for _, kind in await waiting(announcing)] == ["created", "changed", "connected"]


async def test_a_change_during_delivery_is_told_again(opener: Opener) -> None:
    store = await opener.open(["changed"])
    await store.append([Update("a", b"1")])
    [first] = await take(store)
    await store.append([Update("a", b"2")])
    await store.append([Update("a", b"3")])
    assert len(await store.events()) == 2
    assert await take(store) == []
    await store.end_events([first.id])
    [second] = await take(store)
    assert second.id > first.id
    # Also if whoever took it is gone.
    await store.append([Update("a", b"4")])
    await store.append([Update("a", b"5")])
    assert len(await store.events()) == 2


async def test_what_was_put_back_tells_of_the_next_changes(opener: Opener) -> None:
    store = await opener.open(["changed"])
    await store.append([Update("a", b"1")])
    [event] = await take(store)
    await store.put_back_event(event.id, 0)
    await store.append([Update("a", b"2")])
    assert len(await store.events()) == 1


async def test_what_is_not_appended_is_not_told(announcing: Store) -> None:
    await announcing.append([Update("a", b"1")])
    await announcing.delete("a", 1)
    before = await announcing.events()
    with pytest.raises(DocumentDeleted):
        await announcing.append([Update("b", b"1"), Update("a", b"2")])
    assert await announcing.events() == before


async def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    for url in ("memory://", f"sqlite:///{tmp_path / 'store.db'}", "postgresql://u@localhost/db"):
        assert open_store(url, announce=["created"]).announces
        with pytest.raises(ValueError, match="connected"):
            open_store(url, announce=["created", "connected"])


# Taking


@pytest.mark.parametrize("text", ["", "a\0b", "'; DROP TABLE outbox; --", "🦊"])
async def test_any_text_works(store: Store, text: str) -> None:
    await store.post([Event(text, text, 3, text, attempts=2)])
    [event] = await take(store)
    assert event == Event(text, text, 3, text, event.id, 2)


async def test_what_is_not_text_is_refused(store: Store) -> None:
    with pytest.raises((StoreError, UnicodeEncodeError)):
        await store.post([Event("a", "x", 1), Event("\ud800", "x", 1)])
    assert await waiting(store) == []


async def test_one_of_each_document_is_taken_in_order(store: Store, other: Store) -> None:
    await store.post(posted("b", "a", "b", "c", "a"))
    first = await take(store, limit=2)
    assert outline(first) == [("b", "kind 0"), ("a", "kind 1")]
    second = await take(other, limit=2)
    assert outline(second) == [("c", "kind 3")]
    assert await take(store) == []
    await other.end_events([first[0].id, second[0].id, 12345])
    third = await take(store)
    assert outline(third) == [("b", "kind 2")]
    await store.end_events([first[1].id, third[0].id])
    assert outline(await take(store)) == [("a", "kind 4")]
    assert (await store.event_counts())[0] == 1


async def test_what_is_not_ended_can_be_taken_when_the_lease_is_over(
    store: Store, other: Store
) -> None:
    await store.post(posted("a", "a"))
    [event] = await take(store, 1000)
    assert await take(other, 1000 + LEASE_MS - 1) == []
    assert await take(other, 1000 + LEASE_MS) == [event]
    assert await take(store, 1000 + LEASE_MS) == []


async def test_what_is_put_back_comes_when_it_is_due_and_keeps_its_place(store: Store) -> None:
    await store.post(posted("a", "a", "b"))
    first, other_one = await take(store)
    await store.put_back_event(first.id, 50)
    assert await take(store, 49) == []
    [again] = await take(store, 50)
    assert (again.id, again.attempts) == (first.id, 1)
    await store.end_events([again.id, other_one.id])
    assert outline(await take(store, 50)) == [("a", "kind 1")]


async def test_what_nobody_has_in_hand_is_neither_ended_nor_put_back(store: Store) -> None:
    """It may tell of more by now than what was delivered late."""
    await store.post(posted("a"))
    [event] = await store.events()
    await store.end_events([event.id])
    await store.put_back_event(event.id, 50)
    await store.put_back_event(event.id + 1, 50)
    assert await take(store) == [event]


async def test_numbers_are_not_used_twice(store: Store) -> None:
    await store.post(posted("a"))
    [event] = await take(store)
    await store.end_events([event.id])
    await store.post(posted("a"))
    assert (await take(store))[0].id > event.id


async def test_the_outbox_is_listed_in_pages(store: Store) -> None:
    await store.post(posted(*"abcde"))
    first = await store.events(limit=2)
    rest = await store.events(after=first[-1].id)
    assert [event.document for event in (*first, *rest)] == list("abcde")


async def test_takers_at_once_never_take_the_same_and_keep_the_order(opener: Opener) -> None:
    """While documents are written, as on several nodes."""
    opener.busy_seconds = 30.0
    store, other = await opener.open(), await opener.open()
    writers = [await opener.open(["changed"]), await opener.open(["changed"])]
    names = [f"document {n}" for n in range(5)]
    told: dict[str, list[int]] = {}
    in_hand: set[str] = set()
    busy = True

    async def write(writer: Store) -> None:
        for n in range(20):
            await writer.append([Update(name, b"x", "", n) for name in names])
            await writer.post([Event(f"posted {n % 5}", "connected", n)])
            await asyncio.sleep(0)

    async def deliver(taker: Store) -> None:
        while events := await take(taker, limit=3):
            for event in events:
                assert event.document not in in_hand
                in_hand.add(event.document)
            for event in events:
                told.setdefault(event.document, []).append(event.id)
                # Before it is ended: from then on, others may take the next.
                in_hand.discard(event.document)
                await taker.end_events([event.id])

    async def deliver_all(taker: Store) -> None:
        while busy:
            await deliver(taker)
            await asyncio.sleep(0)
        await deliver(taker)

    takers = [asyncio.create_task(deliver_all(taker)) for taker in (store, other, store)]
    await asyncio.gather(*map(write, writers))
    busy = False
    await asyncio.gather(*takers)
    await deliver(store)
    assert await waiting(store) == []
    assert list(await store.check()) == []
    ids = [id for each in told.values() for id in each]
    assert len(ids) == len(set(ids))
    # What is posted by several at once is in no order.
    assert all(told[name] == sorted(told[name]) for name in names)
    assert sum(len(ids) for name, ids in told.items() if name.startswith("posted")) == 40


async def test_who_is_told_of_a_change_can_read_it(opener: Opener) -> None:
    """An event that is taken during an append must not stand for it."""
    opener.busy_seconds = 30.0
    writer, reader = await opener.open(["changed"]), await opener.open()
    seen = 0
    busy = True

    async def follow() -> None:
        nonlocal seen
        for event in await take(reader):
            seen = (await reader.load("a")).seq
            await reader.end_events([event.id])

    async def follow_all() -> None:
        while busy:
            await follow()
            await asyncio.sleep(0)

    following = asyncio.create_task(follow_all())
    for _ in range(100):
        last = (await writer.append([Update("a", b"x")]))[0]
        await asyncio.sleep(0)
    busy = False
    await following
    await follow()
    assert seen == last


# Bounds and copies


async def test_the_oldest_that_nobody_has_in_hand_are_dropped(
    opener: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    store = await opener.open(outbox_max=5)
    await store.post(posted("a", "b", "a", "c", "a"))
    [held] = await take(store, limit=1)
    with caplog.at_level(logging.WARNING):
        await store.post(posted("d", "e"))
    assert "events dropped: 1" in caplog.text
    # Above the limit by the one that is held.
    assert "".join(event.document for event in await store.events()) == "aacade"
    await store.end_events([held.id])
    assert "".join(event.document for event in await take(store)) == "acde"
    assert list(await store.check()) == []


async def test_appends_are_bounded_as_well(opener: Opener) -> None:
    store = await opener.open(["created"], outbox_max=3)
    for name in "abcdef":
        await store.append([Update(name, b"x")])
    assert "".join(event.document for event in await store.events()) == "def"


async def test_the_outbox_is_looked_at_rarely_and_first_after_the_start(opener: Opener) -> None:
    store = await opener.open()
    await store.post(posted(*"abcdefgh") * 100)
    again = await opener.open(outbox_max=500)
    await again.post(posted("i"))
    assert await again.event_counts() == (500, 5)
    for _ in range(4):
        await again.post(posted("i"))
    assert (await again.event_counts())[0] == 504
    await again.post(posted("i"))
    assert (await again.event_counts())[0] == 500
    assert list(await again.check()) == []


async def test_events_are_carried_by_backups_and_copies(announcing: Store, tmp_path: Path) -> None:
    await announcing.append([Update("a", b"1")])
    [held] = await take(announcing)
    await announcing.put_back_event(held.id, 10**6)
    await announcing.post(posted("b") * 1200)
    expected = [(e.document, e.kind, e.at_ms, e.data) for e in await announcing.events(limit=2000)]
    await announcing.backup(tmp_path / "backup.db")
    copy = MemoryStore()
    async with Archive(tmp_path / "backup.db") as archive:
        assert list(await archive.check()) == []
        await copy_store(archive, copy)
        assert await differences(archive, copy) == []
    events = await copy.events(limit=2000)
    assert [(e.document, e.kind, e.at_ms, e.data) for e in events] == expected
    assert events[0].attempts == 1
    await copy.take_events(10**6, lease_ms=1)
    await copy.end_events([events[0].id])
    assert await differences(announcing, copy) == ["Of what the outbox has, 1 are missing."]


async def test_the_oldest_is_found_behind_many_of_one_document(store: Store) -> None:
    await store.post([Event("a", "connected", n) for n in range(10_050)])
    [held] = await take(store)
    await store.post([Event("b", "connected", 0)])
    assert outline(await take(store)) == [("b", "connected")]
    assert held.document == "a"
