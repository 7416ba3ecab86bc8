"""Work that may have to wait, so that a turn of the event loop stays short whoever comes.

A loop serves all that is ready before it looks again. When a thousand clients knock, or flood, at
once, a turn in which each is served takes a second, and whoever types waits that long. So what
comes in masses (handshakes, messages of a client that has sent many) is put into a `Ration`: it
takes a small part of each turn, and the rest waits for the next one, in which those who type are
served again. Nothing is lost, and while nobody else wants anything it is hardly slower.

Work has a *source*; sources take turns, so that one with a thousand tasks does not keep the others
waiting.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import Final
from weakref import WeakKeyDictionary

log = logging.getLogger(__name__)

Work = Callable[[], None]


PIECES_A_TURN: Final = 1
"""Whatever comes in masses shares this. A piece takes up to 0.4 ms, which is what others wait."""

_rations: "WeakKeyDictionary[asyncio.AbstractEventLoop, Ration]" = WeakKeyDictionary()


def ration(loop: asyncio.AbstractEventLoop) -> "Ration":
    """Return the part of a loop's turns that everything shares which comes in masses."""
    found = _rations.get(loop)
    if found is None:
        found = _rations[loop] = Ration(loop, pieces=PIECES_A_TURN)
    return found


class Ration:
    """A part of each turn of a loop.

    Args:
        seconds: of one turn; one piece of work is done even if it takes longer.
        pieces: of work in one turn, at most; for work that goes on after it was begun.
    """

    __slots__ = ("_loop", "_pieces", "_running", "_seconds", "_sources")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float = inf, pieces: int = 1 << 30
    ) -> None:
        self._seconds = seconds
        self._pieces = pieces
        self._loop = loop
        self._sources: dict[str, deque[Work]] = {}
        """In the order in which they take turns."""
        self._running = False

    def __len__(self) -> int:
        return sum(map(len, self._sources.values()))

    def add(self, work: Work, source: str = "") -> None:
        """Do something when its time has come, in this turn at the earliest."""
        waiting = self._sources.get(source)
        if waiting is None:
            self._sources[source] = deque((work,))
        else:
            waiting.append(work)
        if not self._running:
            self._running = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        until = perf_counter() + self._seconds
        for _ in range(self._pieces):
            source, waiting = next(iter(self._sources.items()))
            del self._sources[source]
            work = waiting.popleft()
            if waiting:
                self._sources[source] = waiting  # at the end
            try:
                work()
            except Exception:
                log.exception("work of %s failed", source or "somebody")
            if not self._sources or perf_counter() >= until:
                break
        self._running = bool(self._sources)
        if self._running:
            self._loop.call_soon(self._run)
