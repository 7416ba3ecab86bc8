"""What one socket still has to be sent, and when a slow reader has had enough.

A reader that falls behind must cost neither memory nor anybody's time. Its frames queue up to a
mark, `outbox_bytes_high`. Above it the outbox is *lagging* and takes nothing more: the rooms
remember the state that the reader will have when it has read what is queued, and once that is below
`outbox_bytes_low` they bring it up to date with one diff. A reader that does not get there within
`outbox_drain_seconds` is closed. So at most the high mark and one frame are ever queued. Presence,
which is renewed anyway, has to stop at half of it.

Pure: whoever owns the socket takes frames out, and is told by `wake` that there are some.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from plait.server.limits import Limits

FAST_BYTES_MAX: Final = 8192
"""Longer frames are not for `Outbox.fast`."""


class Outbox:
    """The frames on their way to one socket."""

    __slots__ = ("_frames", "_limits", "bytes", "fast", "lagging_since", "wake")

    def __init__(self, limits: Limits, wake: Callable[[], None]) -> None:
        self._limits = limits
        self.wake = wake
        self._frames: deque[bytes] = deque()
        self.fast: Callable[[bytes], object] | None = None
        """Writes a frame of up to `FAST_BYTES_MAX` at once, in place of `push`, as long as there is
        no need to queue it. It takes a WebSocket frame, header and all (`wire.frames.framed`), so
        that one is made for all who get it.
        """
        self.bytes = 0
        """What is queued."""
        self.lagging_since: float | None = None
        """When it rose above the high mark; None if it takes frames."""

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, frame: bytes, now: float) -> bool:
        """Queue a frame, unless lagging; return whether the reader will get it."""
        if self.lagging_since is not None:
            return False
        self._frames.append(frame)
        self.bytes += len(frame)
        if self.bytes > self._limits.outbox_bytes_high:
            self.lagging_since = now
        self.wake()
        return True

    def push_presence(self, frame: bytes, now: float) -> bool:
        """Queue a frame unless much else is queued; return whether the reader will get it."""
        return self.bytes <= self._limits.outbox_bytes_high // 2 and self.push(frame, now)

    def ask_receipt(self, arrived: Callable[[], None]) -> bool:
        """Have something called when all that was sent so far has arrived; return whether that can
        be found out.
        """
        return False

    def take(self) -> bytes | None:
        """Return the next frame to send, or None."""
        if not self._frames:
            return None
        frame = self._frames.popleft()
        self.bytes -= len(frame)
        return frame

    def drained(self) -> bool:
        """Whether it was lagging and is no more; from then on it takes frames again."""
        if self.lagging_since is None or self.bytes > self._limits.outbox_bytes_low:
            return False
        self.lagging_since = None
        return True

    def overdue(self, now: float) -> bool:
        """Whether the reader had its time to catch up, and did not."""
        since = self.lagging_since
        return since is not None and now - since > self._limits.outbox_drain_seconds

    def clear(self) -> None:
        """Drop what is queued; the socket is gone."""
        self._frames.clear()
        self.bytes = 0
