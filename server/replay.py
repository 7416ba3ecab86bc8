"""Bring a stored document into pycrdt, step by step.

The steps are a generator, so that the same code runs at once in a helper process and with pauses in
the server.
"""

import logging
import re
from collections.abc import Iterator, Sequence

from plait.persistence import LoggedUpdate, Snapshot, Stored
from plait.server.document import Applied, Document
from plait.server.wire import surrogates
from plait.server.wire.places import is_current
from plait.server.wire.update import is_update

log = logging.getLogger(__name__)

TYPED_AT_ONCE = 64
"""Rows of typing that pycrdt is given in one transaction. Ending it takes as long as applying a
dozen, and longer the more text there is; so does applying many within one.
"""

_MAY_BE_ASTRAL = re.compile(rb"[\xf0-\xf4][\x80-\xbf]{3}")
"""UTF-8 of a character beyond U+FFFF, or other bytes that look like it."""


def restore(document: Document, stored: Stored, waiting: list[LoggedUpdate]) -> Iterator[int]:
    """Apply what is stored to an empty document; yield, after each step, how many bytes it was.

    Args:
        waiting: receives the rows that are not ready. Nodes that share a store append what they
        hear from one another in
            any order, so a row may build upon a later one, even on one that is not there yet.
    """
    yield from _find_torn(document, stored)
    if stored.snapshot is not None:
        yield from restore_snapshot(document, stored.snapshot)
    yield from replay(document, stored.updates, waiting)


def _find_torn(document: Document, stored: Stored) -> Iterator[int]:
    """Tell the document which characters beyond U+FFFF the updates together cut in half."""
    parts = [row.update for row in stored.updates]
    if stored.snapshot is not None:
        parts += stored.snapshot.slices
    pairs: set[tuple[int, int]] = set()
    for part in parts:
        if _MAY_BE_ASTRAL.search(part) and is_update(part):
            pairs |= surrogates.pairs(part)
        yield len(part)
    if not pairs:
        return
    torn: set[tuple[int, int]] = set()
    for part in parts:
        if is_update(part):
            torn |= surrogates.broken(pairs, surrogates.cuts(part))
        yield len(part)
    document.expect_torn(torn)


def restore_snapshot(document: Document, snapshot: Snapshot) -> Iterator[int]:
    """Apply the slices of a snapshot to an empty document."""
    look = True
    if snapshot.places is not None and is_current(snapshot.places):
        try:
            document.set_places(snapshot.places)
            look = False
        except ValueError as error:
            log.error("a snapshot's %s; they are looked for", error)
    for part in snapshot.slices:
        for _ in document.load_slice(part, lossy=snapshot.lossy, astral=snapshot.astral, look=look):
            yield 0
        yield len(part)
    document.slices_loaded(snapshot.types)


def replay(
    document: Document, rows: Sequence[LoggedUpdate], waiting: list[LoggedUpdate]
) -> Iterator[int]:
    """Apply rows of the log, those that are not ready after the others; of those that never are,
    what is ready.
    """
    left = list(rows)
    more = True
    while left and more:
        late = []
        more = False
        for row in left:
            if document.apply_typed(row.update) is not None:
                more = True
                if document.unsettled >= TYPED_AT_ONCE:
                    document.settle()
            else:
                outcome = document.apply(row.update)
                more = more or outcome.applied is Applied.CHANGED
                if outcome.rest:
                    late.append(row)
            yield len(row.update)
        document.settle()
        left = late
    waiting += left
