"""When a receiver of webhooks is told: after how much quiet, how soon again after a failure, and
how slowly while it is away.

Pure; times are milliseconds since 1970.

Theory of operation. Two things may be wrong, and they look alike: one message (the receiver fails
on it, others are fine), or the receiver. A message that failed alone waits by itself, each time as
long as it has waited so far. If the receiver can't be reached, asks to be left alone, or fails for
many documents without a success in between, it is *away*: then nothing is sent for a while, then
one message at a time, until one succeeds. What fails meanwhile is not held against the message.
"""

from collections.abc import Callable

from plait.persistence import DocumentInfo, Event

AT_ONCE = 8
"""Messages that are on their way at a time, each of another document."""
RETRY_MS_MIN, RETRY_MS_MAX = 5_000, 300_000
GIVE_UP_MS = 3 * 24 * 3600 * 1000
"""How old an event is when it is not tried again."""
PAUSE_MS_MIN, PAUSE_MS_MAX = 1_000, 60_000
DOCUMENTS_FAILED = AT_ONCE
"""So many documents, one after the other, fail only with a receiver that is away."""


def quiet_at(event: Event, info: DocumentInfo, now: int, quiet_ms: int, delay_ms: int) -> int:
    """Return when a change is to be told: when the document was left alone for a while, or has been
    changed for long enough; not after `now` if that is over.

    Clocks of nodes differ, and a time that is far ahead is not waited for.
    """
    if info.deleted_ms is not None or event.at_ms > now + delay_ms:
        return now
    return min(max(event.at_ms, info.modified_ms) + quiet_ms, event.at_ms + delay_ms)


def retry_at(event: Event, now: int, delay_ms: int, jitter: float) -> int | None:
    """Return when a message that failed is tried again, or None if it is given up.

    It goes by the age of the event, so that it is the same for all nodes, and goes on after a
    restart: the age doubles each time.

    Args:
        delay_ms: how long a change may have been put off before the first attempt.
        jitter: from 0 to 1.
    """
    if now - event.at_ms > GIVE_UP_MS:
        return None
    waited = now - event.at_ms - delay_ms
    return now + _jittered(min(max(waited, RETRY_MS_MIN), RETRY_MS_MAX), jitter)


def _jittered(milliseconds: float, jitter: float) -> int:
    return round(milliseconds * (0.75 + 0.5 * jitter))


class Pace:
    """How much a receiver is told at a time.

    Args:
        jitter: gives numbers from 0 to 1, so that nodes do not come back in step.
    """

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._failed: set[str] = set()
        """Documents that failed since the last success."""
        self._pause_ms = 0
        self.resume_at = 0
        """Nothing is sent before."""

    @property
    def away(self) -> bool:
        """Whether the receiver is away, as far as is known."""
        return bool(self._pause_ms)

    def places(self, now: int) -> int:
        """Return how many messages may be on their way now."""
        if not self.away:
            return AT_ONCE
        return 1 if now >= self.resume_at else 0

    def succeeded(self) -> bool:
        """Note a success; return whether the receiver was away."""
        was_away = self.away
        self._failed.clear()
        self._pause_ms = self.resume_at = 0
        return was_away

    def failed(self, document: str, now: int, *, away: bool, wait_ms: int = 0) -> bool:
        """Note a failure; return whether the receiver is away since then.

        Args:
            away: that is certain, whatever the message.
            wait_ms: how long it asked to be left alone.
        """
        was_away = self.away
        self._failed.add(document)
        if was_away and now < self.resume_at:
            return False  # It was sent before the others failed.
        if away or was_away or len(self._failed) >= DOCUMENTS_FAILED:
            self._pause_ms = min(max(2 * self._pause_ms, PAUSE_MS_MIN), PAUSE_MS_MAX)
            pause = _jittered(self._pause_ms, self._jitter())
            self.resume_at = now + max(pause, min(wait_ms, RETRY_MS_MAX))
        return self.away and not was_away
