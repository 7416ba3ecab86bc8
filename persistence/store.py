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


@dataclass(frozen=True, slots=True)
class LoggedUpdate:
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


class Store(Protocol):
    """Keep documents. One object belongs to one event loop; every method may raise `StoreError`."""

    url: str
    """Where it is, without secrets."""
    shared: bool
    """Whether other nodes are expected to write to it as well."""

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
