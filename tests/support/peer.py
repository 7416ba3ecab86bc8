"""A y-websocket client without a document: it sends frames and looks at those that come.

Unrealistic: it answers nothing by itself but WebSocket pings. Real clients are in tests/node.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.frames import (
    ASK_ALL,
    AWARENESS,
    QUERY_AWARENESS,
    STEP1,
    STEP2,
    Frame,
    Presence,
    parse,
    presence,
)


class Peer:
    """One socket to a room."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, *frames: bytes | str) -> None:
        """Send frames."""
        for frame in frames:
            await self.socket.send(frame)

    async def frame(self, seconds: float = DEADLINE_SECONDS) -> bytes:
        """Return the next frame."""
        async with asyncio.timeout(seconds):
            frame = await self.socket.recv()
        assert isinstance(frame, bytes)
        return frame

    async def next(self, seconds: float = DEADLINE_SECONDS) -> Frame:
        """Return the next frame, parsed."""
        return parse(await self.frame(seconds))

    async def expect(self, kind: str) -> bytes:
        """Return the payload of the next frame, which has to be of a kind."""
        found = await self.next()
        assert found.kind == kind, f"{kind} was expected, not {found}"
        return found.payload

    async def expect_presence(self) -> Presence:
        """Return what the next frame tells of presence."""
        return presence(await self.expect(AWARENESS))

    async def greeted(self) -> "Peer":
        """Read the server's greeting in a room where nobody shows presence."""
        await self.expect(STEP1)
        return self

    async def heard_nothing(self) -> Presence:
        """Make sure that nothing is on its way: the answer to a question comes next. Returns it."""
        await self.send(QUERY_AWARENESS)
        return await self.expect_presence()

    async def state(self) -> bytes:
        """Ask for the whole document; return it."""
        await self.send(ASK_ALL)
        while True:
            found = await self.next()
            if found.kind == STEP2:
                return found.payload

    async def closed(self) -> tuple[int, str]:
        """Read until the server closes the socket; return the code and the reason."""
        try:
            while True:
                await self.frame()
        except ConnectionClosed as closed:
            assert closed.rcvd is not None, "the socket ended without a close frame"
            return closed.rcvd.code, closed.rcvd.reason

    def vanish(self) -> None:
        """End without a good-bye, as one whose network is gone."""
        self.socket.transport.abort()


@asynccontextmanager
async def peer(
    ws_url: str,
    room: str,
    *,
    path: str = "/ws/",
    origin: str | None = None,
    subprotocols: Sequence[str] | None = None,
    **options: Any,
) -> AsyncIterator[Peer]:
    """Connect to a room, whose name is percent-encoded."""
    async with connect(
        ws_url + path + quote(room),
        origin=None if origin is None else Origin(origin),
        subprotocols=None if subprotocols is None else [Subprotocol(s) for s in subprotocols],
        compression=None,
        max_size=None,
        ping_interval=None,
        proxy=None,
        open_timeout=DEADLINE_SECONDS,
        close_timeout=DEADLINE_SECONDS,
        **options,
    ) as socket:
        yield Peer(socket)
