"""The WebSocket endpoint: the one place where Starlette's sockets are read and written.

What costs least is looked at first: where the socket comes from, how many come from there, who it
is, what they may, whether there is a place; only then the room is opened.

A room is opened before the socket is accepted. A y-websocket client whose socket opens and is
closed then comes back after 100 ms, for ever; one whose handshake is refused waits longer each
time, up to 2.5 s. So what can be known beforehand (a bad name, a deleted document, a store that is
away) is answered with an HTTP status instead of a close code.
"""

import asyncio
from functools import partial
from urllib.parse import quote, unquote_to_bytes

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from plait.server.admission import Admission, source_of
from plait.server.auth.credentials import chosen_protocol, offered_protocols
from plait.server.auth.guard import Guard
from plait.server.direct import DirectSocket, Sockets
from plait.server.errors import (
    BadRoomName,
    ClientError,
    CloseCode,
    MessageTooBig,
    NotAllowed,
    PlaitError,
    TextRefused,
    Unauthorized,
)
from plait.server.handover import EXTENSION
from plait.server.hub import Hub
from plait.server.leases import Lease
from plait.server.origins import Origins, header
from plait.server.patience import Patience
from plait.server.pump import LinkLost, pump
from plait.server.refusal import Refusals
from plait.server.visit import Visit
from plait.server.visits import Visits
from plait.server.wire.ywebsocket import YWEBSOCKET


class Endpoint:
    """Serve y-websocket clients under `/ws/NAME`, or under any path that no other route takes."""

    def __init__(
        self,
        hub: Hub,
        guard: Guard,
        origins: Origins,
        admission: Admission,
        sockets: Sockets,
        visits: Visits | None = None,
    ) -> None:
        self._visits = visits
        self._hub = hub
        self._guard = guard
        self._refusals = Refusals()
        self.patience = Patience(hub.limits)
        self._sockets = sockets
        self._origins = origins
        self._admission = admission

    def under(self, prefix: str) -> ASGIApp:
        """Return the application for the paths that begin with a prefix, after which they name a
        room: for `/ws/`, or `/` to serve any path as y-websocket-server does.
        """
        return _Entrance(self, prefix)

    async def serve(self, websocket: WebSocket, prefix: str) -> None:
        """Serve one socket."""
        name, from_our_pages = "", False
        try:
            host = websocket.client.host if websocket.client else None
            self._admission.knock(host, self._hub.clock.monotonic())
            self._origins.check(websocket)
            from_our_pages = True
            name = room_name(websocket, prefix)
            self._hub.check_name(name)
            visit = await self._enter(websocket, host, name)
            try:
                lease = self._hub.lease_open(name) or await self._hub.lease(name)
            except BaseException:
                visit.release()
                raise
            await self._carry(websocket, lease, visit)
        except PlaitError as error:
            self._hub.counters.refuse(error)
            if isinstance(error, Unauthorized | NotAllowed):
                where = {"document": name, "address": host}
                self._guard.audit.note("auth.refused", **where, reason=str(error))
            elif error.limit:
                self._guard.audit.note("limit.reached", limit=error.limit, address=host)
            if from_our_pages and await self._refusals.hold(websocket, error):
                return
            if not isinstance(error, ClientError) or await self._waited(websocket, _address(host)):
                await _refuse(websocket, error)
        except WebSocketDisconnect:
            pass  # It was gone before it was accepted.

    async def _enter(self, websocket: WebSocket, host: str | None, name: str) -> Visit:
        """Return the visit of somebody who may read the document, if there is a place."""
        principal = await self._guard.identify(websocket, name)
        held = self._guard.let_in(principal, name)
        # Whoever is called like an address is not taken for it.
        offender = f"subject {held.who}" if held.who else _address(host)
        try:
            seconds = self.patience.wait_seconds(offender, self._hub.clock.monotonic())
            if seconds and not await self._wait(websocket, seconds):
                raise WebSocketDisconnect
            ticket = self._admission.enter(host, held.who)
        except BaseException:
            held.release()
            raise
        on_offence = partial(self._offended, offender)
        return Visit(ticket, held, self._hub.spawn, self._visits, on_offence)

    def _offended(self, name: str | None) -> None:
        self.patience.offended(name, self._hub.clock.monotonic())

    async def _waited(self, websocket: WebSocket, offender: str | None) -> bool:
        """Count a refusal, and keep somebody waiting for it who has had many; return whether the
        client is still there.
        """
        self._offended(offender)
        seconds = self.patience.wait_seconds(offender, self._hub.clock.monotonic())
        return not seconds or await self._wait(websocket, seconds)

    async def _wait(self, websocket: WebSocket, seconds: float) -> bool:
        self._hub.counters.limits["offences"] += 1
        self.patience.waiting += 1
        try:
            async with asyncio.timeout(seconds):
                while True:  # What comes first tells that it asks, and what follows that it left.
                    message = await websocket.receive()
                    if message["type"] == "websocket.disconnect":
                        return False
        except TimeoutError:
            return True
        finally:
            self.patience.waiting -= 1

    async def _carry(self, websocket: WebSocket, lease: Lease, visit: Visit) -> None:
        """Accept the socket, and let go of lease and visit when it ends: here, or, if the server
        hands sockets over, long after this has returned.
        """
        # A client that offers subprotocols gives up unless the server selects one.
        offered = header(websocket.scope, b"sec-websocket-protocol") is not None
        subprotocol = chosen_protocol(offered_protocols(websocket)) if offered else None
        peer = "{}:{}".format(*websocket.client) if websocket.client else "-"
        hand_over = websocket.scope.get("extensions", {}).get(EXTENSION)
        try:
            if hand_over is None:
                await websocket.accept(subprotocol)
                link = _WebSocketLink(websocket)
                await pump(self._hub, lease.room, YWEBSOCKET, link, peer, visit)
            else:
                socket = DirectSocket(self._hub, self._sockets, lease, YWEBSOCKET, peer, visit)
                if hand_over(socket, subprotocol):
                    return
        except BaseException:
            lease.release()
            visit.release()
            raise
        lease.release()
        visit.release()


class _Entrance:
    """Takes sockets as ASGI has them. For a function, Starlette would wrap each in a session with
    an exit from errors of its own, of which there are none here.
    """

    def __init__(self, endpoint: Endpoint, prefix: str) -> None:
        self._endpoint = endpoint
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint.serve(WebSocket(scope, receive, send), self._prefix)


class _WebSocketLink:
    """An accepted WebSocket; implements `pump.Link`."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def receive(self) -> bytes:
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            if message.get("code") == CloseCode.TOO_BIG:  # uvicorn has closed it
                raise MessageTooBig("a message above message_mb")
            raise LinkLost
        frame: bytes | None = message.get("bytes")
        if frame is None:
            raise TextRefused("send binary frames; the protocol has no text")
        return frame

    async def send(self, frame: bytes) -> None:
        try:
            await self._websocket.send_bytes(frame)
        except WebSocketDisconnect:
            raise LinkLost from None

    async def close(self, code: int, reason: str) -> None:
        try:
            await self._websocket.close(code, reason)
        except WebSocketDisconnect:
            raise LinkLost from None


def _address(host: str | None) -> str | None:
    """Return by what name an address offends; None if it is this machine's, which is a proxy's."""
    source = source_of(host)
    return source and f"address {source}"


def room_name(websocket: WebSocket, prefix: str) -> str:
    """Return the room that a path names after a prefix, percent-decoded once.

    y-websocket puts the name into the URL as it is; the browser encodes what a URL can't hold.

    Raises:
        BadRoomName: it is not UTF-8.
    """
    scope = websocket.scope
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    raw = raw.removeprefix(quote(scope.get("root_path", "")).encode()).removeprefix(prefix.encode())
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise BadRoomName("a room's name has to be UTF-8, percent-encoded") from None


async def _refuse(websocket: WebSocket, error: PlaitError) -> None:
    """Tell a client that is not accepted yet why it won't be."""
    if websocket.application_state is not WebSocketState.CONNECTING:
        return
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        headers = {"www-authenticate": "Bearer"} if error.status == 401 else {}
        await websocket.send_denial_response(PlainTextResponse(str(error), error.status, headers))
    else:
        await websocket.close(error.close_code, str(error))
