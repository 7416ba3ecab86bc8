"""Keep every document in one SQLite file: the embedded default.

Two connections, each with a thread: one writes, the other reads, so that loading a document never
waits behind a commit, nor a commit behind a large document. Each method is one transaction and one
call into a thread (`sqlite_connection` says why). Long work on the whole file, backup and check,
has a connection and a thread of its own.
"""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from plait.persistence import (
    schema,
    sqlite_backup,
    sqlite_check,
    sqlite_outbox,
    sqlite_read,
    sqlite_records,
    sqlite_write,
)
from plait.persistence.announcing import Announcer
from plait.persistence.lock import StoreLock
from plait.persistence.sqlite_connection import (
    SqliteConnection,
    connect,
    open_file,
    prepare_for_reading,
    prepare_for_writing,
)
from plait.persistence.sqlite_errors import translated
from plait.persistence.sqlite_watch import Watch
from plait.persistence.store import (
    OUTBOX_MAX,
    Changes,
    DocumentInfo,
    Event,
    LoggedUpdate,
    Progress,
    Record,
    RecordChanges,
    Segment,
    Snapshot,
    Stored,
    StoreUnavailable,
    Update,
    check_compaction,
)

P = ParamSpec("P")
T = TypeVar("T")


class SqliteStore:
    """A store in an SQLite file; see `plait.persistence.store.Store` for what it promises."""

    shared = False

    def __init__(
        self,
        path: Path,
        *,
        serving: bool = False,
        busy_seconds: float = 5.0,
        announce: Collection[str] = (),
        outbox_max: int = OUTBOX_MAX,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self._busy_seconds = busy_seconds
        """How long a commit waits for another process's before it is `StoreUnavailable`."""
        self._lock = StoreLock(path) if serving else None
        self._writing: SqliteConnection | None = None
        self._reading: SqliteConnection | None = None
        self.announces = bool(announce)
        self._announcer = Announcer(announce, outbox_max)
        self._wall = wall
        self._appender = sqlite_write.Appender(self._announcer)
        self._watch = Watch()

    async def open(self) -> None:
        """Connect, and bring the schema forward."""
        assert self._writing is None, "a store is opened once"
        refuse_unusable(self.path)
        if self._lock is not None:
            self._lock.acquire_shared()
        try:
            self._writing = await connect(self.path, busy_seconds=self._busy_seconds)
            # In this order: nothing is written to a file before it is known to be ours.
            await self._writing.run(schema.version_of, self.path)
            await self._writing.run(prepare_for_writing, busy_seconds=self._busy_seconds)
            await self._writing.run(schema.migrate, self.path)
            self._reading = await connect(self.path, busy_seconds=self._busy_seconds)
            await self._reading.run(prepare_for_reading)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close both connections. The last to close moves the write-ahead log into the file."""
        reading, self._reading = self._reading, None
        writing, self._writing = self._writing, None
        self._appender, self._watch = sqlite_write.Appender(self._announcer), Watch()
        try:
            with translated(self.path):
                if reading is not None:
                    await reading.close()
                if writing is not None:
                    await writing.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    async def ping(self) -> None:
        """Commit one row that nobody reads."""
        await self._write(sqlite_write.ping)

    async def identity(self) -> str:
        """Return what names the file on this machine, whatever its path."""
        status = self.path.stat()
        return f"sqlite-{status.st_dev:x}-{status.st_ino:x}"

    async def append(self, updates: Sequence[Update]) -> Sequence[int]:
        """Commit updates in one transaction."""
        return await self._write(self._append, updates)

    def _append(self, connection: sqlite3.Connection, updates: Sequence[Update]) -> Sequence[int]:
        seqs = self._appender.append(connection, updates)
        self._watch.own.add(seqs)
        return seqs

    async def load(self, document: str) -> Stored:
        """Return a document's snapshot and the updates after it."""
        stored, identity = await self._read(sqlite_read.load, document)
        self._appender.know(document, identity)
        return stored

    async def log(self, document: str, after: int = 0, limit: int = 1000) -> Sequence[LoggedUpdate]:
        """Return a page of a document's whole log."""
        return await self._read(sqlite_read.log, document, after, limit)

    async def compact(
        self, document: str, snapshot: Snapshot, segment: Segment | None = None
    ) -> bool:
        """Set a snapshot and fold rows into a segment."""
        check_compaction(snapshot, segment)
        return await self._write(sqlite_write.compact, document, snapshot, segment)

    async def changes(self, after: Mapping[str, int]) -> Changes:
        """Return rows that others appended."""
        return await self._write(self._watch.changes, dict(after))

    async def documents(
        self, *, prefix: str = "", after: str = "", limit: int = 100, deleted: bool = False
    ) -> Sequence[DocumentInfo]:
        """List documents by name."""
        return await self._read(sqlite_read.documents, prefix, after, limit, deleted)

    async def info(self, document: str) -> DocumentInfo | None:
        """Return what is known of one document."""
        return await self._read(sqlite_read.info, document)

    async def delete(self, document: str, at_ms: int) -> bool:
        """Mark a document as deleted."""
        return await self._write_marks(sqlite_write.delete, document, at_ms, self._announcer)

    async def undelete(self, document: str) -> bool:
        """Take back a `delete`."""
        return await self._write_marks(
            sqlite_write.undelete, document, self._now_ms(), self._announcer
        )

    async def purge(self, *, document: str | None = None, before_ms: int | None = None) -> int:
        """Forget deleted documents, one a transaction."""
        if document is None and before_ms is None:
            raise ValueError("purge needs a document or a time")
        count = 0
        while await self._write_marks(sqlite_write.purge_one, document, before_ms):
            count += 1
        self._appender.forget()
        return count

    async def backup(self, target: Path, progress: Progress | None = None) -> None:
        """Write a copy that stands alone. Cancelling stops it and leaves nothing behind."""
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        def report(done: int, total: int) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, "backup", done, total)

        try:
            await asyncio.to_thread(sqlite_backup.back_up, self.path, target, stop, report)
        finally:
            stop.set()

    async def check(self, progress: Progress | None = None) -> Sequence[str]:
        """Return what is wrong with the file, in sentences."""
        loop = asyncio.get_running_loop()

        def report(what: str, done: int, total: int) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, what, done, total)

        checking: list[sqlite3.Connection] = []

        def work() -> Sequence[str]:
            with closing(open_file(self.path, busy_seconds=self._busy_seconds)) as connection:
                checking.append(connection)
                return sqlite_check.check(connection, self.path, report)

        try:
            with translated(self.path):
                return await asyncio.to_thread(work)
        except asyncio.CancelledError:
            # The thread would go on to the end, and the process wait for it.
            for connection in checking:
                with suppress(sqlite3.ProgrammingError):  # closed meanwhile
                    connection.interrupt()
            raise

    async def put_record(self, record: Record, *, new: bool = False) -> bool:
        """Put a record in the place of another."""
        return await self._write(sqlite_records.put, record, new, self._now_ms())

    async def remove_record(self, kind: str, id: str) -> bool:
        """Remove a record."""
        return await self._write(sqlite_records.remove, kind, id, self._now_ms())

    async def record(self, kind: str, id: str) -> Record | None:
        """Return a record."""
        return await self._read(sqlite_records.get, kind, id)

    async def records(self, kind: str, *, after: str = "", limit: int = 1000) -> Sequence[Record]:
        """List records of a kind."""
        return await self._read(sqlite_records.page, kind, after, limit)

    async def records_since(self, seq: int) -> RecordChanges:
        """Return what was put and removed after a number."""
        return await self._read(sqlite_records.since, seq)

    async def post(self, events: Sequence[Event]) -> None:
        """Put events into the outbox."""
        if events:
            await self._write(sqlite_outbox.post, events, self._announcer)

    async def take_events(self, now_ms: int, *, lease_ms: int, limit: int = 100) -> Sequence[Event]:
        """Take the oldest event of each document."""
        return await self._write(sqlite_outbox.take, now_ms, lease_ms, limit)

    async def end_events(self, ids: Sequence[int]) -> None:
        """Remove events that were taken."""
        if ids:
            await self._write(sqlite_outbox.end, ids)

    async def put_back_event(self, id: int, due_ms: int) -> None:
        """Let an event be taken again."""
        await self._write(sqlite_outbox.put_back, id, due_ms)

    async def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        """List the outbox."""
        return await self._read(sqlite_outbox.page, after, limit)

    async def event_counts(self) -> tuple[int, int]:
        """Return how many events there are, and the time of the oldest."""
        return await self._read(sqlite_outbox.counts)

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)

    async def _write_marks(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], bool],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> bool:
        def marked(connection: sqlite3.Connection) -> bool:
            self._watch.forget_deleted()
            return work(connection, *args, **kwargs)

        return await self._write(marked)

    async def _write(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return await self._opened(self._writing).run(work, *args, **kwargs)

    async def _read(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return await self._opened(self._reading).run(work, *args, **kwargs)

    def _opened(self, connection: SqliteConnection | None) -> SqliteConnection:
        if connection is None:
            raise StoreUnavailable(f"the store {self.path} is not open")
        return connection


def refuse_unusable(path: Path) -> None:
    """Say what is wrong with a path before SQLite says "unable to open database file"."""
    folder = path.parent
    if not folder.is_dir():
        raise StoreUnavailable(
            f"the folder of the store {path} does not exist",
            hint=f"Make it first: mkdir -p {folder}",
        )
    if path.is_dir():
        raise StoreUnavailable(
            f"the store {path} is a folder",
            hint=f"Give the path of a file in it, such as {path / 'plait.db'}.",
        )
    if path.exists() and not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise StoreUnavailable(
            f"the store {path} can't be read and written by this user",
            hint="Give it to the user who runs this, or run it as the file's owner.",
        )
    # SQLite keeps its write-ahead log beside the file.
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise StoreUnavailable(
            f"the folder of the store {path} can't be written by this user",
            hint=f"Let the user who runs this write {folder}.",
        )
