"""Whoever does not get to the point is cut off, and those who type do not notice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from plait.server.app import Plait
from plait.server.counters import Counters
from plait.server.limits import Limits
from plait.server.settings import Settings
from plait.server.watch import Watch
from tests.e2e.conftest import OpenServer
from tests.support.authors import Author
from tests.support.deadlines import eventually
from tests.support.frames import UPDATE, update
from tests.support.peer import Peer, peer
from tests.support.server import refused
from tests.support.serving import raw, serving

pytestmark = pytest.mark.both_ways

ROOM = "room"
SOON = 0.5
SLOW = 20


@asynccontextmanager
async def plait(sockets: str, **limits: float) -> AsyncIterator[tuple[int, Counters]]:
    """Serve Plait in this process, with limits that have no settings."""
    node = Plait(Settings(store="memory://", sockets=sockets, allow_anonymous=True))
    watch = Watch(Limits(**limits), node.counters)  # type: ignore[arg-type]
    async with node.running(), serving(node.asgi, watch=watch, sockets=sockets) as (port, _):
        yield port, node.counters


async def type_one_another(author: Author, writer: Peer, reader: Peer) -> None:
    """Type something, which the other and the writer have to hear of."""
    typed = author.type("x")
    await writer.send(update(typed))
    for each in (writer, reader):
        await each.until_told(UPDATE, typed)


@pytest.mark.parametrize("start", [b"", b"GET /ws/room HTTP/1.1\r\nUpgrade: web"])
async def test_half_a_handshake_ends_in_time(sockets: str, start: bytes) -> None:
    async with plait(sockets, head_seconds=SOON) as (port, counters), AsyncExitStack() as stack:
        url, author = f"ws://127.0.0.1:{port}", Author(1)
        writer = await stack.enter_async_context(peer(url, ROOM))
        reader = await stack.enter_async_context(peer(url, ROOM))
        slow = [await stack.enter_async_context(raw(port)) for _ in range(SLOW)]
        for each in slow:
            each.writer.write(start)
        await type_one_another(author, writer, reader)
        await eventually(lambda: counters.limits["slow_head"] == SLOW, "the end of the slow ones")
        for each in slow:
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await each.reader.readexactly(1)
        await type_one_another(author, writer, reader)


async def test_many_open_sockets_do_not_keep_others_out(sockets: str) -> None:
    async with plait(sockets, heads_max=SLOW) as (port, counters), AsyncExitStack() as stack:
        for _ in range(5 * SLOW):
            await stack.enter_async_context(raw(port))
        await eventually(lambda: counters.limits["open_heads"] == 4 * SLOW, "the cuts")
        url, author = f"ws://127.0.0.1:{port}", Author(1)
        async with peer(url, ROOM) as writer, peer(url, ROOM) as reader:
            await type_one_another(author, writer, reader)
        assert counters.limits["open_heads"] in (4 * SLOW + 1, 4 * SLOW + 2)


async def test_a_server_as_it_is_started_refuses_a_large_head(
    open_server: OpenServer, sockets: str
) -> None:
    server = await open_server()
    async with raw(server.port) as client:
        client.handshake("/ws/room", f"Cookie: {'x' * 65_536}")
        assert (await client.head()).startswith("HTTP/1.1 431 ")
    async with raw(server.port) as client:
        # With asgi the library websockets reads the head once more, lines of up to 8,192 bytes.
        client.handshake("/ws/room", f"Cookie: {'x' * (60_000 if sockets == 'direct' else 8_000)}")
        assert (await client.head()).startswith("HTTP/1.1 101 ")


async def test_handshakes_are_counted_by_the_address_that_a_trusted_proxy_tells(
    open_server: OpenServer,
) -> None:
    async def status(port: int, address: str) -> str:
        async with raw(port) as client:
            client.handshake("/ws/room", f"X-Forwarded-For: {address}")
            return (await client.head()).split()[1]

    options = "--allow-anonymous", "--handshakes-per-second", "1"
    server = await open_server(*options)
    seen = [await status(server.port, "192.0.2.1") for _ in range(30)]
    assert set(seen[:10]) == {"101"} and seen.count("429") >= 10
    assert await status(server.port, "192.0.2.2") == "101"
    wary = await open_server(*options, "--trusted-proxies", "10.0.0.0/8")
    assert {await status(wary.port, "192.0.2.1") for _ in range(30)} == {"101"}


def test_a_proxy_that_can_not_be_is_named() -> None:
    assert "trusted_proxies: 'proxy.local' can't be used" in refused(
        "--trusted-proxies", "127.0.0.1, proxy.local", "--store", "memory://"
    )
