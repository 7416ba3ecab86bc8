"""Compaction in the background: what it does, and that it can always be refused."""

import pytest

from plait.persistence import CompactionPolicy, Segment, Snapshot, Update
from plait.persistence.memory import MemoryStore
from plait.server import compaction
from plait.server.compaction import Compactor
from plait.server.errors import UpdateRefused
from plait.server.folding import read
from plait.server.limits import Limits
from tests.support.authors import Author, text_of

DAY_MS = 24 * 60 * 60 * 1000
NOW_MS = 1000 * DAY_MS


def compactor(store: MemoryStore, **policy: float) -> Compactor:
    chosen = CompactionPolicy(
        tail_updates_max=10,
        segment_rows_min=4,
        **policy,  # type: ignore[arg-type]
    )
    return Compactor(store, chosen, Limits(), lambda: NOW_MS)


async def typed(store: MemoryStore, words: int, at_ms: int = NOW_MS) -> str:
    author = Author(1)
    for number in range(words):
        await store.append([Update("a", author.type(f"{number} "), "ann", at_ms)])
    return str(author.text)


async def text_in(store: MemoryStore) -> str:
    document, waiting = read(await store.load("a"), Limits())
    assert not waiting
    return text_of(document.encode())


async def test_a_long_tail_becomes_a_snapshot_and_the_log_stays() -> None:
    store = MemoryStore()
    text = await typed(store, 50)
    assert await compactor(store).compact("a")
    stored = await store.load("a")
    assert stored.snapshot is not None and stored.updates == ()
    assert len(await store.log("a")) == 50
    assert await text_in(store) == text
    assert not await compactor(store).compact("a"), "there is nothing left to do"


async def test_a_short_tail_is_left_alone_unless_forced() -> None:
    store = MemoryStore()
    text = await typed(store, 5)
    assert not await compactor(store).compact("a")
    assert await compactor(store).compact("a", force=True)
    assert await text_in(store) == text


async def test_old_rows_are_folded_and_hold_what_they_held() -> None:
    store = MemoryStore()
    text = await typed(store, 50, NOW_MS - 40 * DAY_MS)
    assert await compactor(store).compact("a")
    log = await store.log("a")
    assert len(log) < 50 and log[-1].who == "ann"
    assert await text_in(store) == text
    replayed = Author(2)
    for row in log:
        replayed.hear(row.update)
    assert str(replayed.text) == text


async def test_young_rows_are_not_folded() -> None:
    store = MemoryStore()
    await typed(store, 50, NOW_MS - 20 * DAY_MS)
    await compactor(store).compact("a")
    assert len(await store.log("a")) == 50


async def test_large_documents_are_folded_in_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compaction, "APART_BYTES", 0)
    store = MemoryStore()
    text = await typed(store, 50, NOW_MS - 40 * DAY_MS)
    assert await compactor(store).compact("a")
    assert await text_in(store) == text


async def test_what_cannot_be_read_stays_as_it_is() -> None:
    store = MemoryStore()
    await typed(store, 20)
    await store.append([Update("a", b"\xff")])
    with pytest.raises(UpdateRefused):
        await compactor(store).compact("a")
    assert len((await store.load("a")).updates) == 21


async def test_edits_that_come_while_it_folds_are_kept() -> None:
    class Busy(MemoryStore):
        async def compact(
            self, document: str, snapshot: Snapshot, segment: Segment | None = None
        ) -> bool:
            await self.append([Update("a", late)])
            return await super().compact(document, snapshot, segment)

    store = Busy()
    late = Author(2).type("late")
    text = await typed(store, 20)
    assert await compactor(store).compact("a")
    assert sorted(await text_in(store)) == sorted(text + "late")


async def test_unknown_and_deleted_documents_are_left_alone() -> None:
    store = MemoryStore()
    assert not await compactor(store).compact("none", force=True)
    await typed(store, 20)
    await store.delete("a", NOW_MS)
    assert not await compactor(store).compact("a", force=True)
