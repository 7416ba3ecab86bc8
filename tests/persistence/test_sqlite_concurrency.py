"""What goes on at once in an SQLite file: reads, backups, and processes that write or crash."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from plait.persistence import DocumentDeleted, Update, files, sqlite_backup, sqlite_write
from plait.persistence.sqlite import SqliteStore
from plait.persistence.sqlite_backup import BackupStopped
from plait.persistence.sqlite_connection import open_file, writing
from tests.support.sqlite import fill


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
