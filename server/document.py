"""One Yjs document, and the only module that gives pycrdt what strangers sent.

pycrdt is fast and must not be trusted with strangers' bytes. What stands between them:

1. `inspect` (`plait.server.wire.update`) sees an update first and refuses what crashes or hangs
   pycrdt.
2. An update is given to pycrdt only when everything it builds upon is there. So pycrdt never holds
   pending structs, which it neither shows nor encodes and which get slower the more there are.
   `_known` is our own count of what is there.
3. Whatever pycrdt raises in the middle of a change, a Rust panic included, makes the document
   *broken*: it is thrown away and rebuilt from the store.
4. pycrdt can't split a surrogate pair, re-encodes some values with loss, and never frees a
   document that had a subdocument. `surrogates`, `originals` and `subdocuments` mend that.
5. A full state is compared with the document before anybody is given it.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from enum import Enum, auto
from typing import Any
from weakref import finalize

import pycrdt

from plait.server.errors import DocumentBroken, LimitReached, UpdateRefused
from plait.server.limits import Limits
from plait.server.wire import originals, subdocuments, surrogates
from plait.server.wire.state_vector import EMPTY as EMPTY_STATE_VECTOR
from plait.server.wire.state_vector import decode_state_vector, encode_state_vector
from plait.server.wire.update import Shape, inspect

EMPTY_UPDATE = b"\x00\x00"
MERGE_WIDTH = 64
"""Updates merged at once; pycrdt's merge is quadratic in their number, a tree of 64 is not (10,000:
14 ms, not 415).
"""
BYTES_PER_BLOCK = 200
BYTES_PER_ENCODED_BYTE = 12
"""Memory of a loaded document over its encoded size, measured on text of many small edits; other
documents take less.
"""


_MARK = os.urandom(16)
"""Tells a hidden subdocument from binary content of clients, who never see it."""


class Applied(Enum):
    """What became of an update."""

    CHANGED = auto()
    KNOWN = auto()
    """The document held all of it before."""
    PENDING = auto()
    """It builds on something that the document does not hold; it was not applied."""


class _Watch:
    """Notes that a pycrdt document has changed. Knows no `Document`, which could not go then."""

    changed = False

    def __call__(self, event: pycrdt.TransactionEvent) -> None:
        self.changed = True


class Document:
    """A pycrdt document that only ever holds whole, checked, causally complete updates.

    Every method that changes or encodes may raise `DocumentBroken`; the document is of no more use
    then.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[int, int] = {}
        self._types = 0
        self._pairs: set[tuple[int, int]] = set()
        self._torn: set[tuple[int, int]] = set()
        self._originals: dict[tuple[int, int], bytes] = {}
        self._full: bytes | None = None
        self._hides = False
        """Whether subdocuments were kept from pycrdt."""
        self.memory_bytes = 4096
        """A guess at the memory that this takes, for the budget."""
        self._start(pycrdt.Doc())

    def close(self) -> None:
        """Let go of the memory now; it goes with the object in any case."""
        self._let_go()

    # Changing

    def apply(self, update: bytes) -> tuple[Applied, Shape, bytes]:
        """Check an update and apply it, if it is ready.

        Returns:
            What became of it; what is in it; and the update itself, or, if a part of it was known,
            the part that was not, for whoever is told of it.

        Raises:
            UpdateRefused: not an update, or one that pycrdt must not see. Nothing has changed.
            LimitReached: the document would have more than `Limits.nested_types_max` shared types.
            DocumentBroken: pycrdt failed.
        """
        shape = inspect(update, any_depth_max=self._limits.any_depth_max)
        known = self._known
        for client, first, end in shape.runs:
            if first < known.get(client, 0) < end:
                update, shape = self._unknown_part(update, shape)
                break
        applied = self._readiness(shape)
        if applied is Applied.CHANGED:
            applied = self._integrate(update, shape)
        return applied, shape, update

    def expect_torn(self, pairs: Set[tuple[int, int]]) -> None:
        """Tell of surrogate pairs that updates yet to be loaded cut, so that they come in torn.

        A pair that is cut later than it comes in makes the whole document be built anew.
        """
        self._torn |= pairs

    def load_slice(self, update: bytes, *, lossy: bool) -> None:
        """Apply a slice of a snapshot that Plait wrote, and checked when it was written.

        Args:
            lossy: whether the snapshot holds values that pycrdt would write differently.
        """
        given = self._without_subdocuments(update) if lossy else update
        self._to_pycrdt(surrogates.rewrite(given, self._torn) if self._torn else given)
        self.memory_bytes += BYTES_PER_ENCODED_BYTE * len(update)

    def slices_loaded(self, *, types: int, lossy: Iterable[bytes], astral: Iterable[bytes]) -> None:
        """Tell that all slices are in, how many shared types they hold, and which of them need
        mending.
        """
        self._known = decode_state_vector(self._doc.get_state())
        self._types = types
        for update in lossy:
            self._originals.update(originals.collect(update))
        for update in astral:
            self._pairs |= surrogates.pairs(update) - self._torn

    # Reading

    @property
    def types(self) -> int:
        """Shared types that updates have brought in, deleted ones included."""
        return self._types

    @property
    def lossy(self) -> bool:
        """Whether it holds values that pycrdt alone would encode with loss."""
        return bool(self._originals)

    @property
    def astral(self) -> bool:
        """Whether it holds characters beyond U+FFFF."""
        return bool(self._pairs)

    def state_vector(self) -> bytes:
        """Return the encoded state vector."""
        return self._doc.get_state()

    def clocks(self) -> dict[int, int]:
        """Return the state vector as clocks by client; the caller may change it."""
        return dict(self._known)

    def missing(self, state_vector: bytes) -> bytes:
        """Return an update with what a holder of `state_vector` misses, deletions included.

        Raises:
            DecodeError: the state vector is malformed.
            DocumentBroken: the encoded state is not the document's state.
        """
        if state_vector == EMPTY_STATE_VECTOR:
            return self.encode()
        decode_state_vector(state_vector)
        return self.mended(self._encoded(state_vector))

    def encode(self) -> bytes:
        """Return the whole state as one update. Encoded once and kept until the next change.

        Raises:
            DocumentBroken: the encoded state is not the document's state.
        """
        if self._full is None:
            encoded = self._encoded(EMPTY_STATE_VECTOR)
            if state_vector_of(encoded) != self._known:
                raise DocumentBroken("the encoded state is not the document's state")
            self._full = self.mended(encoded)
        return self._full

    def mended(self, encoded: bytes) -> bytes:
        """Return what pycrdt encoded of this document, with the values put back that it encodes
        with loss.
        """
        if self._hides:
            encoded = subdocuments.show(encoded, _MARK)
        return originals.put_back(encoded, self._originals) if self._originals else encoded

    def equals(self, other: "Document") -> bool:
        """Whether both hold the same state, as far as it shows without knowing the schema.

        pycrdt writes the keys of an object in any order, so the bytes of both states are compared
        as a multiset.
        """
        mine, theirs = self.encode(), other.encode()
        return mine == theirs or (
            self._known == other._known
            and self._delete_set() == other._delete_set()
            and len(mine) == len(theirs)
            and Counter(mine) == Counter(theirs)
        )

    def _delete_set(self) -> bytes:
        return self._encoded(self._doc.get_state())

    # How an update becomes part of the document

    def _readiness(self, shape: Shape) -> Applied:
        """Return `CHANGED` for an update that can be integrated and may be new."""
        known = self._known
        ends: dict[int, int] = {}
        new = shape.deletes
        for client, first, end in shape.runs:
            have = ends.get(client) or known.get(client, 0)
            if first > have:
                return Applied.PENDING
            if end > have:
                new = True
                ends[client] = end
        for client, clock in shape.needs.items():
            if clock > known.get(client, 0) and clock > ends.get(client, 0):
                return Applied.PENDING
        return Applied.CHANGED if new else Applied.KNOWN

    def _unknown_part(self, update: bytes, shape: Shape) -> tuple[bytes, Shape]:
        """Cut off what is known.

        pycrdt and Yjs do so too, but not alike if a liar has put other content into the known part:
        then documents would differ for ever, or a client throws. So all are given the same cut.
        """
        known = {client: self._known.get(client, 0) for client, _, _ in shape.runs}
        torn = surrogates.broken(surrogates.pairs(update), set(known.items()))
        part = difference(surrogates.rewrite(update, torn), encode_state_vector(known))
        if not shape.lossless:
            part = originals.put_back(part, originals.collect(update))
        return part, inspect(part, any_depth_max=self._limits.any_depth_max)

    def _integrate(self, update: bytes, shape: Shape) -> Applied:
        if self._types + shape.types > self._limits.nested_types_max:
            raise LimitReached(
                f"a document may have {self._limits.nested_types_max} shared types; split it up"
            )
        if not shape.lossless:
            self._originals.update(originals.collect(update))
        given = update if shape.lossless else self._without_subdocuments(update)
        if shape.astral or self._pairs:
            given = self._without_cut_pairs(given)
        self._watch.changed = False
        self._to_pycrdt(given)
        new = False
        for client, _, end in shape.runs:
            if end > self._known.get(client, 0):
                self._known[client] = end
                new = True
        if len(shape.runs) > 1:
            self._check_integrated(shape)
        if not (new or self._watch.changed):
            return Applied.KNOWN
        self._types += shape.types
        self._full = None
        self.memory_bytes += BYTES_PER_BLOCK + len(update)
        return Applied.CHANGED

    def _check_integrated(self, shape: Shape) -> None:
        """Notice structs of several clients that wait for one another in a circle, which no genuine
        client makes.
        """
        state = decode_state_vector(self._doc.get_state())
        if any(state.get(client, 0) < end for client, _, end in shape.runs):
            raise DocumentBroken("the update's structs wait for one another")

    def _without_subdocuments(self, update: bytes) -> bytes:
        given = subdocuments.hide(update, _MARK)
        self._hides = self._hides or given != update
        return given

    def _without_cut_pairs(self, update: bytes) -> bytes:
        torn = self._torn
        own = surrogates.pairs(update) - torn
        cuts = surrogates.cuts(update, self._known)
        mine, known = surrogates.broken(own, cuts), surrogates.broken(self._pairs, cuts)
        if known:
            self._build_anew(surrogates.rewrite(self._encoded(EMPTY_STATE_VECTOR), known))
            self._pairs -= known
        self._pairs |= own - mine
        torn = torn | mine | known
        return surrogates.rewrite(update, torn) if torn else update

    def _build_anew(self, state: bytes) -> None:
        self.close()
        self._start(pycrdt.Doc())
        try:
            self._to_pycrdt(state)
        except UpdateRefused as error:  # of its own state, and now it is empty
            raise DocumentBroken(f"the document can't be built anew: {error}") from error

    # The one place that calls into Rust

    def _start(self, doc: "pycrdt.Doc[Any]") -> None:
        self._doc = doc
        self._watch = _Watch()
        # pycrdt never frees a document that is observed and merely dropped.
        self._let_go = finalize(self, doc.unobserve, doc.observe(self._watch))
        self._let_go.atexit = False

    def _to_pycrdt(self, update: bytes) -> None:
        try:
            self._doc.apply_update(update)
        except ValueError as error:  # it could not decode the update, and changed nothing
            raise UpdateRefused(f"not a Yjs update: {error}") from None
        except BaseException as error:
            raise _broken(error) from error

    def _encoded(self, state_vector: bytes) -> bytes:
        try:
            return self._doc.get_update(state_vector)
        except BaseException as error:
            raise _broken(error) from error


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
        raise _broken(error) from error
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
        raise _broken(error) from error


def state_vector_of(update: bytes) -> dict[int, int]:
    """Return the clocks that an update reaches from nothing, by client."""
    try:
        return decode_state_vector(pycrdt.get_state(update))
    except BaseException as error:
        raise _broken(error) from error


def _broken(error: BaseException) -> DocumentBroken:
    """Return the error to raise for one that pycrdt raised, or raise it again if it has nothing to
    do with pycrdt.

    A Rust panic arrives as `pyo3_runtime.PanicException`, a BaseException that can't be imported.
    """
    if isinstance(error, Exception) or type(error).__name__ == "PanicException":
        return DocumentBroken(f"pycrdt failed: {error}")
    raise error
