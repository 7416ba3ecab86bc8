"""A y-websocket client without a document: it sends frames and looks at those that come.

Whoever reads says what is waited for. A sign of life, which a server sends whom it has told nothing
for a while, is passed over wherever something else is: on a busy machine it may come at any time.

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

from plait.server.updates import merge
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.frames import (
    ASK_ALL,
    AWARENESS,
    KEEPALIVE,
    NOBODY,
    QUERY_AWARENESS,
    STEP1,
    STEP2,
    UPDATE,
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

    async def receive(self) -> bytes:
        """Return the next frame, whatever it is: for whoever takes everything that comes."""
        frame = await self.socket.recv()
        assert isinstance(frame, bytes)
        return frame

    async def next(self, *kinds: str) -> Frame:
        """Return the next frame, which has to be of one of some kinds."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                frame = await self.receive()
                found = parse(frame)
                if found.kind in kinds:
                    return found
                assert frame == KEEPALIVE, f"{' or '.join(kinds)} was expected, not {found}"

    async def until(self, *kinds: str) -> Frame:
        """Return the first frame that is of one of some kinds; others are passed over."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                found = parse(await self.receive())
                if found.kind in kinds:
                    return found

    async def until_told(self, kind: str, payload: bytes) -> None:
        """Pass over everything up to a frame with this content."""
        while (await self.until(kind)).payload != payload:
            pass

    async def expect(self, kind: str) -> bytes:
        """Return the payload of the next frame, which has to be of a kind."""
        return (await self.next(kind)).payload

    async def hear(self, frame: bytes) -> None:
        """Make sure that this frame, to the byte, comes next."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (found := await self.receive()) != frame:
                assert found == KEEPALIVE, f"{frame[:80]!r} was expected, not {found[:80]!r}"

    async def expect_presence(self) -> Presence:
        """Return what the next frame tells of the presence of somebody."""
        while not (told := presence(await self.expect(AWARENESS))):
            pass
        return told

    async def greeted(self) -> "Peer":
        """Read the server's greeting in a room where nobody shows presence."""
        await self.expect(STEP1)
        return self

    async def heard_nothing(self) -> None:
        """Make sure that nothing is on its way, in a room where nobody shows presence: the answer
        to a question comes next.
        """
        await self.send(QUERY_AWARENESS)
        assert await self.expect(AWARENESS) == NOBODY

    async def state(self) -> bytes:
        """Ask for the whole document; return it."""
        await self.send(ASK_ALL)
        updates: list[bytes] = []
        while True:
            found = await self.until(STEP2, UPDATE)
            updates.append(found.payload)
            if found.kind == STEP2:  # Before it there may be portions, or what others type.
                return merge(updates)

    async def closed(self) -> tuple[int, str]:
        """Read until the server closes the socket; return the code and the reason."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    await self.receive()
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
