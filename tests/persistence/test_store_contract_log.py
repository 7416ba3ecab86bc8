"""What every store promises of appending, loading and its log, tried on every store."""

import asyncio

import pytest

from plait.persistence import Store, Stored, StoreError, Update
from tests.support.updates import contents, fill, update

NAMES = [
    "plain",
    "with space",
    "ünï/çödé",
    "日本語",
    "🦊",
    "a\0b",
    "'; DROP TABLE updates; --",
    "%_",
]


# Append and load


async def test_what_is_appended_is_loaded_in_order(store: Store) -> None:
    seqs = await store.append([update("a", "1", "alice", 10), update("a", "2", "bob", 5)])
    stored = await store.load("a")
    assert [(r.seq, r.document, r.update, r.who, r.at_ms) for r in stored.updates] == [
        (seqs[0], "a", b"1", "alice", 10),
        (seqs[1], "a", b"2", "bob", 5),
    ]
    assert stored.exists
    assert stored.seq == seqs[1]
    assert stored.snapshot is None


async def test_an_unknown_document_is_empty(store: Store) -> None:
    stored = await store.load("nobody")
    assert stored == Stored("nobody")
    assert not stored.exists
    assert stored.seq == 0
    assert await store.log("nobody") in ([], ())
    assert await store.info("nobody") is None


async def test_sequence_numbers_are_consecutive_and_grow(store: Store) -> None:
    first = await store.append([update(name, "x") for name in "abc"])
    second = await store.append([update(name, "y") for name in "cab"])
    assert [*first, *second] == list(range(first[0], first[0] + 6))
    assert first[0] > 0


async def test_appending_nothing_does_nothing(store: Store) -> None:
    assert list(await store.append([])) == []
    assert await store.documents() == []


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_works(store: Store, name: str) -> None:
    await store.append([update("other", "no"), update(name, "yes")])
    assert [row.update for row in (await store.load(name)).updates] == [b"yes"]
    assert await contents(store, name) == [b"yes"]
    info = await store.info(name)
    assert info is not None and info.name == name
    assert [info.name for info in await store.documents(prefix=name)] == [name]
    assert await store.delete(name, 1)
    assert await store.purge(document=name) == 1


async def test_empty_updates_and_large_ones_come_back_whole(store: Store) -> None:
    large = bytes(range(256)) * 20_000
    await store.append([Update("a", b""), Update("a", large)])
    assert [row.update for row in (await store.load("a")).updates] == [b"", large]


async def test_concurrent_appends_all_arrive(store: Store, other: Store) -> None:
    results = await asyncio.gather(
        *(
            s.append([update("a", f"{n}-{i}") for i in range(5)])
            for n, s in enumerate([store, other] * 5)
        )
    )
    seqs = [list(seqs) for seqs in results]
    assert all(run == list(range(run[0], run[0] + 5)) for run in seqs)
    assert sorted(seq for run in seqs for seq in run) == list(range(1, 51))
    by_seq = {row.seq: row.update for row in await store.log("a")}
    for n, run in enumerate(seqs):
        assert [by_seq[seq] for seq in run] == [f"{n}-{i}".encode() for i in range(5)]


async def test_a_name_that_is_not_text_is_refused_and_nothing_is_appended(store: Store) -> None:
    with pytest.raises((StoreError, UnicodeEncodeError)):
        await store.append([update("a", "1"), update("\ud800", "2")])
    assert not (await store.load("a")).exists


async def test_ping_returns_and_changes_nothing(store: Store) -> None:
    await fill(store, "a", 2)
    before = await store.load("a")
    await store.ping()
    assert await store.load("a") == before


# The log


async def test_the_log_is_paged(store: Store) -> None:
    seqs = await fill(store, "a", 7)
    await fill(store, "b", 3)
    page = await store.log("a", limit=3)
    assert [row.seq for row in page] == seqs[:3]
    page = await store.log("a", after=page[-1].seq, limit=3)
    assert [row.seq for row in page] == seqs[3:6]
    page = await store.log("a", after=page[-1].seq, limit=3)
    assert [row.seq for row in page] == seqs[6:]
    assert list(await store.log("a", after=seqs[-1])) == []


async def test_a_cancelled_append_is_whole_or_nothing_and_the_store_goes_on(store: Store) -> None:
    tasks = [asyncio.ensure_future(fill(store, f"d{n}", 3)) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for n in range(20):
        count = len((await store.load(f"d{n}")).updates)
        assert count in ((0, 3) if n % 2 == 0 else (3,))
    await fill(store, "after", 1)
    assert list(await store.check()) == []
