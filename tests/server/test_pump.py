"""The two tasks of a socket: neither outlives the other, whatever the other side does."""

import asyncio

import pytest

from plait.persistence import CompactionPolicy, Writer
from plait.persistence.memory import MemoryStore
from plait.server import pump as pumping
from plait.server.compaction import Compactor
from plait.server.errors import PlaitError, TextRefused
from plait.server.hub import Hub
from plait.server.limits import Limits
from plait.server.pump import LinkLost, pump
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support.deadlines import DEADLINE_SECONDS, eventually


class FakeLink:
    """The other side, as the test wants it. Unrealistic: it has no buffers."""

    def __init__(self, *, reads: bool = True) -> None:
        self.sent: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.frames: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._reads = reads

    async def receive(self) -> bytes:
        frame = await self.frames.get()
        if isinstance(frame, Exception):
            raise frame
        return frame

    async def send(self, frame: bytes) -> None:
        self.sent.append(frame)
        if not self._reads:
            await asyncio.Event().wait()

    async def close(self, code: int, reason: str) -> None:
        self.closed = code, reason


def hub() -> Hub:
    store, limits = MemoryStore(), Limits()
    compactor = Compactor(store, CompactionPolicy(), limits, lambda: 0)
    return Hub(store, Writer(store), compactor, limits)


async def serve(running: Hub, link: FakeLink) -> None:
    async with running.room("a") as room:
        await pump(running, room, YWEBSOCKET, link, "test")


async def test_who_leaves_is_forgotten() -> None:
    async with hub() as running, asyncio.timeout(DEADLINE_SECONDS):
        link = FakeLink()
        link.frames.put_nowait(LinkLost())
        await serve(running, link)
        assert not running.rooms()["a"].members
        assert link.closed is None


async def test_what_is_no_frame_is_answered_with_a_close_code() -> None:
    async with hub() as running, asyncio.timeout(DEADLINE_SECONDS):
        link = FakeLink()
        link.frames.put_nowait(TextRefused("send binary frames"))
        await serve(running, link)
        assert link.closed == (1003, "send binary frames")


async def test_who_is_closed_from_within_is_told_why() -> None:
    async with hub() as running, asyncio.timeout(DEADLINE_SECONDS):
        link = FakeLink()
        serving = asyncio.create_task(serve(running, link))
        await eventually(lambda: link.sent)
        running.rooms()["a"].close(PlaitError("enough"))
        await serving
        assert link.closed == (1011, "enough")


async def test_who_reads_nothing_and_says_nothing_is_let_go_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closing waited for the send, and the send for the reader: the room was held for ever."""
    monkeypatch.setattr(pumping, "CLOSE_SECONDS", 0.01)
    async with hub() as running, asyncio.timeout(DEADLINE_SECONDS):
        link = FakeLink(reads=False)
        serving = asyncio.create_task(serve(running, link))
        await eventually(lambda: link.sent)
        running.rooms()["a"].close(PlaitError("you read too slowly"))
        await serving
        assert not running.rooms()["a"].members
