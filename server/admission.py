"""Who may connect: how many sockets one address may hold, and how many there may be in all.

Asked before a WebSocket is accepted. A y-websocket client that is refused with an HTTP status waits
longer each time; one that is accepted and then closed is back after 100 ms, for ever.

An IPv6 network gives every customer at least a /64, so addresses of one /64 count as one. Sockets
from this machine are counted in all but not by address: behind a reverse proxy on the same machine
everybody comes from 127.0.0.1 or a Unix socket, and the proxy is the one that knows them apart.
"""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from typing import Self

from plait.server.errors import LimitReached, ServerFull
from plait.server.limits import Limits

_V6_HOST_BITS = 64


class Admission:
    """Counts the sockets of this node."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_source: dict[str, int] = {}
        self.open = 0
        """Sockets that hold a ticket."""

    def enter(self, address: str | None) -> "Ticket":
        """Let a socket in; it counts until its ticket is released.

        Args:
            address: the peer's IP address; None or empty for a Unix socket.

        Raises:
            ServerFull: there are `Limits.connections_max` sockets.
            LimitReached: there are `Limits.connections_per_address` from this address.
        """
        limits = self._limits
        if limits.connections_max and self.open >= limits.connections_max:
            raise ServerFull(
                f"all {limits.connections_max} connections of this server are in use "
                "(connections_max); try again",
                limit="connections_max",
            )
        source = source_of(address)
        if source is not None:
            held = self._by_source.get(source, 0)
            if limits.connections_per_address and held >= limits.connections_per_address:
                raise LimitReached(
                    f"there are {held} connections from your address (connections_per_address)",
                    limit="connections_per_address",
                )
            self._by_source[source] = held + 1
        self.open += 1
        return Ticket(self, source)

    def leave(self, source: str | None) -> None:
        """Count one socket less; called by its ticket."""
        self.open -= 1
        if source is not None:
            held = self._by_source[source] - 1
            if held:
                self._by_source[source] = held
            else:
                del self._by_source[source]


class Ticket:
    """The right of one socket to be open. Released once, whoever comes first."""

    __slots__ = ("_admission", "_source")

    def __init__(self, admission: Admission, source: str | None) -> None:
        self._admission: Admission | None = admission
        self._source = source

    def release(self) -> None:
        """Give the place to somebody else; a second call does nothing."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.leave(self._source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


@lru_cache(maxsize=4096)
def source_of(address: str | None) -> str | None:
    """Return what connections of an address are counted under; None if they are not, since they
    come from this machine.
    """
    if not address:
        return None
    try:
        parsed = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif not parsed.is_loopback:
            return f"{IPv6Address(int(parsed) >> _V6_HOST_BITS << _V6_HOST_BITS)}/64"
    return None if parsed.is_loopback else str(parsed)
