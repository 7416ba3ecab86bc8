"""Decide when a document gets a new snapshot, and which old rows become one segment.

Pure: rows and the time come in, a decision comes out. Whoever acts on it merges the bytes,
verifies the result and calls `Store.compact`, which is fenced; so a decision that is outdated by
then does no harm. Nothing is ever dropped: a segment holds what its rows held.

Folding is amortised. A segment may be folded again, but only into one at least twice as large as
its largest row. So every byte is merged at most once for each doubling up to the size where rows
are left alone, however often folding runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from plait.persistence.store import DocumentInfo, LoggedUpdate

_DAY_MS = 24 * 60 * 60 * 1000

REPLAY_BYTES = 512
"""What applying one more update costs while loading, in bytes of snapshot that take as long."""


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """When loading has become slow enough, and history old enough, to do something about it."""

    tail_updates_max: int = 500
    """Rows after the snapshot that are never worth a new one."""
    tail_bytes_max: int = 128 << 10
    """Bytes after the snapshot that are never worth a new one."""
    tail_ratio: float = 0.25
    """What replaying the tail costs, at least, relative to the snapshot that would be rewritten."""

    history_days: float = 30.0
    """Rows younger than this stay as they were appended."""
    segment_span_days: float = 1.0
    """A segment holds no more than this much time, so that history stays good to the day."""
    segment_rows_min: int = 16
    """Fewer rows are not worth a transaction."""
    segment_rows_max: int = 1000
    """Rows of one pass."""
    segment_bytes_max: int = 1 << 20
    """Bytes of one pass; a row of more than half of it is left alone for good."""

    def __post_init__(self) -> None:
        assert 2 <= self.segment_rows_min <= self.segment_rows_max
        assert self.segment_bytes_max > 0
        assert self.segment_span_days > 0
        assert self.history_days >= 0
        assert self.tail_ratio >= 0


@dataclass(frozen=True, slots=True)
class Fold:
    """A run of rows of one document to merge into one."""

    rows: tuple[LoggedUpdate, ...]

    @property
    def first(self) -> int:
        """The sequence number of the first row."""
        return self.rows[0].seq

    @property
    def last(self) -> int:
        """The sequence number of the last row, which the segment keeps."""
        return self.rows[-1].seq


def needs_snapshot(info: DocumentInfo, policy: CompactionPolicy) -> bool:
    """Return whether a document takes long enough to load that a new snapshot pays.

    A snapshot costs its own size to write. Waiting until the tail costs a fixed part of that
    keeps the total cost of snapshots proportional to what was written.
    """
    if info.deleted_ms is not None or info.tail_updates == 0:
        return False
    if info.tail_updates <= policy.tail_updates_max and info.tail_bytes <= policy.tail_bytes_max:
        return False
    tail_cost = info.tail_bytes + info.tail_updates * REPLAY_BYTES
    return tail_cost >= policy.tail_ratio * info.snapshot_bytes


def may_fold(info: DocumentInfo, policy: CompactionPolicy, now_ms: int) -> bool:
    """Return whether it is worth reading a document's log for rows to fold."""
    covered = info.updates - info.tail_updates
    old = info.created_ms <= now_ms - policy.history_days * _DAY_MS
    return info.deleted_ms is None and old and covered >= policy.segment_rows_min


def plan_fold(
    rows: Sequence[LoggedUpdate], upto: int, policy: CompactionPolicy, now_ms: int
) -> Fold | None:
    """Return the first run worth folding in a page of a document's log, oldest rows first.

    `upto` is what the document's snapshot covers: rows after it are still needed for loading.
    To go on, ask with the page after the run; without one, with the page after this one.
    """
    oldest_kept_ms = now_ms - policy.history_days * _DAY_MS
    start = 0
    while start + policy.segment_rows_min <= len(rows):
        end = _end_of_run(rows, start, upto, policy, oldest_kept_ms)
        run = _without_dominating_row(rows[start:end])
        if len(run) >= policy.segment_rows_min:
            return Fold(tuple(run))
        # The row that is too large for what follows it, or that ended the run, divides the page.
        start += max(1, len(run))
    return None


def _end_of_run(
    rows: Sequence[LoggedUpdate],
    start: int,
    upto: int,
    policy: CompactionPolicy,
    oldest_kept_ms: float,
) -> int:
    """Return the index after the last row that may share a segment with the one at `start`."""
    length = 0
    low = high = rows[start].at_ms
    end = start
    for row in rows[start : start + policy.segment_rows_max]:
        length += len(row.update)
        low, high = min(low, row.at_ms), max(high, row.at_ms)
        if row.seq > upto or row.at_ms > oldest_kept_ms:
            break
        if length > policy.segment_bytes_max or high - low > policy.segment_span_days * _DAY_MS:
            break
        end += 1
    return end


def _without_dominating_row(run: Sequence[LoggedUpdate]) -> Sequence[LoggedUpdate]:
    """Cut a run before its first row that makes up more than half of what is then left."""
    while run:
        total = sum(len(row.update) for row in run)
        index = next((i for i, row in enumerate(run) if 2 * len(row.update) > total), None)
        if index is None:
            break
        run = run[:index]
    return run
