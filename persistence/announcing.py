"""Decide what events a store writes by itself, and when to look whether the outbox is too long.

An event is written in the transaction of what it tells, so neither can be without the other. A
document that is edited all day does not fill the outbox: a "changed" that nobody took yet tells of
the next changes as well. It must be the last thing that is told of the document, though: who hears
"deleted" or "created" after it is told of a change after that once more. And one that somebody took
does not count, even long ago, since the document may have been read before the change.
"""

from collections.abc import Collection, Mapping, Sequence

from plait.persistence.store import (
    ANNOUNCED,
    CHANGED,
    CREATED,
    OUTBOX_LOOK_EVERY,
    Event,
)

DAY_MS = 24 * 3600 * 1000
"""How long it is known that a record was removed, and a record is kept that counts no more."""

TOLD = ", ".join(f"'{kind}'" for kind in sorted(ANNOUNCED))
"""The kinds of events that a store writes, for a statement."""


class Announcer:
    """What one store object announces."""

    def __init__(self, announce: Collection[str], outbox_max: int) -> None:
        """Take the wanted kinds, and how many events may wait.

        Raises:
            ValueError: a kind that no store writes by itself.
        """
        if unknown := set(announce) - ANNOUNCED:
            raise ValueError(f"no store announces {', '.join(sorted(unknown))}")
        self.kinds = frozenset(announce)
        self.most = outbox_max
        self._look_every = max(1, min(OUTBOX_LOOK_EVERY, outbox_max // 100))
        self._put = self._look_every  # what was put in before is not known

    def of_append(
        self,
        times: Mapping[str, tuple[int, int]],
        made: Collection[str],
        waiting: Collection[str] = (),
    ) -> Sequence[Event]:
        """Return what an append has to tell.

        Args:
            times: by document, the first and the last time of its updates.
            made: documents that come into being.
            waiting: those of which a "changed" waits that tells of this as well.
        """
        events = []
        for document, (first_ms, last_ms) in times.items():
            if document in made and CREATED in self.kinds:
                events.append(Event(document, CREATED, first_ms))
            if CHANGED in self.kinds and (document in made or document not in waiting):
                events.append(Event(document, CHANGED, last_ms))
        return events

    def looks(self, count: int) -> bool:
        """Return whether to look at the length of the outbox, into which events were put."""
        self._put += count
        if self._put < self._look_every:
            return False
        self._put = 0
        return True


def expired(until_ms: int | None, now_ms: int) -> bool:
    """Return whether a record has stopped to count."""
    return until_ms is not None and until_ms <= now_ms
