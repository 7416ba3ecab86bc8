"""Who may connect: how often one address may knock, how many sockets it and one subject may hold,
and how many there may be in all.

Asked before a WebSocket is accepted. A y-websocket client that is refused with an HTTP status waits
longer each time; one that is accepted and then closed is back after 100 ms, for ever.

An IPv6 network gives every customer at least a /64, so addresses of one /64 count as one. Sockets
from this machine are counted in all but not by address: behind a reverse proxy on the same machine
that tells no addresses everybody comes from 127.0.0.1 or a Unix socket, and the proxy is the one
that knows them apart.

All sockets of a subject share what they may send, and so do those from an address
(`plait.server.quota`). What is left of that is remembered for a while when they are gone, so that
nobody gets a new burst by connecting anew.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from typing import Self

from plait.server.errors import LimitReached, ServerFull
from plait.server.limits import Limits
from plait.server.quota import Bucket, of_address, of_subject

_V6_HOST_BITS = 64


class Admission:
    """Counts the sockets of this node."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._knocks: OrderedDict[str, Bucket] = OrderedDict()
        """What each address may still knock, the one that knocked last at the end."""
        self._addresses = _Holders(limits, of_address)
        self._subjects = _Holders(limits, of_subject)
        self.open = 0
        """Sockets that hold a ticket."""

    def knock(self, address: str | None, now: float) -> None:
        """Count a handshake, before anything else is looked at.

        Args:
            address: the peer's IP address; None or empty for a Unix socket.

        Raises:
            LimitReached: there were too many from this address (`Limits.handshakes_per_second`).
        """
        rate = self._limits.handshakes_per_second
        source = source_of(address)
        if source is None or not rate:
            return
        bucket = self._knocks.get(source)
        if bucket is None:
            exceeded = f"more than {rate} handshakes a second from your address"
            burst = self._limits.burst_of(rate)
            bucket = self._knocks[source] = Bucket(rate, burst, "handshakes_per_second", exceeded)
            if len(self._knocks) > self._limits.addresses_max:
                self._knocks.popitem(last=False)
        else:
            self._knocks.move_to_end(source)
        if bucket.spare(1, now) < 0:
            raise bucket.exceeded()
        bucket.draw(1)

    def enter(self, address: str | None, subject: str = "") -> "Ticket":
        """Let a socket in; it counts until its ticket is released.

        Args:
            address: the peer's IP address; None or empty for a Unix socket.
            subject: who it is; empty for somebody unknown, who is not counted by subject.

        Raises:
            ServerFull: there are `Limits.connections_max` sockets.
            LimitReached: there are `Limits.connections_per_address` from this address, or
                `Limits.connections_per_subject` of this subject.
        """
        limits = self._limits
        if limits.connections_max and self.open >= limits.connections_max:
            raise ServerFull(
                f"all {limits.connections_max} connections of this server are in use "
                "(connections_max); try again",
                limit="connections_max",
            )
        source = source_of(address)
        _check(
            self._addresses.held(source),
            limits.connections_per_address,
            "from your address",
            "connections_per_address",
        )
        _check(
            self._subjects.held(subject),
            limits.connections_per_subject,
            "with your token's subject",
            "connections_per_subject",
        )
        self.open += 1
        shared = self._addresses.enter(source) + self._subjects.enter(subject)
        return Ticket(self, source, subject, shared)

    def leave(self, source: str | None, subject: str) -> None:
        """Count one socket less; called by its ticket."""
        self.open -= 1
        self._addresses.leave(source)
        self._subjects.leave(subject)


def _check(held: int, most: int, whose: str, limit: str) -> None:
    if most and held >= most:
        raise LimitReached(f"there are {held} connections {whose} ({limit})", limit=limit)


class _Holders:
    """Addresses, or subjects, by their names: how many sockets each holds, and what these share.

    Whoever has no name (None, or empty) is not counted and shares nothing.
    """

    def __init__(self, limits: Limits, buckets: Callable[[Limits], tuple[Bucket, ...]]) -> None:
        self._limits = limits
        self._buckets = buckets
        self._held: dict[str, tuple[int, tuple[Bucket, ...]]] = {}
        self._gone: OrderedDict[str, tuple[Bucket, ...]] = OrderedDict()
        """What those share who hold nothing now, the one that left last at the end."""

    def held(self, name: str | None) -> int:
        """Return how many sockets somebody holds."""
        return self._held[name][0] if name in self._held else 0

    def enter(self, name: str | None) -> tuple[Bucket, ...]:
        """Count a socket; return what it shares with the others of this name."""
        if not name:
            return ()
        held, shared = self._held.get(name, (0, None))
        if shared is None:
            shared = self._gone.pop(name, None) or self._buckets(self._limits)
        self._held[name] = held + 1, shared
        return shared

    def leave(self, name: str | None) -> None:
        """Count one socket less."""
        if not name:
            return
        held, shared = self._held.pop(name)
        if held > 1:
            self._held[name] = held - 1, shared
        elif any(bucket.touched for bucket in shared):
            self._gone[name] = shared
            if len(self._gone) > self._limits.addresses_max:
                self._gone.popitem(last=False)


class Ticket:
    """The right of one socket to be open. Released once, whoever comes first."""

    __slots__ = ("_admission", "_subject", "shared", "source")

    def __init__(
        self,
        admission: Admission,
        source: str | None,
        subject: str = "",
        shared: tuple[Bucket, ...] = (),
    ) -> None:
        self._admission: Admission | None = admission
        self.source = source
        self._subject = subject
        self.shared = shared
        """What the socket's `Quota` draws from besides its own buckets."""

    def release(self) -> None:
        """Give the place to somebody else; a second call does nothing."""
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.leave(self.source, self._subject)

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
