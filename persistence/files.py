"""Put a database file in its place so that a crash leaves the old state or the new one."""

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from glob import escape
from pathlib import Path

from plait.persistence.sqlite_connection import reading
from plait.persistence.store import StoreError, StoreUnavailable

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links say of one."""

_PAGES_AT_ONCE = 1024
"""4 MB between two reports of progress."""


def refuse_existing(target: Path, hint: str = "Choose another name; none is replaced.") -> None:
    """Raise if there is a file where a new one is to be made."""
    if os.path.lexists(target):
        raise StoreError(f"{target} is there already", hint=hint)


@contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Give a path in the target's folder; what is still there at the end is removed.

    So is what processes left there that were killed while they made the same target.
    """
    for left in target.parent.glob(f".{escape(target.name)}.*.tmp"):
        number = left.name.removesuffix(".tmp").rpartition(".")[2]
        if number.isdecimal() and not _runs(int(number)):
            _remove(left)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
    finally:
        _remove(temporary)


def _remove(temporary: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            temporary.with_name(temporary.name + suffix).unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def put_in_place(
    temporary: Path,
    target: Path,
    *,
    replace: bool = False,
    hint: str = "Choose another name; none is replaced.",
) -> None:
    """Give a finished file its name, for good. Its first name may go or stay.

    Raises:
        StoreError: there is a file of that name, and `replace` was not asked for.
    """
    if replace:
        os.replace(temporary, target)
    else:
        try:
            os.link(temporary, target)  # replaces nothing, which a rename would
        except FileExistsError:
            refuse_existing(target, hint)
            raise
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            refuse_existing(target, hint)
            os.rename(temporary, target)
    force_to_disk(target.parent)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise only errors of the contract for what the file system refuses."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"{path} can't be written ({error.strerror})",
            hint="Check that its folder exists, may be written and has room.",
        ) from error


def copy_database(
    source: sqlite3.Connection, target: Path, report: Callable[[int, int], None]
) -> None:
    """Copy a database as of one moment into a file that stands alone, and force it to disk."""
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        # Within a read transaction the pages can't change, so others may go on writing. Without
        # one, SQLite would begin again after each of their commits.
        with reading(source):
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            source.backup(
                copy,
                pages=_PAGES_AT_ONCE,
                progress=lambda _, remaining, total: report(total - remaining, total),
            )
        # The copy of a database in WAL mode is in WAL mode, and would need a folder to write in.
        copy.execute("PRAGMA journal_mode = DELETE")
    force_to_disk(target)


def force_to_disk(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
