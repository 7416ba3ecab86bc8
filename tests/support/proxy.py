"""Stand between a server and what it depends on, and take that away from it alone."""

import asyncio
import ssl
from contextlib import suppress
from typing import Self

from tests.support.server import free_port


class Proxy:
    """Forwards connections to a port of this machine; runs in the test's event loop.

    Unrealistic in that a server whose network hangs could make no connection at all; here they are
    accepted, and nothing comes of them.

    Args:
        target: the port.
        tls: with which it speaks TLS to who connects; not to the target.
        bytes_per_second: how fast what the target sends goes on; 0 for at once.
    """

    def __init__(
        self, target: int, tls: ssl.SSLContext | None = None, *, bytes_per_second: int = 0
    ) -> None:
        self.sent = 0
        """What the target has sent, as far as it went on."""
        self._rate = bytes_per_second
        self.port = free_port()
        self._target = target
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.heal()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cut(self) -> None:
        """End all connections, and refuse new ones."""
        if self._server is not None:
            server, self._server = self._server, None
            server.close()
        for writer in self._writers:
            writer.transport.abort()

    def hang(self) -> None:
        """Forward nothing any more, and close nothing."""
        self._flows.clear()

    async def heal(self) -> None:
        """Accept connections, and forward everything, also what came meanwhile."""
        self._flows.set()
        if self._server is None:
            self._server = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, ssl=self._tls
            )

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        writers = {writer, back}
        self._writers |= writers
        try:
            if self._server is None:  # cut meanwhile
                return
            ways = [
                asyncio.create_task(self._forward(reader, back)),
                asyncio.create_task(self._forward(there, writer, self._rate)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._writers -= writers
            for each in writers:
                each.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int = 0
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 13 if rate else 1 << 16):
                await self._flows.wait()
                if rate:
                    await asyncio.sleep(len(data) / rate)
                    self.sent += len(data)
                writer.write(data)
                await writer.drain()
            await self._flows.wait()  # that the other end has closed is not heard either
