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
from tests.support.deadlines import eventually


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
    """A TCP connection, to say what no WebSocket client says."""

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
        async with asyncio.timeout(30):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def rest(self) -> bytes:
        """Return what comes until the end."""
        async with asyncio.timeout(30):
            return await self.reader.read()

    def frame(self, payload: bytes, opcode: int = 2, *, fin: bool = True) -> None:
        """Send a masked frame of up to 65,535 bytes; the mask changes nothing."""
        head = bytes([(0x80 if fin else 0) | opcode])
        if len(payload) < 126:
            head += bytes([0x80 | len(payload)])
        else:
            head += b"\xfe" + len(payload).to_bytes(2)
        self.writer.write(head + bytes(4) + payload)

    async def next(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame."""
        async with asyncio.timeout(30):
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
