"""Work on a document in small steps, and leave the event loop to others in between.

Giving way for one turn of the loop after each step is not enough. An edit in another room needs
several turns from its author's socket to its readers' sockets, and would wait for a step in each of
them. So whoever has worked for a while rests for as long as it has worked: the others have half of
the time, in pieces that are long enough to get something done. If nobody wants the time (a turn of
the loop passes as if it were empty), the work goes on at once.
"""

import asyncio
from time import perf_counter

WORK_SECONDS = 0.002
"""Less than this at a time is not worth a rest."""
IDLE_SECONDS = 0.0001
"""A turn of the loop that takes no longer had nothing to do."""


class Pace:
    """The rhythm of one piece of work. Its time runs from its making."""

    def __init__(self) -> None:
        self._begun = perf_counter()

    async def rest(self) -> None:
        """Give way if there was work for long enough; call it between two steps."""
        worked = perf_counter() - self._begun
        if worked >= WORK_SECONDS:
            gave_way = perf_counter()
            await asyncio.sleep(0)
            if perf_counter() - gave_way > IDLE_SECONDS:
                await asyncio.sleep(worked)
            self._begun = perf_counter()
