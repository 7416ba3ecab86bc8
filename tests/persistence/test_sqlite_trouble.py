"""What goes wrong with an SQLite file: locks, full disks, damage."""

import os
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from plait.persistence import Snapshot, StoreCorrupt, StoreError, StoreUnavailable, Update
from plait.persistence.sqlite import SqliteStore
from plait.persistence.sqlite_connection import open_file, writing
from tests.support.sqlite import fill, run_sql

# Trouble that passes


async def test_numbers_too_large_for_sqlite_are_store_errors(sqlite: SqliteStore) -> None:
    await fill(sqlite, "a", 1)
    with pytest.raises(StoreError, match="too large"):
        await sqlite.log("a", after=10**30)


async def test_a_locked_file_is_unavailable_until_it_is_let_go(sqlite: SqliteStore) -> None:
    await fill(sqlite, "a", 2)
    with closing(open_file(sqlite.path, busy_seconds=1)) as connection:
        with writing(connection):
            with pytest.raises(StoreUnavailable, match="locked by another process"):
                await fill(sqlite, "a", 1)
            with pytest.raises(StoreUnavailable):
                await sqlite.ping()
            # Reading goes on.
            assert len((await sqlite.load("a")).updates) == 2
    await sqlite.ping()
    await fill(sqlite, "a", 1)
    assert len((await sqlite.load("a")).updates) == 3


async def test_a_full_disk_takes_back_the_whole_append_and_passes(sqlite: SqliteStore) -> None:
    await fill(sqlite, "a", 2)
    assert sqlite._writing is not None

    def limit(connection: sqlite3.Connection, pages: int) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    await sqlite._writing.run(limit, 1)  # SQLite makes that the present size
    with pytest.raises(StoreUnavailable, match="no room left"):
        await sqlite.append([Update("new", b"x"), Update("a", bytes(200_000))])
    assert await sqlite.info("new") is None
    assert len((await sqlite.load("a")).updates) == 2
    await sqlite._writing.run(limit, 1_000_000)
    await sqlite.append([Update("new", b"x"), Update("a", bytes(200_000))])
    assert len((await sqlite.load("a")).updates) == 3
    assert list(await sqlite.check()) == []


async def test_no_transaction_stays_open_after_any_failure(sqlite: SqliteStore) -> None:
    await fill(sqlite, "a", 1)
    await sqlite.delete("a", 1)
    assert sqlite._writing is not None and sqlite._reading is not None

    def in_transaction(connection: sqlite3.Connection) -> bool:
        return connection.in_transaction

    failures: list[Callable[[], Awaitable[object]]] = [
        lambda: sqlite.append([Update("b", b"1"), Update("a", b"1")]),
        lambda: sqlite.append([Update("b", b"1"), Update("\ud800", b"1")]),
        lambda: sqlite.append([Update("b", b"1", at_ms=1 << 70)]),
        lambda: sqlite.load("a"),
        lambda: sqlite.log("a", after=1 << 70),
    ]
    for fail in failures:
        with pytest.raises(StoreError):
            await fail()
        assert not await sqlite._writing.run(in_transaction)
        assert not await sqlite._reading.run(in_transaction)
    assert await sqlite.info("b") is None


# Damage


async def damage(sqlite: SqliteStore, *statements: str) -> list[str]:
    """Break the store's own rules, and return what its check says."""
    for name in ("a", "b"):
        await fill(sqlite, name, 3)
    await sqlite.compact("a", Snapshot(2, (b"one", b"two", b"three")))
    assert list(await sqlite.check()) == []
    await run_sql(sqlite.path, *statements)
    return list(await sqlite.check())


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("UPDATE documents SET updates = 9 WHERE name = 'b'", "'b' counts 9 updates"),
        ("UPDATE documents SET log_bytes = 9 WHERE name = 'b'", "of 9 bytes"),
        ("UPDATE documents SET tail_updates = 9 WHERE name = 'a'", "9 updates of 10 bytes after"),
        ("UPDATE documents SET tail_bytes = 9 WHERE name = 'a'", "1 updates of 9 bytes after"),
        ("UPDATE documents SET snapshot_bytes = 9 WHERE name = 'a'", "counts 9 bytes"),
        ("DELETE FROM updates WHERE document = 2", "'b' has nothing in the log"),
        ("UPDATE snapshots SET upto = 999", "reaches to 999, beyond the log"),
        ("DELETE FROM slices WHERE number = 1", "should have 3 slices, and has 2"),
        ("DELETE FROM slices WHERE number = 2", "should have 3 slices, and has 2"),
        ("UPDATE slices SET number = 7 WHERE number = 2", "or gaps among them"),
        ("DELETE FROM documents WHERE name = 'b'", "document number 2, which is unknown"),
    ],
)
async def test_check_finds_what_breaks_the_stores_own_rules(
    sqlite: SqliteStore, statement: str, expected: str
) -> None:
    problems = await damage(sqlite, statement)
    assert any(expected in problem for problem in problems), problems


async def test_check_finds_rows_that_refer_to_nothing(sqlite: SqliteStore) -> None:
    problems = await damage(sqlite, "DELETE FROM documents WHERE name = 'b'")
    assert any("of updates refers to documents" in problem for problem in problems)


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM slices WHERE number = 1", "DELETE FROM updates WHERE seq = 3"],
)
async def test_a_document_with_missing_parts_is_an_error_and_never_a_smaller_document(
    sqlite: SqliteStore, statement: str
) -> None:
    await damage(sqlite, statement)
    with pytest.raises(StoreCorrupt, match="'a'.*plait store check"):
        await sqlite.load("a")


async def test_a_document_without_its_rows_is_an_error_and_never_empty(
    sqlite: SqliteStore,
) -> None:
    await damage(
        sqlite,
        "DELETE FROM updates WHERE document = 2",
        "UPDATE documents SET tail_updates = 0 WHERE name = 'b'",
    )
    with pytest.raises(StoreCorrupt):
        await sqlite.load("b")


async def test_a_torn_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    await fill(store, "a", 100, size=5000)
    await store.close()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreCorrupt, match="damaged.*plait store"):
        await store.open()


async def test_overwritten_pages_are_found(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    await fill(store, "a", 100, size=300)
    await store.close()
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        file.seek(4096 * (pages // 2))
        file.write(b"\xff" * 4096 * (pages - pages // 2))
    await store.open()
    problems = await store.check()
    assert problems
    with pytest.raises(StoreCorrupt):
        await store.load("a")
    await store.close()
