"""An event loop whose time is a number: it jumps to whatever comes next, and never waits."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

IDLE_TURNS_MAX = 200_000
"""So many turns without time passing are a busy loop."""


class Stuck(Exception):
    """Raised when nothing will ever happen again, or too much happens at one moment."""


class _Selector(selectors.SelectSelector):
    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.loop.pass_time(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs callbacks in the order of their times, as fast as it can."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._turns = 0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def pass_time(self, seconds: float | None) -> None:
        """Let time pass until the next callback."""
        if seconds is None:
            raise Stuck("everybody waits for somebody else")
        self._turns = 0 if seconds > 0 else self._turns + 1
        if self._turns > IDLE_TURNS_MAX:
            raise Stuck("a busy loop")
        self._now += max(seconds, 0.0)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class VirtualClock:
    """Both times of a node, from the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        """Return seconds."""
        return self._loop.time()

    def wall_ms(self) -> int:
        """Return milliseconds, as if the loop had started in 1970."""
        return int(self._loop.time() * 1000)
