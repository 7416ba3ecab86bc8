"""What every store promises of documents that are deleted, come back or are forgotten."""

import pytest

from plait.persistence import DocumentDeleted, Store
from tests.support.updates import contents, fill, update


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
