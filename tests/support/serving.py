"""Run an ASGI application in this process, in the uvicorn that `plait serve` runs it in."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from plait.server.counters import Counters
from plait.server.incoming import http_protocol
from plait.server.limits import Limits
from plait.server.watch import Watch
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.frames import KEEPALIVE, Frame, parse

PART, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
"""Opcodes of frames."""


class _Server(uvicorn.Server):
    """uvicorn, which leaves the signals of the test's process alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(
    application: Any, *, watch: Watch | None = None, sockets: str = "direct", **options: Any
) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    """Serve an application as the setting `sockets` says; yields the port and the server."""
    watch = watch or Watch(Limits(), Counters())
    config = uvicorn.Config(
        application,
        http=http_protocol(sockets, watch),
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=5,
        **options,
    )
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        task = asyncio.create_task(server.serve([listening]))
        try:
            await eventually(lambda: server.started, "the start of uvicorn")
            yield port, server
        finally:
            server.should_exit = True
            await task


class Raw:
    """A TCP connection, to say what no WebSocket client says.

    Whoever reads says what is waited for. Pings, and signs of life of y-websocket, are passed over
    wherever something else is: on a busy machine they may come at any time.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def handshake(
        self, path: str = "/", *headers: str, key: str = "dGhlIHNhbXBsZSBub25jZQ=="
    ) -> None:
        """Send a handshake; headers come in place of the usual ones, or with them."""
        names = {header.partition(":")[0].lower() for header in headers}
        usual = (
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        lines = [f"GET {path} HTTP/1.1", *headers]
        lines += [line for line in usual if line.partition(":")[0].lower() not in names]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())

    async def head(self) -> str:
        """Return the head of the answer."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def rest(self) -> bytes:
        """Return what comes until the end."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.reader.read()

    def frame(self, payload: bytes, opcode: int = 2, *, fin: bool = True) -> None:
        """Send a masked frame of up to 65,535 bytes; the mask changes nothing."""
        head = bytes([(0x80 if fin else 0) | opcode])
        if len(payload) < 126:
            head += bytes([0x80 | len(payload)])
        else:
            head += b"\xfe" + len(payload).to_bytes(2)
        self.writer.write(head + bytes(4) + payload)

    async def next(self, opcode: int) -> bytes:
        """Return the payload of the next frame, which has to be of a kind."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                found, payload = await self._frame()
                if found == opcode:
                    return payload
                assert found == PING, f"a frame of kind {found}: {payload[:80]!r}"
                self.frame(payload, PONG)

    async def hear(self, payload: bytes, opcode: int = BINARY) -> None:
        """Make sure that this frame, to the byte, comes next."""
        while (found := await self.next(opcode)) != payload:
            assert found == KEEPALIVE, f"{payload[:80]!r} was expected, not {found[:80]!r}"

    async def message(self, *kinds: str) -> Frame:
        """Return the next message of y-websocket, which has to be of one of some kinds."""
        while True:
            payload = await self.next(BINARY)
            found = parse(payload)
            if found.kind in kinds:
                return found
            assert payload == KEEPALIVE, f"{' or '.join(kinds)} was expected, not {found}"

    async def closed(self) -> tuple[int, str]:
        """Read until the close frame; return code and reason."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                opcode, payload = await self._frame()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2]), payload[2:].decode()

    async def _frame(self) -> tuple[int, bytes]:
        first, length = await self.reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2))
        elif length == 127:
            length = int.from_bytes(await self.reader.readexactly(8))
        return first & 15, await self.reader.readexactly(length)


@asynccontextmanager
async def raw(port: int, *, buffer_bytes: int = 0) -> AsyncIterator[Raw]:
    """Connect to a port; with `buffer_bytes` the kernel keeps little of what is not read."""
    connection = socket.socket()
    if buffer_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 16)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()
