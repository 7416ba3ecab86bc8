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
from functools import partial
from hashlib import sha1
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from uvicorn.config import Config
from uvicorn.server import ServerState

from plait.server.framed import READ_BYTES, FramedSocket
from plait.server.origins import is_loopback
from plait.server.turns import ration
from plait.server.watch import Watch, WatchedProtocol

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


class HttpProtocol(WatchedProtocol):
    """uvicorn's HTTP protocol, which passes on what it has parsed of a handshake instead of writing
    a request again (`Config(http=...)`).
    """

    def pass_on(self) -> None:
        """Pass the socket on."""
        self.connections.discard(self)
        handshake = HandOver(self.config, self.server_state)
        handshake.connection_made(self.transport)
        self.transport.set_protocol(handshake)
        handshake.begin(cast(dict[str, Any], self.scope), self.url)


def http_protocol(sockets: str, watch: Watch) -> Any:
    """Return what `uvicorn.Config(http=...)` takes: it makes the protocol of each connection.

    Args:
        sockets: the setting: `direct` hands sockets over, `asgi` leaves them to uvicorn.
    """
    return partial(HttpProtocol if sockets == "direct" else WatchedProtocol, watch=watch)


_spaces: "WeakKeyDictionary[asyncio.AbstractEventLoop, bytearray]" = WeakKeyDictionary()


def _space(loop: asyncio.AbstractEventLoop) -> bytearray:
    """Return what all sockets of a loop read into."""
    space = _spaces.get(loop)
    if space is None:
        space = _spaces[loop] = bytearray(READ_BYTES)
    return space


def _source(scope: dict[str, Any]) -> str:
    """Return who a handshake takes turns with: those of its address, as far as that is known."""
    host: str = scope["client"][0] if scope.get("client") else ""
    if host and not is_loopback(host):
        return host
    # A proxy on this machine. Nothing depends on it but who takes turns with whom.
    return next((v.decode("latin-1") for n, v in scope["headers"] if n == b"x-forwarded-for"), host)


class HandOver(asyncio.Protocol):
    """The transport's protocol from the handshake until the application has decided."""

    def __init__(self, config: Config, server_state: ServerState) -> None:
        self._config = config
        self._state = server_state
        self._transport: asyncio.Transport
        self._key = b""
        self._early = b""
        """What came after the handshake."""
        self._asked = False
        self._lost = asyncio.Event()
        self._denial: tuple[int, list[tuple[bytes, bytes]], bytearray] | None = None
        self._answered = False

    # What the transport and uvicorn call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport from uvicorn's HTTP protocol."""
        self._transport = cast(asyncio.Transport, transport)
        self._state.connections.add(cast(Any, self))

    def begin(self, scope: dict[str, Any], target: bytes) -> None:
        """Let the application decide about a handshake.

        Args:
            scope: of the HTTP request, without its path; becomes that of the WebSocket.
            target: the request's target, path and query.
        """
        try:
            if scope["method"] != "GET":
                raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET is expected", b"allow: GET")
            self._key = _key(scope["headers"])
        except _Refused as refused:
            self._answer(refused.status, refused.headers, refused.text.encode())
            return
        self._complete(scope, target)
        ration(asyncio.get_running_loop()).add(partial(self._start, scope), _source(scope))

    def _start(self, scope: dict[str, Any]) -> None:
        if self._lost.is_set() or self._answered:
            return  # It did not wait.
        task = asyncio.get_running_loop().create_task(self._run(scope))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def data_received(self, data: bytes) -> None:
        """Keep what a client sends that does not wait for the answer."""
        self._early += data
        if len(self._early) > EARLY_BYTES_MAX:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember that the client is gone; the application is told when it asks."""
        self._state.connections.discard(cast(Any, self))
        self._lost.set()

    def shutdown(self) -> None:
        """Refuse: the server ends before the application has decided."""
        if not self._answered:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, (), b"the server is stopping")

    # The application

    def _complete(self, scope: dict[str, Any], target: bytes) -> None:
        """Make a WebSocket's scope of an HTTP request's."""
        path, _, query = target.partition(b"?")
        root = scope["root_path"]
        protocols = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
        scope["path"] = root + unquote(path.decode("latin-1"))
        scope["raw_path"] = root.encode("latin-1") + path
        scope["query_string"] = query
        scope["subprotocols"] = [
            word.strip() for value in protocols for word in value.decode("latin-1").split(",")
        ]
        scope["extensions"] = {"websocket.http.response": {}, EXTENSION: self.hand_over}

    async def _run(self, scope: dict[str, Any]) -> None:
        try:
            await self._config.loaded_app(scope, self._receive, self._send)
        except Exception:
            log.exception("the application failed in a WebSocket handshake")
        if not self._answered:
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, (), b"the server failed")

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "websocket.connect"}
        await self._lost.wait()
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
        if self._lost.is_set():
            return
        lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode(), *headers]
        if not any(line.lower().startswith(b"content-length:") for line in lines):
            lines.append(b"content-length: %d" % len(body))
        lines += b"connection: close", b"", body
        self._transport.write(b"\r\n".join(lines))
        self._transport.close()

    # The end of this protocol

    def hand_over(self, listener: FramedSocket, subprotocol: str | None) -> bool:
        """Answer the handshake and give the socket to a listener; return False if the client is
        gone.
        """
        gone = self._lost.is_set() or self._answered or self._transport.is_closing()
        self._answered = True
        if gone:
            return False
        self._state.connections.discard(cast(Any, self))
        self._transport.write(_accepted(self._key, subprotocol))
        listener.take_over(
            self._transport,
            cast(set[Any], self._state.connections),
            _space(asyncio.get_running_loop()),
            self._config.ws_max_size,
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
