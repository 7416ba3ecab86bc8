"""How large a room's document may become, and whose edits it could not take.

A document above `Limits.document_bytes_max` takes deletions only. A client whose edit is refused
is not closed: y-websocket would come back at once with the same edit, for ever, and its user could
not make room. Instead its edit is neither applied nor acknowledged, and neither is what it sends
afterwards and builds upon that. When there is room again, the client is asked for what is missing.
The same goes for content that a document can't hold, except that there will never be room for it.

The size is an estimate that is too high: updates take more than what they add, up to 25 times in
typing, and deletions take back. So before anything is refused the document is measured, which means
that it is encoded, and no more often than `Limits.measure_seconds`.

Pure: the room does what is decided here.
"""

from collections.abc import Hashable
from math import inf
from typing import Generic, Protocol, TypeVar

from plait.server.errors import DocumentBroken, DocumentFull
from plait.server.limits import Limits

M = TypeVar("M", bound=Hashable)


class Sized(Protocol):
    """What is asked of a document."""

    size_bytes: int

    @property
    def measured(self) -> bool:
        """Whether the size is exact."""

    def adds(self, update: bytes) -> bool:
        """Whether an update would bring in anything new."""

    def encode(self) -> bytes:
        """Encode the document, after which the size is exact."""


class Capacity(Generic[M]):
    """Keeps one room's document within its size."""

    __slots__ = ("_measure_at", "_measure_seconds", "_refused", "bytes_max")

    def __init__(self, limits: Limits) -> None:
        self.bytes_max: float = limits.document_bytes_max or inf
        self._measure_seconds = limits.measure_seconds
        self._measure_at = -inf
        self._refused: dict[M, tuple[int | None, bool]] = {}
        """Bytes that were refused, None if they are no use at any time, and whether the member was
        told so.
        """

    def check(self, document: Sized, update: bytes, now: float) -> None:
        """Let an update pass that does not make the document too large.

        Raises:
            DocumentFull: it would.
            UpdateRefused: it is not an update.
        """
        if not self.exceeds(document, len(update)) or not document.adds(update):
            return
        self._measure(document, now)
        if self.exceeds(document, len(update)):
            raise self.full()

    def exceeds(self, document: Sized, size: int) -> bool:
        """Whether a document seems to become too large with so many bytes more."""
        return document.size_bytes + size > self.bytes_max

    def full(self) -> DocumentFull:
        """Return the error that says so."""
        return DocumentFull(
            f"the document is full: it may have {int(self.bytes_max) / (1 << 20):g} MiB "
            "(document_mb); delete something, or go on in another one",
            limit="document_mb",
        )

    def refuse(self, member: M, size: int | None) -> bool:
        """Note that a member's edit was refused; return whether it has not been told of it yet.

        Args:
            size: of the edit; None if there will never be room for it.
        """
        before, told = self._refused.get(member, (0, False))
        both = None if size is None or before is None else before + size
        self._refused[member] = both, told
        return not told

    def told(self, member: M) -> None:
        """Note that a member knows."""
        size, _ = self._refused[member]
        self._refused[member] = size, True

    def lacks(self, member: M) -> bool:
        """Whether edits of a member were refused, so that its later ones may build upon those."""
        return member in self._refused

    def forget(self, member: M) -> None:
        """Forget a member."""
        self._refused.pop(member, None)

    def fitting(self, document: Sized, now: float) -> list[M]:
        """Return whose edits fit in now, and forget that they were refused."""
        if not self._refused:
            return []
        self._measure(document, now)
        left = self.bytes_max - document.size_bytes
        fit = []
        for member, (size, _) in list(self._refused.items()):
            if size is not None and size <= left:
                left -= size
                fit.append(member)
                self.forget(member)
        return fit

    def _measure(self, document: Sized, now: float) -> None:
        if document.measured or now < self._measure_at:
            return
        self._measure_at = now + self._measure_seconds
        try:
            document.encode()
        except DocumentBroken:
            pass  # Its state comes from the log, and its size remains an estimate.
