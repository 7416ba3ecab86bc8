"""What is particular to SQLite: files, locks, full disks, damage, crashes."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from plait.persistence import (
    Changes,
    DocumentDeleted,
    Snapshot,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    StoreVersion,
    Update,
    files,
    schema,
    sqlite_backup,
    sqlite_watch,
    sqlite_write,
)
from plait.persistence.sqlite import SqliteStore
from plait.persistence.sqlite_backup import BackupStopped
from plait.persistence.sqlite_connection import open_file, writing


async def fill(store: SqliteStore, document: str, count: int, size: int = 10) -> None:
    await store.append([Update(document, os.urandom(size)) for _ in range(count)])


async def run_sql(path: Path, *statements: str) -> None:
    """Change a file as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


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


async def test_numbers_too_large_for_sqlite_are_store_errors(sqlite: SqliteStore) -> None:
    await fill(sqlite, "a", 1)
    with pytest.raises(StoreError, match="too large"):
        await sqlite.log("a", after=10**30)


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


# Trouble that passes


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


async def test_loading_does_not_wait_for_commits(sqlite: SqliteStore) -> None:
    await fill(sqlite, "a", 1)
    assert sqlite._writing is not None
    entered, leave = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow_commit(connection: sqlite3.Connection) -> None:
        with writing(connection):
            loop.call_soon_threadsafe(entered.set)
            asyncio.run_coroutine_threadsafe(leave.wait(), loop).result()

    commit = asyncio.create_task(sqlite._writing.run(slow_commit))
    await entered.wait()
    assert len((await sqlite.load("a")).updates) == 1
    assert not commit.done()
    leave.set()
    await commit


# The cache of ids


async def test_the_cache_of_ids_is_bounded(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_write, "IDS_CACHED_MAX", 10)
    for number in range(50):
        await fill(sqlite, f"d{number}", 1)
        await fill(sqlite, "again", 1)
        assert len(sqlite._appender._ids) <= 10
    assert len((await sqlite.load("again")).updates) == 50


async def test_ids_of_a_transaction_taken_back_are_not_remembered(sqlite: SqliteStore) -> None:
    await fill(sqlite, "gone", 1)
    await sqlite.delete("gone", 1)
    with pytest.raises(DocumentDeleted):
        await sqlite.append([Update("new", b"1"), Update("gone", b"1")])
    await fill(sqlite, "other", 1)
    await fill(sqlite, "new", 1)
    assert len((await sqlite.load("other")).updates) == 1
    assert len((await sqlite.load("new")).updates) == 1


# Changes


async def test_while_nobody_else_writes_changes_reads_nothing(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seqs = dict((await sqlite.changes({"a": 0, "idle": 0})).seqs)
    assert seqs == {}

    def forbidden(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(sqlite_watch._Search, "run", forbidden)
    for number in range(3):
        await fill(sqlite, "a", 5)
        await sqlite.delete("a", 1)
        await sqlite.undelete("a")
        # As good for those that were asked about in one call and not in the next.
        changes = await sqlite.changes({"a": 5 * number, "idle": 0})
        assert changes == Changes({"a": 5 * number + 5, "idle": 5 * number + 5})


async def test_a_document_that_is_far_behind_does_not_cause_the_log_to_be_read(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "ROWS_PASSED_MAX", 100)
    other = SqliteStore(sqlite.path)
    await other.open()
    await fill(other, "old", 1)
    await fill(other, "busy", 5000)
    await fill(other, "recent", 1)
    changes = await sqlite.changes({"old": 0, "recent": 5000, "unknown": 0, "busy": 4999})
    assert [(row.document, row.seq) for row in changes.updates] == [
        ("old", 1),
        ("busy", 5000),
        ("busy", 5001),
        ("recent", 5002),
    ]
    assert changes.seqs == dict.fromkeys(["old", "recent", "unknown", "busy"], 5002)
    assert not changes.more
    await other.close()


async def test_many_documents_that_are_far_behind_are_looked_up_in_bounded_parts(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "ROWS_PASSED_MAX", 20 * sqlite_watch.LOOK_UP_ROWS)
    other = SqliteStore(sqlite.path)
    await other.open()
    cursors: dict[str, int] = {}
    for number in range(50):
        await fill(other, f"d{number}", 1)
        await fill(other, "busy", 50)
        cursors[f"d{number}"] = 0
    parts: list[int] = []
    while True:
        changes = await sqlite.changes(cursors)
        cursors |= changes.seqs
        parts.append(len(changes.updates))
        if not changes.more:
            break
    assert sum(parts) == 50
    assert len(parts) >= 5 and max(parts) <= 10
    assert set(cursors.values()) == {50 * 51}
    await other.close()


async def test_many_changes_come_in_bounded_parts(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "BYTES_RETURNED_MAX", 100)
    monkeypatch.setattr(sqlite_watch, "ROWS_PASSED_MAX", 7)
    other = SqliteStore(sqlite.path)
    await other.open()
    for _ in range(3):
        await fill(other, "large", 4, size=60)
        await fill(other, "not asked", 20)
    await other.close()
    seq, seen, parts = 0, 0, 0
    while True:
        changes = await sqlite.changes({"large": seq})
        assert sum(len(row.update) for row in changes.updates) <= 160
        seq = changes.seqs.get("large", seq)
        seen, parts = seen + len(changes.updates), parts + 1
        if not changes.more:
            break
    assert (seq, seen) == (72, 12)
    assert parts >= 6


async def test_many_changes_of_many_documents_come_in_bounded_parts(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "ROWS_PASSED_MAX", 100)
    other = SqliteStore(sqlite.path)
    await other.open()
    names = [f"d{number}" for number in range(100)]
    for number in range(7):
        await other.append([Update(name, f"{number}".encode()) for name in names])
        await sqlite.append([Update(name, b"mine") for name in names])
    await other.close()
    cursors = dict.fromkeys(names, 0)
    seen: dict[str, list[bytes]] = {name: [] for name in names}
    parts = 0
    while True:
        changes = await sqlite.changes(cursors)
        cursors |= changes.seqs
        for row in changes.updates:
            seen[row.document].append(row.update)
        assert len(changes.updates) <= 100
        parts += 1
        if not changes.more:
            break
    assert all(rows == [b"0", b"1", b"2", b"3", b"4", b"5", b"6"] for rows in seen.values())
    assert parts >= 14


async def test_many_deleted_documents_are_told_without_being_remembered(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "DELETED_REMEMBERED_MAX", 2)
    for name in "abcd":
        await fill(sqlite, name, 1)
        await sqlite.delete(name, 1)
    await fill(sqlite, "live", 1)
    for _ in range(2):
        assert (await sqlite.changes({"live": 5, "d": 5, "b": 5})).deleted == ("d", "b")


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


# Backup


async def test_a_backup_while_appends_go_on_is_whole_and_of_one_moment(
    sqlite: SqliteStore, tmp_path: Path
) -> None:
    for number in range(50):
        await fill(sqlite, f"d{number}", 10, size=4000)
    target = tmp_path / "copy.db"
    backup = asyncio.create_task(sqlite.backup(target))
    appended = 0
    while not backup.done():
        # Both or none are in one transaction.
        await sqlite.append([Update("left", b"x"), Update("right", b"x")])
        appended += 1
    await backup
    assert appended > 0
    assert not (tmp_path / "copy.db-wal").exists()
    with closing(sqlite3.connect(f"{target.as_uri()}?immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    copy = SqliteStore(target)
    await copy.open()
    left, right = await copy.load("left"), await copy.load("right")
    assert len(left.updates) == len(right.updates) <= appended
    assert len((await copy.load("d49")).updates) == 10
    assert list(await copy.check()) == []
    await copy.close()


async def test_a_backup_does_not_begin_again_after_each_commit_of_others(
    sqlite: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PAGES_AT_ONCE", 8)
    await fill(sqlite, "a", 50, size=4000)
    steps: list[int] = []

    def commit_between(done: int, total: int) -> None:
        assert len(steps) < 1000, "it never ends"
        steps.append(done)
        with closing(open_file(sqlite.path, busy_seconds=1)) as other:
            sqlite_write.ping(other)

    with closing(open_file(sqlite.path, busy_seconds=1)) as source:
        files.copy_database(source, tmp_path / "copy.db", commit_between)
    assert len(steps) > 5
    assert steps == sorted(set(steps))


async def test_a_cancelled_backup_stops_and_leaves_nothing(
    sqlite: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PAGES_AT_ONCE", 1)
    await fill(sqlite, "a", 50, size=4000)
    ended: list[BaseException] = []
    begun = asyncio.Event()
    finished = asyncio.Event()
    loop = asyncio.get_running_loop()
    genuine = sqlite_backup.back_up

    def observed(*args: object) -> None:
        try:
            genuine(*args)  # type: ignore[arg-type]
        except BaseException as error:
            ended.append(error)
            raise
        finally:
            loop.call_soon_threadsafe(finished.set)

    monkeypatch.setattr(sqlite_backup, "back_up", observed)
    task = asyncio.create_task(sqlite.backup(tmp_path / "copy.db", lambda *_: begun.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await finished.wait()
    if not ended:
        # It was done before the cancellation reached it: then the copy is whole.
        assert (tmp_path / "copy.db").exists()
    else:
        assert isinstance(ended[0], BackupStopped)
        assert not (tmp_path / "copy.db").exists()
    assert [name for name in os.listdir(tmp_path) if name.endswith(".tmp")] == []


# Processes

CHILD = """
import asyncio, sys
from pathlib import Path
from plait.persistence import Update
from plait.persistence.sqlite import SqliteStore

async def main(path, who):
    store = SqliteStore(Path(path))
    await store.open()
    number = 0
    while True:
        seqs = await store.append(
            [Update(f"{who}-{i}", f"{number}".encode(), who) for i in range(3)]
        )
        print(seqs[0], number, flush=True)
        number += 1

asyncio.run(main(*sys.argv[1:]))
"""


def start_child(path: Path, who: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), who], stdout=subprocess.PIPE, text=True
    )


def read_acknowledged(child: subprocess.Popen[str], count: int) -> list[tuple[int, int]]:
    """Read what a child was told of so many commits."""
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(count)]
    return [(int(seq), int(number)) for seq, number in (line.split() for line in lines)]


def kill(child: subprocess.Popen[str]) -> list[tuple[int, int]]:
    """Kill a child in the middle of its work; return the commits it told of since."""
    child.send_signal(signal.SIGKILL)
    assert child.stdout is not None
    rest = [
        line.split() for line in child.stdout.read().splitlines(keepends=True) if line[-1] == "\n"
    ]
    child.stdout.close()
    child.wait()
    return [(int(seq), int(number)) for seq, number in rest]


async def test_kill_loses_no_acknowledged_append(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    acknowledged: dict[str, list[tuple[int, int]]] = {}
    for run in range(3):
        child = start_child(path, f"run{run}")
        acknowledged[f"run{run}"] = read_acknowledged(child, 20 + run) + kill(child)
    store = SqliteStore(path)
    await store.open()
    assert list(await store.check()) == []
    for who, commits in acknowledged.items():
        for i in range(3):
            rows = {row.seq: row.update for row in await store.log(f"{who}-{i}", limit=100_000)}
            for seq, number in commits:
                assert rows[seq + i] == f"{number}".encode()
            # Transactions are whole: at most the one that nobody was told of is beyond.
            assert len(commits) <= len(rows) <= len(commits) + 1
    await store.close()


async def test_processes_share_a_file_and_see_each_others_updates(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    children = [start_child(path, who) for who in ("one", "two")]
    try:
        for child in children:
            read_acknowledged(child, 10)
        mine = [await store.append([Update("mine", b"1"), Update("mine", b"2")]) for _ in range(10)]
    finally:
        for child in children:
            kill(child)
    names = ["mine", *(f"{who}-{i}" for who in ("one", "two") for i in range(3))]
    rows: list[int] = []
    cursors = dict.fromkeys(names, 0)
    while True:
        changes = await store.changes(cursors)
        rows += [row.seq for row in changes.updates]
        cursors |= changes.seqs
        if not changes.more:
            break
    own = {seq for seqs in mine for seq in seqs}
    # Between them, every number was given out once.
    assert sorted([*rows, *own]) == list(range(1, max(cursors.values()) + 1))
    by_seq = {row.seq for row in await store.log("mine")}
    assert by_seq == own
    assert list(await store.check()) == []
    await store.close()


async def test_many_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    for attempt in range(5):
        stores = [SqliteStore(tmp_path / f"store{attempt}.db") for _ in range(5)]
        await asyncio.gather(*(store.open() for store in stores))
        for number, store in enumerate(stores):
            await fill(store, f"d{number}", 1)
        assert len(await stores[0].documents()) == 5
        for store in stores:
            await store.close()


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_document_that_another_process_purged_does_not_come_back_in_part(
    sqlite: SqliteStore, loaded: bool
) -> None:
    """An editor that was still connected made it anew with its next keystroke alone."""
    other = SqliteStore(sqlite.path)
    await other.open()
    try:
        await (other if loaded else sqlite).append([Update("a", b"first")])
        if loaded:
            await sqlite.load("a")
        await other.delete("a", 1)
        await other.purge(document="a")
        with pytest.raises(DocumentDeleted):
            await sqlite.append([Update("a", b"second")])
        await sqlite.append([Update("a", b"a new first")])
        assert len(await sqlite.log("a")) == 1
        await other.delete("a", 1)
        await other.purge(document="a")
        assert not (await sqlite.load("a")).exists
        await sqlite.append([Update("a", b"begun by somebody who saw that it is gone")])
    finally:
        await other.close()


async def test_documents_are_counted_though_one_of_them_was_made_anew_elsewhere(
    sqlite: SqliteStore,
) -> None:
    other = SqliteStore(sqlite.path)
    await other.open()
    try:
        rows = [Update(name, b"12") for name in "abc"]
        await sqlite.append(rows)
        await other.delete("b", 1)
        with pytest.raises(DocumentDeleted):
            await sqlite.append(rows)
        await other.purge(document="b")
        await other.append([Update("b", b"1234")])
        await sqlite.append([*rows, Update("d", b"12")])
        found = {each.name: (each.updates, each.log_bytes) for each in await sqlite.documents()}
        assert found == {"a": (2, 4), "b": (2, 6), "c": (2, 4), "d": (1, 2)}
    finally:
        await other.close()
