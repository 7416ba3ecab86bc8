"""Keep documents in dictionaries: the reference that the other stores are compared with.

For tests, and for servers whose documents may end with the process. Several objects can share the
same content (`sibling`), as nodes share a database.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from plait.persistence.announcing import Announcer
from plait.persistence.memory_records import Outbox, Records
from plait.persistence.ownership import OwnSequences
from plait.persistence.store import (
    DELETED,
    OUTBOX_MAX,
    UNDELETED,
    Changes,
    DocumentDeleted,
    DocumentInfo,
    Event,
    LoggedUpdate,
    Progress,
    Record,
    RecordChanges,
    Segment,
    Snapshot,
    Stored,
    Update,
    check_compaction,
)


@dataclass(slots=True)
class _Document:
    created_ms: int
    modified_ms: int
    log: list[LoggedUpdate] = field(default_factory=list)
    folded: set[int] = field(default_factory=set)
    snapshot: Snapshot | None = None
    deleted_ms: int | None = None

    def tail(self) -> tuple[LoggedUpdate, ...]:
        upto = self.snapshot.upto if self.snapshot else 0
        return tuple(row for row in self.log if row.seq > upto)


@dataclass(slots=True)
class _Content:
    documents: dict[str, _Document] = field(default_factory=dict)
    seq: int = 0
    records: Records = field(default_factory=Records)
    outbox: Outbox = field(default_factory=Outbox)


class MemoryStore:
    """A store that lives as long as its process."""

    url = "memory://"
    shared = False

    def __init__(
        self,
        *,
        announce: Collection[str] = (),
        outbox_max: int = OUTBOX_MAX,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.announces = bool(announce)
        self._announcer = Announcer(announce, outbox_max)
        self._wall = wall
        self._content = _Content()
        self._own = OwnSequences()
        self._known: dict[str, _Document] = {}
        """Documents that were loaded or appended to here, to notice that a sibling purged them."""

    def sibling(self) -> "MemoryStore":
        """Return another store with the same content, as another process would have it open."""
        other = MemoryStore(
            announce=self._announcer.kinds, outbox_max=self._announcer.most, wall=self._wall
        )
        other._content = self._content
        return other

    async def open(self) -> None:
        """Do nothing: there is nothing to connect to."""

    async def close(self) -> None:
        """Do nothing: what was appended stays."""

    async def ping(self) -> None:
        """Return: memory can always be written."""

    async def identity(self) -> str:
        """Return what siblings have in common."""
        return f"memory-{id(self._content):x}"

    async def append(self, updates: Sequence[Update]) -> Sequence[int]:
        """Append all updates or none."""
        for update in updates:
            update.document.encode()  # as a database does, refuse what is not Unicode text
        for update in updates:
            if self._live(update.document) is None and update.document in self._known:
                del self._known[update.document]
                raise DocumentDeleted.of(update.document)
        first = self._content.seq + 1
        if self.announces:
            self._announce(updates)
        for update in updates:
            self._append(update)
        seqs = range(first, self._content.seq + 1)
        self._own.add(seqs)
        return seqs

    def _announce(self, updates: Sequence[Update]) -> None:
        times: dict[str, tuple[int, int]] = {}
        for update in updates:
            first, last = times.get(update.document, (update.at_ms, update.at_ms))
            times[update.document] = (first, max(last, update.at_ms))
        made = {document for document in times if document not in self._content.documents}
        self._content.outbox.appended(times, made, self._announcer)

    def _append(self, update: Update) -> None:
        document = self._content.documents.get(update.document)
        if document is None:
            document = _Document(update.at_ms, update.at_ms)
            self._content.documents[update.document] = document
        self._known[update.document] = document
        self._content.seq += 1
        document.modified_ms = max(document.modified_ms, update.at_ms)
        document.log.append(
            LoggedUpdate(
                self._content.seq, update.document, update.update, update.who, update.at_ms
            )
        )

    async def load(self, document: str) -> Stored:
        """Return a document as it is."""
        found = self._live(document)
        if found is None:
            self._known.pop(document, None)
            return Stored(document)
        self._known[document] = found
        return Stored(document, found.snapshot, found.tail())

    async def log(self, document: str, after: int = 0, limit: int = 1000) -> Sequence[LoggedUpdate]:
        """Return a page of a document's whole log."""
        found = self._content.documents.get(document)
        return [row for row in found.log if row.seq > after][:limit] if found else []

    async def compact(
        self, document: str, snapshot: Snapshot, segment: Segment | None = None
    ) -> bool:
        """Set a snapshot and fold rows into a segment."""
        check_compaction(snapshot, segment)
        found = self._content.documents.get(document)
        if found is None or found.deleted_ms is not None:
            return False
        covered = found.snapshot.upto if found.snapshot else 0
        if covered > snapshot.upto or (covered == snapshot.upto and segment is None):
            return False
        seqs = {row.seq for row in found.log}
        if snapshot.upto not in seqs:
            return False
        if segment is not None:
            if not {segment.first, segment.last} <= seqs:
                return False
            if not segment.first <= segment.last <= snapshot.upto:
                return False
            self._fold(found, segment)
        if covered < snapshot.upto:
            found.snapshot = snapshot
        return True

    def _fold(self, document: _Document, segment: Segment) -> None:
        run = [row for row in document.log if segment.first <= row.seq <= segment.last]
        authors = {row.who for row in run}
        last = run[-1]
        who = last.who if len(authors) == 1 else ""
        start = document.log.index(run[0])
        document.log[start : start + len(run)] = [
            LoggedUpdate(last.seq, last.document, segment.update, who, last.at_ms)
        ]
        document.folded.add(last.seq)

    async def changes(self, after: Mapping[str, int]) -> Changes:
        """Return rows that siblings appended."""
        seqs: dict[str, int] = {}
        rows: list[LoggedUpdate] = []
        deleted: list[str] = []
        for name, seq in after.items():
            document = self._content.documents.get(name)
            if document is None:
                continue
            if document.deleted_ms is not None:
                deleted.append(name)
            new = [row for row in document.log if row.seq > seq]
            if new:
                seqs[name] = new[-1].seq
            rows += (r for r in new if r.seq not in self._own or r.seq in document.folded)
        return Changes(seqs, tuple(rows), tuple(deleted))

    async def documents(
        self, *, prefix: str = "", after: str = "", limit: int = 100, deleted: bool = False
    ) -> Sequence[DocumentInfo]:
        """List documents; text compares by code points, which is the order of its UTF-8."""
        names = sorted(
            name
            for name, document in self._content.documents.items()
            if name > after
            and name.startswith(prefix)
            and (document.deleted_ms is not None) == deleted
        )
        return [self._info(name, self._content.documents[name]) for name in names[:limit]]

    async def info(self, document: str) -> DocumentInfo | None:
        """Return what is known of one document."""
        found = self._content.documents.get(document)
        return self._info(document, found) if found else None

    async def delete(self, document: str, at_ms: int) -> bool:
        """Mark a document as deleted."""
        found = self._content.documents.get(document)
        if found is None or found.deleted_ms is not None:
            return False
        found.deleted_ms = at_ms
        self._announce_mark(DELETED, document, at_ms)
        return True

    async def undelete(self, document: str) -> bool:
        """Take back a `delete`."""
        found = self._content.documents.get(document)
        if found is None or found.deleted_ms is None:
            return False
        found.deleted_ms = None
        self._announce_mark(UNDELETED, document, self._now_ms())
        return True

    def _announce_mark(self, kind: str, document: str, at_ms: int) -> None:
        if kind in self._announcer.kinds:
            self._content.outbox.put([Event(document, kind, at_ms)], self._announcer)

    async def purge(self, *, document: str | None = None, before_ms: int | None = None) -> int:
        """Forget deleted documents."""
        if document is None and before_ms is None:
            raise ValueError("purge needs a document or a time")
        names = [
            name
            for name, found in self._content.documents.items()
            if found.deleted_ms is not None
            and (document is None or name == document)
            and (before_ms is None or found.deleted_ms < before_ms)
        ]
        for name in names:
            del self._content.documents[name]
        self._known.clear()
        return len(names)

    async def backup(self, target: Path, progress: Progress | None = None) -> None:
        """Write the content into a new SQLite store; its sequence numbers begin anew."""
        from plait.persistence.transfer import back_up_by_copying

        await back_up_by_copying(self, target, progress)

    async def check(self, progress: Progress | None = None) -> Sequence[str]:
        """Return nothing: there is no structure that could be wrong."""
        return []

    async def put_record(self, record: Record, *, new: bool = False) -> bool:
        """Put a record in the place of another."""
        return self._content.records.put(record, new, self._now_ms())

    async def remove_record(self, kind: str, id: str) -> bool:
        """Remove a record."""
        return self._content.records.remove(kind, id, self._now_ms())

    async def record(self, kind: str, id: str) -> Record | None:
        """Return a record."""
        return self._content.records.get(kind, id)

    async def records(self, kind: str, *, after: str = "", limit: int = 1000) -> Sequence[Record]:
        """List records of a kind."""
        return self._content.records.page(kind, after, limit)

    async def records_since(self, seq: int) -> RecordChanges:
        """Return what was put and removed after a number."""
        return self._content.records.since(seq)

    async def post(self, events: Sequence[Event]) -> None:
        """Put events into the outbox."""
        self._content.outbox.put(events, self._announcer)

    async def take_events(self, now_ms: int, *, lease_ms: int, limit: int = 100) -> Sequence[Event]:
        """Take the oldest event of each document."""
        return self._content.outbox.take(now_ms, lease_ms, limit)

    async def end_events(self, ids: Sequence[int]) -> None:
        """Remove events that were taken."""
        self._content.outbox.end(ids)

    async def put_back_event(self, id: int, due_ms: int) -> None:
        """Let an event be taken again."""
        self._content.outbox.put_back(id, due_ms)

    async def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        """List the outbox."""
        return self._content.outbox.page(after, limit)

    async def event_counts(self) -> tuple[int, int]:
        """Return how many events there are, and the time of the oldest."""
        return self._content.outbox.counts()

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)

    def _live(self, name: str) -> _Document | None:
        document = self._content.documents.get(name)
        if document is not None and document.deleted_ms is not None:
            raise DocumentDeleted.of(name)
        return document

    def _info(self, name: str, document: _Document) -> DocumentInfo:
        tail = document.tail()
        slices = document.snapshot.slices if document.snapshot else ()
        return DocumentInfo(
            name=name,
            created_ms=document.created_ms,
            modified_ms=document.modified_ms,
            updates=len(document.log),
            log_bytes=sum(len(row.update) for row in document.log),
            snapshot_bytes=sum(map(len, slices)),
            tail_updates=len(tail),
            tail_bytes=sum(len(row.update) for row in tail),
            deleted_ms=document.deleted_ms,
        )
