"""What uvicorn makes of each connection that comes in (`uvicorn.Config(http=...)`)."""

from functools import partial
from typing import Any, cast

from plait.server.handover import Gate, HandOver
from plait.server.watch import Watch, WatchedProtocol


class HttpProtocol(WatchedProtocol):
    """uvicorn's HTTP protocol, for all that is no plain handshake. What it has parsed of another
    handshake it passes on, instead of writing a request again.
    """

    def __init__(self, before: HandOver) -> None:
        super().__init__(
            before.config,
            before.server_state,
            before.app_state,
            before.loop,
            watch=before.gate.watch,
            before=before,
        )
        self._gate = before.gate

    def pass_on(self) -> None:
        """Pass the socket on."""
        self.connections.discard(self)
        handshake = self._gate(self.config, self.server_state, self.app_state, self.loop)
        handshake.take(self.transport)
        self.transport.set_protocol(cast(Any, handshake))
        handshake.begin(cast(dict[str, Any], self.scope), self.url)


def http_protocol(sockets: str, watch: Watch) -> Any:
    """Return what `uvicorn.Config(http=...)` takes: it makes the protocol of each connection.

    Args:
        sockets: the setting: `direct` hands sockets over, `asgi` leaves them to uvicorn.
    """
    if sockets == "direct":
        return Gate(watch, HttpProtocol)
    return partial(WatchedProtocol, watch=watch)
