"""What ends a command before its time: Ctrl-C, SIGTERM, and a terminal that is closed.

All three cancel the command, so that it closes its store and takes away what it has not finished.
Where it waits for a person or computes, and the loop can't run, they raise at once.
"""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from io import BufferedReader
from types import FrameType
from typing import Any, TypeVar, cast

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """Raised when a signal ends a command."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number
        """What a shell reports for a process that the signal killed."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does. The first signal cancels it, a second one raises.

    Raises:
        Interrupted: it was cancelled by a signal.
    """
    numbers: list[int] = []

    async def main() -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def end(number: int, _: FrameType | None) -> None:
            numbers.append(number)
            if len(numbers) > 1:
                raise Interrupted(number)
            task.cancel()
            loop.call_soon_threadsafe(lambda: None)  # wakes it up

        with _handled_by(end):
            return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if not numbers:
            raise
        raise Interrupted(numbers[0]) from None


@contextmanager
def at_once() -> Iterator[None]:
    """Let a signal raise `Interrupted` in the block, which keeps the loop from running."""

    def end(number: int, _: FrameType | None) -> None:
        raise Interrupted(number)

    with _handled_by(end):
        yield


def standard_input() -> bytes:
    """Return all that comes on standard input; a signal raises `Interrupted`."""
    found = []
    with at_once():
        # In one call Python would look for signals only where nothing came with them.
        while part := cast(BufferedReader, sys.stdin.buffer).read1():
            found.append(part)
    return b"".join(found)


@contextmanager
def _handled_by(handler: Handler) -> Iterator[None]:
    """Set what handles signals; those that are ignored (nohup, a job in the background) stay so."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: signal.getsignal(each) for each in SIGNALS}
    handled = [each for each in before if before[each] not in (signal.SIG_IGN, None)]
    try:
        for each in handled:
            signal.signal(each, handler)
        yield
    finally:
        for each in handled:
            signal.signal(each, before[each])
