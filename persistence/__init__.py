"""Keep documents: the store contract, its back ends, and the writer that commits in groups.

store → memory, sqlite (schema, connection, errors, read, write, watch, backup, check)
      → postgres (address, connection, schema, errors, read, write, check)
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
    Changes,
    DocumentDeleted,
    DocumentExists,
    DocumentInfo,
    LoggedUpdate,
    Progress,
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
    "Changes",
    "CompactionPolicy",
    "DocumentDeleted",
    "DocumentExists",
    "DocumentInfo",
    "Fold",
    "LoggedUpdate",
    "Progress",
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
