"""Updates that other nodes took and relayed, and that are not known to be in the store yet.

The node whose client made an update stores it. Here it is shown at once, and clients build upon it.
Should that node die before its commit, what is built upon the update, and acknowledged, would hang
in the air. So relayed updates are kept until their node says that they are saved, and this node
stores them itself: when that node has died, when one of our clients builds upon them (in the same
commit), when there are too many, and when it takes long, since that node may have lost the store.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from plait.server.wire.update import Shape


@dataclass(slots=True)
class _Loan:
    seq: int
    who: str
    update: bytes
    shape: Shape
    since: float


Row = tuple[str, bytes]
"""An author, and his update."""


class Borrowed:
    """The relayed updates of one room."""

    __slots__ = ("_loans", "size")

    def __init__(self) -> None:
        self._loans: dict[bytes, deque[_Loan]] = {}
        self.size = 0
        """Bytes of all of them."""

    def __bool__(self) -> bool:
        return bool(self._loans)

    @property
    def since(self) -> float | None:
        """When the oldest of them came; None if there is none."""
        return min((loans[0].since for loans in self._loans.values()), default=None)

    def add(
        self, node: bytes, seq: int, who: str, update: bytes, shape: Shape, now: float = 0.0
    ) -> None:
        """Keep an update until its node has saved what it said up to `seq`."""
        self._loans.setdefault(node, deque()).append(_Loan(seq, who, update, shape, now))
        self.size += len(update)

    def saved(self, node: bytes, seq: int) -> None:
        """Let go of what a node has saved."""
        loans = self._loans.get(node)
        if loans is None:
            return
        while loans and loans[0].seq <= seq:
            self.size -= len(loans.popleft().update)
        if not loans:
            del self._loans[node]

    def rows(self) -> list[Row]:
        """Return all that is kept, what others build upon first."""
        return [(loan.who, loan.update) for loans in self._loans.values() for loan in loans]

    def needed_by(self, shape: Shape) -> bool:
        """Whether an update builds upon anything that is kept."""
        needs = dict(shape.needs)
        for client, first, _ in shape.runs:  # A client's structs build upon its earlier ones.
            needs[client] = max(needs.get(client, 0), first)
        return any(
            needs.get(client, 0) > first
            for loans in self._loans.values()
            for loan in loans
            for client, first, _ in loan.shape.runs
        )

    def take(self, of: Callable[[bytes], bool] = lambda node: True) -> list[Row]:
        """Return what is kept of some nodes, and keep it no more."""
        taken: list[Row] = []
        for node in [node for node in self._loans if of(node)]:
            for loan in self._loans.pop(node):
                taken.append((loan.who, loan.update))
                self.size -= len(loan.update)
        return taken
