"""The way between nodes: what carries messages from each to all that listen. It may lose any.

`Exchange` connects nodes within one process, for tests and simulations; `redis_relay` is the real
one.
"""

from collections.abc import Callable
from typing import Protocol

Heard = Callable[[str, bytes], None]
"""Told of a channel and a message on it."""


class Relay(Protocol):
    """Publishes messages, and hears those on channels that it is subscribed to, its own included.

    Messages of one sender arrive in their order, or not at all. While `connected` is false none
    does, and what is published is lost.
    """

    connected: bool
    on_message: Heard
    """Called for each message; must not raise."""
    on_state: Callable[[bool], None]
    """Called when the connection, with all subscriptions, is there, and when it is gone."""
    url: str
    """Where it is, without secrets."""
    dropped: int
    """Messages that could not be published since the start."""

    @property
    def queued_bytes(self) -> int:
        """What waits to be published."""

    def publish(self, channel: str, message: bytes) -> None:
        """Send a message, soon; never blocks, never fails."""

    async def subscribe(self, channel: str) -> None:
        """Hear a channel from now on; returns when that is so, or can't be so for a while."""

    def unsubscribe(self, channel: str) -> None:
        """Hear a channel no more."""

    async def flush(self) -> None:
        """Wait until nothing waits to be published."""

    def check(self) -> None:
        """Called when nothing was heard, not even by oneself, for seconds: connect anew."""

    async def run(self) -> None:
        """Stay connected until cancelled."""


class Exchange:
    """Connects nodes of one process.

    Args:
        later: calls something at the end of the turn; here networks may be imitated.
    """

    def __init__(self, later: Callable[[Callable[[], None]], object]) -> None:
        self.later = later
        self.relays: list[LocalRelay] = []

    def relay(self) -> "LocalRelay":
        """Return a further node's way to the others."""
        self.relays.append(LocalRelay(self))
        return self.relays[-1]


class LocalRelay:
    """One node's way to the others of its process."""

    url = "exchange:"
    dropped = 0
    queued_bytes = 0

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.channels: set[str] = set()
        self.connected = True
        self.on_message: Heard = lambda channel, message: None
        self.on_state: Callable[[bool], None] = lambda connected: None

    def publish(self, channel: str, message: bytes) -> None:
        """Send a message to all that hear the channel."""
        if not self.connected:
            self.dropped += 1
            return
        for relay in self._exchange.relays:
            self._exchange.later(lambda relay=relay: relay.hear(channel, message))  # type: ignore[misc]

    def hear(self, channel: str, message: bytes) -> None:
        """Take in what somebody has sent."""
        if self.connected and channel in self.channels:
            self.on_message(channel, message)

    async def subscribe(self, channel: str) -> None:
        """Hear a channel."""
        self.channels.add(channel)

    def unsubscribe(self, channel: str) -> None:
        """Hear it no more."""
        self.channels.discard(channel)

    async def flush(self) -> None:
        """Return: nothing waits."""

    def check(self) -> None:
        """Do nothing: there is nothing that could be stale."""

    def switch(self, connected: bool) -> None:
        """Lose the connection, or get it back."""
        if connected != self.connected:
            self.connected = connected
            self.on_state(connected)

    async def run(self) -> None:
        """Tell that the connection is there."""
        self.on_state(self.connected)
