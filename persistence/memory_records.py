"""Keep records and the outbox in dictionaries, for the store in memory."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from plait.persistence.announcing import DAY_MS, Announcer, expired
from plait.persistence.store import ANNOUNCED, CHANGED, Event, Record, RecordChanges

logger = logging.getLogger(__name__)

Key = tuple[str, str]


class Records:
    """Records, and what was removed of late."""

    def __init__(self) -> None:
        self._records: dict[Key, Record] = {}
        self._removed: dict[Key, tuple[int, int]] = {}
        """By kind and id, the number and the time."""
        self._seq = 0
        self._forgotten = 0
        """The last number of what was removed and is not known any more."""

    def put(self, record: Record, new: bool, now_ms: int) -> bool:
        """Put a record, and forget what is old."""
        for text in (record.kind, record.id, record.value):
            text.encode()
        key = (record.kind, record.id)
        there = self._records.get(key)
        if new and there is not None and not expired(there.until_ms, record.at_ms):
            return False
        self._seq += 1
        self._removed.pop(key, None)
        self._records[key] = replace(record, seq=self._seq)
        self._forget(now_ms - DAY_MS, min(now_ms, record.at_ms) - DAY_MS)
        return True

    def _forget(self, removed_before: int, ended_before: int) -> None:
        for key, (seq, at_ms) in list(self._removed.items()):
            if at_ms < removed_before:
                self._forgotten = max(self._forgotten, seq)
                del self._removed[key]
        for key, record in list(self._records.items()):
            if expired(record.until_ms, ended_before):
                del self._records[key]

    def remove(self, kind: str, id: str, now_ms: int) -> bool:
        """Remove a record, and remember that."""
        if self._records.pop((kind, id), None) is None:
            return False
        self._seq += 1
        self._removed[kind, id] = (self._seq, now_ms)
        return True

    def get(self, kind: str, id: str) -> Record | None:
        """Return a record."""
        return self._records.get((kind, id))

    def page(self, kind: str, after: str, limit: int) -> Sequence[Record]:
        """List records; text compares by code points, which is the order of its UTF-8."""
        ids = sorted(id for of, id in self._records if of == kind and id > after)
        return [self._records[kind, id] for id in ids[:limit]]

    def since(self, seq: int) -> RecordChanges:
        """Return what was put and removed after a number."""
        whole = seq < max(1, self._forgotten) or seq > self._seq
        after = 0 if whole else seq
        found = sorted((r for r in self._records.values() if r.seq > after), key=lambda r: r.seq)
        removed = [key for key, (number, _) in self._removed.items() if number > after]
        return RecordChanges(self._seq, tuple(found), () if whole else tuple(removed), whole)


@dataclass(slots=True)
class _Waiting:
    event: Event
    due_ms: int = 0
    taken: bool = False


@dataclass(slots=True)
class Outbox:
    """Events, in order."""

    waiting: dict[int, _Waiting] = field(default_factory=dict)
    by_document: dict[str, dict[int, None]] = field(default_factory=dict)
    last_id: int = 0

    def appended(
        self, times: Mapping[str, tuple[int, int]], made: set[str], announcer: Announcer
    ) -> None:
        """Announce an append."""
        waiting = {document for document in times if self._tells_of_changes(document)}
        self.put(announcer.of_append(times, made, waiting), announcer)

    def _tells_of_changes(self, document: str) -> bool:
        for id in reversed(self.by_document.get(document, ())):
            last = self.waiting[id]
            if last.event.kind in ANNOUNCED:
                return last.event.kind == CHANGED and not last.taken
        return False

    def put(self, events: Sequence[Event], announcer: Announcer) -> None:
        """Put events in, and drop the oldest if there are too many."""
        for event in events:
            for text in (event.document, event.kind, event.data):
                text.encode()
        for event in events:
            self.last_id += 1
            self.waiting[self.last_id] = _Waiting(replace(event, id=self.last_id))
            self.by_document.setdefault(event.document, {})[self.last_id] = None
        if announcer.looks(len(events)) and len(self.waiting) > announcer.most:
            oldest = list(self.waiting)[: len(self.waiting) - announcer.most]
            drop = [id for id in oldest if not self.waiting[id].taken]
            logger.warning("the outbox is full, events dropped: %d", len(drop))
            for id in drop:
                self._remove(id)

    def take(self, now_ms: int, lease_ms: int, limit: int) -> Sequence[Event]:
        """Take the oldest event of each document."""
        firsts = sorted(next(iter(ids)) for ids in self.by_document.values())
        taken = [self.waiting[id] for id in firsts if self.waiting[id].due_ms <= now_ms][:limit]
        for waiting in taken:
            waiting.taken, waiting.due_ms = True, now_ms + lease_ms
        return [waiting.event for waiting in taken]

    def end(self, ids: Sequence[int]) -> None:
        """Remove events that are in somebody's hands."""
        for id in ids:
            if id in self.waiting and self.waiting[id].taken:
                self._remove(id)

    def _remove(self, id: int) -> None:
        document = self.waiting.pop(id).event.document
        ids = self.by_document[document]
        del ids[id]
        if not ids:
            del self.by_document[document]

    def put_back(self, id: int, due_ms: int) -> None:
        """Let an event be taken again."""
        waiting = self.waiting.get(id)
        if waiting is not None and waiting.taken:
            waiting.taken, waiting.due_ms = False, due_ms
            waiting.event = replace(waiting.event, attempts=waiting.event.attempts + 1)

    def page(self, after: int, limit: int) -> Sequence[Event]:
        """List events by id."""
        return [w.event for id, w in self.waiting.items() if id > after][:limit]

    def counts(self) -> tuple[int, int]:
        """Return how many there are, and the time of the oldest."""
        oldest = next(iter(self.waiting.values()), None)
        return len(self.waiting), oldest.event.at_ms if oldest is not None else 0
