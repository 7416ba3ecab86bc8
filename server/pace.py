"""Work on a document in small steps, and leave the event loop to others in between.

Giving way for one turn of the loop after each step is not enough. An edit in another room needs
several turns from its author's socket to its readers' sockets, and would wait for a step in each of
them. So whoever has worked for a while rests for as long as it has worked: the others have half of
the time, in pieces that are long enough to get something done. If nobody wants the time (a turn of
the loop passes as if it were empty), the work goes on at once.
"""

import asyncio
import time
from collections.abc import Callable

WORK_SECONDS = 0.002
"""Less than this at a time is not worth a rest."""
IDLE_SECONDS = 0.0001
"""A turn of the loop that takes no longer had nothing to do."""


class Pace:
    """The rhythm of one piece of work. Its time runs from its making.

    Args:
        seconds: the time it goes by, if that is not the machine's.
    """

    def __init__(self, seconds: Callable[[], float] | None = None) -> None:
        self._seconds = seconds or time.perf_counter
        self._begun = self._seconds()

    async def rest(self) -> None:
        """Give way if there was work for long enough; call it between two steps."""
        worked = self._seconds() - self._begun
        if worked >= WORK_SECONDS:
            gave_way = self._seconds()
            await asyncio.sleep(0)
            if self._seconds() - gave_way > IDLE_SECONDS:
                await asyncio.sleep(worked)
            self._begun = self._seconds()
