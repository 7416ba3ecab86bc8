"""Records that nodes share, in every store."""

import asyncio
from pathlib import Path

import pytest

from plait.persistence import Record, RecordChanges, Store, StoreError
from plait.persistence.archive import Archive
from plait.persistence.memory import MemoryStore
from plait.persistence.transfer import copy_store, differences
from tests.persistence.conftest import Opener

DAY = 24 * 3600


def record(id: str, value: str = "{}", kind: str = "key", at_ms: int = 0) -> Record:
    return Record(kind, id, value, at_ms)


def without_numbers(changes: RecordChanges) -> tuple[list[tuple[str, str, str]], list[str]]:
    told = [(each.kind, each.id, each.value) for each in changes.records]
    return told, [id for _, id in changes.removed]


async def test_what_is_put_is_found_by_others(store: Store, other: Store) -> None:
    assert await store.put_record(Record("key", "a", '{"x": 1}', 5, 9))
    found = await other.record("key", "a")
    assert found is not None
    assert found == Record("key", "a", '{"x": 1}', 5, 9, found.seq)
    assert found.seq > 0
    assert await other.record("key", "b") is None
    assert await other.record("other", "a") is None


async def test_a_record_takes_the_place_of_another(store: Store) -> None:
    await store.put_record(record("a", "1"))
    await store.put_record(record("a", "2"))
    assert [each.value for each in await store.records("key")] == ["2"]


@pytest.mark.parametrize("text", ["", "a\0b", "'; DROP TABLE records; --", "%_", "🦊"])
async def test_any_text_works(store: Store, text: str) -> None:
    await store.put_record(Record(text, text, text, 0))
    found = await store.record(text, text)
    assert found is not None and (found.kind, found.id, found.value) == (text, text, text)
    assert await store.remove_record(text, text)
    changes = await store.records_since(1)
    assert changes.removed == ((text, text),)


async def test_what_is_not_text_is_refused(store: Store) -> None:
    with pytest.raises((StoreError, UnicodeEncodeError)):
        await store.put_record(record("\ud800"))
    assert list(await store.records("key")) == []


async def test_new_is_put_once(store: Store, other: Store) -> None:
    assert await store.put_record(record("a", "1"), new=True)
    assert not await other.put_record(record("a", "2"), new=True)
    changes = await store.records_since(0)
    assert [each.value for each in changes.records] == ["1"]
    assert await store.remove_record("key", "a")
    assert await other.put_record(record("a", "3"), new=True)


async def test_of_many_that_put_something_new_one_does(opener: Opener) -> None:
    opener.busy_seconds = 30.0
    store, other = await opener.open(), await opener.open()
    puts = [s.put_record(record("a", str(n)), new=True) for n, s in enumerate([store, other] * 5)]
    assert sorted(await asyncio.gather(*puts)) == [False] * 9 + [True]


async def test_one_that_has_stopped_to_count_is_there_and_makes_room(store: Store) -> None:
    await store.put_record(Record("key", "a", "old", 0, until_ms=10))
    assert not await store.put_record(Record("key", "a", "new", 9), new=True)
    found = await store.record("key", "a")
    assert found is not None and found.value == "old"
    assert await store.put_record(Record("key", "a", "new", 10), new=True)


async def test_removing_tells_whether_there_was_one(store: Store, other: Store) -> None:
    await store.put_record(record("a"))
    assert await other.remove_record("key", "a")
    assert not await store.remove_record("key", "a")
    assert not await store.remove_record("key", "b")
    assert await store.record("key", "a") is None
    assert list(await store.records("key")) == []


async def test_records_are_listed_by_id_in_pages(store: Store) -> None:
    ids = ["🦊", "b", "a", "\uffff", "B", "c"]
    for id in ids:
        await store.put_record(record(id))
    await store.put_record(record("a2", kind="revocation"))
    await store.remove_record("key", "c")
    expected = sorted(set(ids) - {"c"}, key=str.encode)
    first = await store.records("key", limit=3)
    rest = await store.records("key", after=first[-1].id, limit=3)
    assert [each.id for each in (*first, *rest)] == expected


# Changes


async def test_changes_tell_what_was_put_and_removed_since(store: Store, other: Store) -> None:
    await store.put_record(record("a", "1"))
    await store.put_record(record("b", "1"))
    first = await other.records_since(0)
    assert without_numbers(first) == ([("key", "a", "1"), ("key", "b", "1")], [])
    assert first.whole
    await store.put_record(record("a", "2"))
    await store.remove_record("key", "b")
    second = await other.records_since(first.seq)
    assert without_numbers(second) == ([("key", "a", "2")], ["b"])
    assert not second.whole
    third = await other.records_since(second.seq)
    assert third == RecordChanges(second.seq)


async def test_what_was_removed_and_put_again_is_told_as_put(store: Store) -> None:
    await store.put_record(record("a", "1"))
    seq = (await store.records_since(0)).seq
    await store.remove_record("key", "a")
    await store.put_record(record("a", "2"))
    assert without_numbers(await store.records_since(seq)) == ([("key", "a", "2")], [])


async def test_from_nothing_removals_are_not_told(store: Store) -> None:
    await store.put_record(record("a"))
    await store.remove_record("key", "a")
    changes = await store.records_since(0)
    assert without_numbers(changes) == ([], [])
    assert changes.seq > 0


async def test_removals_are_remembered_for_a_day_and_then_all_is_told(
    opener: Opener, store: Store, other: Store
) -> None:
    await store.put_record(record("a"))
    await store.put_record(record("b"))
    seq = (await other.records_since(0)).seq
    await store.remove_record("key", "a")
    later = (await other.records_since(seq)).seq
    opener.seconds = DAY
    await store.put_record(record("c"))
    assert without_numbers(await other.records_since(seq))[1] == ["a"]
    opener.seconds = DAY + 1
    await store.put_record(record("d"))
    changes = await other.records_since(seq)
    assert changes.whole
    assert [each.id for each in changes.records] == ["b", "c", "d"]
    # Who has read of the removal needs no more than what came after it.
    changes = await other.records_since(later)
    assert not changes.whole
    assert [each.id for each in changes.records] == ["c", "d"]


async def test_a_number_is_not_used_again_after_its_record_is_forgotten(
    opener: Opener, store: Store
) -> None:
    await store.put_record(record("a"))
    await store.remove_record("key", "a")
    seq = (await store.records_since(0)).seq
    opener.seconds = 2 * DAY
    await store.put_record(record("b"))
    assert [each.seq > seq for each in await store.records("key")] == [True]


async def test_what_has_stopped_to_count_is_forgotten_a_day_later(
    opener: Opener, store: Store
) -> None:
    opener.seconds = 10 * DAY
    await store.put_record(Record("key", "a", "", 0, until_ms=5_000))
    await store.put_record(Record("key", "b", "", 0, until_ms=None))
    for at_ms, there in ((DAY * 1000 + 4_999, ["a", "b", "c"]), (DAY * 1000 + 5_000, ["b", "c"])):
        await store.put_record(record("c", at_ms=at_ms))
        assert [each.id for each in await store.records("key")] == there


async def test_a_clock_that_is_ahead_makes_nothing_be_forgotten_early(
    opener: Opener, store: Store
) -> None:
    opener.seconds = 1.0
    await store.put_record(Record("key", "a", "", 0, until_ms=5_000))
    await store.put_record(record("b", at_ms=30 * DAY * 1000))
    assert [each.id for each in await store.records("key")] == ["a", "b"]


async def test_who_asks_from_a_number_that_was_never_given_out_is_told_all(store: Store) -> None:
    """As after a store was restored from a backup."""
    await store.put_record(record("a"))
    changes = await store.records_since(1000)
    assert changes.whole and [each.id for each in changes.records] == ["a"]
    assert changes.seq < 1000


async def test_readers_miss_nothing_that_several_write_at_once(opener: Opener) -> None:
    opener.busy_seconds = 30.0
    store, other = await opener.open(), await opener.open()
    known: dict[str, str] = {}
    seq, busy = 0, True

    async def write(writer: Store, name: str) -> None:
        for n in range(25):
            await writer.put_record(record(f"{name}{n}", name))
            if n % 3 == 0:
                await writer.remove_record("key", f"{name}{n}")
            await asyncio.sleep(0)

    async def read() -> None:
        nonlocal seq
        changes = await other.records_since(seq)
        assert changes.seq >= seq
        assert all(seq < each.seq <= changes.seq for each in changes.records)
        known.update((each.id, each.value) for each in changes.records)
        for _, id in changes.removed:
            known.pop(id, None)
        seq = changes.seq

    async def follow() -> None:
        while busy:
            await read()
            await asyncio.sleep(0)

    following = asyncio.create_task(follow())
    await asyncio.gather(
        *(write(s, name) for s, name in zip([store, other] * 2, "abcd", strict=True))
    )
    busy = False
    await following
    await read()
    assert known == {f"{name}{n}": name for name in "abcd" for n in range(25) if n % 3}


# Copies


async def test_records_are_carried_by_backups_and_copies(store: Store, tmp_path: Path) -> None:
    await store.put_record(Record("key", "a", "1", 5, 9))
    await store.put_record(record("b"))
    await store.remove_record("key", "b")
    await store.backup(tmp_path / "backup.db")
    copy = MemoryStore()
    async with Archive(tmp_path / "backup.db") as archive:
        assert list(await archive.check()) == []
        await copy_store(archive, copy)
        assert await differences(archive, copy) == []
    assert [(r.kind, r.id, r.value, r.at_ms, r.until_ms) for r in await copy.records("key")] == [
        ("key", "a", "1", 5, 9)
    ]


async def test_a_copy_leaves_later_records_and_tells_of_missing_ones(store: Store) -> None:
    source = MemoryStore()
    await source.put_record(record("a", "old", at_ms=1))
    await source.put_record(record("b", "new", at_ms=3))
    assert await differences(source, store) == [
        "The record 'a' (key) is missing.",
        "The record 'b' (key) is missing.",
    ]
    await store.put_record(record("a", "kept", at_ms=2))
    await store.put_record(record("b", "replaced", at_ms=2))
    await copy_store(source, store)
    assert [each.value for each in await store.records("key")] == ["kept", "new"]
    assert await differences(source, store) == []
    assert list(await store.check()) == []
