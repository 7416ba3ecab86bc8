"""A large document, in a process of its own.

However small the steps in which a large document is changed, some of them take pycrdt long: a map
that outgrows its table of 450,000 keys stops for a tenth of a second, and so does freeing it. So
the content of a document above `REMOTE_BYTES` is kept in another process. What the room decides
with, the clocks, is here; what needs the content is asked for there, in order, one at a time.

The process is a helper (`plait.server.apart`) that is kept. It dies with the server. If it dies
alone, the document is loaded anew, as always when pycrdt fails.
"""

from collections.abc import Sequence, Set
from typing import NamedTuple
from weakref import WeakSet

from plait.persistence import LoggedUpdate, Stored
from plait.server.apart import Companion
from plait.server.document import BYTES_PER_ENCODED_BYTE, Document
from plait.server.errors import DocumentBroken
from plait.server.folding import read
from plait.server.limits import Limits
from plait.server.wire.places import Places
from plait.server.wire.state_vector import encode_state_vector
from plait.server.wire.update import Runs, Shape

REMOTE_BYTES = 4 << 20
"""Documents from here on are kept elsewhere. Below, no step takes longer than about 30 ms."""
REMOTES_MAX = 8
"""Such processes at once; each takes 30 MB beside its document. Further documents are kept here."""
LOAD_SECONDS = 120.0
CALL_SECONDS = 60.0
"""How long the other process may take, before it is taken for broken."""

_open: WeakSet[Companion] = WeakSet()
"""Those of the documents."""


class Facts(NamedTuple):
    """What is known here of the document there."""

    clocks: dict[int, int]
    types: int
    lossy: bool
    size_bytes: int


class RemoteDocument(Document):
    """A document whose content is in another process. What reads or changes the content at once
    raises `DocumentBroken`; `integrate` and `difference` take their place.
    """

    remote = True
    measured = True
    """It can't be measured at once."""

    def __init__(self, limits: Limits, companion: Companion) -> None:
        super().__init__(limits)
        self._companion = companion
        self._lossy = False
        self._size_there = 0
        _open.add(companion)

    @classmethod
    async def load(
        cls, stored: Stored, limits: Limits
    ) -> "tuple[RemoteDocument, list[LoggedUpdate]]":
        """Load a document into a new process; return the rows that are not ready, too.

        Raises:
            UpdateRefused, DocumentBroken: it can't be loaded.
        """
        document = cls(limits, Companion())
        try:
            facts, types, waiting = await document._companion.call(
                _load, LOAD_SECONDS, stored, limits
            )
        except BaseException:
            document.close()
            raise
        document._note(facts)
        document.places_of_types = types
        document._known = facts.clocks
        return document, waiting

    def apply_typed(self, update: bytes) -> Shape | None:
        """Return None: nothing can be applied at once."""
        return None

    def close(self) -> None:
        """End the process."""
        _open.discard(self._companion)
        self._companion.close()

    @property
    def lossy(self) -> bool:
        """Whether it holds values that pycrdt alone would encode with loss."""
        return self._lossy

    def state_vector(self) -> bytes:
        """Return the encoded state vector."""
        return encode_state_vector(self._known)

    async def integrate(
        self, parts: Sequence[tuple[bytes, Shape]], torn: Set[tuple[int, int]]
    ) -> bool:
        """Apply the parts of an update that is ready; return whether that changed anything.

        Raises:
            UpdateRefused, LimitReached, DocumentBroken: the document is of no more use.
        """
        changed, facts = await self._companion.call(_integrate, CALL_SECONDS, list(parts), torn)
        self._note(facts)
        for _, shape in parts:
            self.places_of_types.add_each(shape.types)
            for client, _, end in shape.runs:
                if end > self._known.get(client, 0):
                    self._known[client] = end
        return changed

    async def difference(self, state_vector: bytes) -> bytes:
        """Return an update with what a holder of `state_vector` misses.

        Raises:
            DocumentBroken: pycrdt failed.
        """
        return await self._companion.call(_difference, CALL_SECONDS, state_vector)

    async def shadowed_there(self, update: bytes) -> Runs:
        """Return what `shadowed` would.

        Raises:
            DocumentBroken: pycrdt failed.
        """
        return await self._companion.call(_shadowed, CALL_SECONDS, update)

    def apply_part(self, part: bytes, shape: Shape) -> bool:
        """Not possible here."""
        raise DocumentBroken("the document is in another process")

    def _encoded(self, state_vector: bytes) -> bytes:
        raise DocumentBroken("the document is in another process")

    def _to_pycrdt(self, update: bytes, *, watch: bool = False) -> bool:
        raise DocumentBroken("the document is in another process")

    def _note(self, facts: Facts) -> None:
        self._types = facts.types
        self._lossy = facts.lossy
        # There it is only ever estimated, here it may have been measured.
        self.size_bytes += facts.size_bytes - self._size_there
        self._size_there = facts.size_bytes
        self.memory_bytes = BYTES_PER_ENCODED_BYTE * self.size_bytes


def may_be_remote() -> bool:
    """Whether another process may be started."""
    return len(_open) < REMOTES_MAX


# In the other process, which has one document

_documents: list[Document] = []


def _facts(clocks: dict[int, int]) -> Facts:
    document = _documents[0]
    return Facts(clocks, document.types, document.lossy, document.size_bytes)


def _load(stored: Stored, limits: Limits) -> tuple[Facts, Places, list[LoggedUpdate]]:
    document, waiting = read(stored, limits)
    _documents[:] = [document]
    return _facts(document.clocks()), document.places_of_types, waiting


def _integrate(parts: list[tuple[bytes, Shape]], torn: Set[tuple[int, int]]) -> tuple[bool, Facts]:
    document = _documents[0]
    document.expect_torn(torn)
    changed = False
    for part, shape in parts:
        changed = document.apply_part(part, shape) or changed
    return changed, _facts({})


def _shadowed(update: bytes) -> Runs:
    return _documents[0].shadowed(update)


def _difference(state_vector: bytes) -> bytes:
    return _documents[0].missing(state_vector)
