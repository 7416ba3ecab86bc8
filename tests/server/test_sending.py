"""Sending past the transport: the descriptor is the transport's, and stays so."""

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvloop

from plait.server.sending import BorrowedSocket, borrowed_socket

LOOPS = [asyncio.SelectorEventLoop, uvloop.new_event_loop]


class Accepted(asyncio.Protocol):
    """A connection that was accepted."""

    def __init__(self) -> None:
        self.made: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()
        self.on_lost: Callable[[], None] = lambda: None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.set_result(cast(asyncio.Transport, transport))

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_lost()
        self.lost.set()


class Pair:
    """Both ends of a connection: the transport of one, the plain socket of the other."""

    def __init__(
        self, protocol: Accepted, transport: asyncio.Transport, client: socket.socket
    ) -> None:
        self.protocol = protocol
        self.transport = transport
        self.client = client
        self.descriptor: int = transport.get_extra_info("socket").fileno()

    def borrowed(self) -> BorrowedSocket:
        """Return the socket to send by."""
        borrowed = borrowed_socket(self.transport)
        assert borrowed is not None
        return borrowed

    async def read(self, length: int) -> bytes:
        """Return what the client is sent."""
        data = b""
        async with asyncio.timeout(30):
            while len(data) < length:
                data += await asyncio.get_running_loop().sock_recv(self.client, length)
        return data


@asynccontextmanager
async def pair() -> AsyncIterator[Pair]:
    loop = asyncio.get_running_loop()
    protocol = Accepted()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, server.sockets[0].getsockname())
        transport = await protocol.made
        yield Pair(protocol, transport, client)
        transport.abort()
        server.close()
        await server.wait_closed()


def run(loop: Callable[[], asyncio.AbstractEventLoop], work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_client_gets_all_in_order(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def scenario() -> None:
        async with pair() as both:
            borrowed = both.borrowed()
            assert borrowed.send(b"one ") == 4
            both.transport.write(b"two ")
            assert borrowed.send(b"three") == 5
            assert await both.read(13) == b"one two three"

    run(loop, scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_waits_for_a_client_that_does_not_read(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> None:
        async with pair() as both:
            borrowed = both.borrowed()
            with pytest.raises(BlockingIOError):
                while True:
                    borrowed.send(bytes(1 << 20))

    run(loop, scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_it_does_not_close_what_is_not_its_own(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> None:
        async with pair() as both:
            both.borrowed()
            gc.collect()
            os.fstat(both.descriptor)
            both.transport.write(b"still there")
            assert await both.read(11) == b"still there"

    run(loop, scenario())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("how", ["abort", "close", "reset"])
def test_the_descriptor_is_open_until_the_loss_was_told(
    loop: Callable[[], asyncio.AbstractEventLoop], how: str
) -> None:
    async def scenario() -> None:
        async with pair() as both:
            borrowed, open_then = both.borrowed(), []

            def lost() -> None:
                open_then.append(os.fstat(both.descriptor))
                borrowed.detach()

            both.protocol.on_lost = lost
            if how == "reset":
                both.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *bytes(7)]))
                both.client.close()
            else:
                getattr(both.transport, how)()
            async with asyncio.timeout(30):
                await both.protocol.lost.wait()
            assert open_then
            with pytest.raises(OSError, match="Bad file descriptor"):
                borrowed.send(b"x")

    run(loop, scenario())


def test_a_transport_that_may_encrypt_is_left_alone() -> None:
    class Encrypting(asyncio.Transport):
        pass

    assert borrowed_socket(Encrypting()) is None
