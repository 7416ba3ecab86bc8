"""Serve pycrdt Channels, so that who has pycrdt-websocket today can put Plait's rooms behind its
`ASGIServer`.

    ASGIServer(ChannelServer(hub))

`ASGIServer` asks of its server only that it has `serve(channel)` (pycrdt `_provider.py`, `Channel`;
pycrdt-websocket `asgi_server.py`). A channel has no close code: who is refused is disconnected.
"""

import logging
from typing import Protocol

from plait.server.errors import PlaitError
from plait.server.hub import Hub
from plait.server.pump import LinkLost, pump
from plait.server.wire.ywebsocket import YWEBSOCKET

log = logging.getLogger(__name__)


class Channel(Protocol):
    """The part of pycrdt's `Channel` that is used here."""

    @property
    def path(self) -> str:
        """Where the client connected; names the room."""

    async def send(self, message: bytes) -> None:
        """Send one frame."""

    async def __anext__(self) -> bytes:
        """Return the next frame; raises StopAsyncIteration at the end."""


class ChannelServer:
    """Puts clients that come over a `Channel` into the hub's rooms."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    async def serve(self, channel: Channel) -> None:
        """Serve one client until it leaves or is refused."""
        name = channel.path.removeprefix("/")
        try:
            async with self._hub.room(name) as room:
                await pump(self._hub, room, YWEBSOCKET, _ChannelLink(channel), "channel")
        except PlaitError as error:
            log.info("a channel to room %r was refused: %s", name, error)


class _ChannelLink:
    """A channel; implements `pump.Link`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def receive(self) -> bytes:
        try:
            return await self._channel.__anext__()
        except StopAsyncIteration:
            raise LinkLost from None

    async def send(self, frame: bytes) -> None:
        await self._channel.send(frame)

    async def close(self, code: int, reason: str) -> None:
        """Do nothing: the channel ends when `serve` returns."""
