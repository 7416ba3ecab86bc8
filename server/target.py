"""The server that a load is put on, and why that may not work."""

import errno
import socket
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from picows import WSHandshakeError

from plait.server.errors import PlaitError
from plait.server.terminal import printable


class LoadFailed(PlaitError):
    """Raised when there is nothing to measure: no connection, or a limit of this machine."""


class Dialect(StrEnum):
    """How a server is spoken to."""

    Y_WEBSOCKET = "y-websocket"
    HOCUSPOCUS = "hocuspocus"


class DialFailed(PlaitError):
    """Raised when an editor could not connect, or not get the document; says why in a few words."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server that editors connect to.

    Args:
        url: `ws://` or `wss://`; with y-websocket the room's name is appended.
        dialect: its protocol.
        token: what lets editors in: a parameter `token` of y-websocket, a message of Hocuspocus.
        query: further parameters of the URL, as they are.
        timeout: seconds until an editor has to be connected and up to date.
    """

    url: str
    dialect: Dialect = Dialect.Y_WEBSOCKET
    token: str = ""
    query: str = ""
    timeout: float = 60.0

    def address(self, room: str) -> str:
        """Return the URL that an editor of a room dials."""
        url, parameters = self.url.rstrip("/"), [self.query] if self.query else []
        if self.dialect is Dialect.Y_WEBSOCKET:
            url += "/" + room
            parameters += [f"token={self.token}"] if self.token else []
        return "?".join([url, "&".join(parameters)]) if parameters else url


def refusal(error: WSHandshakeError) -> str:
    """Return why a server did not make a WebSocket of a connection."""
    if error.response is None:
        return f"not a WebSocket server: {printable(str(error))}"
    status = HTTPStatus(error.response.status)
    return f"refused with HTTP {status.value} {status.phrase}"


def unreachable(error: OSError) -> str:
    """Return why there is no connection at all."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "the host's name is not known"
    known = {
        errno.EADDRNOTAVAIL: "no source port is left on this machine",
        errno.EMFILE: "no file descriptor is left (raise ulimit -n)",
        errno.ENFILE: "no file descriptor is left on this machine",
        errno.ECONNRESET: "the connection was reset",
    }
    return known.get(error.errno or 0, printable(str(error)))
