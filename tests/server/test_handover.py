"""The handshake before a socket is handed over: what applications answer, and what clients send."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from plait.server.framed import FramedSocket
from plait.server.handover import EARLY_BYTES_MAX, EXTENSION
from plait.server.incoming import HttpProtocol
from plait.server.wire.frames import framed
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.serving import raw, serving

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Echo(FramedSocket):
    """Sends every frame back."""

    def received(self, message: bytes) -> None:
        assert self.transport is not None
        self.transport.write(framed(message))

    def shutdown(self) -> None:
        assert self.transport is not None
        self.transport.close()


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    assert scope["extensions"][EXTENSION](Echo(), next(iter(scope["subprotocols"]), None))


async def test_a_socket_is_handed_over() -> None:
    async with serving(echo) as (port, server), raw(port) as client:
        client.handshake("/", "Sec-WebSocket-Protocol: yjs, other")
        head = await client.head()
        assert head.startswith("HTTP/1.1 101 ")
        # RFC 6455, 1.3 has this key and this answer as its example.
        assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        assert "Sec-WebSocket-Protocol: yjs\r\n" in head
        client.frame(b"hello")
        await client.hear(b"hello")
        client.writer.transport.abort()
        await eventually(lambda: not server.server_state.connections)


async def test_the_application_sees_what_was_asked_for() -> None:
    seen: dict[str, Any] = {}

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        seen.update(scope)
        await send({"type": "websocket.close"})

    async with serving(application, root_path="/at") as (port, _), raw(port) as client:
        client.handshake("/a%20b%2Fc?token=1", "X-One: 1", "Sec-WebSocket-Protocol: a,b")
        assert (await client.head()).startswith("HTTP/1.1 403 ")
    assert (seen["type"], seen["scheme"]) == ("websocket", "ws")
    assert (seen["path"], seen["raw_path"]) == ("/at/a b/c", b"/at/a%20b%2Fc")
    assert seen["query_string"] == b"token=1"
    assert seen["client"][0] == "127.0.0.1" and seen["server"] == ("127.0.0.1", port)
    assert (b"x-one", b"1") in seen["headers"]
    assert seen["subprotocols"] == ["a", "b"]


async def test_firefox_connects() -> None:
    """Some libraries refuse its Connection header."""
    async with serving(echo) as (port, _), raw(port) as client:
        client.handshake("/", "Connection: keep-alive, Upgrade")
        assert (await client.head()).startswith("HTTP/1.1 101 ")


async def test_a_handshake_in_two_pieces_is_served() -> None:
    """What is not whole at once is left to uvicorn's parser, which passes the handshake on."""
    async with serving(echo) as (port, server), raw(port) as client:
        client.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConn")
        await eventually(
            lambda: any(isinstance(each, HttpProtocol) for each in server.server_state.connections)
        )
        client.writer.write(
            b"ection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await client.head()).startswith("HTTP/1.1 101 ")
        client.frame(b"hello")
        await client.hear(b"hello")


async def test_both_ways_tell_the_application_the_same() -> None:
    """uvicorn's parser reads what ends with a space, and `plait.server.heads` the rest."""

    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        seen.append(scope)
        await echo(scope, receive, send)

    seen: list[dict[str, Any]] = []
    for line in ("X-Same: a", "X-Same: a "):
        async with serving(application) as (port, _), raw(port) as client:
            client.handshake("/a%20b/c?d=e", line)
            assert (await client.head()).startswith("HTTP/1.1 101 ")
    for scope in seen:
        assert scope["client"][0] == "127.0.0.1" and scope["server"][0] == "127.0.0.1"
        for changing in ("client", "server", "extensions"):
            scope.pop(changing)
        scope["headers"] = [
            (name, value.strip()) for name, value in scope["headers"] if name != b"host"
        ]
    assert seen[0] == seen[1]


async def test_who_has_said_nothing_is_let_go_of_when_the_server_ends() -> None:
    async with serving(echo) as (port, server), raw(port) as client:
        await eventually(lambda: server.server_state.connections)
        (waiting,) = server.server_state.connections
        waiting.shutdown()
        assert await client.rest() == b""


async def test_frames_that_come_with_the_handshake_are_not_lost() -> None:
    async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await go_on.wait()
        await echo(scope, receive, send)

    go_on = asyncio.Event()
    async with serving(slow) as (port, server), raw(port) as client:
        client.handshake()
        await eventually(lambda: server.server_state.tasks)
        for number in range(100):
            client.frame(b"%d" % number * 100)
        await client.writer.drain()
        go_on.set()
        await client.head()
        for number in range(100):
            await client.hear(b"%d" % number * 100)


async def test_who_floods_before_the_answer_is_cut_off() -> None:
    async def never(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "websocket.disconnect"
        told.set()

    told = asyncio.Event()
    async with serving(never) as (port, server), raw(port) as client:
        client.handshake()
        await eventually(lambda: server.server_state.tasks)
        client.writer.write(bytes(EARLY_BYTES_MAX + 1))
        with pytest.raises(ConnectionResetError):
            assert await client.rest() == b""
            raise ConnectionResetError  # an orderly end is as good
        async with asyncio.timeout(DEADLINE_SECONDS):
            await told.wait()


# Refusals


async def test_a_denial_is_sent_as_it_is() -> None:
    async def application(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/plain"), (b"retry-after", b"7")]
        start = {"type": "websocket.http.response.start", "status": 503, "headers": headers}
        await send(start)
        part = {"type": "websocket.http.response.body", "body": b"come ", "more_body": True}
        await send(part)
        await send({"type": "websocket.http.response.body", "body": b"again"})

    async with serving(application) as (port, _), raw(port) as client:
        client.handshake()
        head = await client.head()
        assert head.startswith("HTTP/1.1 503 ")
        assert "retry-after: 7\r\n" in head and "content-length: 10\r\n" in head
        assert await client.rest() == b"come again"


@pytest.mark.parametrize(
    "header, status",
    [
        ("Sec-WebSocket-Version: 12", 426),
        ("Sec-WebSocket-Key: short", 400),
        ("Sec-WebSocket-Key: not/base64=nor=anything", 400),
    ],
)
async def test_what_is_no_handshake_is_refused(header: str, status: int) -> None:
    async with serving(echo) as (port, _), raw(port) as client:
        client.handshake("/", header)
        head = await client.head()
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert (status == 426) == ("sec-websocket-version: 13" in head)
        await client.rest()


async def test_only_get_is_a_handshake() -> None:
    async with serving(echo) as (port, _), raw(port) as client:
        client.handshake()
        await client.head()
    async with serving(echo) as (port, _), raw(port) as client:
        client.writer.write(
            b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert (await client.head()).startswith("HTTP/1.1 405 ")


async def test_an_application_that_fails_is_answered_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        raise ValueError("oh")

    async with serving(failing) as (port, _), raw(port) as client:
        client.handshake()
        assert (await client.head()).startswith("HTTP/1.1 500 ")
    assert "oh" in caplog.text


async def test_accepting_as_usual_is_a_mistake_here(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody would read the socket's frames; the server's log says what to do instead."""

    async def usual(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})

    async with serving(usual) as (port, _), raw(port) as client:
        client.handshake()
        assert (await client.head()).startswith("HTTP/1.1 500 ")
    assert f"take the socket with {EXTENSION}" in caplog.text


# Who leaves, and the end


async def test_who_left_before_the_answer_is_not_handed_over() -> None:
    async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await receive()  # tells that the client is gone
        outcome.append(scope["extensions"][EXTENSION](Echo(), None))

    outcome: list[bool] = []
    async with serving(slow) as (port, server):
        async with raw(port) as client:
            client.handshake()
            await eventually(lambda: server.server_state.tasks)
        await eventually(lambda: outcome)
        assert outcome == [False]
        assert not server.server_state.connections


async def test_a_server_that_ends_refuses_who_is_not_decided_upon() -> None:
    async def slow(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await receive()

    async with serving(slow) as (port, server), raw(port) as client:
        client.handshake()
        await eventually(lambda: server.server_state.tasks)
        server.should_exit = True
        assert (await client.head()).startswith("HTTP/1.1 503 ")


async def test_a_server_that_ends_asks_listeners_to() -> None:
    async with serving(echo) as (port, server), raw(port) as client:
        client.handshake()
        await client.head()
        server.should_exit = True
        assert await client.rest() == b""
