"""What this node has done so far, as plain numbers.

Counting happens on the hottest paths, where a metrics library costs more than the work that it
counts. So everybody adds to an attribute of one `Counters`, and `plait.server.metrics` turns them
into metrics when somebody asks.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from plait.server.errors import PlaitError, UpdateRefused

LIMITS = (
    "address_frames_per_second",
    "address_mb_per_second",
    "connections_max",
    "connections_per_address",
    "connections_per_subject",
    "document_mb",
    "frames_per_second",
    "handshakes_per_second",
    "long_messages",
    "mb_per_second",
    "message_mb",
    "offences",
    "open_heads",
    "pending",
    "presence",
    "rooms_max",
    "shared_types",
    "slow_body",
    "slow_head",
    "slow_message",
    "slow_reader",
    "slow_response",
    "subject_frames_per_second",
    "subject_mb_per_second",
    "too_large_head",
    "unsaved_mb",
)
"""Limits whose hits are counted: settings by their names, and what has no setting."""

WEBHOOKS = ("delivered", "failed", "given_up", "dropped")
"""What may come of an event that is to be told by webhook."""

COMMIT_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
DELAY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
LOAD_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_INNER_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


class Histogram:
    """How often a duration was in which range.

    Args:
        bounds: the upper ends of the ranges, ascending; a last one without end is added.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Counters:
    """Everything that is counted; each number only grows, but for `pending_bytes`."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "closed",
        "commit_seconds",
        "deliveries",
        "frames_received",
        "frames_sent",
        "gap_asks",
        "lagged",
        "limits",
        "load_failures",
        "load_seconds",
        "loop_delay_seconds",
        "merges",
        "opened",
        "pending_bytes",
        "pending_dropped",
        "presence_messages",
        "refused",
        "relay_gaps",
        "relay_received",
        "relay_received_bytes",
        "relay_refused",
        "relay_sent",
        "relay_sent_bytes",
        "updates_applied",
        "updates_duplicate",
        "updates_pending",
        "updates_refused",
        "updates_shadowed",
        "webhooks",
    )

    def __init__(self) -> None:
        self.opened = 0
        """Connections that joined a room."""
        self.closed: Counter[str] = Counter()
        """Connections that ended, by the close code that we sent; `client` if the client left."""
        self.refused: Counter[str] = Counter()
        """Handshakes that were refused, by the kind of error."""
        self.limits: Counter[str] = Counter(dict.fromkeys(LIMITS, 0))
        """How often a limit was reached."""

        self.frames_received = 0
        self.bytes_received = 0
        self.frames_sent = 0
        self.bytes_sent = 0
        self.presence_messages = 0

        self.updates_applied = 0
        self.updates_duplicate = 0
        """Updates that held nothing new."""
        self.updates_pending = 0
        """Updates that came, wholly or in part, before what they build upon."""
        self.pending_bytes = 0
        """What is kept of those. Unlike the others, it shrinks as well."""
        self.pending_dropped = 0
        """Those of which nothing could be kept, the limits being reached."""
        self.gap_asks = 0
        """Times that a client was asked for structs that others build upon."""
        self.updates_shadowed = 0
        """Updates with structs that the document has with other content, by another author."""
        self.updates_refused = 0
        self.merges = 0
        """Turns whose updates were sent as one."""
        self.deliveries = 0
        """Updates that were passed on to other members, each member counted."""
        self.lagged = 0
        """How often a member read too slowly to be sent everything."""

        self.commit_seconds = Histogram(COMMIT_BOUNDS)
        self.load_seconds = Histogram(LOAD_BOUNDS)
        self.load_failures = 0
        self.loop_delay_seconds = Histogram(DELAY_BOUNDS)

        self.relay_sent = 0
        self.relay_sent_bytes = 0
        self.relay_received = 0
        """Messages of other nodes."""
        self.relay_received_bytes = 0
        self.relay_gaps = 0
        """Times that a message of another node was missing, and was asked for."""
        self.relay_refused = 0
        """Messages of other nodes that could not be taken in."""

        self.webhooks: Counter[str] = Counter(dict.fromkeys(WEBHOOKS, 0))
        """Attempts to tell of an event that went well or did not, and events that nobody is told of
        any more: after many attempts, or since too many were noted while the store was away.
        """

    def send(self, frames: int, size: int) -> None:
        """Count frames of one size that were given to sockets."""
        self.frames_sent += frames
        self.bytes_sent += frames * size

    def refuse(self, error: PlaitError) -> None:
        """Count a handshake that was refused."""
        self.refused[kind_of(type(error))] += 1
        self.reach(error)

    def close(self, error: PlaitError) -> None:
        """Count a connection that is closed with an error."""
        self.closed[str(int(error.close_code))] += 1
        self.updates_refused += isinstance(error, UpdateRefused)
        self.reach(error)

    def reach(self, error: PlaitError) -> None:
        """Count the limit that an error is about, if it is about one."""
        if error.limit:
            self.limits[error.limit] += 1


def kind_of(error: type[PlaitError]) -> str:
    """Return what a kind of error is called in labels and answers: its name in snake_case."""
    return _INNER_CAPITAL.sub("_", error.__name__).lower()
