"""Keep every document in a PostgreSQL database: the store that the nodes of a cluster share.

All nodes write at once; `postgres_write` says what keeps them from getting in each other's way.
Each method takes a connection of a small pool for one transaction (`postgres_connection`).
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from copy import copy
from functools import partial
from pathlib import Path

from plait.persistence import (
    postgres_check,
    postgres_outbox,
    postgres_read,
    postgres_records,
    postgres_schema,
    postgres_write,
)
from plait.persistence.announcing import Announcer
from plait.persistence.postgres_address import parse
from plait.persistence.postgres_connection import (
    BEGIN_COPYING,
    BEGIN_LONG,
    BEGIN_READING,
    Connections,
    OneTransaction,
    Session,
)
from plait.persistence.postgres_errors import translated
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
from plait.persistence.transfer import back_up_by_copying


class PostgresStore:
    """A store in PostgreSQL; see `plait.persistence.store.Store` for what it promises.

    Args:
        url: `postgresql://…`, with `schema`, `pool` and `statement_cache` among its query; the rest
            of that goes to asyncpg.
        serving: whether documents will be loaded at any moment, by many at once.
        create: whether `open` makes the store if there is none.
        announce: kinds of events that it puts into its outbox by itself.
        outbox_max: how many events may wait there, about.
        wall: tells the time, in seconds since 1970.

    Raises:
        StoreError: the URL can't be used.
    """

    shared = True

    def __init__(
        self,
        url: str,
        *,
        serving: bool = False,
        create: bool = True,
        announce: Collection[str] = (),
        outbox_max: int = OUTBOX_MAX,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._address = parse(url)
        self.url = self._address.url
        self.versions = (0, 0)
        """Of the schema: as it was found by `open`, and as it is now."""
        self._create = create
        self._serving = serving
        self._connections = Connections(self._address)
        # Making one more connection takes longer than all loads that wait for one; and two of those
        # that are ready are for commits and what else there is.
        self._loads = asyncio.Semaphore(max(1, self._connections.ready - 2))
        # Tells rows of this object from those of others, with as good as no chance of two alike.
        self._writer = random.SystemRandom().randrange(1, 1 << 63)
        self.announces = bool(announce)
        self._announcer = Announcer(announce, outbox_max)
        self._wall = wall
        self._appender = postgres_write.Appender(self._writer, self._announcer)

    async def open(self) -> None:
        """Connect, and bring the schema forward."""
        await self._connections.open()
        try:
            self.versions = await postgres_schema.migrate(
                self._connections, self.url, create=self._create
            )
            if self._serving:
                await self._connections.keep_ready(partial(postgres_read.load_at_once, document=""))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections."""
        self._appender.forget()
        await self._connections.close()

    async def ping(self) -> None:
        """Commit one row that nobody reads."""
        await self._connections.write(partial(postgres_write.ping, writer=self._writer))

    async def identity(self) -> str:
        """Return what names the content, whatever the URL."""
        return await self._connections.read(postgres_read.identity)

    async def append(self, updates: Sequence[Update]) -> Sequence[int]:
        """Commit updates in one transaction."""
        if not updates:
            return ()
        seqs = await self._connections.attempt(
            partial(self._appender.append_known, updates=updates)
        )
        if seqs:
            return seqs
        appended = await self._connections.write(partial(self._appender.append, updates=updates))
        self._appender.know(appended.ids)
        return appended.seqs

    async def load(self, document: str) -> Stored:
        """Return a document's snapshot and the updates after it."""
        work = partial(postgres_read.load_at_once, document=document)
        async with self._loads:
            found = await self._connections.read(work)
        if found is None:
            found = await self._connections.read(
                partial(postgres_read.load, document=document), BEGIN_READING
            )
        stored, identity = found
        self._appender.know_loaded(document, identity)
        return stored

    async def log(self, document: str, after: int = 0, limit: int = 1000) -> Sequence[LoggedUpdate]:
        """Return a page of a document's whole log."""
        return await self._connections.read(
            lambda session: postgres_read.log(session, document, after, limit)
        )

    async def compact(
        self, document: str, snapshot: Snapshot, segment: Segment | None = None
    ) -> bool:
        """Set a snapshot and fold rows into a segment."""
        check_compaction(snapshot, segment)
        return await self._connections.write(
            lambda session: postgres_write.compact(session, document, snapshot, segment)
        )

    async def changes(self, after: Mapping[str, int]) -> Changes:
        """Return rows that others appended."""
        if not after:
            return Changes()
        return await self._connections.read(
            lambda session: postgres_read.changes(session, after, self._writer), BEGIN_READING
        )

    async def documents(
        self, *, prefix: str = "", after: str = "", limit: int = 100, deleted: bool = False
    ) -> Sequence[DocumentInfo]:
        """List documents by name."""
        return await self._connections.read(
            lambda session: postgres_read.documents(session, prefix, after, limit, deleted)
        )

    async def info(self, document: str) -> DocumentInfo | None:
        """Return what is known of one document."""
        return await self._connections.read(partial(postgres_read.info, document=document))

    async def delete(self, document: str, at_ms: int) -> bool:
        """Mark a document as deleted."""
        return await self._connections.write(
            lambda session: postgres_write.delete(session, document, at_ms, self._announcer)
        )

    async def undelete(self, document: str) -> bool:
        """Take back a `delete`."""
        now_ms = self._now_ms()
        return await self._connections.write(
            lambda session: postgres_write.undelete(session, document, now_ms, self._announcer)
        )

    async def purge(self, *, document: str | None = None, before_ms: int | None = None) -> int:
        """Forget deleted documents, one a transaction."""
        if document is None and before_ms is None:
            raise ValueError("purge needs a document or a time")
        ids = await self._connections.read(
            lambda session: postgres_write.to_purge(session, document, before_ms)
        )
        count = 0
        for identity in ids:
            count += await self._connections.write(
                partial(postgres_write.purge_one, identity=identity, before_ms=before_ms)
            )
        self._appender.forget()
        return count

    async def backup(self, target: Path, progress: Progress | None = None) -> None:
        """Write an SQLite store as of one moment; its sequence numbers begin anew."""
        async with self.reading() as view:
            await back_up_by_copying(view, target, progress)

    async def check(self, progress: Progress | None = None) -> Sequence[str]:
        """Return what is wrong with the tables, in sentences."""
        return await self._connections.read(
            lambda session: postgres_check.check(session, self.url, progress), BEGIN_LONG
        )

    async def put_record(self, record: Record, *, new: bool = False) -> bool:
        """Put a record in the place of another."""
        now_ms = self._now_ms()
        return await self._connections.write(
            lambda session: postgres_records.put(session, record, new, now_ms)
        )

    async def remove_record(self, kind: str, id: str) -> bool:
        """Remove a record."""
        now_ms = self._now_ms()
        return await self._connections.write(
            lambda session: postgres_records.remove(session, kind, id, now_ms)
        )

    async def record(self, kind: str, id: str) -> Record | None:
        """Return a record."""
        return await self._connections.read(lambda session: postgres_records.get(session, kind, id))

    async def records(self, kind: str, *, after: str = "", limit: int = 1000) -> Sequence[Record]:
        """List records of a kind."""
        return await self._connections.read(
            lambda session: postgres_records.page(session, kind, after, limit)
        )

    async def records_since(self, seq: int) -> RecordChanges:
        """Return what was put and removed after a number."""
        return await self._connections.read(partial(postgres_records.since, seq=seq), BEGIN_READING)

    async def post(self, events: Sequence[Event]) -> None:
        """Put events into the outbox."""
        if events:
            await self._connections.write(
                lambda session: postgres_outbox.put(session, events, self._announcer)
            )

    async def take_events(self, now_ms: int, *, lease_ms: int, limit: int = 100) -> Sequence[Event]:
        """Take the oldest event of each document."""
        return await self._connections.write(
            lambda session: postgres_outbox.take(session, now_ms, lease_ms, limit)
        )

    async def end_events(self, ids: Sequence[int]) -> None:
        """Remove events that were taken."""
        if ids:
            await self._connections.write(partial(postgres_outbox.end, ids=ids))

    async def put_back_event(self, id: int, due_ms: int) -> None:
        """Let an event be taken again."""
        await self._connections.write(lambda session: postgres_outbox.put_back(session, id, due_ms))

    async def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        """List the outbox."""
        return await self._connections.read(
            lambda session: postgres_outbox.page(session, after, limit)
        )

    async def event_counts(self) -> tuple[int, int]:
        """Return how many events there are, and the time of the oldest."""
        return await self._connections.read(postgres_outbox.counts)

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator["View"]:
        """Give the store as it is at this moment, for the length of a `with`."""
        with translated(self.url):
            async with self._connections.transaction(BEGIN_LONG) as session:
                yield View(session, self.url)

    @asynccontextmanager
    async def at_once(self, *, alone: bool = False) -> AsyncIterator["PostgresStore"]:
        """Give a store to write to that is this one in one transaction: all of it is there once the
        `with` ends well, and none of it if not, whatever happens to this process.

        Args:
            alone: whether to refuse if another process does the same.

        Raises:
            StoreUnavailable: another process does.
        """
        with translated(self.url):
            async with self._connections.transaction(BEGIN_COPYING) as session:
                if alone and not await postgres_schema.locked_for_copying(session):
                    raise StoreUnavailable(
                        f"something is being copied into {self.url} at this moment",
                        hint="Wait until that is done. What was cut off is taken back by the "
                        "server once it notices.",
                    )
                store = copy(self)
                store._connections = OneTransaction(self._address, session)
                store._appender = postgres_write.Appender(self._writer, self._announcer)
                yield store


class View:
    """A store as it was at one moment. Its methods do what those of `Store` do."""

    def __init__(self, session: Session, url: str) -> None:
        self._session = session
        self._url = url

    async def load(self, document: str) -> Stored:
        """Return a document's snapshot and the updates after it."""
        with translated(self._url):
            stored, _ = await postgres_read.load(self._session, document)
        return stored

    async def log(self, document: str, after: int = 0, limit: int = 1000) -> Sequence[LoggedUpdate]:
        """Return a page of a document's whole log."""
        with translated(self._url):
            return await postgres_read.log(self._session, document, after, limit)

    async def documents(
        self, *, prefix: str = "", after: str = "", limit: int = 100, deleted: bool = False
    ) -> Sequence[DocumentInfo]:
        """List documents by name."""
        with translated(self._url):
            return await postgres_read.documents(self._session, prefix, after, limit, deleted)

    async def records_since(self, seq: int) -> RecordChanges:
        """Return what was put and removed after a number."""
        with translated(self._url):
            return await postgres_records.since(self._session, seq)

    async def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        """List the outbox."""
        with translated(self._url):
            return await postgres_outbox.page(self._session, after, limit)
