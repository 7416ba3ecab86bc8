"""Run the ASGI application for the handshake of a WebSocket only, then hand the socket over.

ASGI passes each message through two queues and two tasks; that is two thirds of what a delivered
edit costs. So routing, middleware and everything that decides who may connect stay ordinary
Starlette, and once the answer is yes, the application takes the socket itself: the scope's
extension `plait.hand_over` is a function

    hand_over(listener, subprotocol) -> bool

which answers the handshake and makes the listener, a `plait.server.framed.FramedSocket`, the
transport's protocol. It returns False if the client has left already. An application that is not
offered the extension accepts and receives as usual; one that is must take it or refuse, for here
nobody would read the frames of an accepted socket.

Sources: the ASGI specification, "WebSocket"; RFC 6455, 4.2; uvicorn `websockets_sansio_impl.py`
for what uvicorn expects of such a class.
"""

import asyncio
import logging
from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Callable
from functools import partial
from hashlib import sha1
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.server import ServerState

from plait.server.framed import READ_BYTES, FramedSocket
from plait.server.heads import Headers, handshake
from plait.server.origins import is_loopback
from plait.server.turns import Ration, ration
from plait.server.watch import Watch

EXTENSION = "plait.hand_over"

EARLY_BYTES_MAX = 64 << 10
"""What a client may send before its handshake is answered; genuine ones wait for the answer."""

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What is put behind a handshake's key to show that it was understood (RFC 6455, 1.3)."""

log = logging.getLogger(__name__)


class _Refused(Exception):
    """Raised when a request is not a WebSocket handshake."""

    def __init__(self, status: HTTPStatus, text: str, *headers: bytes) -> None:
        self.status = status
        self.text = text
        self.headers = headers


class Gate:
    """Makes the protocol of each connection (`uvicorn.Config(http=...)`), and has what they share.

    Args:
        watch: over those who have not sent a whole head.
        http: makes the protocol for what is no plain handshake, of the one before it and what
            uvicorn gives it.
    """

    def __init__(self, watch: Watch, http: "Callable[[HandOver], asyncio.Protocol]") -> None:
        self.watch = watch
        self.http = http
        self.loop: asyncio.AbstractEventLoop | None = None
        """The server's, from its first connection on. Asking which one runs is a system call."""
        self.ration: Ration
        """The part of the loop's turns that handshakes share."""
        self.space = bytearray()
        """What all sockets of the loop read into."""

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> "HandOver":
        if self.loop is None:
            self.loop = _loop or asyncio.get_running_loop()
            self.ration, self.space = ration(self.loop), bytearray(READ_BYTES)
        return HandOver(self, config, server_state, app_state, self.loop)


def _source(scope: dict[str, Any]) -> str:
    """Return who a handshake takes turns with: those of its address, as far as that is known."""
    host: str = scope["client"][0] if scope.get("client") else ""
    if host and not is_loopback(host):
        return host
    # A proxy on this machine. Nothing depends on it but who takes turns with whom.
    return next((v.decode("latin-1") for n, v in scope["headers"] if n == b"x-forwarded-for"), host)


class HandOver:
    """The transport's protocol (`asyncio.Protocol`, from which a compiled class can't derive) from
    the connection until the application has decided.

    What comes first is a handshake, as nearly all are written (`plait.server.heads`), or it is left
    to uvicorn's protocol.
    """

    __slots__ = (
        "_answered",
        "_asked",
        "_begun",
        "_denial",
        "_early",
        "_gone",
        "_is_lost",
        "_key",
        "_task",
        "app_state",
        "config",
        "gate",
        "loop",
        "server_state",
        "transport",
    )

    def __init__(
        self,
        gate: Gate,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.gate = gate
        self.config = config
        self.server_state = server_state
        self.app_state = app_state
        self.loop = loop
        self.transport: asyncio.Transport
        self._begun = False
        """Whether the handshake's head is there."""
        self._key = b""
        self._early = b""
        """What came after the handshake."""
        self._asked = False
        self._is_lost = False
        self._gone: asyncio.Event | None = None
        """Set when the client is; made when the application waits for it."""
        self._denial: tuple[int, list[tuple[bytes, bytes]], bytearray] | None = None
        self._answered = False
        self._task: asyncio.Task[None] | None = None

    # What the transport and uvicorn call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Expect the head."""
        self.take(cast(asyncio.Transport, transport))
        self.gate.watch.begin_head(self)

    def take(self, transport: asyncio.Transport) -> None:
        """Take the transport; of uvicorn's HTTP protocol, which has read the head."""
        self.transport = transport
        self.server_state.connections.add(cast(Any, self))

    def data_received(self, data: bytes) -> None:
        """Take the head; keep what a client sends that does not wait for the answer."""
        if self._begun:
            self._early += data
            if len(self._early) > EARLY_BYTES_MAX:
                self.transport.abort()
            return
        watch = self.gate.watch
        found = handshake(data) if len(data) <= watch.limits.head_bytes_max else None
        if found is None:
            self._leave_to_uvicorn(data)
        else:
            watch.end_head(self)
            target, headers = found
            self.begin(self._scope(headers), target)

    def _leave_to_uvicorn(self, data: bytes) -> None:
        self.server_state.connections.discard(cast(Any, self))
        http = self.gate.http(self)
        http.connection_made(self.transport)
        self.transport.set_protocol(http)
        http.data_received(data)

    def eof_received(self) -> None:
        """Let the transport close: nothing more comes."""

    def pause_writing(self) -> None:
        """Go on: answers are short."""

    def resume_writing(self) -> None:
        """Go on."""

    def _scope(self, headers: Headers) -> dict[str, Any]:
        """Return the scope that uvicorn makes of a request."""
        told = self.transport.get_extra_info
        peer, own = told("peername"), told("sockname")
        return {
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "server": own[:2] if isinstance(own, tuple) else None,
            "client": peer[:2] if isinstance(peer, tuple) else None,
            "scheme": "https" if self.config.is_ssl else "http",
            "root_path": self.config.root_path,
            "headers": headers,
            "state": self.app_state.copy(),
        }

    def begin(self, scope: dict[str, Any], target: bytes) -> None:
        """Let the application decide about a handshake.

        Args:
            scope: of the HTTP request, without its path; becomes that of the WebSocket.
            target: the request's target, path and query.
        """
        self._begun = True
        try:
            if scope["method"] != "GET":
                raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET is expected", b"allow: GET")
            self._key = _key(scope["headers"])
        except _Refused as refused:
            self._answer(refused.status, refused.headers, refused.text.encode())
            return
        self._complete(scope, target)
        self.gate.ration.add(partial(self._start, scope), _source(scope))

    def _start(self, scope: dict[str, Any]) -> None:
        if self._is_lost or self._answered:
            return  # It did not wait.
        self._task = self.loop.create_task(self._run(scope))
        self.server_state.tasks.add(self._task)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember that the client is gone; the application is told when it asks."""
        self.gate.watch.end_head(self)
        self.server_state.connections.discard(cast(Any, self))
        self._is_lost = True
        if self._gone is not None:
            self._gone.set()

    def shutdown(self) -> None:
        """Refuse: the server ends before the application has decided."""
        if not self._begun:
            self.transport.close()
        elif not self._answered:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, (), b"the server is stopping")

    # The application

    def _complete(self, scope: dict[str, Any], target: bytes) -> None:
        """Make a WebSocket's scope of an HTTP request's."""
        raw_path, _, query = target.partition(b"?")
        path = raw_path.decode("latin-1")
        root = scope["root_path"]
        protocols = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["path"] = root + (unquote(path) if "%" in path else path)
        scope["raw_path"] = root.encode("latin-1") + raw_path
        scope["query_string"] = query
        scope["subprotocols"] = [
            word.strip() for value in protocols for word in value.decode("latin-1").split(",")
        ]
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: self.hand_over}

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self.config.loaded_app(scope, self._receive, self._send)
        except Exception:
            log.exception("the application failed in a WebSocket handshake")
        finally:
            self.server_state.tasks.discard(cast(Any, self._task))
            self._task = None  # or both refer to each other, until the collector comes by
        if not self._answered:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, (), b"the server failed")

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "websocket.connect"}
        if not self._is_lost:
            self._gone = self._gone or asyncio.Event()
            await self._gone.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, message: Any) -> None:
        kind = message["type"]
        if kind == "websocket.http.response.start":
            self._denial = message["status"], list(message.get("headers", ())), bytearray()
        elif kind == "websocket.http.response.body" and self._denial is not None:
            status, headers, body = self._denial
            body += message.get("body", b"")
            if not message.get("more_body", False):
                lines = [name + b": " + value for name, value in headers if name != b"connection"]
                self._answer(HTTPStatus(status), lines, bytes(body))
        elif kind == "websocket.close":
            self._answer(HTTPStatus.FORBIDDEN, (), b"")
        else:
            raise RuntimeError(f"{kind} is not possible here: take the socket with {EXTENSION}")

    def _answer(
        self, status: HTTPStatus, headers: "list[bytes] | tuple[bytes, ...]", body: bytes
    ) -> None:
        """Answer with a response that is not an upgrade, and close."""
        self._answered = True
        if self._is_lost:
            return
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *headers]
        if not any(line.lower().startswith(b"content-length:") for line in lines):
            lines.append(b"content-length: %d" % len(body))
        lines += b"connection: close", b"", body
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()

    # The end of this protocol

    def hand_over(self, listener: FramedSocket, subprotocol: str | None) -> bool:
        """Answer the handshake and give the socket to a listener; return False if the client is
        gone.
        """
        gone = self._is_lost or self._answered or self.transport.is_closing()
        self._answered = True
        if gone:
            return False
        self.server_state.connections.discard(cast(Any, self))
        listener.take_over(
            self.transport,
            cast(set[Any], self.server_state.connections),
            self.gate.space,
            self.config.ws_max_size,
            _accepted(self._key, subprotocol),
            self._early,
        )
        return True


def _accepted(key: bytes, subprotocol: str | None) -> bytes:
    """Return the answer to a handshake (RFC 6455, 4.2.2)."""
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n".encode("latin-1") if subprotocol else b""
    proof = b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"%bSec-WebSocket-Accept: %b\r\n\r\n" % (chosen, proof)
    )


def _key(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the key of a handshake (RFC 6455, 4.2.1)."""
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    if versions != [b"13"]:
        raise _Refused(
            HTTPStatus.UPGRADE_REQUIRED,
            "WebSocket version 13 is spoken here",
            b"sec-websocket-version: 13",
        )
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    try:
        if len(keys) == 1 and len(a2b_base64(keys[0], strict_mode=True)) == 16:
            return keys[0]
    except Error:
        pass
    raise _Refused(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key has to be 16 bytes in base64")
