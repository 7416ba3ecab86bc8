"""How a browser is told that it may not come in.

A browser does not show a page why a handshake was refused, so y-websocket tries again for ever and
nobody knows why. One that is accepted and closed at once tries again after 100 ms. So a browser
(something that names an `Origin`) is accepted, told in the words of its dialect, and *held*:
nothing that it sends is looked at, and after `HELD_SECONDS` it is closed with the code that says
why. That is one attempt in 25 seconds instead of ten a second. It has to be less than 30 seconds,
after which y-websocket gives up a connection on which it hears nothing.

A client that offers the subprotocol `plait` knows what the close code means, and is closed at once.
Whoever is no browser is answered with an HTTP status, and so is a browser when too many are held.
"""

import asyncio
import logging

from starlette.websockets import WebSocket, WebSocketDisconnect

from plait.server.admission import source_of
from plait.server.auth.credentials import chosen_protocol, offered_protocols
from plait.server.connection import Closing
from plait.server.errors import NotAllowed, PlaitError, Unauthorized
from plait.server.framed import FramedSocket
from plait.server.handover import EXTENSION
from plait.server.wire.frames import framed
from plait.server.wire.ywebsocket import auth_denied

log = logging.getLogger(__name__)

HELD_SECONDS = 25.0
HELD_MAX = 2000
"""Browsers that are held at once; 13 KB each."""
HELD_PER_ADDRESS = 100
HELD_BYTES_MAX = 1 << 20
"""What one may send meanwhile; what is typed there is not that much."""
UNDERSTANDS = "plait"
"""The subprotocol of clients that know Plait's close codes."""


class Refusals:
    """The browsers that are held."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self.count = 0

    async def hold(self, websocket: WebSocket, error: PlaitError) -> bool:
        """Tell a browser why it is refused, and hold it; return False if it has to be told with an
        HTTP status.
        """
        if not isinstance(error, Unauthorized | NotAllowed) or "origin" not in websocket.headers:
            return False
        address = source_of(websocket.client.host if websocket.client else None) or ""
        full = address and self._held.get(address, 0) >= HELD_PER_ADDRESS
        if self.count >= HELD_MAX or full:
            return False
        offered = offered_protocols(websocket)
        seconds = 0.0 if UNDERSTANDS in offered else HELD_SECONDS
        protocol = chosen_protocol(offered)
        place = _Place(self, address)
        hand_over = websocket.scope.get("extensions", {}).get(EXTENSION)
        if hand_over is not None:
            if not hand_over(_HeldSocket(error, seconds, place), protocol):
                place.release()
            return True
        try:
            await _hold(websocket, error, seconds, protocol)
        finally:
            place.release()
        return True

    def enter(self, address: str) -> None:
        """Count one that is held."""
        self.count += 1
        self._held[address] = self._held.get(address, 0) + 1

    def leave(self, address: str) -> None:
        """Count one less."""
        self.count -= 1
        self._held[address] -= 1
        if not self._held[address]:
            del self._held[address]


class _Place:
    """The place of one that is held; released once."""

    def __init__(self, refusals: Refusals, address: str) -> None:
        self._refusals: Refusals | None = refusals
        self._address = address
        refusals.enter(address)

    def release(self) -> None:
        refusals, self._refusals = self._refusals, None
        if refusals is not None:
            refusals.leave(self._address)


class _HeldSocket(FramedSocket):
    """A socket on which nothing is heard."""

    __slots__ = ("_bytes", "_closing", "_end", "_place", "_seconds")

    def __init__(self, error: PlaitError, seconds: float, place: _Place) -> None:
        super().__init__()
        self._closing = Closing(error.close_code, str(error))
        self._seconds = seconds
        self._place = place
        self._bytes = 0
        self._end: asyncio.TimerHandle | None = None

    def opened(self, answer: bytes) -> None:
        """Tell why."""
        assert self.transport is not None
        self.transport.write(answer + framed(auth_denied(self._closing.reason)))
        if self._seconds:
            self._end = asyncio.get_running_loop().call_later(self._seconds, self.shutdown)
        else:
            self.shutdown()

    def received(self, message: bytes) -> None:
        """Count what is sent."""
        self.spent(len(message))

    def received_parts(self, parts: list[bytes]) -> None:
        """Do nothing: they are counted."""

    def spent(self, length: int) -> None:
        """Count what is sent; more than a client types in a while ends it."""
        self._bytes += 64 + length
        if self._bytes > HELD_BYTES_MAX and self.transport is not None:
            self.transport.abort()

    def refused(self, error: PlaitError) -> None:
        """Close, for the reason that it is held for."""
        self.shutdown()

    def ended(self) -> None:
        """Leave the place to somebody else."""
        if self._end is not None:
            self._end.cancel()
        self._place.release()

    def shutdown(self) -> None:
        """Close the socket: its time is over, or the server ends."""
        self.say_good_bye(self._closing.code, self._closing.reason)


async def _hold(
    websocket: WebSocket, error: PlaitError, seconds: float, protocol: str | None
) -> None:
    """Do the same through the ASGI interface."""
    closing = Closing(error.close_code, str(error))
    received = 0
    try:
        await websocket.accept(protocol)
        await websocket.send_bytes(auth_denied(closing.reason))
        try:
            async with asyncio.timeout(seconds):
                while received < HELD_BYTES_MAX:
                    message = await websocket.receive()
                    if message["type"] == "websocket.disconnect":
                        return
                    received += 64 + len(message.get("bytes") or message.get("text") or b"")
        except TimeoutError:
            pass  # Its time is over.
        await websocket.close(closing.code, closing.reason)
    except WebSocketDisconnect:
        log.debug("a client that was refused has left")
