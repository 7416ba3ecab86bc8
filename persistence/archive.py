"""Read a backup and leave it exactly as it is.

A store that is opened to be used changes its file: it is brought forward to this program's schema
and into WAL mode, which makes files appear beside it. A backup must stay what it was when it was
made, also on a disk that can't be written.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from plait.persistence import schema, sqlite_check, sqlite_outbox, sqlite_read, sqlite_records
from plait.persistence.sqlite_connection import SqliteConnection
from plait.persistence.sqlite_errors import translated
from plait.persistence.store import (
    DocumentInfo,
    Event,
    LoggedUpdate,
    RecordChanges,
    Stored,
    StoreUnavailable,
    StoreVersion,
)


class Archive:
    """A backup that is read; an async context manager. Its methods do what those of `Store` do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = SqliteConnection(path, lambda: _open_read_only(path))

    async def __aenter__(self) -> Self:
        if not self.path.is_file():
            raise StoreUnavailable(
                f"there is no file {self.path}", hint="Give the path of a backup."
            )
        with translated(self.path):
            await self._connection
        try:
            version = await self._connection.run(schema.version_of, self.path)
            if version == 0:
                raise StoreVersion(f"{self.path} is empty", hint="Give the path of a backup.")
            if version < len(schema.MIGRATIONS):
                raise StoreVersion(
                    f"{self.path} was made by an older Plait: its schema is {version}",
                    hint="Restore it into a store of its own, which brings it forward: "
                    f"plait store restore --store sqlite:///copy.db {self.path}",
                )
        except BaseException:
            await self._connection.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connection.close()

    async def load(self, document: str) -> Stored:
        """Return a document's snapshot and the updates after it."""
        stored, _ = await self._connection.run(sqlite_read.load, document)
        return stored

    async def log(self, document: str, after: int = 0, limit: int = 1000) -> Sequence[LoggedUpdate]:
        """Return a page of a document's whole log."""
        return await self._connection.run(sqlite_read.log, document, after, limit)

    async def documents(
        self, *, prefix: str = "", after: str = "", limit: int = 100, deleted: bool = False
    ) -> Sequence[DocumentInfo]:
        """List documents by name."""
        return await self._connection.run(sqlite_read.documents, prefix, after, limit, deleted)

    async def info(self, document: str) -> DocumentInfo | None:
        """Return what is known of one document."""
        return await self._connection.run(sqlite_read.info, document)

    async def records_since(self, seq: int) -> RecordChanges:
        """Return what was put and removed after a number."""
        return await self._connection.run(sqlite_records.since, seq)

    async def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        """List the outbox."""
        return await self._connection.run(sqlite_outbox.page, after, limit)

    async def check(self) -> Sequence[str]:
        """Return what is wrong with the file, in sentences."""
        try:
            return await self._connection.run(sqlite_check.check, self.path)
        except asyncio.CancelledError:
            await self._connection.interrupt()  # the thread would go on to the end
            raise


def _open_read_only(path: Path) -> sqlite3.Connection:
    """Open a file so that, if it stands alone, nothing appears beside it."""
    logs = [path.with_name(path.name + suffix) for suffix in ("-wal", "-journal")]
    how = "mode=ro" if any(log.exists() for log in logs) else "immutable=1"
    uri = f"{path.absolute().as_uri()}?{how}"
    return sqlite3.connect(uri, uri=True, isolation_level=None)
