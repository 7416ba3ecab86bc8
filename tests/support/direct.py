"""A node in this process, whose sockets have no tasks, and clients of its one room that send any
bytes they like.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from plait.server.app import Plait
from plait.server.direct import DirectSocket
from plait.server.room import Room
from plait.server.settings import Settings
from tests.support.frames import STEP1
from tests.support.serving import Raw, raw, serving


class Node:
    """A node in this process."""

    def __init__(self, plait: Plait, port: int) -> None:
        self.plait = plait
        self.port = port
        self.url = f"ws://127.0.0.1:{port}"

    @property
    def room(self) -> Room:
        """The one room."""
        (room,) = self.plait.hub.rooms().values()
        return room

    @property
    def sockets(self) -> list[DirectSocket]:
        """Those that are open."""
        return [socket for slot in self.plait.sockets._slots for socket in slot]

    async def seconds_pass(self, seconds: int) -> None:
        """Let time pass for the sockets."""
        for _ in range(seconds):
            await self.plait.sockets.tick()


@asynccontextmanager
async def node(**settings: Any) -> AsyncIterator[Node]:
    """Run a node with a store in memory."""
    plait = Plait(Settings(**{"store": "memory://", "commit_ms": 0.0, **settings}))
    options: dict[str, Any] = {"ws_max_size": plait.limits.message_bytes_max}
    async with plait.running(), serving(plait.asgi, **options) as (port, _):
        yield Node(plait, port)


@asynccontextmanager
async def joined(server: Node, *, buffer_bytes: int = 0) -> AsyncIterator[Raw]:
    """A raw client in the room, which has read the greeting."""
    async with raw(server.port, buffer_bytes=buffer_bytes) as client:
        client.handshake("/ws/room")
        assert (await client.head()).startswith("HTTP/1.1 101 ")
        await client.message(STEP1)
        yield client
