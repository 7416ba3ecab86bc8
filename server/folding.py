"""Fold a document's log into a snapshot, and old rows into one, and prove that nothing is lost
before anybody relies on it.

Functions of bytes, since large documents are folded in a process of their own
(`plait.server.apart`).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from plait.persistence import LoggedUpdate, Segment, Snapshot, Stored
from plait.server.appearance import appearance
from plait.server.document import Document
from plait.server.errors import DocumentBroken
from plait.server.limits import Limits
from plait.server.replay import restore, restore_snapshot
from plait.server.updates import merge
from plait.server.wire import keys, parents, surrogates
from plait.server.wire.places import Places
from plait.server.wire.slices import slice_state
from plait.server.wire.structs import Deletes, read_deletes, sections
from plait.server.wire.update import inspect

log = logging.getLogger(__name__)

Extent = dict[tuple[str, int], list[tuple[int, int]]]
"""Unbroken ranges of clocks, by whether they are structs or deletions and by client."""


def read(stored: Stored, limits: Limits) -> tuple[Document, list[LoggedUpdate]]:
    """Return a stored document at once, and the rows that are not ready.

    Raises:
        DocumentBroken, UpdateRefused: what is stored can't be read.
    """
    document = Document(limits)
    waiting: list[LoggedUpdate] = []
    for _ in restore(document, stored, waiting):
        pass
    return document, waiting


def fold_snapshot(
    stored: Stored, limits: Limits, now_ms: int, *, strict: bool = False
) -> Snapshot | None:
    """Return a snapshot that stands for all rows of a document, proven to hold what they hold.

    None if nothing would be covered. If pycrdt can't encode the document, its rows are merged
    instead, which pycrdt does without looking at what they mean.

    Args:
        strict: give up unless the proof is plain. Otherwise the types in the documents are looked
            at, which is for a process of its own: pycrdt has been seen to loop for ever over that.

    Raises:
        DocumentBroken, UpdateRefused: it could not be proven; the log has to stay as it is.
    """
    document, waiting = read(stored, limits)
    covered = [row.seq for row in stored.updates]
    if waiting:
        first = min(row.seq for row in waiting)
        covered = [seq for seq in covered if seq < first]
    if not covered:
        return None
    empty = Snapshot(covered[-1], (), now_ms)
    try:
        prove = Document.equals if strict else same
        return _proven(empty, document.encode(), document, limits, prove)
    except DocumentBroken as error:
        if strict:
            raise
        log.error("%r: %s; its log is merged instead", stored.document, error)
    rows = [row.update for row in stored.updates]
    merged = merged_log(stored, rows, limits)
    return _proven(empty, merged, document, limits, _same_clocks)


def merged_log(stored: Stored, rows: Sequence[bytes], limits: Limits) -> bytes:
    """Return the state of a document that pycrdt can't encode: its snapshot and these rows, merged
    and as `Document` gave them to pycrdt.

    Raises:
        DocumentBroken, UpdateRefused: pycrdt can't merge them either.
    """
    merged = merge([*(stored.snapshot.slices if stored.snapshot else ()), *rows])
    # pycrdt would shift what follows a character that is cut.
    torn = surrogates.broken(surrogates.pairs(merged), surrogates.cuts(merged))
    merged = surrogates.rewrite(merged, torn)
    strangers = inspect(merged, any_depth_max=limits.any_depth_max).parents
    merged, _ = keys.one_by_one(parents.without(merged, strangers), Places())
    return merged


def _proven(
    empty: Snapshot,
    state: bytes,
    document: Document,
    limits: Limits,
    prove: Callable[[Document, Document], bool],
) -> Snapshot:
    """Cut a state into slices, load them into a fresh document, and compare."""
    slices = tuple(slice_state(state))
    shapes = [inspect(part, any_depth_max=limits.any_depth_max) for part in slices]
    snapshot = replace(
        empty,
        slices=slices,
        types=sum(len(shape.types) for shape in shapes),
        lossy=not all(shape.lossless for shape in shapes),
        astral=any(shape.astral for shape in shapes),
    )
    fresh = Document(limits)
    for _ in restore_snapshot(fresh, snapshot):
        pass
    proven = prove(fresh, document)
    found = fresh.encoded_places()
    fresh.close()
    if not proven:
        raise DocumentBroken("a snapshot, loaded again, is not the document it was made of")
    return replace(snapshot, places=found)


def _same_clocks(fresh: Document, document: Document) -> bool:
    """Compare how far each client has come, for a document that can't be encoded itself."""
    return fresh.clocks() == document.clocks()


def fold_rows(rows: Sequence[LoggedUpdate]) -> Segment:
    """Return a segment that takes the place of rows of the log, proven to hold each of their
    structs and deletions.

    Raises:
        DocumentBroken, UpdateRefused: it could not be proven; the rows have to stay.
    """
    updates = [row.update for row in rows]
    merged = merge(updates)
    if _extent([merged]) != _extent(updates):
        raise DocumentBroken("rows of the log, merged, are not what they were")
    return Segment(rows[0].seq, rows[-1].seq, merged)


def _extent(updates: Sequence[bytes]) -> Extent:
    """Return which structs and which deletions are in updates."""
    ranges: Extent = {}
    for update in updates:
        for client, first, end in inspect(update).runs:
            ranges.setdefault(("structs", client), []).append((first, end))
        _, position = sections(update)
        for client, deleted in read_deletes(update, position).items():
            for clock, length in deleted:
                ranges.setdefault(("deletes", client), []).append((clock, clock + length))
    return {key: _joined(found) for key, found in ranges.items()}


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((first, end))
    return joined


def same(loaded: Document, replayed: Document) -> bool:
    """Return whether two documents are the same, though one may have it in more structs."""
    try:
        if loaded.equals(replayed):
            return True
        one, other = loaded.encode(), replayed.encode()
    except DocumentBroken:  # pycrdt can't encode it; its log is what counts (`folding`).
        return loaded.clocks() == replayed.clocks()
    if loaded.clocks() != replayed.clocks() or _deletes(one) != _deletes(other):
        return False
    try:
        # Snapshots of earlier versions have the keys of objects in any order.
        return appearance(one, ordered=False) == appearance(other, ordered=False)
    except RecursionError:
        return True  # Too deep to look at; as far as can be told, it is.


def _deletes(state: bytes) -> Deletes:
    _, position = sections(state)
    return read_deletes(state, position)
