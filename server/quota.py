"""How much one connection may send, and all connections of one subject or one address together.

Each of these has a token bucket for messages and one for bytes. A bucket holds what may be sent at
once, the burst, and is filled at the rate that may be sent for ever. A connection does not look
into them for every frame. It holds an *allowance*, from which it only subtracts: no clock is read,
nothing is compared with the time. When that is used up, `refill` draws a new one from the
connection's own bucket and from those that it shares, the same amount from each. So what is sent
was drawn before, and a bucket never gives more than its burst and what the time has earned, but for
one frame: that has come already, and is handled. The connection is not read then until the bucket
has earned it. Its client waits, and loses nothing; whoever closed it would have it back at once.

What a connection has drawn and does not use, others can't have. So an allowance is a second's worth
at most, and of a shared bucket no more than a small part of what is in its upper half; below that,
exactly what is needed is drawn. However many connections hold an allowance, half of the burst is
left for those who send.
"""

from math import inf
from typing import Final

from plait.server.errors import LimitReached
from plait.server.limits import Limits

ALLOWANCE_SECONDS: Final = 1.0
"""What a connection draws at once from its own bucket, at most."""
SHARES: Final = 64
"""The part of a shared bucket's upper half that is drawn at once is one of so many."""


class Bucket:
    """What may still be sent of one kind: messages, or bytes.

    Args:
        limit: the name of the rate in `plait.server.counters.LIMITS`.
        exceeded: what is said of who exceeds it.
        of_bytes: it counts bytes, not messages.
        shared: several connections draw from it.
    """

    __slots__ = ("_at", "_exceeded", "_level", "_limit", "burst", "of_bytes", "rate", "shared")

    def __init__(
        self,
        rate: float,
        burst: float,
        limit: str,
        exceeded: str,
        *,
        of_bytes: bool = False,
        shared: bool = False,
    ) -> None:
        assert 0 < rate <= burst
        self.rate = rate
        self.burst = burst
        self.of_bytes = of_bytes
        self.shared = shared
        self._limit = limit
        self._exceeded = exceeded
        self._level = burst
        self._at = -inf

    @property
    def touched(self) -> bool:
        """Whether anybody has asked for something in it."""
        return self._at != -inf

    def spare(self, needed: float, now: float) -> float:
        """Return how much may be drawn beyond what is needed; less than nothing, if there is not
        even that.
        """
        if now > self._at:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate)
            self._at = now
        spare = self._level - needed
        if spare < 0:
            return spare
        if self.shared:
            return max(0.0, spare - self.burst / 2) / SHARES
        return min(spare, ALLOWANCE_SECONDS * self.rate)

    def draw(self, amount: float) -> None:
        """Take out what is needed, and no more beyond that than `spare` has told."""
        self._level -= amount

    def exceeded(self) -> LimitReached:
        """Return the error that says so."""
        return LimitReached(f"{self._exceeded} ({self._limit})", limit=self._limit)

    @property
    def debt_seconds(self) -> float:
        """How long it takes to earn what was drawn beyond what there was."""
        return max(0.0, -self._level / self.rate)


class Quota:
    """What is left of one connection's allowance.

    For every frame:

        if quota.spend(len(frame)):
            quota.refill(now)

    Args:
        shared: further buckets to draw from (`plait.server.admission.Ticket.shared`).
    """

    __slots__ = ("_of_bytes", "_of_frames", "bytes", "frames")

    def __init__(self, limits: Limits, now: float, *shared: Bucket) -> None:
        buckets = (*_own(limits), *shared)
        self._of_frames = tuple(each for each in buckets if not each.of_bytes)
        self._of_bytes = tuple(each for each in buckets if each.of_bytes)
        # Infinity, where there is no limit, is a number like any other to `spend`.
        self.frames: float = 0.0 if self._of_frames else inf
        self.bytes: float = 0.0 if self._of_bytes else inf

    # `Connection.receive` does the same in place.
    def spend(self, size: int) -> bool:
        """Count a frame; return whether the allowance is used up, so that `refill` has to be
        called.
        """
        self.frames -= 1
        self.bytes -= size
        return self.frames < 0 or self.bytes < 0

    def refill(self, now: float) -> Bucket | None:
        """Draw a new allowance, and what was spent beyond the old one.

        Returns:
            The bucket that has to earn for longest what was spent now, if one has to: nothing more
            is to be spent for its `debt_seconds`.
        """
        late: list[Bucket] = []
        if self.frames < 0:
            self.frames = _drawn(self._of_frames, -self.frames, now, late)
        if self.bytes < 0:
            self.bytes = _drawn(self._of_bytes, -self.bytes, now, late)
        return max(late, key=lambda bucket: bucket.debt_seconds) if late else None


def of_subject(limits: Limits) -> tuple[Bucket, ...]:
    """Return what the connections of one subject share."""
    return _shared(
        limits,
        "subject",
        "with the same token's subject",
        limits.subject_frames_per_second,
        limits.subject_bytes_per_second,
    )


def of_address(limits: Limits) -> tuple[Bucket, ...]:
    """Return what the connections from one address share."""
    return _shared(
        limits,
        "address",
        "from your address",
        limits.address_frames_per_second,
        limits.address_bytes_per_second,
    )


def _own(limits: Limits) -> tuple[Bucket, ...]:
    frames, octets = limits.frames_per_second, limits.bytes_per_second
    return _buckets(limits, frames, octets, "", "", shared=False)


def _shared(limits: Limits, whose: str, who: str, frames: int, octets: int) -> tuple[Bucket, ...]:
    return _buckets(limits, frames, octets, f"{whose}_", f" by all connections {who}", shared=True)


def _buckets(
    limits: Limits, frames: int, octets: int, prefix: str, who: str, *, shared: bool
) -> tuple[Bucket, ...]:
    """Return the buckets of what is limited; a rate of 0 is no limit."""
    found = []
    if frames:
        name, exceeded = f"{prefix}frames_per_second", f"more than {frames} messages a second{who}"
        found.append(Bucket(frames, limits.burst_of(frames), name, exceeded, shared=shared))
    if octets:
        name, exceeded = f"{prefix}mb_per_second", f"more than {octets >> 20} MiB a second{who}"
        burst = limits.burst_of_bytes(octets)
        found.append(Bucket(octets, burst, name, exceeded, of_bytes=True, shared=shared))
    return tuple(found)


def _drawn(buckets: tuple[Bucket, ...], needed: float, now: float, late: list[Bucket]) -> float:
    """Draw what is needed and as much more as every bucket can spare; return that.

    Args:
        late: receives the buckets that did not have what is needed.
    """
    spares = [each.spare(needed, now) for each in buckets]
    spare = max(0.0, min(spares))
    for each, had in zip(buckets, spares, strict=True):
        each.draw(needed + spare)
        if had < 0:
            late.append(each)
    return spare
