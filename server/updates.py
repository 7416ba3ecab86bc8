"""What pycrdt does with updates alone, without a document: merge them, and tell what is in them.

Like `plait.server.document`, it lets nothing that pycrdt raises pass as it is, and gives it
stand-ins for what it would write with loss.
"""

from collections.abc import Mapping, Sequence

import pycrdt

from plait.server.errors import DocumentBroken, UpdateRefused
from plait.server.limits import Limits
from plait.server.wire import stand_ins, surrogates
from plait.server.wire.state_vector import decode_state_vector, encode_state_vector
from plait.server.wire.update import Shape, inspect

EMPTY_UPDATE = b"\x00\x00"
MERGE_WIDTH = 64
"""Updates merged at once; pycrdt's merge is quadratic in their number, a tree of 64 is not (10,000:
14 ms, not 415).
"""

_MARK = stand_ins.new_mark()


def merge(updates: Sequence[bytes], *, plain: bool = False) -> bytes:
    """Return one update that holds what all of these hold, deleted content included.

    Args:
        plain: whether `Shape.lossless` is known of all; otherwise each is looked through.

    Raises:
        DocumentBroken: pycrdt failed on one of them.
    """
    if plain or len(updates) < 2:
        return _merge(list(updates))
    given = [stand_ins.hide(update, _MARK) for update in updates]
    merged = _merge(given)
    hidden = any(one is not other for one, other in zip(given, updates, strict=True))
    return stand_ins.show(merged, _MARK) if hidden else merged


def _merge(level: list[bytes]) -> bytes:
    try:
        while len(level) > 1:
            level = [
                pycrdt.merge_updates(*level[i : i + MERGE_WIDTH])
                for i in range(0, len(level), MERGE_WIDTH)
            ]
    except BaseException as error:
        raise broken(error) from error
    return level[0] if level else EMPTY_UPDATE


def difference(update: bytes, state_vector: bytes, *, plain: bool = False) -> bytes:
    """Return what a holder of `state_vector` misses of an update that was inspected.

    Args:
        plain: like that of `merge`.

    Raises:
        UpdateRefused: the state vector is malformed.
    """
    given = update if plain else stand_ins.hide(update, _MARK)
    try:
        found = pycrdt.get_update(given, state_vector)
        return found if given is update else stand_ins.show(found, _MARK)
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
    whole = surrogates.rewrite(update, torn)
    part = difference(whole, encode_state_vector(clocks), plain=shape.lossless)
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
