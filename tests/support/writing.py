"""A writer in virtual time, which passes at once, with a store that fails on demand and rooms that
record what they are told.
"""

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

from plait.persistence import StoreError, Update, Writer
from plait.persistence.memory import MemoryStore


class VirtualSelector(selectors.SelectSelector):
    """Passes the time that a loop would sleep, instead of sleeping."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits for something that never comes"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Unrealistic in that computing takes no time at all."""

    def __init__(self) -> None:
        self.selector = VirtualSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a scenario in virtual time, which begins at nought."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(coroutine)


def now() -> float:
    """Return the virtual time in seconds."""
    return asyncio.get_running_loop().time()


class FaultyStore(MemoryStore):
    """A store that fails on demand and records what it was asked.

    Unrealistic in that a failed commit never took place after all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.commit_seconds = 0.0
        self.gate: asyncio.Event | None = None
        self.attempts: list[float] = []
        self.commits: list[list[bytes]] = []

    async def append(self, updates: Sequence[Update]) -> Sequence[int]:
        self.attempts.append(now())
        if self.gate is not None:
            await self.gate.wait()
        if self.commit_seconds:
            await asyncio.sleep(self.commit_seconds)
        if self.error is not None:
            raise self.error
        seqs = await super().append(updates)
        self.commits.append([update.update for update in updates])
        return seqs


class Room:
    """Appends numbered updates, and records what it is told."""

    def __init__(self, writer: Writer, name: str = "a") -> None:
        self.writer = writer
        self.name = name
        self.seqs: list[int] = []
        self.errors: list[StoreError] = []

    def append(self, *texts: str) -> None:
        updates = [Update(self.name, text.encode()) for text in texts]
        self.writer.append(updates, self.seqs.extend, self.errors.append)

    def pending(self) -> list[bytes]:
        return [update.update for update in self.writer.pending(self.name)]


async def store_deleted(store: FaultyStore, document: str) -> None:
    """Let there be a deleted document, which is no part of what is recorded."""
    await MemoryStore.append(store, [Update(document, b"0")])
    await store.delete(document, 1)


@asynccontextmanager
async def running(writer: Writer) -> AsyncIterator[asyncio.Task[None]]:
    """Run a writer's loop, and cancel it at the end."""
    task = asyncio.create_task(writer.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Let virtual time pass until a condition holds."""
    deadline = now() + seconds
    while not condition():
        assert now() < deadline, "it did not come to be in time"
        await asyncio.sleep(0.001)
