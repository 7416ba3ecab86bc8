"""What a PostgreSQL store can keep, and how it is noticed that something of it is missing."""

import os

import pytest

from plait.persistence import Segment, Snapshot, StoreCorrupt, StoreError, Update, postgres_read
from plait.persistence.postgres import PostgresStore
from tests.support.postgres import PostgresServer, schema_of
from tests.support.updates import update


@pytest.fixture
def store(postgres: PostgresStore) -> PostgresStore:
    return postgres


async def test_authors_may_hold_nul(store: PostgresStore) -> None:
    await store.append([update("a\0b", "x", "who\0else")])
    assert (await store.load("a\0b")).updates[0].who == "who\0else"


async def test_numbers_and_names_beyond_what_a_column_holds_are_refused(
    store: PostgresStore,
) -> None:
    with pytest.raises(StoreError):
        await store.append([Update("a", b"x", "", 1 << 63)])
    with pytest.raises(StoreError):
        await store.append([Update(os.urandom(3000).hex(), b"x")])
    assert await store.documents() == []


async def test_large_documents_are_loaded_page_by_page(store: PostgresStore) -> None:
    slices = tuple(os.urandom(1 << 18) for _ in range(40))
    seqs = await store.append([update("a", "1")])
    await store.compact("a", Snapshot(seqs[0], slices, 5, types=2, astral=True, places=b"\x00\xff"))
    rows = [os.urandom(5000) for _ in range(2000)]
    await store.append([Update("a", row) for row in rows])
    await store.append([Update("a", os.urandom(3 << 20)), update("a", "last")])
    stored = await store.load("a")
    assert stored.snapshot == Snapshot(seqs[0], slices, 5, types=2, astral=True, places=b"\x00\xff")
    assert [row.update for row in stored.updates[:2000]] == rows
    assert len(stored.updates) == 2002 and stored.updates[-1].update == b"last"
    async with store.reading() as view:
        assert await view.load("a") == stored


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "damage", ["DELETE FROM {}.updates WHERE seq = 3", "DELETE FROM {}.slices WHERE number = 1"]
)
async def test_what_vanished_is_not_taken_for_what_never_was(
    postgres_server: PostgresServer,
    postgres_url: str,
    store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
    large: bool,
) -> None:
    seqs = await store.append([update("a", str(number)) for number in range(4)])
    await store.compact("a", Snapshot(seqs[0], (b"s", b"t", b"u")))
    if large:
        monkeypatch.setattr(postgres_read, "AT_ONCE_ROWS", 0)
    await postgres_server.execute(damage.format(schema_of(postgres_url)))
    with pytest.raises(StoreCorrupt, match="plait store check"):
        await store.load("a")


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM {}.updates WHERE seq = 2", "counts"),
        ("DELETE FROM {}.updates WHERE seq = 3", "which is no row of its log"),
        ("DELETE FROM {}.updates WHERE seq = 4", "says that its log ends at 4"),
        ("DELETE FROM {}.updates", "nothing in the log"),
        ("DELETE FROM {}.slices WHERE number = 0", "should have 2 slices, and has 1"),
        ("UPDATE {}.slices SET bytes = '' WHERE number = 0", "The snapshot of document 'a' counts"),
        ("UPDATE {}.documents SET tail_bytes = 7", "after its snapshot"),
        ("SELECT setval('{}.seqs', 1)", "the next number to be given out"),
        ("UPDATE {}.updates SET document = 99 WHERE seq = 1", "which is unknown"),
        ("DROP TABLE {}.slices CASCADE", "Reading failed"),
    ],
)
async def test_check_finds_what_is_wrong(
    postgres_server: PostgresServer,
    postgres_url: str,
    store: PostgresStore,
    damage: str,
    found: str,
) -> None:
    seqs = await store.append([update("a", str(number)) for number in range(4)])
    await store.compact("a", Snapshot(seqs[2], (b"s", b"t")), Segment(seqs[0], seqs[0], b"0"))
    assert list(await store.check()) == []
    await postgres_server.execute(damage.format(schema_of(postgres_url)))
    problems = await store.check()
    assert any(found in problem for problem in problems), problems
