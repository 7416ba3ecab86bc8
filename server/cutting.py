"""Cut a large update from outside into parts that can be applied one after another.

pycrdt holds the interpreter for as long as it applies an update: a second for one of 500,000 small
structs. So a large update is inspected and cut in a process of its own (`plait.server.apart`), and
the room applies the parts with pauses. Functions of bytes, for that process.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from plait.server.limits import Limits
from plait.server.updates import unknown_part
from plait.server.wire import parents, surrogates
from plait.server.wire.portions import portions
from plait.server.wire.readiness import Missing, split
from plait.server.wire.slices import SLICE_BYTES, slice_state
from plait.server.wire.update import Id, Shape, inspect
from plait.server.wire.update import ready as is_ready

LARGE_BYTES = SLICE_BYTES
"""Updates above this are cut. Up to here one takes 20 ms at worst, when it consists of nothing but
single characters, and 5 ms in a document of many small values.
"""
CUT_SECONDS = 120.0
"""How long cutting may take."""


class Cut(NamedTuple):
    """A large update that may be applied in parts."""

    shape: Shape
    """Of what is ready of it."""
    parts: tuple[tuple[bytes, Shape], ...]
    """In this order none of them waits for a later one. None at all if there is no such order."""
    unknown: bytes | None
    """The update without what was known of it in part, without what is in nothing, and without what
    is not ready; None if it is to be taken as it came.
    """
    torn: frozenset[tuple[int, int]]
    """Surrogate pairs of its own text that it cuts in half itself."""
    ready: bytes | None = None
    """The part that is ready, as it came; None if all is, empty if nothing is."""
    repeats: bool = False
    """Whether structs in it were known."""
    rest: bytes = b""
    """The part that builds on something that the document does not hold."""
    missing: tuple[Missing, ...] = ()
    """What that is."""


def cut(
    update: bytes, known: Mapping[int, int], limits: Limits, strangers: Collection[Id] = ()
) -> Cut:
    """Cut an update for a document with these clocks.

    Args:
        strangers: what structs are in, but is no shared type; see `plait.server.wire.parents`.

    Raises:
        UpdateRefused: it is not an update, or one that pycrdt must not see.
        DocumentBroken: pycrdt failed on it.
    """
    shape = inspect(update, any_depth_max=limits.any_depth_max)
    ready = unknown = None
    rest = b""
    missing: tuple[Missing, ...] = ()
    if not is_ready(shape, known):
        ready, rest, missing = split(update, known)
        if not ready:
            return Cut(shape, (), None, frozenset(), ready, False, rest, missing)
        unknown = ready
        shape = inspect(ready, any_depth_max=limits.any_depth_max)
    repeats = any(first < known.get(client, 0) for client, first, _ in shape.runs)
    if is_partly_known(shape, known):
        unknown, shape = unknown_part(update if unknown is None else unknown, shape, known, limits)
    if strangers:
        unknown = parents.without(update if unknown is None else unknown, strangers)
        shape = inspect(unknown, any_depth_max=limits.any_depth_max)
    taken = update if unknown is None else unknown
    parts, torn = _parts(taken, limits), _torn(taken, shape, known)
    return Cut(shape, parts, unknown, torn, ready, repeats, rest, missing)


def is_partly_known(shape: Shape, known: Mapping[int, int]) -> bool:
    """Whether something in an update is known and something after it is not, so that it has to be
    cut there. Gaps within an update (Skip structs) go with what is known, too.
    """
    before = None
    for client, first, end in shape.runs:
        if first < known.get(client, 0) < end:
            return True
        if client == before:
            return True
        before = client
    return False


def row_parts(update: bytes, limits: Limits) -> list[bytes]:
    """Return a row of the log as updates, each of which builds only upon those before it.

    Raises:
        UpdateRefused: it is not an update.
    """
    inspect(update, any_depth_max=limits.any_depth_max)
    try:
        return slice_state(update)
    except ValueError:  # It has gaps, and may or may not be ready: that shows when it is applied.
        return [update]


def in_portions(state: bytes, size: int, known: Mapping[int, int], whole: bool) -> list[bytes]:
    """Cut a state for a slow line; see `plait.server.wire.portions`."""
    return portions(state, size, known, whole=whole)


def _parts(update: bytes, limits: Limits) -> tuple[tuple[bytes, Shape], ...]:
    try:
        slices = slice_state(update)
    except ValueError:
        return ()
    return tuple((part, inspect(part, any_depth_max=limits.any_depth_max)) for part in slices)


def _torn(update: bytes, shape: Shape, known: Mapping[int, int]) -> frozenset[tuple[int, int]]:
    if not shape.astral:
        return frozenset()
    pairs = surrogates.pairs(update)
    return frozenset(surrogates.broken(pairs, surrogates.cuts(update, known)))
