"""What every store promises, tried on every store."""

import asyncio
import os
from pathlib import Path

import pytest

from plait.persistence import (
    Changes,
    DocumentDeleted,
    DocumentInfo,
    Segment,
    Snapshot,
    Store,
    Stored,
    StoreError,
    Update,
    open_store,
)
from plait.persistence.memory import MemoryStore

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


def update(document: str, text: str, who: str = "", at_ms: int = 0) -> Update:
    return Update(document, text.encode(), who, at_ms)


async def fill(store: Store, document: str, count: int, who: str = "alice") -> list[int]:
    """Append updates `0`, `1`, … to a document, in one transaction."""
    updates = [update(document, str(i), who, at_ms=i) for i in range(count)]
    return list(await store.append(updates))


async def contents(store: Store, document: str) -> list[bytes]:
    return [row.update for row in await store.log(document)]


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


# Deletion


async def test_a_deleted_document_is_neither_loaded_nor_appended_to(store: Store) -> None:
    await fill(store, "a", 2)
    assert await store.delete("a", 99)
    with pytest.raises(DocumentDeleted) as loading:
        await store.load("a")
    with pytest.raises(DocumentDeleted) as appending:
        await store.append([update("b", "1"), update("a", "2")])
    assert loading.value.document == appending.value.document == "a"
    assert "undelete" in str(loading.value)
    # Nothing of the transaction remains.
    assert not (await store.load("b")).exists
    assert await store.info("b") is None
    info = await store.info("a")
    assert info is not None and info.deleted_ms == 99 and info.updates == 2


async def test_appends_go_on_after_one_was_refused(store: Store) -> None:
    await fill(store, "a", 1)
    await store.delete("a", 1)
    with pytest.raises(DocumentDeleted):
        await store.append([update("b", "lost"), update("a", "2")])
    await store.append([update("b", "kept")])
    assert await contents(store, "b") == [b"kept"]


async def test_deleting_by_another_is_noticed_at_once(store: Store, other: Store) -> None:
    await fill(store, "a", 2)
    await other.delete("a", 1)
    with pytest.raises(DocumentDeleted):
        await store.append([update("a", "2")])
    with pytest.raises(DocumentDeleted):
        await store.load("a")


async def test_a_name_purged_and_used_again_by_another_is_a_new_document(
    store: Store, other: Store
) -> None:
    await fill(store, "a", 3)
    await other.delete("a", 1)
    await other.purge(document="a")
    await other.append([update("x", "first"), update("a", "new")])
    await store.append([update("a", "newer")])
    assert await contents(store, "a") == [b"new", b"newer"]
    assert await contents(store, "x") == [b"first"]
    assert list(await store.check()) == []


async def test_what_builds_upon_a_document_that_another_purged_is_refused_once(
    store: Store, other: Store
) -> None:
    """Its content is gone. The memory store did not know of that rule, which the model found."""
    await fill(store, "a", 3)
    await other.delete("a", 1)
    await other.purge(document="a")
    with pytest.raises(DocumentDeleted):
        await store.append([update("x", "not this either"), update("a", "late")])
    assert await contents(store, "x") == []
    await store.append([update("a", "new")])
    assert await contents(store, "a") == [b"new"]


async def test_delete_and_undelete_tell_whether_they_did_something(store: Store) -> None:
    assert not await store.delete("a", 1)
    assert not await store.undelete("a")
    await fill(store, "a", 2)
    assert not await store.undelete("a")
    assert await store.delete("a", 1)
    assert not await store.delete("a", 2)
    assert await store.undelete("a")
    assert not await store.undelete("a")
    assert [row.update for row in (await store.load("a")).updates] == [b"0", b"1"]


async def test_the_log_of_a_deleted_document_can_be_read(store: Store) -> None:
    await fill(store, "a", 2)
    await store.delete("a", 1)
    assert await contents(store, "a") == [b"0", b"1"]


async def test_purge_forgets_what_was_deleted_before_a_time(store: Store) -> None:
    for number, name in enumerate(["live", "early", "late"]):
        await fill(store, name, 2)
        if number:
            await store.delete(name, number * 100)
    assert await store.purge(before_ms=200) == 1
    assert await store.info("early") is None
    assert await store.info("late") is not None
    assert await store.purge(document="live") == 0
    assert await store.purge(document="late", before_ms=200) == 0
    assert await store.purge(document="late") == 1
    assert [info.name for info in await store.documents()] == ["live"]
    assert list(await store.check()) == []


async def test_purge_refuses_to_guess_what_to_forget(store: Store) -> None:
    await fill(store, "a", 1)
    await store.delete("a", 1)
    with pytest.raises(ValueError):
        await store.purge()
    assert await store.undelete("a")


async def test_sequence_numbers_are_not_used_again_after_a_purge(store: Store) -> None:
    seqs = await fill(store, "a", 3)
    await store.delete("a", 1)
    await store.purge(document="a")
    assert (await fill(store, "a", 1))[0] == seqs[-1] + 1


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


# Changes


def texts(changes: Changes) -> list[bytes]:
    return [row.update for row in changes.updates]


async def follow(store: Store, cursors: dict[str, int]) -> list[bytes]:
    """Ask until there is no more, and move the cursors on."""
    found: list[bytes] = []
    while True:
        changes = await store.changes(cursors)
        assert all(seq > cursors[name] for name, seq in changes.seqs.items())
        cursors |= changes.seqs
        found += texts(changes)
        if not changes.more:
            return found


async def test_changes_begins_where_a_document_was_loaded(store: Store, other: Store) -> None:
    await store.append([update("a", "mine")])
    await other.append([update("a", "theirs")])
    seq = (await store.load("a")).seq
    assert await follow(store, {"a": seq}) == []
    await other.append([update("a", "new"), update("b", "not asked")])
    assert await follow(store, {"a": seq, "unknown": 0}) == [b"new"]


async def test_changes_returns_what_another_wrote(store: Store, other: Store) -> None:
    await store.append([update("a", "mine")])
    seqs = await other.append([update("a", "theirs"), update("b", "not asked")])
    own = await store.append([update("a", "mine again")])
    changes = await store.changes({"a": 0, "unknown": 0})
    assert [(row.seq, row.update) for row in changes.updates] == [(seqs[0], b"theirs")]
    assert changes.seqs["a"] >= own[0]
    assert not changes.more
    assert texts(await store.changes({"a": changes.seqs["a"]})) == []
    # Whoever asks from before is told again, even though nothing happened meanwhile.
    assert texts(await store.changes({"a": 0, "b": 0})) in (
        [b"theirs", b"not asked"],
        [b"not asked", b"theirs"],
    )


async def test_changes_finds_a_row_that_another_committed_before_ours(
    store: Store, other: Store
) -> None:
    start = (await fill(store, "a", 1))[0]
    cursors = {"a": start}
    assert await follow(store, cursors) == []
    theirs = await other.append([update("a", "a1")])
    mine = await store.append([update("a", "a2")])
    assert start < theirs[0] < mine[0]
    assert await follow(store, cursors) == [b"a1"]
    assert cursors["a"] >= mine[0]


async def test_changes_misses_nothing_of_a_document_that_was_loaded_before_a_question(
    store: Store, other: Store
) -> None:
    """A question about other documents waits for its turn while this one is loaded and another
    writer commits a row of it; only then it is answered. The first question about this document
    comes later than that answer, and has to find the row nevertheless.
    """
    await fill(store, "open", 1)
    await fill(other, "late", 1)
    cursors = {"open": 0}
    await follow(store, cursors)
    loaded = (await store.load("late")).seq
    await other.append([update("open", "seen"), update("late", "between")])
    assert await follow(store, cursors) == [b"seen"]
    await store.append([update("open", "mine")])
    await other.append([update("open", "seen too")])
    assert await follow(store, cursors) == [b"seen too"]
    cursors["late"] = loaded
    assert await follow(store, cursors) == [b"between"]
    assert await follow(store, cursors) == []


async def test_changes_may_ask_about_some_documents_only(store: Store, other: Store) -> None:
    cursors = {"a": 0, "b": 0}
    await follow(store, cursors)
    await other.append([update("a", "a1"), update("b", "b1")])
    only_a = {"a": cursors["a"]}
    assert await follow(store, only_a) == [b"a1"]
    await store.append([update("b", "mine")])
    assert await follow(store, cursors | only_a) == [b"b1"]


async def test_changes_gives_each_document_its_own_order(store: Store, other: Store) -> None:
    names = ["a", "b", "c"]
    for number in range(5):
        await other.append([update(name, f"{number}") for name in reversed(names)])
    changes = await store.changes(dict.fromkeys(names, 0))
    for name in names:
        rows = [row for row in changes.updates if row.document == name]
        assert [row.update for row in rows] == [b"0", b"1", b"2", b"3", b"4"]
        assert sorted(row.seq for row in rows) == [row.seq for row in rows]
        after = rows[2].seq
        assert texts(await store.changes({name: after})) == [b"3", b"4"]


async def test_changes_tells_nothing_while_only_this_store_writes(store: Store) -> None:
    cursors = {"a": 0}
    for _ in range(3):
        seqs = await fill(store, "a", 4)
        assert await follow(store, cursors) == []
        assert cursors["a"] >= seqs[-1]


async def test_changes_sees_each_of_many_writes_once(store: Store, other: Store) -> None:
    cursors = {"a": 0}
    seen = []
    for number in range(10):
        await (other if number % 2 else store).append([update("a", str(number))])
        if number % 3 == 0:
            seen += await follow(store, cursors)
    seen += await follow(store, cursors)
    assert seen == [b"1", b"3", b"5", b"7", b"9"]


async def test_changes_tells_which_documents_are_deleted_at_present(
    store: Store, other: Store
) -> None:
    cursors = {name: (await fill(store, name, 1))[0] for name in "abc"}
    assert (await store.changes(cursors)).deleted == ()
    await other.delete("b", 1)
    assert (await store.changes(cursors)).deleted == ("b",)
    await store.delete("c", 1)
    assert set((await store.changes(cursors)).deleted) == {"b", "c"}
    assert (await store.changes({"c": cursors["c"]})).deleted == ("c",)
    await other.undelete("b")
    await store.undelete("c")
    assert (await store.changes(cursors)).deleted == ()


async def test_a_document_that_came_back_after_a_purge_is_followed(
    store: Store, other: Store
) -> None:
    await fill(other, "a", 3)
    cursors = {"a": (await store.load("a")).seq}
    await follow(store, cursors)
    await other.delete("a", 1)
    await other.purge(document="a")
    assert await follow(store, cursors) == []
    await other.append([update("a", "again")])
    assert await follow(store, cursors) == [b"again"]


async def test_a_row_of_ours_that_another_folded_is_told(store: Store, other: Store) -> None:
    """It may hold rows of others that were not read before they were folded."""
    theirs = await other.append([update("a", "theirs")])
    mine = await store.append([update("a", "mine")])
    assert await other.compact(
        "a", Snapshot(mine[0], (b"s",)), Segment(theirs[0], mine[0], b"both")
    )
    assert texts(await store.changes({"a": 0})) == [b"both"]


# Listing


async def test_documents_are_listed_by_the_bytes_of_their_names(store: Store) -> None:
    names = ["b", "a", "B", "é", "z", "日", "🦊", "\uffff", "a/1", "a0"]
    await store.append([update(name, "x") for name in names])
    listed = [info.name for info in await store.documents()]
    assert listed == sorted(names, key=lambda name: name.encode())


async def test_a_listing_is_paged_and_filtered_by_prefix(store: Store) -> None:
    names = [f"team/{i:02}" for i in range(10)] + ["tea", "team", "team0", "u"]
    await store.append([update(name, "x") for name in names])
    found: list[str] = []
    while page := await store.documents(prefix="team/", after=found[-1] if found else "", limit=4):
        assert len(page) <= 4
        found += [info.name for info in page]
    assert found == names[:10]
    page = await store.documents(prefix="team/", after="team/07")
    assert [info.name for info in page] == ["team/08", "team/09"]
    assert [info.name for info in await store.documents(after="team/09")] == ["team0", "u"]


async def test_a_prefix_may_end_at_the_end_of_unicode(store: Store) -> None:
    names = ["\U0010ffff", "\U0010ffffx", "\ud7ff", "\ud7ffx", "\ue000"]
    await store.append([update(name, "x") for name in names])
    assert [i.name for i in await store.documents(prefix="\U0010ffff")] == names[:2]
    assert [i.name for i in await store.documents(prefix="\ud7ff")] == names[2:4]


async def test_deleted_documents_are_listed_apart(store: Store) -> None:
    for name in ["a", "b", "c"]:
        await fill(store, name, 1)
    await store.delete("b", 5)
    assert [info.name for info in await store.documents()] == ["a", "c"]
    assert [(i.name, i.deleted_ms) for i in await store.documents(deleted=True)] == [("b", 5)]


async def test_info_counts_what_is_there(store: Store) -> None:
    await store.append([update("a", "four", at_ms=50), update("a", "two", at_ms=40)])
    seqs = await store.append([update("a", "1", at_ms=60)])
    expected = DocumentInfo("a", 50, 60, 3, 8, 0, 3, 8)
    assert await store.info("a") == expected
    assert list(await store.documents()) == [expected]
    segment = Segment(seqs[0] - 2, seqs[0] - 1, b"fourtwo!")
    await store.compact("a", Snapshot(seqs[0] - 1, (b"slice", b"s")), segment)
    assert await store.info("a") == DocumentInfo("a", 50, 60, 2, 9, 6, 1, 1)
    await store.append([update("a", "22", at_ms=70)])
    assert await store.info("a") == DocumentInfo("a", 50, 70, 3, 11, 6, 2, 3)


# Backup and check


async def test_a_backup_holds_everything(store: Store, tmp_path: Path) -> None:
    seqs = await fill(store, "a", 5)
    await fill(store, "🦊", 1)
    await fill(store, "gone", 2)
    await store.compact("a", Snapshot(seqs[2], (b"one", b"two"), types=4))
    await store.delete("gone", 9)
    target = tmp_path / "copy.db"
    seen: list[tuple[str, int, int]] = []
    await store.backup(target, lambda what, done, total: seen.append((what, done, total)))
    await asyncio.sleep(0)
    assert seen and seen[-1][1] == seen[-1][2]
    copy = open_store(f"sqlite:///{target}")
    await copy.open()
    try:
        stored = await copy.load("a")
        assert stored.snapshot is not None
        assert stored.snapshot.slices == (b"one", b"two")
        assert stored.snapshot.types == 4
        assert [row.update for row in stored.updates] == [b"3", b"4"]
        assert await contents(copy, "a") == await contents(store, "a")
        assert list(await copy.documents()) == list(await store.documents())
        assert await contents(copy, "gone") == [b"0", b"1"]
        with pytest.raises(DocumentDeleted):
            await copy.load("gone")
        assert list(await copy.check()) == []
    finally:
        await copy.close()


async def test_a_backup_never_replaces_a_file(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "precious.db"
    target.write_bytes(b"precious")
    with pytest.raises(StoreError, match="another name"):
        await store.backup(target)
    assert target.read_bytes() == b"precious"


async def test_a_backup_into_no_folder_says_so_and_leaves_nothing(
    store: Store, tmp_path: Path
) -> None:
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(StoreError, match="folder"):
        await store.backup(tmp_path / "missing" / "copy.db")
    assert sorted(os.listdir(tmp_path)) == before


async def test_a_whole_store_passes_its_check(store: Store) -> None:
    seqs = await fill(store, "a", 4)
    await store.compact("a", Snapshot(seqs[2], (b"s", b"t")), Segment(seqs[0], seqs[1], b"01"))
    await fill(store, "b", 1)
    await store.delete("b", 1)
    assert list(await store.check()) == []


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


# Identity


async def test_objects_with_the_same_content_have_one_identity(store: Store, other: Store) -> None:
    """Two clusters that share a Redis by mistake must not mix their documents."""
    assert await store.identity() == await other.identity()
    another = MemoryStore()
    assert await store.identity() != await another.identity()
