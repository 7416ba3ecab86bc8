"""How often a room speaks.

An edit reaches the other members at the end of the loop's turn in which it came. In a room where
that happens hundreds of times a second, most of the work would be to say little to many again and
again. So a room that had more than one thing to say waits until `GAP_SECONDS` have passed since it
spoke last; whatever came meanwhile is one row of the log for each author and one message to each
member.
"""

import asyncio
from collections.abc import Callable
from typing import Final

GAP_SECONDS: Final = 0.004
"""The least time between two turns of a room. No room of people who type ever notices it."""


class Tempo:
    """Calls one room's `flush`: at the end of this turn of the loop, or when it may speak again."""

    __slots__ = ("_loop", "_next")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._next = 0.0
        """When the room may speak again."""

    def __call__(self, flush: Callable[[], None]) -> None:
        """Have the room speak. Not to be called again before it has."""
        now = self._loop.time()
        if now >= self._next:
            self._next = now + GAP_SECONDS
            self._loop.call_soon(flush)
        else:
            self._loop.call_at(self._next, flush)
            self._next += GAP_SECONDS
