"""What every store promises of snapshots, and of rows that are folded into one."""

import pytest

from plait.persistence import Segment, Snapshot, Store
from tests.support.updates import contents, fill, update

# Snapshots


async def test_a_snapshot_is_loaded_with_what_came_after(store: Store) -> None:
    seqs = await fill(store, "a", 5)
    snapshot = Snapshot(
        seqs[2], (b"one", b"two", b""), 77, types=3, lossy=True, astral=True, places=b"\x00\xff"
    )
    assert await store.compact("a", snapshot)
    stored = await store.load("a")
    assert stored.snapshot == snapshot
    assert [row.seq for row in stored.updates] == seqs[3:]
    assert stored.seq == seqs[-1]
    assert await contents(store, "a") == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_snapshot_of_everything_leaves_nothing_to_replay(store: Store) -> None:
    seqs = await fill(store, "a", 2)
    assert await store.compact("a", Snapshot(seqs[-1], (b"s",)))
    stored = await store.load("a")
    assert stored.updates == ()
    assert stored.exists
    assert stored.seq == seqs[-1]


async def test_a_late_snapshot_never_replaces_a_newer_one(store: Store) -> None:
    seqs = await fill(store, "a", 5)
    newer = Snapshot(seqs[3], (b"newer",))
    assert await store.compact("a", newer)
    assert not await store.compact("a", Snapshot(seqs[1], (b"older",)))
    assert not await store.compact("a", Snapshot(seqs[3], (b"as old",)))
    assert (await store.load("a")).snapshot == newer
    assert await store.compact("a", Snapshot(seqs[4], (b"newest", b"!")))
    stored = await store.load("a")
    assert stored.snapshot == Snapshot(seqs[4], (b"newest", b"!"))


@pytest.mark.parametrize("beyond", [1, 1000])
async def test_a_snapshot_beyond_the_log_is_refused(store: Store, beyond: int) -> None:
    """It would hide updates that are appended later, as after a restored backup."""
    seqs = await fill(store, "a", 2)
    assert not await store.compact("a", Snapshot(seqs[-1] + beyond, (b"s",)))
    await store.append([update("a", "later")])
    assert (await store.load("a")).updates[-1].update == b"later"


async def test_a_snapshot_that_ends_at_another_documents_row_is_refused(store: Store) -> None:
    seqs = await store.append([update("a", "1"), update("b", "1"), update("a", "2")])
    assert not await store.compact("a", Snapshot(seqs[1], (b"s",)))
    assert (await store.load("a")).snapshot is None


async def test_documents_that_are_gone_are_not_compacted(store: Store) -> None:
    seqs = await fill(store, "a", 2)
    assert not await store.compact("nobody", Snapshot(seqs[-1], (b"s",)))
    await store.delete("a", 1)
    assert not await store.compact("a", Snapshot(seqs[-1], (b"s",)))
    await store.undelete("a")
    assert (await store.load("a")).snapshot is None


async def test_what_stands_for_nothing_is_refused(store: Store) -> None:
    seqs = await fill(store, "a", 2)
    with pytest.raises(ValueError):
        await store.compact("a", Snapshot(seqs[-1], ()))
    with pytest.raises(ValueError):
        await store.compact("a", Snapshot(seqs[-1], (b"s",)), Segment(seqs[0], seqs[1], b""))
    assert await contents(store, "a") == [b"0", b"1"]


# Folding


async def test_a_segment_takes_the_place_of_its_rows(store: Store) -> None:
    await store.append([update("b", "between")])
    seqs = await fill(store, "a", 6)
    snapshot = Snapshot(seqs[4], (b"s",))
    assert await store.compact("a", snapshot, Segment(seqs[1], seqs[3], b"123"))
    rows = await store.log("a")
    assert [(row.seq, row.update) for row in rows] == [
        (seqs[0], b"0"),
        (seqs[3], b"123"),
        (seqs[4], b"4"),
        (seqs[5], b"5"),
    ]
    assert (rows[1].who, rows[1].at_ms) == ("alice", 3)
    assert [row.update for row in (await store.load("a")).updates] == [b"5"]
    assert await contents(store, "b") == [b"between"]
    assert list(await store.check()) == []


async def test_a_segment_of_several_authors_has_none(store: Store) -> None:
    seqs = [*await fill(store, "a", 2, "alice"), *await fill(store, "a", 2, "bob")]
    assert await store.compact("a", Snapshot(seqs[-1], (b"s",)), Segment(seqs[0], seqs[-1], b"x"))
    assert [row.who for row in await store.log("a")] == [""]


async def test_rows_can_be_folded_under_the_snapshot_that_is_there(store: Store) -> None:
    seqs = await fill(store, "a", 4)
    snapshot = Snapshot(seqs[-1], (b"s",))
    assert await store.compact("a", snapshot)
    again = Snapshot(seqs[-1], (b"another",))
    assert await store.compact("a", again, Segment(seqs[0], seqs[1], b"01"))
    assert (await store.load("a")).snapshot == snapshot
    assert await contents(store, "a") == [b"01", b"2", b"3"]


async def test_folding_twice_does_it_once(store: Store) -> None:
    seqs = await fill(store, "a", 4)
    snapshot, segment = Snapshot(seqs[-1], (b"s",)), Segment(seqs[0], seqs[2], b"012")
    assert await store.compact("a", snapshot, segment)
    assert not await store.compact("a", snapshot, segment)
    assert await contents(store, "a") == [b"012", b"3"]


async def test_segments_can_be_folded_again(store: Store) -> None:
    seqs = await fill(store, "a", 5)
    snapshot = Snapshot(seqs[-1], (b"s",))
    assert await store.compact("a", snapshot, Segment(seqs[0], seqs[1], b"01"))
    assert await store.compact("a", snapshot, Segment(seqs[1], seqs[3], b"0123"))
    assert await contents(store, "a") == [b"0123", b"4"]


@pytest.mark.parametrize(("first", "last"), [(0, 5), (4, 5), (2, 1), (-1, 2), (0, 1000)], ids=str)
async def test_a_segment_of_rows_not_there_or_not_covered_changes_nothing(
    store: Store, first: int, last: int
) -> None:
    seqs = await fill(store, "a", 6)
    before = await store.load("a")
    segment = Segment(seqs[0] + first, seqs[0] + last, b"x")
    assert not await store.compact("a", Snapshot(seqs[4], (b"s",)), segment)
    assert await store.load("a") == before
    assert len(await store.log("a")) == 6


async def test_a_segment_that_ends_in_another_document_changes_nothing(store: Store) -> None:
    seqs = await store.append([update(name, name) for name in "abaab"])
    snapshot = Snapshot(seqs[3], (b"s",))
    assert not await store.compact("a", snapshot, Segment(seqs[0], seqs[1], b"x"))
    assert not await store.compact("a", snapshot, Segment(seqs[1], seqs[2], b"x"))
    assert await contents(store, "a") == [b"a", b"a", b"a"]
    assert await contents(store, "b") == [b"b", b"b"]
