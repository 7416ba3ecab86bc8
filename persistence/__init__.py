"""Keep documents: the store contract, its back ends, and the writer that commits in groups.

store → memory, sqlite (schema, connection, errors, read, write, watch, backup, check)
      → postgres (address, connection, schema, errors, read, write, check)
      → each with records and an outbox; announcing (what the outbox is told)
      → compaction (what to fold), writer (group commit), restore, transfer → `open_store`
"""

from plait.persistence.compaction import (
    CompactionPolicy,
    Fold,
    may_fold,
    needs_snapshot,
    plan_fold,
)
from plait.persistence.opening import open_store
from plait.persistence.store import (
    ANNOUNCED,
    CHANGED,
    CREATED,
    DELETED,
    OUTBOX_MAX,
    UNDELETED,
    Changes,
    DocumentDeleted,
    DocumentExists,
    DocumentInfo,
    Event,
    LoggedUpdate,
    Progress,
    Record,
    RecordChanges,
    Segment,
    Snapshot,
    Store,
    StoreCorrupt,
    Stored,
    StoreError,
    StoreUnavailable,
    StoreVersion,
    Update,
)
from plait.persistence.writer import Writer, WriterState

__all__ = (
    "ANNOUNCED",
    "CHANGED",
    "CREATED",
    "DELETED",
    "OUTBOX_MAX",
    "UNDELETED",
    "Changes",
    "CompactionPolicy",
    "DocumentDeleted",
    "DocumentExists",
    "DocumentInfo",
    "Event",
    "Fold",
    "LoggedUpdate",
    "Progress",
    "Record",
    "RecordChanges",
    "Segment",
    "Snapshot",
    "Store",
    "StoreCorrupt",
    "StoreError",
    "StoreUnavailable",
    "StoreVersion",
    "Stored",
    "Update",
    "Writer",
    "WriterState",
    "may_fold",
    "needs_snapshot",
    "open_store",
    "plan_fold",
)
