"""How an SQLite file is opened: settings, versions, and paths that can't be used."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from plait.persistence import StoreUnavailable, StoreVersion, Update, schema
from plait.persistence.sqlite import SqliteStore
from plait.persistence.sqlite_connection import open_file
from tests.support.sqlite import fill, run_sql

# Settings


async def test_commits_are_durable_and_readers_independent(sqlite: SqliteStore) -> None:
    assert sqlite._writing is not None and sqlite._reading is not None

    def setting(connection: sqlite3.Connection, name: str) -> object:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert await sqlite._writing.run(setting, "journal_mode") == "wal"
    assert await sqlite._writing.run(setting, "synchronous") == 2  # FULL
    assert await sqlite._writing.run(setting, "foreign_keys") == 1
    assert await sqlite._writing.run(setting, "busy_timeout") == 50
    assert await sqlite._reading.run(setting, "query_only") == 1


async def test_what_was_appended_is_there_after_opening_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for number in range(3):
        store = SqliteStore(path)
        await store.open()
        assert len((await store.load("a")).updates) == number
        await fill(store, "a", 1)
        await store.close()
    assert not (tmp_path / "store.db-wal").exists()


async def test_a_store_that_is_not_open_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.load("a")
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.append([Update("a", b"1")])
    await store.close()


async def test_a_store_can_be_opened_again_after_it_failed_to(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "missing" / "store.db", serving=True)
    with pytest.raises(StoreUnavailable):
        await store.open()
    (tmp_path / "missing").mkdir()
    await store.open()
    await fill(store, "a", 1)
    await store.close()


# Versions


@pytest.mark.parametrize("version", range(len(schema.MIGRATIONS) + 1))
async def test_a_file_of_each_version_is_brought_forward(tmp_path: Path, version: int) -> None:
    path = tmp_path / "store.db"
    with closing(open_file(path, busy_seconds=1)) as connection:
        schema.migrate(connection, path, schema.MIGRATIONS[:version])
        assert connection.execute("PRAGMA user_version").fetchone()[0] == version
    store = SqliteStore(path)
    await store.open()
    await fill(store, "a", 2)
    assert list(await store.check()) == []
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == len(schema.MIGRATIONS)
        assert connection.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID


def test_migrations_run_in_order_and_keep_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    steps = [["CREATE TABLE t (a)", "INSERT INTO t VALUES (1)"], ["ALTER TABLE t ADD COLUMN b"]]
    with closing(open_file(path, busy_seconds=1)) as connection:
        schema.migrate(connection, path, steps[:1])
        schema.migrate(connection, path, steps)
        schema.migrate(connection, path, steps)
        assert connection.execute("SELECT a, b FROM t").fetchall() == [(1, None)]
        assert schema.version_of(connection, path, newest=2) == 2


def test_a_migration_that_fails_leaves_the_version_before(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    steps = [["CREATE TABLE t (a)"], ["INSERT INTO t VALUES (1)", "no such statement"]]
    with closing(open_file(path, busy_seconds=1)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(connection, path, steps)
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM t").fetchone()[0] == 0
        assert schema.version_of(connection, path, newest=2) == 1


async def test_a_newer_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    await store.close()
    await run_sql(path, "PRAGMA user_version = 999")
    before = path.read_bytes()
    with pytest.raises(StoreVersion, match="newer.*999.*Install"):
        await store.open()
    assert path.read_bytes() == before


async def test_a_database_of_another_program_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    await run_sql(path, "CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StoreVersion, match="another program"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before
    marked = tmp_path / "marked.db"
    await run_sql(marked, "PRAGMA application_id = 7")
    with pytest.raises(StoreVersion, match="another program"):
        await SqliteStore(marked).open()


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 1000)
    with pytest.raises(StoreVersion, match="not an SQLite database"):
        await SqliteStore(path).open()
    assert path.read_text() == "my notes\n" * 1000


# Paths


async def test_a_missing_folder_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=f"mkdir -p {tmp_path / 'missing'}"):
        await SqliteStore(tmp_path / "missing" / "store.db").open()


async def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="is a folder"):
        await SqliteStore(tmp_path).open()


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder in which this process, even if root started it, has no more rights than others."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    shutil.rmtree(folder)


async def test_a_file_that_may_not_be_written_is_named(unprivileged: Path) -> None:
    path = unprivileged / "store.db"
    store = SqliteStore(path)
    await store.open()
    await store.close()
    path.chmod(0o444)
    with pytest.raises(StoreUnavailable, match="can't be read and written by this user"):
        await store.open()


async def test_a_folder_that_may_not_be_written_is_named(unprivileged: Path) -> None:
    folder = unprivileged / "store"
    folder.mkdir(mode=0o555)
    with pytest.raises(StoreUnavailable, match="folder .* can't be written by this user"):
        await SqliteStore(folder / "store.db").open()
