"""Copy one store into another of any kind, through the contract alone."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from plait.persistence.files import (
    copy_database,
    disk_errors,
    force_to_disk,
    put_in_place,
    refuse_existing,
    temporary_beside,
)
from plait.persistence.restore import alone_with, take_place
from plait.persistence.sqlite import SqliteStore, refuse_unusable
from plait.persistence.sqlite_connection import open_file
from plait.persistence.sqlite_errors import translated
from plait.persistence.store import (
    DocumentInfo,
    Event,
    LoggedUpdate,
    Progress,
    Record,
    RecordChanges,
    Snapshot,
    Store,
    Stored,
    Update,
)

DOCUMENTS_A_PAGE = 500
ROWS_A_PAGE = 500
EVENTS_A_PAGE = 1000
BYTES_A_PAGE = 8 << 20
"""Of one append, about: small documents share one, large ones take several."""


class Source(Protocol):
    """What a copy is made from: a store, or a part of one that stands still."""

    async def load(self, document: str) -> Stored:
        """Return a document's snapshot and the updates after it."""

    async def log(self, document: str, after: int = 0, limit: int = 1000) -> Sequence[LoggedUpdate]:
        """Return a page of a document's whole log."""

    async def documents(
        self, *, prefix: str = "", after: str = "", limit: int = 100, deleted: bool = False
    ) -> Sequence[DocumentInfo]:
        """List documents by name."""

    async def records_since(self, seq: int) -> RecordChanges:
        """Return what was put and removed after a number."""

    async def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        """List the outbox."""


@runtime_checkable
class Shared(Protocol):
    """A store that others write to while it is copied."""

    versions: tuple[int, int]
    """Of its schema: as opening found it, and as it is now."""

    def reading(self) -> AbstractAsyncContextManager[Source]:
        """Give it as it is at this moment, for the length of a `with`."""

    def at_once(self, *, alone: bool = False) -> AbstractAsyncContextManager[Store]:
        """Give it to write to; all that is written is there once the `with` ends well, or none."""


class _Ready(NamedTuple):
    """A document all of whose rows are at hand or copied, which is yet to be finished."""

    info: DocumentInfo
    rows: Sequence[LoggedUpdate]
    snapshot: Snapshot | None
    upto: int
    """What the snapshot covers, in the target's numbers, of rows that are copied; 0 if nothing."""


async def all_documents(source: Source) -> AsyncIterator[DocumentInfo]:
    """Return what is known of every document; first those that are not deleted."""
    for deleted in (False, True):
        after = ""
        while page := await source.documents(after=after, limit=DOCUMENTS_A_PAGE, deleted=deleted):
            for info in page:
                yield info
            after = page[-1].name


async def copy_store(source: Source, target: Store, progress: Progress | None = None) -> int:
    """Copy all documents with their history, snapshots and deletions; return how many.

    The target gives out sequence numbers of its own. Documents that it has already are appended to.
    The source should not be written meanwhile. Records are copied first, unless the target has
    later ones, and at the end what the outbox has; what somebody has in hand there is to be taken
    anew.
    """
    for record in (await source.records_since(0)).records:
        if not _covers(await target.record(record.kind, record.id), record):
            await target.put_record(record)
    total = 0
    async for _ in all_documents(source):
        total += 1
    done = 0
    batch: list[_Ready] = []
    rows = length = 0
    async for info in all_documents(source):
        if batch and (rows + info.updates > ROWS_A_PAGE or length + info.log_bytes > BYTES_A_PAGE):
            await _copy(batch, target)
            batch, rows, length = [], 0, 0
        ready = await _read(source, target, info)
        batch.append(ready)
        rows += len(ready.rows)
        length += sum(len(row.update) for row in ready.rows)
        done += 1
        if progress is not None:
            progress("documents copied", done, total)
    await _copy(batch, target)
    async for page in _all_events(source):
        await target.post(page)
    return done


def _covers(there: Record | None, record: Record) -> bool:
    """Return whether what a store has of a record is as new as another one."""
    return there is not None and there.at_ms >= record.at_ms


async def _all_events(source: Source) -> AsyncIterator[Sequence[Event]]:
    after = 0
    while page := await source.events(after=after, limit=EVENTS_A_PAGE):
        yield page
        after = page[-1].id


async def _read(source: Source, target: Store, info: DocumentInfo) -> _Ready:
    """Read a document, and copy all of its rows but the last page."""
    # The snapshot of a deleted document can't be asked for; its log has all of it.
    snapshot = None if info.deleted_ms is not None else (await source.load(info.name)).snapshot
    upto = 0
    size = min(ROWS_A_PAGE, max(1, BYTES_A_PAGE * info.updates // max(1, info.log_bytes)))
    page = await source.log(info.name, 0, size)
    while len(page) == size and (more := await source.log(info.name, page[-1].seq, size)):
        upto = _covered(snapshot, page, await target.append(_updates(page))) or upto
        page = more
    return _Ready(info, page, snapshot, upto)


async def _copy(batch: Sequence[_Ready], target: Store) -> None:
    """Append the rows of several documents in one transaction, and finish each."""
    seqs = await target.append([each for ready in batch for each in _updates(ready.rows)])
    at = 0
    for info, rows, snapshot, upto in batch:
        upto = _covered(snapshot, rows, seqs[at : at + len(rows)]) or upto
        at += len(rows)
        if snapshot is not None and upto:
            await target.compact(info.name, replace(snapshot, upto=upto))
        if info.deleted_ms is not None:
            await target.delete(info.name, info.deleted_ms)


def _updates(rows: Sequence[LoggedUpdate]) -> list[Update]:
    return [Update(row.document, row.update, row.who, row.at_ms) for row in rows]


def _covered(snapshot: Snapshot | None, rows: Sequence[LoggedUpdate], seqs: Sequence[int]) -> int:
    """Return the target's number of the last row that a snapshot covers; 0 if it covers none."""
    if snapshot is None:
        return 0
    pairs = zip(rows, seqs, strict=True)
    return max((seq for row, seq in pairs if row.seq <= snapshot.upto), default=0)


async def differences(source: Source, target: Source) -> Sequence[str]:
    """Return what a copy lacks, in sentences.

    Documents are compared by name, counts and sizes. Of records and events it may have more.
    """
    there = {info.name: _outline(info) async for info in all_documents(target)}
    found = []
    async for info in all_documents(source):
        copied = there.pop(info.name, None)
        if copied is None:
            found.append(f"Document {info.name!r} is missing.")
        elif copied != _outline(info):
            found.append(f"Document {info.name!r} has other rows or sizes.")
    found += [f"Document {name!r} is one too many." for name in there]
    records = {(r.kind, r.id): r for r in (await target.records_since(0)).records}
    for record in (await source.records_since(0)).records:
        if not _covers(records.get((record.kind, record.id)), record):
            found.append(f"The record {record.id!r} ({record.kind}) is missing.")
    missing = await _count_events(source) - await _count_events(target)
    if missing > 0:
        found.append(f"Of what the outbox has, {missing} are missing.")
    return found


async def _count_events(source: Source) -> int:
    return sum([len(page) async for page in _all_events(source)])


def _outline(info: DocumentInfo) -> tuple[object, ...]:
    snapshot = info.snapshot_bytes if info.deleted_ms is None else 0
    return info.updates, info.log_bytes, snapshot, info.deleted_ms


async def back_up_by_copying(source: Source, target: Path, progress: Progress | None) -> None:
    """Write the content of a store into a new SQLite file, which is there as a whole or not."""
    async with new_file(target) as copy:
        await copy_store(source, copy, progress)


@asynccontextmanager
async def new_file(target: Path) -> AsyncIterator[SqliteStore]:
    """Give an empty store, which gets its name when the `with` ends well; before, nothing is there.

    Raises:
        StoreError: there is a file of that name.
        StoreUnavailable: the file can't be written.
    """
    refuse_existing(target)
    refuse_unusable(target)
    with temporary_beside(target) as temporary:
        async with _opened(temporary) as copy:
            yield copy
        with disk_errors(target):
            force_to_disk(temporary)
            put_in_place(temporary, target)


@asynccontextmanager
async def refilled_file(target: Path) -> AsyncIterator[SqliteStore]:
    """Give a copy of a store, which takes its place when the `with` ends well.

    Nobody can serve it meanwhile. The old one is kept, as `restore_file` does.

    Raises:
        StoreUnavailable: a server uses the store, or a file can't be written.
    """
    with temporary_beside(target) as temporary, alone_with(target):
        with disk_errors(target), translated(target):
            with closing(open_file(target, busy_seconds=5)) as connection:
                copy_database(connection, temporary, lambda done, total: None)
        async with _opened(temporary) as copy:
            yield copy
        with disk_errors(target):
            force_to_disk(temporary)
            take_place(temporary, target)


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
