"""Run a connection over anything that carries frames: a task that reads and a task that writes, and
when one ends, so does the other.
"""

import asyncio
from typing import Protocol

from plait.server.connection import Connection, Visitor
from plait.server.errors import ClientError
from plait.server.framed import CLOSE_SECONDS
from plait.server.hub import Hub
from plait.server.room import Room
from plait.server.wire.messages import Codec

TURN_SECONDS = 0.002
"""How long one client's messages are handled before the others have their turn."""


class Link(Protocol):
    """What carries frames. Its methods raise `LinkLost` when the other side is gone."""

    async def receive(self) -> bytes:
        """Return the next frame.

        Raises:
            LinkLost: there will be none.
            ClientError: what came is not a frame.
        """

    async def send(self, frame: bytes) -> None:
        """Send one frame; return when there is room for another."""

    async def close(self, code: int, reason: str) -> None:
        """Say why nothing more will come."""


class Visit(Visitor, Protocol):
    """What a socket holds, beside its room, as long as it is open."""

    @property
    def source(self) -> str:
        """Who shares with it what there is for those who send much."""

    def attach(self, connection: Connection) -> None:
        """Tell the connection from now on what changes."""

    def release(self) -> None:
        """Let go of it; a second time does nothing."""


class LinkLost(Exception):
    """Raised by a `Link` when the other side is gone."""


async def pump(
    hub: Hub, room: Room, codec: Codec, link: Link, peer: str, visit: Visit | None = None
) -> None:
    """Make the other side of a link a member of a room until it leaves or is closed.

    Args:
        visit: whose link it is, and what they may do; without one it may do everything.
    """
    woken = asyncio.Event()
    closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        woken.set()
        if connection.closing is not None and not closed.done():
            closed.set_result(None)

    connection = Connection(
        hub.limits, wake, hub.clock.monotonic, peer, counters=hub.counters, visitor=visit
    )
    connection.join(room, codec)
    if visit is not None:
        visit.attach(connection)
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read(hub, connection, link))
            writing = tasks.create_task(_write(connection, link, woken))
            await asyncio.wait((reading, writing, closed), return_when=asyncio.FIRST_COMPLETED)
            reading.cancel()
            if connection.closing is not None:  # It is told why, unless it does not read.
                await asyncio.wait((writing,), timeout=CLOSE_SECONDS)
            writing.cancel()
    finally:
        connection.lost()


async def _read(hub: Hub, connection: Connection, link: Link) -> None:
    clock = hub.clock.monotonic
    began = clock()
    while connection.closing is None:
        # None of these waits gives way as long as there is something to read: a client that sends
        # faster than it can be served would stop all others.
        if clock() - began > TURN_SECONDS:
            await asyncio.sleep(0)
            began = clock()
        # Not reading is the back pressure: the kernel's buffers fill up, and the client waits.
        await hub.writer.wait_not_full()
        await connection.ready()
        try:
            connection.receive(await link.receive())
        except ClientError as error:
            connection.close(error)
        except LinkLost:
            return


async def _write(connection: Connection, link: Link, woken: asyncio.Event) -> None:
    try:
        while connection.closing is None:
            woken.clear()
            while (frame := connection.take()) is not None:
                await link.send(frame)
            if connection.closing is None:
                await woken.wait()
        await link.close(connection.closing.code, connection.closing.reason)
    except LinkLost:
        pass  # Whoever reads learns of it as well.
