"""What pycrdt does with updates alone, without a document: merge them, and tell what is in them.

Like `plait.server.document`, it lets nothing that pycrdt raises pass as it is.
"""

from collections.abc import Mapping, Sequence

import pycrdt

from plait.server.errors import DocumentBroken, UpdateRefused
from plait.server.limits import Limits
from plait.server.wire import originals, surrogates
from plait.server.wire.state_vector import decode_state_vector, encode_state_vector
from plait.server.wire.update import Shape, inspect

EMPTY_UPDATE = b"\x00\x00"
MERGE_WIDTH = 64
"""Updates merged at once; pycrdt's merge is quadratic in their number, a tree of 64 is not (10,000:
14 ms, not 415).
"""


def merge(updates: Sequence[bytes]) -> bytes:
    """Return one update that holds what all of these hold, deleted content included.

    Raises:
        DocumentBroken: pycrdt failed on one of them.
    """
    try:
        level = list(updates)
        while len(level) > 1:
            level = [
                pycrdt.merge_updates(*level[i : i + MERGE_WIDTH])
                for i in range(0, len(level), MERGE_WIDTH)
            ]
    except BaseException as error:
        raise broken(error) from error
    return level[0] if level else EMPTY_UPDATE


def difference(update: bytes, state_vector: bytes) -> bytes:
    """Return what a holder of `state_vector` misses of an update.

    Raises:
        UpdateRefused: either is malformed.
    """
    try:
        return pycrdt.get_update(update, state_vector)
    except ValueError as error:
        raise UpdateRefused(f"not a Yjs update: {error}") from None
    except BaseException as error:
        raise broken(error) from error


def unknown_part(
    update: bytes, shape: Shape, known: Mapping[int, int], limits: Limits
) -> tuple[bytes, Shape]:
    """Cut off from an update what a document with these clocks knows; return the rest and its
    shape.

    pycrdt and Yjs do so too, but not alike if a liar has put other content into the known part:
    then documents would differ for ever, or a client throws. So all are given the same cut.
    """
    clocks = {client: known.get(client, 0) for client, _, _ in shape.runs}
    torn = surrogates.broken(surrogates.pairs(update), set(clocks.items()))
    part = difference(surrogates.rewrite(update, torn), encode_state_vector(clocks))
    if not shape.lossless:
        part = originals.put_back(part, originals.collect(update))
    return part, inspect(part, any_depth_max=limits.any_depth_max)


def state_vector_of(update: bytes) -> dict[int, int]:
    """Return the clocks that an update reaches from nothing, by client."""
    try:
        return decode_state_vector(pycrdt.get_state(update))
    except BaseException as error:
        raise broken(error) from error


def broken(error: BaseException) -> DocumentBroken:
    """Return the error to raise for one that pycrdt raised, or raise it again if it has nothing to
    do with pycrdt.

    A Rust panic arrives as `pyo3_runtime.PanicException`, a BaseException that can't be imported.
    """
    if isinstance(error, Exception) or type(error).__name__ == "PanicException":
        return DocumentBroken(f"pycrdt failed: {error}")
    raise error
