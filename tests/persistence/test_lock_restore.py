"""The lock that says who serves from a file, and restoring a backup in its place."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from plait.persistence import StoreCorrupt, StoreError, StoreUnavailable, StoreVersion, Update
from plait.persistence.lock import StoreLock
from plait.persistence.restore import restore_file
from plait.persistence.sqlite import SqliteStore


async def make_store(path: Path, *texts: str) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.append([Update("a", text.encode()) for text in texts])
    await store.close()


async def read_store(path: Path) -> list[bytes]:
    store = SqliteStore(path)
    await store.open()
    try:
        return [row.update for row in (await store.load("a")).updates]
    finally:
        await store.close()


# The lock


def test_many_may_serve_and_nobody_may_replace_meanwhile(tmp_path: Path) -> None:
    one, two, restorer = (StoreLock(tmp_path / "store.db") for _ in range(3))
    one.acquire_shared()
    two.acquire_shared()
    assert not restorer.acquire_exclusive()
    one.release()
    assert not restorer.acquire_exclusive()
    two.release()
    assert restorer.acquire_exclusive()
    with pytest.raises(StoreUnavailable, match="being replaced"):
        one.acquire_shared()
    restorer.release()
    one.acquire_shared()
    one.release()


def test_releasing_twice_does_nothing(tmp_path: Path) -> None:
    lock = StoreLock(tmp_path / "store.db")
    lock.release()
    assert lock.acquire_exclusive()
    lock.release()
    lock.release()
    assert lock.acquire_exclusive()
    lock.release()


def test_the_kernel_releases_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from plait.persistence.lock import StoreLock\n"
        "lock = StoreLock(Path(sys.argv[1])); lock.acquire_shared()\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "store.db"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"locked\n"
        lock = StoreLock(path)
        assert not lock.acquire_exclusive()
        child.kill()
        child.wait()
    assert lock.acquire_exclusive()
    lock.release()


def test_a_lock_that_can_not_be_made_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="lock file"):
        StoreLock(tmp_path / "missing" / "store.db").acquire_shared()


@pytest.mark.parametrize("serving", [True, False])
async def test_a_store_is_locked_only_while_it_serves(tmp_path: Path, serving: bool) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path, serving=serving)
    await store.open()
    lock = StoreLock(path)
    assert lock.acquire_exclusive() is not serving
    lock.release()
    await store.close()
    assert lock.acquire_exclusive()
    with pytest.raises(StoreUnavailable):
        await SqliteStore(path, serving=True).open()
    lock.release()


# Restoring


async def test_a_backup_takes_the_place_of_the_store_which_is_kept(tmp_path: Path) -> None:
    store, backup = tmp_path / "store.db", tmp_path / "backup.db"
    await make_store(store, "new", "newer")
    await make_store(backup, "old")
    aside = await asyncio.to_thread(restore_file, backup, store)
    assert aside is not None
    assert re.fullmatch(r"store\.db\.before-restore-\d{8}T\d{6}Z", aside.name)
    assert await read_store(store) == [b"old"]
    assert await read_store(aside) == [b"new", b"newer"]
    assert await read_store(backup) == [b"old"]


async def test_a_backup_is_restored_where_there_was_nothing(tmp_path: Path) -> None:
    await make_store(tmp_path / "backup.db", "old")
    assert restore_file(tmp_path / "backup.db", tmp_path / "store.db") is None
    assert await read_store(tmp_path / "store.db") == [b"old"]


async def test_restoring_twice_in_a_second_keeps_both(tmp_path: Path) -> None:
    store, backup = tmp_path / "store.db", tmp_path / "backup.db"
    await make_store(store, "new")
    await make_store(backup, "old")
    first = restore_file(backup, store)
    second = restore_file(backup, store)
    assert first is not None and second is not None and first != second
    assert await read_store(first) == [b"new"]
    assert await read_store(second) == [b"old"]


async def test_commits_of_a_killed_server_are_in_what_is_kept(tmp_path: Path) -> None:
    """They are in the write-ahead log only, which must go neither lost nor into the new file."""
    store, backup = tmp_path / "store.db", tmp_path / "backup.db"
    await make_store(backup, "old")
    program = (
        "import asyncio, os, sys; from pathlib import Path\n"
        "from plait.persistence import Update; from plait.persistence.sqlite import SqliteStore\n"
        "async def main():\n"
        "    store = SqliteStore(Path(sys.argv[1]), serving=True); await store.open()\n"
        "    await store.append([Update('a', b'late')]); os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())"
    )
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, str(store)])
    assert done.returncode == -9
    assert (tmp_path / "store.db-wal").stat().st_size > 0
    aside = restore_file(backup, store)
    assert aside is not None
    assert await read_store(store) == [b"old"]
    assert await read_store(aside) == [b"late"]


async def test_a_store_in_use_is_not_replaced(tmp_path: Path) -> None:
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    await make_store(backup, "old")
    store = SqliteStore(path, serving=True)
    await store.open()
    with pytest.raises(StoreUnavailable, match="Stop the server first"):
        restore_file(backup, path)
    await store.append([Update("a", b"goes on")])
    await store.close()
    assert await read_store(path) == [b"goes on"]


async def test_a_store_that_another_process_has_open_is_not_replaced(tmp_path: Path) -> None:
    """Such as an import, which takes no lock between two of its commits."""
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    await make_store(backup, "old")
    importing = SqliteStore(path)
    await importing.open()
    await importing.append([Update("a", b"1")])
    with pytest.raises(StoreUnavailable, match="another process"):
        restore_file(backup, path)
    assert not any("before-restore" in name for name in os.listdir(tmp_path))
    await importing.append([Update("a", b"2")])
    await importing.close()
    assert await read_store(path) == [b"1", b"2"]
    assert restore_file(backup, path) is not None


@pytest.mark.parametrize("kind", ["missing", "text", "foreign", "empty", "newer", "torn", "broken"])
async def test_what_is_no_good_backup_is_refused_and_the_store_stays(
    tmp_path: Path, kind: str
) -> None:
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    await make_store(path, "precious")
    expected: type[StoreError] = StoreVersion
    if kind == "missing":
        expected = StoreUnavailable
    elif kind == "text":
        backup.write_text("my notes " * 1000)
    elif kind == "empty":
        backup.touch()
    elif kind == "foreign":
        with closing(sqlite3.connect(backup)) as connection:
            connection.execute("CREATE TABLE theirs (x)")
    else:
        await make_store(backup, *("x" * 5000 for _ in range(20)))
        if kind == "torn":
            expected = StoreCorrupt
            os.truncate(backup, 50_000)
        else:
            expected = StoreVersion if kind == "newer" else StoreCorrupt
            statement = {
                "newer": "PRAGMA user_version = 999",
                "broken": "UPDATE documents SET updates = 1",
            }[kind]
            with closing(sqlite3.connect(backup)) as connection, connection:
                connection.execute(statement)
    names = sorted(os.listdir(tmp_path))
    with pytest.raises(expected):
        restore_file(backup, path)
    assert await read_store(path) == [b"precious"]
    assert sorted(os.listdir(tmp_path)) == names


async def test_a_store_is_not_restored_from_itself(tmp_path: Path) -> None:
    await make_store(tmp_path / "store.db", "precious")
    with pytest.raises(StoreError, match="itself"):
        restore_file(tmp_path / "store.db", tmp_path / "store.db")
    assert await read_store(tmp_path / "store.db") == [b"precious"]


async def test_a_damaged_store_can_be_replaced_and_is_kept(tmp_path: Path) -> None:
    path, backup = tmp_path / "store.db", tmp_path / "backup.db"
    await make_store(backup, "old")
    path.write_bytes(b"\xff" * 10_000)
    (tmp_path / "store.db-wal").write_bytes(b"what was left")
    aside = restore_file(backup, path)
    assert aside is not None
    assert aside.read_bytes() == b"\xff" * 10_000
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == b"what was left"
    assert await read_store(path) == [b"old"]


async def test_a_backup_in_wal_mode_is_restored_with_its_log(tmp_path: Path) -> None:
    """Such as a copy of the files of a server that was not stopped properly."""
    live, copied = tmp_path / "live.db", tmp_path / "copied.db"
    store = SqliteStore(live)
    await store.open()
    await store.append([Update("a", b"in the log only")])
    for suffix in ("", "-wal"):
        (tmp_path / f"copied.db{suffix}").write_bytes((tmp_path / f"live.db{suffix}").read_bytes())
    await store.close()
    restore_file(copied, tmp_path / "store.db")
    assert await read_store(tmp_path / "store.db") == [b"in the log only"]
