"""Connections that send nothing, half of something or too much, and those that read nothing.

All with real sockets and uvicorn, with times that end at once where one is waited for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from plait.server.counters import Counters
from plait.server.limits import Limits
from plait.server.watch import Watch
from tests.support.deadlines import eventually
from tests.support.serving import Raw, raw, serving

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

SOON = 0.3
LATE = 3600.0


@pytest.fixture(params=["direct", "asgi"])
def sockets(request: pytest.FixtureRequest) -> str:
    """How the server carries WebSockets."""
    return str(request.param)


def watch(head: float = LATE, stall: float = LATE, heads: int = 2000, size: int = 4096) -> Watch:
    """Return a watch with small limits."""
    limits = Limits(head_seconds=head, stall_seconds=stall, heads_max=heads, head_bytes_max=size)
    return Watch(limits, Counters())


def hits(watching: Watch) -> dict[str, int]:
    """Return which limits were reached how often."""
    return {name: count for name, count in watching._counters.limits.items() if count}


def watched(watching: Watch) -> int:
    """Return how many connections are watched for anything."""
    return len(watching._heads) + len(watching._bodies) + len(watching._responses)


async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer a request with its body's length, and refuse a WebSocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"%d bytes" % length
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def is_cut(client: Raw) -> bool:
    """Read until the end, which has to come; return whether nothing was said before."""
    try:
        return await client.rest() == b""
    except ConnectionResetError:
        return True


async def answered(client: Raw, request: bytes) -> str:
    """Send a request, and read the whole answer."""
    client.writer.write(request)
    head = await client.head()
    length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
    return head + (await client.reader.readexactly(length)).decode()


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


# Heads in time


async def test_half_a_head_gets_no_more_time_than_a_whole_one(sockets: str) -> None:
    """It is left to another protocol, which is watched as the one before it."""
    watching = watch()
    async with (
        serving(application, watch=watching, sockets=sockets) as (port, server),
        raw(port) as client,
    ):
        await eventually(lambda: len(watching._heads) == 1)
        due = watching._heads.next
        client.writer.write(GET[:-2])
        connections = server.server_state.connections
        await eventually(lambda: any(getattr(each, "_in_head", False) for each in connections))
        assert (len(watching._heads), watching._heads.next) == (1, due)
        client.writer.write(GET[-2:])
        assert (await client.head()).startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize("start", [b"", b"G", GET[:-2], b"\r\n", GET + b"GE"])
async def test_a_head_has_to_be_there_in_time(sockets: str, start: bytes) -> None:
    watching = watch(head=SOON)
    async with (
        serving(application, watch=watching, sockets=sockets) as (port, server),
        raw(port) as client,
    ):
        client.writer.write(start)
        if start.startswith(GET):
            assert await answered(client, b"")
        assert await is_cut(client)
        assert hits(watching) == {"slow_head": 1}
        await eventually(lambda: not server.server_state.connections)
    assert not watched(watching)


async def test_empty_lines_after_an_answer_are_the_beginning_of_a_head(sockets: str) -> None:
    """uvicorn waits 5 s for the next request; until the first byte, whatever it is."""
    watching = watch(head=SOON)
    async with (
        serving(application, watch=watching, sockets=sockets) as (port, _),
        raw(port) as client,
    ):
        assert await answered(client, GET)
        client.writer.write(b"\r\n")
        assert await is_cut(client)
        assert hits(watching) == {"slow_head": 1}


async def test_bytes_that_trickle_in_do_not_prolong_it(sockets: str) -> None:
    watching = watch(head=SOON)
    async with (
        serving(application, watch=watching, sockets=sockets) as (port, _),
        raw(port) as client,
    ):
        client.writer.write(b"GET / HTTP/1.1\r\nX: ")

        def trickled() -> bool:
            client.writer.write(b"x")
            return client.reader.at_eof() or client.reader.exception() is not None

        await eventually(trickled, "the end")
    assert hits(watching) == {"slow_head": 1}


async def test_whoever_is_served_is_not_cut(sockets: str) -> None:
    """Neither in the middle of an answer, nor between two, nor as a WebSocket."""
    go_on = asyncio.Event()

    async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await go_on.wait()
        await application(scope, receive, send)

    watching = watch(head=SOON, stall=SOON)
    async with serving(slow, watch=watching, sockets=sockets) as (port, _):
        async with raw(port) as silent, raw(port) as client, raw(port) as other:
            client.writer.write(GET)
            other.handshake()
            assert await is_cut(silent)
            go_on.set()
            for _ in range(3):
                assert "0 bytes" in await answered(client, b"")
                client.writer.write(GET)
            assert "0 bytes" in await answered(client, b"")
            assert "403" in await other.head()
        assert hits(watching) == {"slow_head": 1}
    assert not watched(watching)


async def test_there_is_no_timer_where_nobody_is(sockets: str) -> None:
    watching = watch(head=SOON)
    async with serving(application, watch=watching, sockets=sockets) as (port, _):
        async with raw(port) as client:
            assert await answered(client, GET)
            assert watching._timer is not None
        await eventually(lambda: watching._timer is None, "the end of the timer")


# Heads in number


async def test_the_oldest_of_too_many_is_cut(sockets: str) -> None:
    watching = watch(heads=10)
    async with serving(application, watch=watching, sockets=sockets) as (port, server):
        async with AsyncExitStack() as stack:
            clients = []
            for _ in range(10):
                clients.append(await stack.enter_async_context(raw(port)))
                clients[-1].writer.write(b"GET /")
            await eventually(lambda: watching.heads == 10)
            for _ in range(100):  # Whoever sends a whole head has nothing to fear.
                async with raw(port) as good:
                    assert await answered(good, GET)
                    await eventually(lambda: watching.heads <= 10)
            assert watching.heads == 9
            assert hits(watching) == {"open_heads": 1}
            assert await is_cut(clients[0])
            assert "0 bytes" in await answered(clients[1], GET.removeprefix(b"GET /"))
        await eventually(lambda: not server.server_state.connections)
    assert not watched(watching)


# Heads in size


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX: %b\r\n\r\n" % bytes(5000).replace(b"\0", b"x"),
        b"GET /%b HTTP/1.1\r\n\r\n" % (b"x" * 5000),
        b"GET / HTTP/1.1\r\n%b\r\n" % (b"a: b\r\n" * 1000),
        b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: %b\r\n\r\n"
        % (b"x" * 5000),
        b"\r\n" * 2500,
    ],
    ids=["header", "target", "headers", "handshake", "empty lines"],
)
async def test_a_head_may_not_be_too_large(sockets: str, head: bytes, at_once: bool) -> None:
    watching = watch()
    async with (
        serving(application, watch=watching, sockets=sockets) as (port, _),
        raw(port) as client,
    ):
        size = len(head) if at_once else 1000
        for start in range(0, len(head), size):
            client.writer.write(head[start : start + size])
            await client.writer.drain()
        answer = await client.head()
        assert answer.startswith("HTTP/1.1 431 ")
        assert (await client.rest()) == b"the head of a request may have 4096 bytes"
        assert hits(watching) == {"too_large_head": 1}
    assert not watched(watching)


async def test_a_head_without_end_is_not_kept(sockets: str) -> None:
    watching = watch()
    async with (
        serving(application, watch=watching, sockets=sockets) as (port, server),
        raw(port) as client,
    ):
        client.writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * (8 << 20))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            assert (await client.head()).startswith("HTTP/1.1 431 ")
            await client.reader.readexactly(1 << 20)
        await eventually(lambda: not server.server_state.connections)
    assert hits(watching) == {"too_large_head": 1}


async def test_bodies_do_not_count_as_heads(sockets: str) -> None:
    watching = watch()
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    async with (
        serving(application, watch=watching, sockets=sockets) as (port, _),
        raw(port) as client,
    ):
        for length in (1, 100_000, 1 << 20):
            body = bytes(length)
            assert f"{length} bytes" in await answered(client, post % length + body)
        # Several at once, and the next head begins where a body ends.
        client.writer.write((post % 100_000 + bytes(100_000)) * 5 + GET[:5])
        for _ in range(5):
            assert "100000 bytes" in await answered(client, b"")
        assert "0 bytes" in await answered(client, GET[5:])
    assert hits(watching) == {}
    assert not watched(watching)


async def hasty(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer a request without its body."""
    await send(
        {"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


async def test_a_body_that_was_answered_early_is_not_taken_for_a_head(sockets: str) -> None:
    """Such a body was counted as the next head: above 64 KB it was refused, and cut."""
    watching = watch()
    async with (
        serving(hasty, watch=watching, sockets=sockets) as (port, _),
        raw(port) as client,
    ):
        client.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
        assert "413" in await client.head()
        client.writer.write(bytes(200_000) + GET)
        assert "413" in await client.head()
    assert hits(watching) == {}


async def test_what_is_no_request_is_answered_as_before(sockets: str) -> None:
    watching = watch()
    async with (
        serving(application, watch=watching, sockets=sockets) as (port, _),
        raw(port) as client,
    ):
        client.writer.write(b"hello\r\n\r\n")
        assert (await client.head()).startswith("HTTP/1.1 400 ")
    assert hits(watching) == {}
    assert not watched(watching)


# Bodies and responses


async def test_a_body_has_to_go_on(sockets: str) -> None:
    watching = watch(stall=SOON)
    async with (
        serving(application, watch=watching, sockets=sockets) as (port, _),
        raw(port) as client,
    ):
        client.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        assert await is_cut(client)
    assert hits(watching) == {"slow_body": 1}
    assert not watched(watching)


async def test_a_body_that_the_application_does_not_take_may_wait(sockets: str) -> None:
    go_on = asyncio.Event()

    async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await go_on.wait()
        await application(scope, receive, send)

    watching = watch(head=2 * SOON, stall=SOON)
    async with serving(slow, watch=watching, sockets=sockets) as (port, _):
        async with raw(port) as client:
            length = 1 << 20
            client.writer.write(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length)
            client.writer.write(bytes(length))
            async with raw(port) as silent:
                assert await is_cut(silent)
            go_on.set()
            assert f"{length} bytes" in await answered(client, b"")
    assert hits(watching) == {"slow_head": 1}


async def large(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Answer with more than the kernel's buffers hold."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(40):
        await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def large_at_once(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Do the same in one part, so that the response is complete before it is taken."""
    headers = [(b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(40 << 20)})


@pytest.mark.parametrize("response", [large, large_at_once])
async def test_who_takes_no_response_is_cut(
    sockets: str, response: Callable[..., Awaitable[None]]
) -> None:
    watching = watch(stall=SOON)
    async with (
        serving(response, watch=watching, sockets=sockets) as (port, server),
        raw(port, buffer_bytes=4096) as client,
    ):
        client.writer.write(GET)
        await eventually(lambda: hits(watching) == {"slow_response": 1}, "the cut")
        await eventually(lambda: not server.server_state.connections)
    assert not watched(watching)


@pytest.mark.parametrize("response", [large, large_at_once])
async def test_who_takes_it_slowly_gets_all_of_it(
    sockets: str, response: Callable[..., Awaitable[None]]
) -> None:
    """A piece at a time, with longer pauses in all than one without progress may have."""
    watching = watch(head=SOON, stall=3 * SOON)
    async with (
        serving(response, watch=watching, sockets=sockets) as (port, _),
        raw(port, buffer_bytes=4096) as client,
    ):
        client.writer.write(GET)
        await client.head()
        for _ in range(8):
            assert len(await client.reader.readexactly(4 << 20)) == 4 << 20
            async with raw(port) as silent:  # For the time that this takes nothing is read.
                assert await is_cut(silent)
        await client.reader.readexactly(8 << 20)
        assert "slow_response" not in hits(watching)
