"""Run the ASGI application for the handshake of a WebSocket only, then hand the socket over.

ASGI passes each message through two queues and two tasks; that is two thirds of what a delivered
edit costs. So routing, middleware and everything that decides who may connect stay ordinary
Starlette, and once the answer is yes, the application takes the socket itself: the scope's
extension `plait.hand_over` is a function

    hand_over(listener, subprotocol) -> bool

which answers the handshake, lets picows parse the frames that follow, and gives them to the
listener. It returns False if the client has left already. An application that is not offered the
extension accepts and receives as usual; one that is must take it or refuse, for here nobody would
read the frames of an accepted socket.

picows' `WSProtocol` does both the handshake and the frames, and is not its public API: the
dependency is pinned to the versions that the tests cover. It is given a handshake of our own
making, since the client's has been checked here, and picows refuses what Firefox sends
(`Connection: keep-alive, Upgrade`).

Sources: the ASGI specification, "WebSocket"; RFC 6455, 4.2; uvicorn `websockets_sansio_impl.py`
for what uvicorn expects of such a class.
"""

import asyncio
import logging
from binascii import Error, a2b_base64
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol, cast
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from picows import WSListener, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]
from uvicorn.config import Config
from uvicorn.server import ServerState

from plait.server.origins import is_loopback
from plait.server.turns import Ration
from plait.server.watch import Watch, WatchedProtocol

EXTENSION = "plait.hand_over"

READ_BUFFER_BYTES = 2048
"""Where a socket's reading starts, and what it takes at least; picows' own default is 16 KB."""
EARLY_BYTES_MAX = 64 << 10
"""What a client may send before its handshake is answered; genuine ones wait for the answer."""

HANDSHAKES_A_TURN = 2
"""Handshakes that are begun in one turn of the loop, if there are many; each takes 0.4 ms."""

log = logging.getLogger(__name__)


class Listener(Protocol):
    """What takes a socket over: a picows `WSListener` that uvicorn can ask to end."""

    connections: set[Any]
    """Those that uvicorn waits for when it ends. The listener is put in, and takes itself out when
    its socket is gone.
    """

    def shutdown(self) -> None:
        """Close the socket: the server ends."""


class _Quiet:
    """Stands for a logger. Given a real one, picows makes a new one for every connection."""

    def isEnabledFor(self, level: int) -> bool:
        return False

    def _say_nothing(self, *args: object, **kwargs: object) -> None:
        pass

    debug = info = warning = error = exception = log = _say_nothing


_QUIET = _Quiet()


class _Refused(Exception):
    """Raised when a request is not a WebSocket handshake."""

    def __init__(self, status: HTTPStatus, text: str, *headers: bytes) -> None:
        self.status = status
        self.text = text
        self.headers = headers


class _Accepted:
    """The answer to a handshake (RFC 6455, 4.2.2), as far as picows looks at it. Its own is a
    general HTTP response, which takes ten times as long.
    """

    __slots__ = ("headers", "subprotocol")

    status = HTTPStatus.SWITCHING_PROTOCOLS

    def __init__(self, subprotocol: str | None) -> None:
        self.subprotocol = subprotocol
        self.headers: dict[str, str] = {}

    def to_bytes(self) -> bytearray:
        """Return the answer; picows has put in the one header that depends on the key."""
        lines = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        if self.subprotocol:
            lines += f"Sec-WebSocket-Protocol: {self.subprotocol}\r\n"
        accept = self.headers["Sec-WebSocket-Accept"]
        return bytearray(f"{lines}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode("latin-1"))


_HANDSHAKE = (
    b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n%b"
)
"""What picows is given instead of the client's handshake, and what came after that."""


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


_rations: "WeakKeyDictionary[asyncio.AbstractEventLoop, Ration]" = WeakKeyDictionary()


def _handshakes(loop: asyncio.AbstractEventLoop) -> Ration:
    """Return the part of a loop's turns that handshakes may take together."""
    ration = _rations.get(loop)
    if ration is None:
        ration = _rations[loop] = Ration(loop, pieces=HANDSHAKES_A_TURN)
    return ration


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
        _handshakes(asyncio.get_running_loop()).add(partial(self._start, scope), _source(scope))

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

    def hand_over(self, listener: Listener, subprotocol: str | None) -> bool:
        """Answer the handshake and give the socket to a listener; return False if the client is
        gone.
        """
        if self._lost.is_set() or self._answered or self._transport.is_closing():
            self._answered = True
            return False
        self._answered = True
        self._state.connections.discard(cast(Any, self))
        listener.connections = cast(set[Any], self._state.connections)
        listener.connections.add(listener)
        response = WSUpgradeResponseWithListener(
            cast(WSUpgradeResponse, _Accepted(subprotocol)), cast(WSListener, listener)
        )
        protocol = _frames(response, self._config.ws_max_size)
        protocol.connection_made(self._transport)
        _feed(protocol, _HANDSHAKE % (self._key, self._early))
        # Both were needed to answer; kept, they would take 2 KB of each connection.
        protocol.transport.request.headers = protocol.transport.response.headers = None
        self._transport.set_protocol(protocol)
        return True


def _frames(response: WSUpgradeResponseWithListener, bytes_max: int) -> Any:
    """Return picows' protocol for one socket of a server."""
    return WSProtocol(
        None,  # host and path are for clients
        None,
        False,
        lambda request: response,
        _QUIET,
        True,  # disconnect on exceptions of the listener
        None,  # no time-out: the handshake is fed below
        False,  # no pings: a task for each connection; see `plait.server.direct`
        20,
        20,
        1,
        False,  # no automatic pongs, which would be queued without end for who does not read
        bytes_max,
        None,
        READ_BUFFER_BYTES,
    )


def _feed(protocol: Any, data: bytes) -> None:
    while data:
        buffer = protocol.get_buffer(len(data))
        length = min(len(buffer), len(data))
        buffer[:length] = data[:length]
        data = data[length:]
        protocol.buffer_updated(length)


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
