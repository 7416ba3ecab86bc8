"""A stored document as bytes: its whole state as one update, and an update from outside as rows.

Functions of bytes that may take long, since they work on whole documents: of large ones they run in
a process of their own (`plait.server.apart`).
"""

import logging
from collections.abc import Callable, Sequence
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from plait.persistence import LoggedUpdate, Stored
from plait.server.apart import run_apart
from plait.server.document import Applied, Document
from plait.server.errors import DocumentBroken, UpdateRefused
from plait.server.folding import merged_log, read
from plait.server.limits import Limits
from plait.server.updates import merge
from plait.server.wire.readiness import Missing, in_words, split
from plait.server.wire.slices import SLICE_BYTES, slice_state
from plait.server.wire.update import Run, inspect

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

APART_BYTES = 32 << 10
"""Documents above this are worked on in another process: below, starting it takes longer."""
APART_SECONDS = 300.0


async def run_on(
    function: Callable[Concatenate[Stored, P], T],
    stored: Stored,
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Call a function on a stored document, in a process of its own if the document is large.

    Raises:
        PlaitError: what the function raised.
        DocumentBroken: the process crashed, or did not finish in time.
    """
    if stored_bytes(stored) <= APART_BYTES:
        return function(stored, *args, **kwargs)
    return await run_apart(function, APART_SECONDS, stored, *args, **kwargs)


def stored_bytes(stored: Stored) -> int:
    """Return how much is read to load a document."""
    slices = stored.snapshot.slices if stored.snapshot else ()
    return sum(map(len, slices)) + sum(len(row.update) for row in stored.updates)


def whole_state(stored: Stored, limits: Limits) -> tuple[bytes, int]:
    """Return a document's state as one Yjs update of version 1, and how many of its rows are not in
    it, because they build upon others that are missing.

    Raises:
        DocumentBroken, UpdateRefused: what is stored can't be read.
    """
    document, waiting = read(stored, limits)
    waiting = settled(document, waiting)
    return _encoded(document, stored, waiting, limits), len(waiting)


def state_and_clocks(stored: Stored, limits: Limits) -> tuple[bytes, dict[int, int]]:
    """Return a document's state as one Yjs update of version 1, and its state vector.

    Raises:
        DocumentBroken, UpdateRefused: what is stored can't be read.
    """
    document, waiting = read(stored, limits)
    return _encoded(document, stored, waiting, limits), document.clocks()


def _encoded(
    document: Document, stored: Stored, waiting: Sequence[LoggedUpdate], limits: Limits
) -> bytes:
    try:
        return document.encode()
    except DocumentBroken as error:
        log.error("%r: %s; its log is merged instead", stored.document, error)
    late = {row.seq for row in waiting}
    rows = [row.update for row in stored.updates if row.seq not in late]
    return merged_log(stored, rows, limits)


class Import(NamedTuple):
    """What a stored document takes in of an update."""

    rows: list[bytes]
    """To be appended; none if it holds all of it already."""
    left_bytes: int
    """What it can't take in, since it builds upon structs that are missing."""
    missing: tuple[Missing, ...]
    """What those are."""
    shadowed: tuple[Run, ...]
    """Runs of structs that it has with other content: two authors used one client id."""


def rows_for(stored: Stored, update: bytes, limits: Limits) -> Import:
    """Return the rows to append so that a stored document takes in what is ready of an update.

    A large update becomes several rows, so that loading them never stops the server for long.

    Raises:
        UpdateRefused: it is not an update, or nothing of it is ready.
        LimitReached: the document would become too large.
        DocumentBroken: the document can't be read.
    """
    inspect(update, any_depth_max=limits.any_depth_max)
    document, waiting = read(stored, limits)
    settled(document, waiting)
    clocks = document.clocks()
    ready, rest, missing = split(update, clocks)
    if not ready:
        raise UpdateRefused(
            f"nothing of the update can be applied: {in_words(missing)}; "
            "a whole state is needed, not a part of one"
        )
    repeats = any(first < clocks.get(client, 0) for client, first, _ in inspect(ready).runs)
    rows = cut(ready)
    changed = Applied.CHANGED in [document.apply(row).applied for row in rows]
    shadowed = document.shadowed(ready) if repeats else []
    return Import(rows if changed else [], len(rest), missing, tuple(shadowed))


def settled(document: Document, waiting: Sequence[LoggedUpdate]) -> list[LoggedUpdate]:
    """Apply rows that wait for one another; return those that wait for something else.

    Nodes that share a store append rows in any order. Some of them, folded into one, may build upon
    a row that builds upon one of them. A snapshot hides that, but not from who reads a whole log.
    """
    if waiting and document.apply(merge([row.update for row in waiting])).rest:
        return list(waiting)
    return []


def cut(update: bytes) -> list[bytes]:
    """Return an update as rows of the log, each of which builds only upon those before it."""
    if len(update) <= SLICE_BYTES:
        return [update]
    try:
        return slice_state(update)
    except ValueError:  # It has gaps: whoever applies it will see whether that matters.
        return [update]
