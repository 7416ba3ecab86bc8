"""Copy an SQLite store to another file while it is in use."""

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from plait.persistence.files import (
    copy_database,
    disk_errors,
    put_in_place,
    refuse_existing,
    temporary_beside,
)
from plait.persistence.sqlite_connection import open_file
from plait.persistence.sqlite_errors import translated


class BackupStopped(Exception):
    """Raised in the backup's thread when nobody waits for it any more."""


def back_up(
    source: Path,
    target: Path,
    stop: threading.Event,
    report: Callable[[int, int], None],
) -> None:
    """Copy a store; the target is there as a whole or not at all."""

    def between_pages(done: int, total: int) -> None:
        if stop.is_set():
            raise BackupStopped
        report(done, total)

    refuse_existing(target)
    with disk_errors(target), temporary_beside(target) as temporary:
        # A file of our own makes: SQLite's message for a missing folder would name the store.
        temporary.touch(exist_ok=False)
        with translated(source), closing(open_file(source, busy_seconds=5)) as connection:
            copy_database(connection, temporary, between_pages)
        put_in_place(temporary, target)
