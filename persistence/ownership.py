"""Remember which sequence numbers this object appended, in bounded memory.

One transaction's numbers are consecutive, and so are those of the next one, unless another writer
came between. So the whole past of a lone writer is one range.
"""

from bisect import bisect_right
from collections.abc import Sequence

RANGES_MAX = 1024
"""Beyond this the oldest are forgotten, and told as another's, which is harmless."""


class OwnSequences:
    """Ranges of sequence numbers, in ascending order."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, seqs: Sequence[int]) -> None:
        """Add the consecutive numbers of one transaction, higher than all before."""
        if not seqs:
            return
        if self._lasts and self._lasts[-1] + 1 == seqs[0]:
            self._lasts[-1] = seqs[-1]
            return
        self._firsts.append(seqs[0])
        self._lasts.append(seqs[-1])
        if len(self._firsts) > RANGES_MAX:
            del self._firsts[0], self._lasts[0]

    def __contains__(self, seq: int) -> bool:
        index = bisect_right(self._firsts, seq) - 1
        return index >= 0 and seq <= self._lasts[index]
