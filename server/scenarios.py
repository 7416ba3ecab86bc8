"""What a run of the load generator does, and what it saw."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from plait.server.histogram import Histogram


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What editors do.

    Args:
        rooms: how many documents.
        clients: editors in each.
        writers: of them, those who type.
        rate: edits a second of each writer; 0 is a flood.
        window: in a flood, edits that a writer sends at a time. It sends them when at most twice as
            many of each writer of the room are still on their way.
        seconds: of typing; 0 connects only.
        dial: connections that are being opened at the same time.
        presence: presence messages for each edit, from 0 to 1.
        settle: seconds of quiet after documents were put into the rooms.
        document: what is put into each room first: a Yjs update.
    """

    rooms: int = 10
    clients: int = 10
    writers: int = 2
    rate: float = 5.0
    window: int = 4
    seconds: float = 10.0
    dial: int = 64
    presence: float = 0.0
    settle: float = 1.0
    document: bytes = field(default=b"", repr=False)

    @property
    def editors(self) -> int:
        """How many connections there will be."""
        return self.rooms * self.clients


PRESETS = {
    "typing": Scenario(rooms=100, clients=10, writers=2, rate=5),
    "crowd": Scenario(rooms=1, clients=500, writers=5, rate=4),
    "flood": Scenario(rooms=20, clients=10, writers=2, rate=0, window=4),
    "tenk": Scenario(rooms=1000, clients=10, writers=1, rate=0.5, dial=200),
    "storm": Scenario(rooms=1, clients=300, writers=0, seconds=0),
}
"""Scenarios with a name. A storm needs a document."""


@dataclass(slots=True)
class Result:
    """What a run saw. Times are in seconds, latencies in nanoseconds."""

    scenario: Scenario
    connected: int = 0
    connect_seconds: float = 0.0
    seconds: float = 0.0
    """From the first edit to the last delivery."""
    edits: int = 0
    expected: int = 0
    delivered: int = 0
    presence: int = 0
    frames: int = 0
    bytes: int = 0
    late_seconds: float = 0.0
    """How far the writers were behind their schedule at worst."""
    busy: float = 0.0
    """The share of one core that this process took while it typed, or else while it connected."""
    latency: Histogram = field(default_factory=Histogram)
    acknowledgement: Histogram = field(default_factory=Histogram)
    sync: Histogram = field(default_factory=Histogram)
    failures: "Counter[str]" = field(default_factory=Counter)
    """Why editors could not connect."""
    closed: "Counter[str]" = field(default_factory=Counter)
    """Why connections ended too early."""

    @property
    def lost(self) -> int:
        """Deliveries that did not happen."""
        return max(0, self.expected - self.delivered)

    @property
    def repeated(self) -> int:
        """Deliveries above those expected."""
        return max(0, self.delivered - self.expected)

    @property
    def deliveries_per_second(self) -> float:
        """Deliveries for each second from the first edit to the last of them."""
        return self.delivered / self.seconds if self.seconds else 0.0

    @property
    def flawless(self) -> bool:
        """Whether everybody connected and stayed, and everything arrived once."""
        return not (self.failures or self.closed or self.lost or self.repeated)

    def summary(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            "rooms": self.scenario.rooms,
            "editors": self.scenario.editors,
            "connected": self.connected,
            "connect_seconds": round(self.connect_seconds, 3),
            "seconds": round(self.seconds, 3),
            "edits": self.edits,
            "expected": self.expected,
            "delivered": self.delivered,
            "lost": self.lost,
            "repeated": self.repeated,
            "acknowledged": self.acknowledgement.count,
            "deliveries_per_second": round(self.deliveries_per_second, 1),
            "presence": self.presence,
            "frames": self.frames,
            "bytes": self.bytes,
            "late_ms": round(self.late_seconds * 1e3, 2),
            "busy": round(self.busy, 3),
            "delivery": self.latency.summary(),
            "acknowledgement": self.acknowledgement.summary(),
            "sync": self.sync.summary(),
            "failures": dict(self.failures),
            "closed": dict(self.closed),
        }
