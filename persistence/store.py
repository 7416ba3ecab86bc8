"""The contract of a store: what every back end promises, in values that know no database.

A store is an append-only log of updates, each a document's name, bytes, author and time, ordered
within a document by a sequence number that only grows. Clocks order nothing. A *snapshot* of a
document is a list of slices that stand for all its updates up to a sequence number, so that loading
does not have to read them; the updates remain in the log as its history. Nothing in this contract
overwrites or drops an update: `compact` may replace a run of old ones by one that holds the same
content, and `purge` forgets a document that was deleted before. Nothing here knows of CRDTs: bytes
are bytes.

Errors:

    StoreError                      what went wrong, on which document, and the command that helps
    ├── StoreUnavailable            passes: locked, disk full, connection lost; try again
    ├── StoreCorrupt                stored bytes can't be trusted; restore or check
    ├── StoreVersion                written by a newer program, or not a store of ours
    ├── DocumentDeleted             the document was deleted and not purged
    └── DocumentExists              a document of that name is there already
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

CREATED, CHANGED, DELETED, UNDELETED = "created", "changed", "deleted", "undeleted"
ANNOUNCED = frozenset((CREATED, CHANGED, DELETED, UNDELETED))
"""Kinds of events that a store can write by itself, if it is opened with `announce`."""
OUTBOX_MAX = 1_000_000
"""Events that wait at most; above this the oldest that nobody has in hand are dropped."""
OUTBOX_LOOK_EVERY = 10_000
"""Events that one object puts in between two looks at the limit: so much may be above it."""

Progress = Callable[[str, int, int], None]
"""Told of long work: what is being done, how much is done, how much there is."""


class StoreError(Exception):
    """The base of storage errors: an operation that failed, and a hint on what to do."""

    def __init__(self, message: str, *, document: str | None = None, hint: str = "") -> None:
        super().__init__(message)
        self.document = document
        self.hint = hint

    def __str__(self) -> str:
        where = f" (document {self.document!r})" if self.document is not None else ""
        hint = f". {self.hint}" if self.hint else ""
        return f"{self.args[0]}{where}{hint}"


class StoreUnavailable(StoreError):
    """Raised when the store can't be reached or written now; trying again may help."""


class StoreCorrupt(StoreError):
    """Raised when stored bytes can't be trusted."""


class StoreVersion(StoreError):
    """Raised when the store was written by a newer program, or is not a store of ours."""


class DocumentDeleted(StoreError):
    """Raised when a document is loaded or appended to that was deleted and not purged."""

    @classmethod
    def of(cls, document: str) -> "DocumentDeleted":
        """Return the error that names a document."""
        hint = (
            "Bring it back with `plait docs undelete`, "
            "or forget it with `plait docs delete --purge`."
        )
        return cls("the document was deleted", document=document, hint=hint)


class DocumentExists(StoreError):
    """Raised when a document is brought back under a name that is in use."""


class Update(NamedTuple):
    """One change of one document, as it came from its author."""

    document: str
    update: bytes
    """Yjs v1 update."""
    who: str = ""
    """Subject of the author; empty if unknown."""
    at_ms: int = 0
    """Milliseconds since 1970 on the node that took it; says when, orders nothing."""


class LoggedUpdate(NamedTuple):
    """An update in the log, with its place."""

    seq: int
    document: str
    update: bytes
    who: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Slices that together stand for all of a document's updates up to `upto`, applied in order."""

    upto: int
    slices: tuple[bytes, ...]
    at_ms: int = 0
    types: int = 0
    """Shared types within, which the update validator counts."""
    lossy: bool = False
    """Whether pycrdt would re-encode some of it with loss (`plait.server.wire.update`)."""
    astral: bool = False
    """Whether there are characters beyond U+FFFF in it, which pycrdt can't split."""
    places: bytes | None = None
    """Where its shared types are, and what has a key, as the server wrote that
    (`plait.server.wire.places`); None if nobody has looked.
    """


@dataclass(frozen=True, slots=True)
class Stored:
    """A document as of one moment: a snapshot, if there is one, and the updates after it."""

    document: str
    snapshot: Snapshot | None = None
    updates: tuple[LoggedUpdate, ...] = ()

    @property
    def exists(self) -> bool:
        """Whether the store has anything of the document."""
        return self.snapshot is not None or bool(self.updates)

    @property
    def seq(self) -> int:
        """The last sequence number that this holds; 0 if none."""
        if self.updates:
            return self.updates[-1].seq
        return self.snapshot.upto if self.snapshot else 0


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """What a listing tells of a document without reading its content."""

    name: str
    created_ms: int
    modified_ms: int
    updates: int
    """Rows in the log, history included."""
    log_bytes: int
    snapshot_bytes: int
    tail_updates: int
    """Rows after the snapshot: what loading has to replay."""
    tail_bytes: int
    deleted_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One update that takes the place of a document's rows from `first` to `last` in the log."""

    first: int
    last: int
    update: bytes


def check_compaction(snapshot: Snapshot, segment: Segment | None) -> None:
    """Check what `Store.compact` is given, before anything is touched.

    Raises:
        ValueError: a snapshot without slices, or a segment without bytes.
    """
    if not snapshot.slices:
        raise ValueError("a snapshot without slices stands for nothing")
    if segment is not None and not segment.update:
        raise ValueError("a segment without bytes stands for nothing")


@dataclass(frozen=True, slots=True)
class Changes:
    """What other writers of the same store did since the sequence numbers that were asked for."""

    seqs: Mapping[str, int] = field(default_factory=dict)
    """For each document where it has moved, the sequence number to ask from next time."""
    updates: tuple[LoggedUpdate, ...] = ()
    """In the order of their sequence numbers within each document."""
    deleted: tuple[str, ...] = ()
    """Names of documents deleted at present among those asked about."""
    more: bool = False
    """Whether the answer was cut short, and to ask again at once."""


@dataclass(frozen=True, slots=True)
class Record:
    """A small fact that all nodes share, such as a revocation or the hash of an API key."""

    kind: str
    id: str
    value: str
    """JSON text, of some kilobytes at most."""
    at_ms: int
    """When it was put, by the clock of the node."""
    until_ms: int | None = None
    """When it stops to count; None if it never does. Whoever reads it has to look at this."""
    seq: int = 0
    """Its place among all that was put and removed; given out by the store."""


@dataclass(frozen=True, slots=True)
class RecordChanges:
    """What was put and removed after some number."""

    seq: int
    """The number to ask from next time."""
    records: tuple[Record, ...] = ()
    """As they are now, in the order in which they were put."""
    removed: tuple[tuple[str, str], ...] = ()
    """Kind and id of each that was removed and is not there now."""
    whole: bool = False
    """Whether these are all that there are, so that any other is to be forgotten."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something about a document that somebody outside is to be told."""

    document: str
    kind: str
    """One of `ANNOUNCED`, or another that is posted."""
    at_ms: int
    data: str = ""
    """JSON text, or nothing."""
    id: int = 0
    """Given out by the store; grows, and is never used twice."""
    attempts: int = 0
    """How often it was put back."""


class Store(Protocol):
    """Keep documents. One object belongs to one event loop; every method may raise `StoreError`."""

    url: str
    """Where it is, without secrets."""
    shared: bool
    """Whether other nodes are expected to write to it as well."""
    announces: bool
    """Whether `append`, `delete` and `undelete` put events into the outbox: those of the kinds
    that it was made with (`announce`), in the transaction of what they tell.

    `append` puts in "created" for a document that comes into being, and "changed" for each
    document, unless one that nobody took yet is the last of the document's announced events.
    `delete` puts in "deleted", `undelete` puts in "undeleted", each if it did something. `purge`
    puts in nothing, and leaves what is there.
    """

    async def open(self) -> None:
        """Connect, and bring the schema forward to this program's version.

        Raises:
            StoreVersion: a newer program wrote it, or it is not a store.
            StoreUnavailable: it can't be read or written.
        """

    async def close(self) -> None:
        """Let go of everything. What was appended stays."""

    async def ping(self) -> None:
        """Return if the store can be written right now."""

    async def identity(self) -> str:
        """Return a name that objects have in common if they have the same content, and only then:
        a restored copy has another.
        """

    async def append(self, updates: Sequence[Update]) -> Sequence[int]:
        """Commit updates of any documents in one transaction; return their sequence numbers.

        On return the updates survive a crash of the process and of the machine. A document comes
        into being with its first update. If one document was deleted, nothing is appended. A
        cancelled call has either committed all of them or nothing.

        Raises:
            DocumentDeleted: with the name of the document.
        """

    async def load(self, document: str) -> Stored:
        """Return a document's snapshot and the updates after it, in one consistent read.

        An unknown document is an empty `Stored`, never an error; an error is never an empty
        `Stored`.

        Raises:
            DocumentDeleted, StoreCorrupt, StoreUnavailable
        """

    async def log(self, document: str, after: int = 0, limit: int = 1000) -> Sequence[LoggedUpdate]:
        """Return the first `limit` rows of a document's whole log above a sequence number.

        The log of a deleted document can be read until it is purged.
        """

    async def compact(
        self, document: str, snapshot: Snapshot, segment: Segment | None = None
    ) -> bool:
        """Set a document's snapshot and, in the same transaction, fold old rows into a segment.

        Fenced and idempotent: does nothing and returns False if the document is gone; if its
        snapshot already covers more, or as much and there is no segment; if `snapshot.upto` is not
        the sequence number of one of its rows; if the segment's `first` or `last` is not one, or
        reaches beyond what the snapshot covers. Where the stored snapshot covers exactly as much,
        it stays and the rows are folded.

        Raises:
            ValueError: a snapshot without slices, or a segment without bytes.
        """

    async def changes(self, after: Mapping[str, int]) -> Changes:
        """Return rows that another writer appended to documents, each above a sequence number.

        A document's numbers are given out in the order of its commits: who has read up to a number
        will never find a new row below it. Numbers of different documents tell nothing of each
        other: a store may commit for several writers at once. Costs little while nobody else
        writes. Rows of this object may be among those returned, after another folded them.

        Args:
            after: by document, what `load` (`Stored.seq`) or the last call told.
        """

    async def documents(
        self, *, prefix: str = "", after: str = "", limit: int = 100, deleted: bool = False
    ) -> Sequence[DocumentInfo]:
        """List documents in the order of their names' UTF-8 bytes, from the first above `after`.

        With `deleted`, lists those that were deleted and not purged instead.
        """

    async def info(self, document: str) -> DocumentInfo | None:
        """Return what is known of one document, deleted or not; None if unknown."""

    async def delete(self, document: str, at_ms: int) -> bool:
        """Mark a document as deleted; its content stays until `purge`.

        Return whether there was one that was not deleted yet.
        """

    async def undelete(self, document: str) -> bool:
        """Take back a `delete`. Return whether there was one to take back."""

    async def purge(self, *, document: str | None = None, before_ms: int | None = None) -> int:
        """Forget deleted documents, one or all deleted before a time; return how many.

        Raises:
            ValueError: neither a document nor a time was given.
        """

    async def backup(self, target: Path, progress: Progress | None = None) -> None:
        """Write a consistent copy of the whole store as an SQLite file, while it is in use.

        Never overwrites: a target that exists is a `StoreError`.
        """

    async def check(self, progress: Progress | None = None) -> Sequence[str]:
        """Return what is wrong with the store's own structure; empty if nothing is."""

    # Records

    async def put_record(self, record: Record, *, new: bool = False) -> bool:
        """Put a record in the place of the one of its kind and id, if any; return whether it was.

        Forgets a day later what has stopped to count, or was removed.

        Args:
            new: do nothing, and return False, if there is one that counts at `record.at_ms`.
        """

    async def remove_record(self, kind: str, id: str) -> bool:
        """Remove a record; return whether there was one."""

    async def record(self, kind: str, id: str) -> Record | None:
        """Return a record, also one that does not count any more; None if there is none."""

    async def records(self, kind: str, *, after: str = "", limit: int = 1000) -> Sequence[Record]:
        """List records of a kind in the order of their ids' UTF-8 bytes, from the first above
        `after`; also those that do not count any more.
        """

    async def records_since(self, seq: int) -> RecordChanges:
        """Return what was put and removed after a number, also by others; all that is there for 0.

        Numbers are given out in the order of commits: who has read up to a number will never find
        something new below it. Whoever asks from a number that is too old to tell what was removed
        since is told all (`RecordChanges.whole`). What stops to count is not told.
        """

    # The outbox

    async def post(self, events: Sequence[Event]) -> None:
        """Put events into the outbox; `id` is not looked at.

        The outbox is bounded: above `OUTBOX_MAX` events, those are dropped that wait longest, of
        whatever kind, unless somebody has them in hand.
        """

    async def take_events(self, now_ms: int, *, lease_ms: int, limit: int = 100) -> Sequence[Event]:
        """Take the oldest event of each document, oldest first, at most `limit`.

        They belong to the caller until `now_ms + lease_ms`, and to whoever takes them after that.
        There is none of a document of which somebody has one in hand, or whose oldest is not due.
        Two callers never take the same at once, wherever they are.
        """

    async def end_events(self, ids: Sequence[int]) -> None:
        """Remove events that were taken: they were delivered, or given up.

        One that is in nobody's hands stays, since it may tell of more by now. That, and one that
        is unknown, is no error.
        """

    async def put_back_event(self, id: int, due_ms: int) -> None:
        """Let an event that was taken be taken again, from `due_ms` on; it keeps its place.

        Counts one more attempt. One that is in nobody's hands, or unknown, is no error.
        """

    async def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        """List the outbox by id, from the first above `after`, and take nothing."""

    async def event_counts(self) -> tuple[int, int]:
        """Return how many events there are, and the time of the oldest (`at_ms`); 0 if none."""
