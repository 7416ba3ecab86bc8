"""What every store promises of all that is in it: lists, backups, checks, identity."""

import asyncio
import os
from pathlib import Path

import pytest

from plait.persistence import (
    DocumentDeleted,
    DocumentInfo,
    Segment,
    Snapshot,
    Store,
    StoreError,
    open_store,
)
from plait.persistence.memory import MemoryStore
from tests.support.updates import contents, fill, update

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


# Identity


async def test_objects_with_the_same_content_have_one_identity(store: Store, other: Store) -> None:
    """Two clusters that share a Redis by mistake must not mix their documents."""
    assert await store.identity() == await other.identity()
    another = MemoryStore()
    assert await store.identity() != await another.identity()
