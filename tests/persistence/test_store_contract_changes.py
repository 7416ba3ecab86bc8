"""What every store promises to who follows what others write."""

from plait.persistence import Changes, Segment, Snapshot, Store
from tests.support.updates import fill, update


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
