"""Translate what SQLite raises into the errors of the contract; the one place that does.

SQLite's own words name no file and help nobody who did not write them, and `sqlite3` uses one
exception for a lock that passes and a disk that is gone. The result code tells them apart.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plait.persistence.store import StoreCorrupt, StoreError, StoreUnavailable, StoreVersion

_PRIMARY_CODE = 0xFF
"""The low byte of an extended result code says what kind it is."""

_BY_CODE: dict[int, tuple[type[StoreError], str, str]] = {
    sqlite3.SQLITE_BUSY: (
        StoreUnavailable,
        "is locked by another process",
        "Find it with `fuser`, or wait until it is done.",
    ),
    sqlite3.SQLITE_LOCKED: (StoreUnavailable, "is locked by another connection", ""),
    sqlite3.SQLITE_PROTOCOL: (StoreUnavailable, "is locked by another process", ""),
    sqlite3.SQLITE_INTERRUPT: (StoreUnavailable, "was interrupted", ""),
    sqlite3.SQLITE_NOMEM: (StoreUnavailable, "needs more memory than there is", ""),
    sqlite3.SQLITE_FULL: (
        StoreUnavailable,
        "has no room left on its disk",
        "Free some space on its volume; nothing needs to be restarted.",
    ),
    sqlite3.SQLITE_IOERR: (
        StoreUnavailable,
        "could not be read from or written to its disk",
        "Look into the kernel's log and at the free space of its volume.",
    ),
    sqlite3.SQLITE_READONLY: (
        StoreUnavailable,
        "can't be written",
        "Let the user who runs this write the file and its folder.",
    ),
    sqlite3.SQLITE_PERM: (StoreUnavailable, "can't be accessed", "Check its permissions."),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailable,
        "can't be opened",
        "Let the user who runs this read and write the file and its folder.",
    ),
    sqlite3.SQLITE_CORRUPT: (
        StoreCorrupt,
        "is damaged",
        "Run `plait store check`, and restore a backup with `plait store restore`.",
    ),
    sqlite3.SQLITE_NOTADB: (
        StoreVersion,
        "is not an SQLite database",
        "Give the path of a store, or of a file that does not exist yet.",
    ),
}


def translate(error: sqlite3.Error, path: Path) -> StoreError:
    """Return the error of the contract that tells what an error of SQLite means."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
    if code in _BY_CODE:
        kind, what, hint = _BY_CODE[code]
        return kind(f"the store {path} {what} ({error})", hint=hint)
    return StoreError(f"the store {path} failed ({type(error).__name__}: {error})")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise only errors of the contract within the block."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error
    except OverflowError as error:
        raise StoreError(f"a number is too large for the store {path} ({error})") from error
    except UnicodeEncodeError as error:
        raise StoreError(
            "a document's name or author is not Unicode text",
            document=error.object,
            hint="Names must not contain lone surrogates.",
        ) from error
