"""Bring a stored document into pycrdt, step by step.

The steps are a generator, so that the same code runs at once in a helper process and with pauses in
the server.
"""

from collections.abc import Iterator, Sequence

from plait.persistence import LoggedUpdate, Snapshot, Stored
from plait.server.document import Applied, Document


def restore(document: Document, stored: Stored, waiting: list[LoggedUpdate]) -> Iterator[int]:
    """Apply what is stored to an empty document; yield, after each step, how many bytes it was.

    Args:
        waiting: receives the rows that are not ready. Nodes that share a store append what they
        hear from one another in
            any order, so a row may build upon a later one, even on one that is not there yet.
    """
    if stored.snapshot is not None:
        yield from restore_snapshot(document, stored.snapshot)
    yield from replay(document, stored.updates, waiting)


def restore_snapshot(document: Document, snapshot: Snapshot) -> Iterator[int]:
    """Apply the slices of a snapshot to an empty document."""
    for part in snapshot.slices:
        document.load_slice(part, lossy=snapshot.lossy)
        yield len(part)
    document.slices_loaded(
        types=snapshot.types,
        lossy=snapshot.slices if snapshot.lossy else (),
        astral=snapshot.slices if snapshot.astral else (),
    )


def replay(
    document: Document, rows: Sequence[LoggedUpdate], waiting: list[LoggedUpdate]
) -> Iterator[int]:
    """Apply rows of the log, those that are not ready after the others."""
    left = list(rows)
    while left:
        late = []
        for row in left:
            if document.apply(row.update)[0] is Applied.PENDING:
                late.append(row)
            yield len(row.update)
        if len(late) == len(left):
            break
        left = late
    waiting += left
