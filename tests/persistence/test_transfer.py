"""Copies from store to store, and what tells whether they are whole."""

from plait.persistence import Segment, Snapshot, Store, Update
from plait.persistence.memory import MemoryStore
from plait.persistence.transfer import ROWS_A_PAGE, copy_store, differences


async def texts(store: Store, name: str) -> list[bytes]:
    return [row.update for row in await store.log(name, limit=100_000)]


async def test_a_log_of_several_pages_is_copied_with_its_snapshot(store: Store) -> None:
    source = MemoryStore()
    count = 2 * ROWS_A_PAGE + 7
    for upto in (1, ROWS_A_PAGE, ROWS_A_PAGE + 1, count - 8, count):
        name = f"upto {upto}"
        seqs = await source.append([Update(name, b"%d" % n, "ann", n) for n in range(count)])
        await source.compact(name, Snapshot(seqs[upto - 1], (b"%d" % upto,)))
    assert await copy_store(source, store) == 5
    for info in await source.documents():
        old, new = await source.load(info.name), await store.load(info.name)
        assert new.snapshot is not None and old.snapshot is not None
        assert new.snapshot.slices == old.snapshot.slices
        assert [row.update for row in new.updates] == [row.update for row in old.updates]
        assert await texts(store, info.name) == await texts(source, info.name)
    assert list(await store.documents()) == list(await source.documents())
    assert await differences(source, store) == []
    assert list(await store.check()) == []


async def test_progress_knows_how_much_there_is(store: Store) -> None:
    await store.append([Update(name, b"x") for name in "abcd"])
    await store.delete("b", 1)
    told: list[tuple[str, int, int]] = []
    assert await copy_store(store, MemoryStore(), lambda *each: told.append(each)) == 4
    assert told == [("documents copied", done, 4) for done in (1, 2, 3, 4)]


async def test_every_difference_is_told() -> None:
    one, two = MemoryStore(), MemoryStore()
    for store in (one, two):
        for name in ("same", "rows", "size", "deleted", "snapshot"):
            seqs = await store.append([Update(name, b"1"), Update(name, b"2")])
    await one.append([Update("missing", b"x"), Update("rows", b"")])
    await two.append([Update("more", b"x")])
    await one.delete("deleted", 5)
    await one.compact("snapshot", Snapshot(seqs[0], (b"s",)))
    sized = (await one.load("size")).seq
    segment = Segment(sized - 1, sized - 1, b"longer")
    assert await one.compact("size", Snapshot(sized, (b"s",)), segment)
    found = " ".join(await differences(one, two))
    for name in ("rows", "size", "deleted", "snapshot", "missing", "more"):
        assert repr(name) in found
    assert "'same'" not in found
