"""Planning: which documents get a snapshot, and which rows become a segment."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.persistence import (
    CompactionPolicy,
    DocumentInfo,
    Fold,
    LoggedUpdate,
    may_fold,
    needs_snapshot,
    plan_fold,
)

DAY_MS = 24 * 3600 * 1000
NOW_MS = 1000 * DAY_MS
POLICY = CompactionPolicy()
INFO = DocumentInfo("a", 0, 0, 0, 0, 0, 0, 0)


def rows(sizes: Sequence[int], at_ms: int = 0, first: int = 1) -> list[LoggedUpdate]:
    return [
        LoggedUpdate(first + i, "a", bytes(size), "alice", at_ms) for i, size in enumerate(sizes)
    ]


def plan(log: Sequence[LoggedUpdate], policy: CompactionPolicy = POLICY) -> Fold | None:
    return plan_fold(log, log[-1].seq, policy, NOW_MS)


# Snapshots


@pytest.mark.parametrize(
    ("tail_updates", "tail_bytes", "snapshot_bytes", "expected"),
    [
        (0, 0, 0, False),
        (500, 128 << 10, 0, False),
        (501, 501, 0, True),
        (1, (128 << 10) + 1, 0, True),
        # A large snapshot is rewritten only when the tail has become a fair part of it.
        (501, 501, 100 << 20, False),
        (60_000, 60_000, 100 << 20, True),
        (2, 20 << 20, 100 << 20, False),
        (2, 26 << 20, 100 << 20, True),
    ],
)
def test_a_snapshot_is_due_when_the_tail_costs_more_than_it_is_worth(
    tail_updates: int, tail_bytes: int, snapshot_bytes: int, expected: bool
) -> None:
    info = replace(
        INFO, tail_updates=tail_updates, tail_bytes=tail_bytes, snapshot_bytes=snapshot_bytes
    )
    assert needs_snapshot(info, POLICY) is expected


def test_a_deleted_document_is_left_alone() -> None:
    info = replace(INFO, tail_updates=10_000, updates=20_000, deleted_ms=1)
    assert not needs_snapshot(info, POLICY)
    assert not may_fold(info, POLICY, NOW_MS)


def test_only_documents_with_old_covered_rows_are_looked_at_for_folding() -> None:
    assert may_fold(replace(INFO, updates=16), POLICY, NOW_MS)
    assert not may_fold(replace(INFO, updates=15), POLICY, NOW_MS)
    assert not may_fold(replace(INFO, updates=16, tail_updates=1), POLICY, NOW_MS)
    assert not may_fold(replace(INFO, updates=16, created_ms=NOW_MS - 29 * DAY_MS), POLICY, NOW_MS)


# Folding


def test_old_rows_are_folded() -> None:
    log = rows([30] * 40)
    fold = plan(log)
    assert fold is not None
    assert (fold.first, fold.last, fold.rows) == (1, 40, tuple(log))


def test_rows_within_the_history_stay() -> None:
    log = rows([30] * 20, at_ms=0) + rows([30] * 20, at_ms=NOW_MS - 30 * DAY_MS + 1, first=21)
    fold = plan(log)
    assert fold is not None
    assert fold.last == 20
    assert plan(log[20:]) is None


def test_rows_that_no_snapshot_covers_stay() -> None:
    log = rows([30] * 40)
    fold = plan_fold(log, 25, POLICY, NOW_MS)
    assert fold is not None
    assert fold.last == 25
    assert plan_fold(log, 0, POLICY, NOW_MS) is None


def test_too_few_rows_are_not_worth_it() -> None:
    assert plan(rows([30] * 15)) is None
    assert plan(rows([30] * 16)) is not None
    assert plan_fold([], 0, POLICY, NOW_MS) is None


def test_a_pass_is_bounded_in_rows_and_bytes() -> None:
    fold = plan(rows([30] * 3000))
    assert fold is not None
    assert len(fold.rows) == 1000
    fold = plan(rows([40_000] * 100))
    assert fold is not None
    assert sum(len(row.update) for row in fold.rows) <= 1 << 20
    assert len(fold.rows) == 26


def test_a_segment_spans_a_day_at_most() -> None:
    log = rows([30] * 20, at_ms=DAY_MS) + rows([30] * 30, at_ms=2 * DAY_MS + 1, first=21)
    fold = plan(log)
    assert fold is not None
    assert (fold.first, fold.last) == (1, 20)
    fold = plan(log[20:])
    assert fold is not None
    assert (fold.first, fold.last) == (21, 50)


def test_a_large_segment_is_not_merged_with_little_behind_it() -> None:
    log = rows([100_000] + [30] * 40)
    fold = plan(log)
    assert fold is not None
    assert (fold.first, fold.last) == (2, 41)


def test_a_large_row_divides_what_is_around_it() -> None:
    log = rows([30] * 20 + [100_000] + [30] * 20)
    fold = plan(log)
    assert fold is not None
    assert (fold.first, fold.last) == (1, 20)
    fold = plan(log[20:])
    assert fold is not None
    assert (fold.first, fold.last) == (22, 41)


def test_a_row_larger_than_a_pass_is_left_alone() -> None:
    assert plan(rows([2 << 20] * 40)) is None


def test_segments_as_large_as_each_other_are_merged() -> None:
    assert plan(rows([10_000] * 16)) is not None


def test_folding_again_and_again_touches_each_byte_a_few_times() -> None:
    """10,000 rows arrive over time, and folding runs after each 50 of them."""
    log: list[LoggedUpdate] = []
    merged = 0
    for start in range(0, 10_000, 50):
        log += rows([30] * 50, first=start + 1)
        while fold := plan(log):
            merged += sum(len(row.update) for row in fold.rows)
            segment = LoggedUpdate(fold.last, "a", b"".join(r.update for r in fold.rows), "", 0)
            index = log.index(fold.rows[0])
            log[index : index + len(fold.rows)] = [segment]
    total = sum(len(row.update) for row in log)
    assert total == 10_000 * 30
    assert merged < 10 * total
    assert len(log) < 100


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 40 * DAY_MS), st.integers(1, 3)),
        max_size=60,
    ),
    st.integers(0, 200),
)
def test_a_fold_keeps_to_every_rule(log: list[tuple[int, int, int]], upto: int) -> None:
    policy = CompactionPolicy(
        segment_rows_min=3, segment_rows_max=10, segment_bytes_max=4000, segment_span_days=10
    )
    seq, page = 0, []
    for size, at_ms, step in log:
        seq += step
        page.append(LoggedUpdate(seq, "a", bytes(size), "", at_ms))
    now_ms = 60 * DAY_MS
    fold = plan_fold(page, upto, policy, now_ms)
    if fold is None:
        return
    start = page.index(fold.rows[0])
    assert tuple(page[start : start + len(fold.rows)]) == fold.rows
    assert 3 <= len(fold.rows) <= 10
    assert fold.last <= upto
    sizes = [len(row.update) for row in fold.rows]
    times = [row.at_ms for row in fold.rows]
    assert sum(sizes) <= 4000
    assert 2 * max(sizes) <= sum(sizes)
    assert max(times) <= now_ms - 30 * DAY_MS
    assert max(times) - min(times) <= 10 * DAY_MS
