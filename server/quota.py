"""How much one connection may send: a token bucket for frames and one for bytes.

A bucket holds what may be sent at once, the burst, and is filled at the rate that may be sent for
ever. `spend` is called for every frame, so it only subtracts: no clock is read, nothing is compared
with the time. Only when a bucket is empty does `refill` put in what the time since the last refill
has earned. The price is a little exactness: a client that was silent for long may send up to two
bursts in a row, never more.
"""

from math import inf

from plait.server.errors import LimitReached
from plait.server.limits import Limits


class Quota:
    """What is left of one connection's buckets.

    For every frame:

        if quota.spend(len(frame)):
            quota.refill(now)
    """

    __slots__ = ("_limits", "_refilled_at", "bytes", "frames")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._refilled_at = now
        # A rate of 0 means no limit, and infinity is a number like any other to `spend`.
        self.frames: float = limits.frames_burst if limits.frames_per_second else inf
        self.bytes: float = limits.bytes_burst if limits.bytes_per_second else inf

    # `Connection.receive` does the same in place.
    def spend(self, size: int) -> bool:
        """Count a frame; return whether a bucket is empty, so that `refill` has to be called."""
        self.frames -= 1
        self.bytes -= size
        return self.frames < 0 or self.bytes < 0

    def refill(self, now: float) -> None:
        """Fill the buckets with what the time since the last refill has earned.

        Raises:
            LimitReached: that is not enough for what was sent.
        """
        limits = self._limits
        elapsed = now - self._refilled_at
        self._refilled_at = now
        if limits.frames_per_second:
            earned = self.frames + elapsed * limits.frames_per_second
            self.frames = min(earned, limits.frames_burst)
        if limits.bytes_per_second:
            earned = self.bytes + elapsed * limits.bytes_per_second
            self.bytes = min(earned, limits.bytes_burst)
        if self.frames < 0:
            raise LimitReached(
                f"more than {limits.frames_per_second} messages a second (frames_per_second)",
                limit="frames_per_second",
            )
        if self.bytes < 0:
            raise LimitReached(
                f"more than {limits.bytes_per_second >> 20} MiB a second (mb_per_second)",
                limit="mb_per_second",
            )
