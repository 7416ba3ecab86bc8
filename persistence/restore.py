"""Put a backup in the place of a store file, and keep what was there."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from plait.persistence import schema, sqlite_check
from plait.persistence.files import (
    copy_database,
    disk_errors,
    force_to_disk,
    temporary_beside,
)
from plait.persistence.lock import StoreLock
from plait.persistence.sqlite_connection import open_file
from plait.persistence.sqlite_errors import translated
from plait.persistence.store import StoreCorrupt, StoreError, StoreUnavailable, StoreVersion


def restore_file(backup: Path, target: Path) -> Path | None:
    """Replace a store by a copy of a backup; return where the old one went, if there was one.

    At every moment there is a whole store at `target`: the old one, or the new one.

    Raises:
        StoreUnavailable: a server uses the target, or a file can't be read or written.
        StoreCorrupt: the backup is damaged.
        StoreVersion: the backup is of a newer program, or not a store.
    """
    if not backup.is_file():
        raise StoreUnavailable(f"there is no file {backup}", hint="Give the path of a backup.")
    if target.exists() and backup.samefile(target):
        raise StoreError(f"{backup} is the store itself", hint="Give the path of a backup.")
    with disk_errors(target), temporary_beside(target) as temporary:
        temporary.touch(exist_ok=False)
        _copy_and_examine(backup, temporary)
        with alone_with(target):
            return take_place(temporary, target)


@contextmanager
def alone_with(store: Path) -> Iterator[None]:
    """Let no server begin to use a store.

    Raises:
        StoreUnavailable: one uses it.
    """
    lock = StoreLock(store)
    if not lock.acquire_exclusive():
        raise StoreUnavailable(
            f"the store {store} is in use by a server", hint="Stop the server first."
        )
    try:
        yield
    finally:
        lock.release()


def take_place(temporary: Path, target: Path) -> Path | None:
    """Put a file in the place of a store that nobody uses; return where the old one went."""
    aside = _set_aside(target) if target.exists() else None
    os.replace(temporary, target)
    force_to_disk(target.parent)
    return aside


def _copy_and_examine(backup: Path, copy: Path) -> None:
    """Copy a backup, with the log beside it if it has one, and make sure that it can be used."""
    with translated(backup):
        with closing(_open_read_only(backup)) as source:
            if schema.version_of(source, backup) == 0:
                raise StoreVersion(f"{backup} is empty", hint="Give the path of a backup.")
            copy_database(source, copy, lambda done, total: None)
        with closing(open_file(copy, busy_seconds=5)) as connection:
            schema.migrate(connection, backup)
            problems = sqlite_check.check(connection, backup)
    if problems:
        raise StoreCorrupt(
            f"the backup {backup} is damaged: {problems[0]}",
            hint="Use another backup. The store was left as it is.",
        )
    force_to_disk(copy)


def _open_read_only(backup: Path) -> sqlite3.Connection:
    """Open a backup so that, if it stands alone, nothing appears beside it."""
    logs = [backup.with_name(backup.name + suffix) for suffix in ("-wal", "-journal")]
    how = "mode=ro" if any(log.exists() for log in logs) else "immutable=1"
    uri = f"{backup.absolute().as_uri()}?{how}"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


def _set_aside(target: Path) -> Path:
    """Give the old store a second name; its first one is then replaced in one step."""
    stem = f"{target.name}.before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    aside = target.with_name(stem)
    number = 1
    while aside.exists():
        number += 1
        aside = target.with_name(f"{stem}-{number}")
    log, log_aside = (path.with_name(f"{path.name}-wal") for path in (target, aside))
    # SQLite removes the log of a database that it can't read; this keeps it under another name.
    with suppress(FileNotFoundError):
        os.link(log, log_aside)
    damaged = False
    try:
        damaged = not _write_log_back(target)
    finally:
        if not damaged:
            log_aside.unlink(missing_ok=True)
    os.link(target, aside)
    # A log that is left beside the new file would be played into it.
    for suffix in ("-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    return aside


def _write_log_back(target: Path) -> bool:
    """Move the old store's write-ahead log into its file; return whether that was possible.

    Leaving WAL mode does that, and is refused while anybody else has the file open, even idly:
    what such a process writes later would go into the old file, and be lost.

    Raises:
        StoreUnavailable: another process has it open.
    """
    try:
        with closing(open_file(target, busy_seconds=1)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            return False  # damaged, which may be why it is being replaced
        raise StoreUnavailable(
            f"the store {target} is in use by another process", hint="Wait until it is done."
        ) from error
    return True
