"""One Yjs document, and the only module that gives pycrdt what strangers sent.

pycrdt is fast and must not be trusted with strangers' bytes. What stands between them:

1. `inspect` (`plait.server.wire.update`) sees an update first and refuses what crashes or hangs
   pycrdt.
2. An update is given to pycrdt only when everything it builds upon is there. So pycrdt never holds
   pending structs, which it neither shows nor encodes and which get slower the more there are.
   `_known` is our own count of what is there. What is not ready is cut off (`readiness`).
3. Whatever pycrdt raises in the middle of a change, a Rust panic included, makes the document
   *broken*: it is thrown away and rebuilt from the store.
4. pycrdt can't split a surrogate pair (`surrogates`), re-encodes some values with loss and can't
   read others (`stand_ins`), uses memory that it has freed if several values of a key come at once
   (`keys`), and fails on what is in nothing (`parents`).
5. A full state is compared with the document before anybody is given it.
"""

from collections.abc import Iterator, Set
from enum import Enum, auto
from typing import Final, NamedTuple

from pycrdt import _pycrdt

from plait.server.errors import DocumentBroken, LimitReached, UpdateRefused
from plait.server.limits import Limits
from plait.server.updates import broken, state_vector_of, unknown_part
from plait.server.wire import keys, parents, places, stand_ins, surrogates
from plait.server.wire.readiness import Missing, split
from plait.server.wire.shadowed import shadowed
from plait.server.wire.state_vector import EMPTY as EMPTY_STATE_VECTOR
from plait.server.wire.state_vector import decode_state_vector, encode_state_vector
from plait.server.wire.structs import in_order
from plait.server.wire.update import Id, Runs, Shape, inspect, typed, typed_neighbours

BYTES_PER_BLOCK: Final = 200
BYTES_PER_ENCODED_BYTE: Final = 12
"""Memory of a loaded document over its encoded size, measured on text of many small edits; other
documents take less.
"""


_MARK = stand_ins.new_mark()
"""Tells stand-ins from content of clients, who never see it."""


class Applied(Enum):
    """What became of an update."""

    CHANGED = auto()
    KNOWN = auto()
    """The document held all of it before."""
    PENDING = auto()
    """All of it builds on something that the document does not hold; nothing was applied."""


class Outcome(NamedTuple):
    """What `Document.apply` made of an update."""

    applied: Applied
    shape: Shape
    """Of `update`."""
    update: bytes
    """For whoever is told of it: without the part that was known, if one was, without what is in
    nothing, and with the values of a key one by one.
    """
    ready: bytes
    """The part that was ready, as it came: all of it, mostly."""
    repeats: bool
    """Whether structs in it were known before."""
    rest: bytes = b""
    """The part that builds on something that the document does not hold; it was not applied."""
    missing: tuple[Missing, ...] = ()
    """What that is."""
    misplaced: tuple[Id, ...] = ()
    """Structs that were made garbage, since they are left of a value that has a key."""


class Document:
    """A pycrdt document that only ever holds whole, checked, causally complete updates.

    Every method that changes or encodes may raise `DocumentBroken`; the document is of no more use
    then.
    """

    remote = False
    """Whether its content is in another process: see `plait.server.remote`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[int, int] = {}
        self._types = 0
        self.places_of_types = places.Places()
        """Where shared types are, or were when they were deleted; see `wire.parents`."""
        self._pairs: set[tuple[int, int]] = set()
        self._torn: set[tuple[int, int]] = set()
        self._keyed = places.Places()
        self._full: bytes | None = None
        self._mends_slices = False
        self._hides = False
        """Whether pycrdt was given stand-ins."""
        self.memory_bytes = 4096
        """A guess at the memory that this takes, for the budget."""
        self.size_bytes = 0
        """The encoded size: exact when it was last encoded, and since then the sum of the updates,
        which is more than they add.
        """
        self._doc = _new()
        self._typing: _pycrdt.Transaction | None = None
        """The transaction of a turn's typing, which is still open."""
        self.unsettled = 0
        """How many updates were given to it. If it failed they are of no use to anybody."""

    def close(self) -> None:
        """Let go of the memory now, which goes with the object otherwise. Nothing works then."""
        self._typing = None
        self._doc = None  # type: ignore[assignment]

    # Changing

    def apply(self, update: bytes) -> Outcome:
        """Check an update and apply what is ready of it.

        Raises:
            UpdateRefused: not an update, or one that pycrdt must not see. Nothing has changed.
            LimitReached: the document would have more than `Limits.nested_types_max` shared types.
            DocumentBroken: pycrdt failed.
        """
        shape = inspect(update, any_depth_max=self._limits.any_depth_max)
        applied = self.readiness(shape)
        ready, rest = update, b""
        missing: tuple[Missing, ...] = ()
        if applied is Applied.PENDING:
            ready, rest, missing = split(update, self._known)
            if not ready:
                return Outcome(applied, shape, update, ready, False, rest, missing)
            update = ready
            shape = inspect(update, any_depth_max=self._limits.any_depth_max)
            applied = self.readiness(shape)
        misplaced: tuple[Id, ...] = ()
        repeats = self._repeats(shape)
        if repeats and applied is Applied.CHANGED:
            # What is known must not be told again: to its author it would say that it is stored.
            update, shape = unknown_part(update, shape, self._known, self._limits)
        if applied is Applied.CHANGED:
            if strangers := self.strangers(shape):
                update = parents.without(update, strangers)
                shape = inspect(update, any_depth_max=self._limits.any_depth_max)
            # Others get what pycrdt gets, or what is deleted would not be the same for all.
            try:
                update, keyed = self._one_by_one(update, shape)
            except UpdateRefused:
                misplaced = tuple(keys.misplaced(update, self._keyed))
                update = parents.without(update, (), misplaced)
                shape = inspect(update, any_depth_max=self._limits.any_depth_max)
                update, keyed = self._one_by_one(update, shape)
            applied = self._integrate(update, shape, keyed)
        return Outcome(applied, shape, update, ready, repeats, rest, missing, misplaced)

    def _one_by_one(self, update: bytes, shape: Shape) -> tuple[bytes, Runs]:
        if shape.keyed or self._keyed.bounds:
            return keys.one_by_one(update, self._keyed)
        return update, []

    def _repeats(self, shape: Shape) -> bool:
        """Whether an update of this shape holds structs that are known."""
        known = self._known
        for client, first, _ in shape.runs:
            if first < known.get(client, 0):
                return True
        return False

    def shadowed(self, update: bytes) -> Runs:
        """Return the runs of structs in an update, all of which are known, that are here with other
        content than the update's: two authors have used one client id.
        """
        clocks = self.clocks()
        for client, first, _ in inspect(update, any_depth_max=self._limits.any_depth_max).runs:
            clocks[client] = min(first, clocks.get(client, 0))
        return shadowed(update, self.missing(encode_state_vector(clocks)))

    def apply_typed(self, update: bytes) -> Shape | None:
        """Apply what most updates are, text that was typed behind other text, with little to look
        at; return its shape, or None if it is anything else, and `apply` has to see it.

        Raises:
            UpdateRefused, DocumentBroken: like `apply`.
        """
        shape = typed(update)
        if shape is None or self._pairs:
            return None
        known, ((client, first, end),) = self._known, shape.runs
        if known.get(client, 0) != first:
            return None
        for other, clock in shape.needs.items():
            if clock > known.get(other, 0):
                return None
        keyed = self._keyed
        if keyed.bounds and any(place in keyed for place in typed_neighbours(update)):
            return None
        try:
            if self._typing is None:
                self._typing = self._doc.create_transaction()
            self._doc.apply_update(self._typing, update)
        except BaseException as error:
            self._typing = None
            raise broken(error) from error
        self.unsettled += 1
        known[client] = end
        self._full = None
        self.memory_bytes += BYTES_PER_BLOCK + len(update)
        self.size_bytes += len(update)
        return shape

    def settle(self) -> None:
        """End a turn of `apply_typed`; all else does so first.

        A transaction tidies up when it ends, which takes as long as applying a dozen updates: it
        joins what was typed with the text before it, and counts that text's characters.
        """
        transaction, self._typing = self._typing, None
        if transaction is not None:
            try:
                try:
                    transaction.commit()
                finally:
                    transaction.drop()
            except BaseException as error:
                raise broken(error) from error
            self.unsettled = 0

    def readiness(self, shape: Shape) -> Applied:
        """Return what would become of an update: `CHANGED` if it can be applied and may be new."""
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

    def strangers(self, shape: Shape) -> list[Id]:
        """Return those parents of an update's structs that are there, or come with it, and are no
        shared types: what is in them is to be discarded (`plait.server.wire.parents`).
        """
        types = self.places_of_types
        found = [each for each in shape.parents if each not in types]
        if not found:
            return found
        ends = self._known | {client: end for client, _, end in shape.runs}
        return [each for each in found if each[1] < ends.get(each[0], 0)]

    def apply_part(self, part: bytes, shape: Shape) -> bool:
        """Apply a part of a large update (`plait.server.cutting`), of which the whole was ready and
        all parts before this one were applied; return whether anything changed.

        Raises:
            UpdateRefused, LimitReached, DocumentBroken: like `apply`; the document has got a part
                of the update then, and is of no more use.
        """
        if self.readiness(shape) is Applied.PENDING:
            raise DocumentBroken("a part of an update builds upon a later one")
        if strangers := self.strangers(shape):
            raise DocumentBroken(f"a part of an update is in {strangers[0]}, which is no type")
        given, keyed = self._one_by_one(part, shape)
        return self._integrate(given, shape, keyed) is Applied.CHANGED

    def check_types(self, shape: Shape) -> None:
        """Check that the document has room for the shared types that an update brings in.

        Raises:
            LimitReached: it has not.
        """
        if self._types + len(shape.types) > self._limits.nested_types_max:
            raise LimitReached(
                f"a document may have {self._limits.nested_types_max} shared types; split it up",
                limit="shared_types",
            )

    def expect_torn(self, pairs: Set[tuple[int, int]]) -> None:
        """Tell of surrogate pairs that updates yet to be loaded cut, so that they come in torn.

        A pair that is cut later than it comes in makes the whole document be built anew.
        """
        self._torn |= pairs

    def load_slice(self, update: bytes, *, lossy: bool, astral: bool, look: bool) -> Iterator[None]:
        """Apply a slice of a snapshot that Plait wrote, and checked when it was written; in steps,
        since looking for keys and types takes a while.

        Args:
            lossy: whether the snapshot holds values that pycrdt would write differently.
            astral: whether it has characters beyond U+FFFF.
            look: whether to look for keys and types, and for such values; otherwise, `set_places`
                has told of the former.
        """
        given = update
        if look:
            types: list[Id] = []
            given, found = yield from keys.one_by_one_in_steps(given, self._keyed, types)
            self._mends_slices = self._mends_slices or given is not update
            self._keyed.add(found)
            self.places_of_types.add_each(types)
        if lossy or look:
            given = self._with_stand_ins(given)
        if astral:
            self._pairs |= surrogates.pairs(given) - self._torn
        self._to_pycrdt(surrogates.rewrite(given, self._torn) if self._torn else given)
        self.memory_bytes += BYTES_PER_ENCODED_BYTE * len(update)
        self.size_bytes += len(update)

    def set_places(self, encoded: bytes) -> None:
        """Tell where there are keys and types in slices that are loaded after this.

        Raises:
            ValueError: it is damaged.
        """
        self._keyed, self.places_of_types = places.decode(encoded, 2)

    def encoded_places(self) -> bytes | None:
        """Return what `set_places` takes; None if slices have to be looked at, since something in
        them is not as pycrdt may have it.
        """
        if self._mends_slices:
            return None
        return places.encode((self._keyed, self.places_of_types))

    def slices_loaded(self, types: int) -> None:
        """Tell that all slices are in, and how many shared types they hold."""
        self._known = decode_state_vector(self.state_vector())
        self._types = types

    # Reading

    @property
    def types(self) -> int:
        """Shared types that updates have brought in, deleted ones included."""
        return self._types

    @property
    def lossy(self) -> bool:
        """Whether it holds values that pycrdt alone would encode with loss."""
        return self._hides

    @property
    def astral(self) -> bool:
        """Whether it holds characters beyond U+FFFF."""
        return bool(self._pairs)

    @property
    def measured(self) -> bool:
        """Whether `size_bytes` is exact."""
        return self._full is not None

    def state_vector(self) -> bytes:
        """Return the encoded state vector."""
        self.settle()
        transaction = self._doc.create_transaction()
        try:
            return self._doc.get_state(transaction)
        finally:
            transaction.drop()

    def adds(self, update: bytes) -> bool:
        """Whether an update would bring in anything new; deletions do not.

        Raises:
            UpdateRefused: it is not an update.
        """
        return self.lacks(inspect(update, any_depth_max=self._limits.any_depth_max))

    def lacks(self, shape: Shape) -> bool:
        """Whether an update of this shape would bring in anything new; deletions do not."""
        return any(end > self._known.get(client, 0) for client, _, end in shape.runs)

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
            self.size_bytes = len(self._full)
        return self._full

    def mended(self, encoded: bytes) -> bytes:
        """Return what pycrdt encoded of this document, with what stand-ins stand for."""
        return stand_ins.show(encoded, _MARK) if self._hides else encoded

    def equals(self, other: "Document") -> bool:
        """Whether both hold the same state, put into structs alike; then its bytes are the same."""
        return self.encode() == other.encode()

    # How an update becomes part of the document

    def _integrate(self, update: bytes, shape: Shape, found: Runs) -> Applied:
        self.check_types(shape)
        given = update
        if not shape.lossless:
            given = self._with_stand_ins(given)
        if shape.astral or self._pairs:
            given = self._without_cut_pairs(given)
        known = self._known
        new = any(end > known.get(client, 0) for client, _, end in shape.runs)
        # New structs are a change; whether a deletion is one, only pycrdt knows.
        changed = self._to_pycrdt(given, watch=not new) or new
        # What it repeats may be a lie.
        starts = ((client, max(first, known.get(client, 0)), end) for client, first, end in found)
        self._keyed.add(run for run in starts if run[1] < run[2])
        for client, _, end in shape.runs:
            if end > known.get(client, 0):
                known[client] = end
        if len(shape.runs) > 1:
            self._check_integrated(shape)
        if not changed:
            return Applied.KNOWN
        self._types += len(shape.types)
        self.places_of_types.add_each(shape.types)
        self._full = None
        self.memory_bytes += BYTES_PER_BLOCK + len(update)
        self.size_bytes += len(update)
        return Applied.CHANGED

    def _check_integrated(self, shape: Shape) -> None:
        """Notice structs of several clients that wait for one another in a circle, which no genuine
        client makes.
        """
        state = decode_state_vector(self.state_vector())
        if any(state.get(client, 0) < end for client, _, end in shape.runs):
            raise DocumentBroken("the update's structs wait for one another")

    def _with_stand_ins(self, update: bytes) -> bytes:
        given = stand_ins.hide(update, _MARK)
        self._hides = self._hides or given is not update
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
        self._doc = _new()
        try:
            self._to_pycrdt(state)
        except UpdateRefused as error:  # of its own state, and now it is empty
            raise DocumentBroken(f"the document can't be built anew: {error}") from error

    # The one place that calls into Rust

    def _to_pycrdt(self, update: bytes, *, watch: bool = False) -> bool:
        """Apply an update; return whether that changed anything, if `watch`ed."""
        self.settle()
        doc = self._doc
        changes: list[object] = []
        # An observer is told what has changed, encoded, which costs more than applying it.
        watching = doc.observe(changes.append) if watch else None
        try:
            transaction = doc.create_transaction()
            try:
                doc.apply_update(transaction, update)
                transaction.commit()
            finally:
                transaction.drop()
        except ValueError as error:  # it could not decode the update, and changed nothing
            raise UpdateRefused(f"not a Yjs update: {error}") from None
        except BaseException as error:
            raise broken(error) from error
        finally:
            if watching is not None:  # pycrdt never frees a document that is observed
                watching.drop()
        return bool(changes)

    def _encoded(self, state_vector: bytes) -> bytes:
        self.settle()
        try:
            transaction = self._doc.create_transaction()
            try:
                encoded = self._doc.get_update(transaction, state_vector)
                if len(self._known) < 2:
                    return encoded
                # Without structs it is what follows them in every update.
                deletes = self._doc.get_update(transaction, self._doc.get_state(transaction))[1:]
            finally:
                transaction.drop()
        except BaseException as error:
            raise broken(error) from error
        if not encoded.endswith(deletes):
            raise DocumentBroken("an encoded state does not end with what is deleted")
        return encoded[: len(encoded) - len(deletes)] + in_order(deletes)


def _new() -> _pycrdt.Doc:
    """Return an empty document.

    It is what `pycrdt.Doc` wraps: without the wrapper's bookkeeping for several threads, observers
    and Python objects an update takes a third of the time.
    """
    return _pycrdt.Doc(None, None, None)
