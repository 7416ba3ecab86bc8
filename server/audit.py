"""The audit log: who was let in or refused, and what was done with rights and documents.

An event is one object of JSON a line: in a file of its own, or in the log under `plait.audit`; in a
log that is JSON itself, its fields are those of the line. A flood of one kind is cut short, so that
whoever is refused a thousand times a second can't fill the disk: of each kind so many are written a
second, and how many were left out comes with the next.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path

from plait.server.errors import ConfigError
from plait.server.logs import Fields
from plait.server.terminal import json_text

log = logging.getLogger("plait.audit")

EVENTS = (
    "auth.expired",
    "auth.refused",
    "auth.renewed",
    "auth.revoked",
    "document.deleted",
    "document.imported",
    "document.purged",
    "document.undeleted",
    "key.created",
    "key.deleted",
    "limit.reached",
    "revocation.created",
    "revocation.removed",
    "token.created",
)
"""What is told; docs/auth.md describes each, which a test compares."""

EVENTS_A_SECOND = 50
"""Of each kind; more are counted."""


class Audit:
    """Writes the audit log.

    Args:
        wall: seconds since 1970.
        path: of the file; without one, the process's log.

    Raises:
        ConfigError: the file can't be written.
    """

    def __init__(self, wall: Callable[[], float], path: str = "") -> None:
        self._wall = wall
        self._seconds: dict[str, tuple[int, int]] = {}
        """For each kind the second in which it was last written, and how often."""
        self._omitted: dict[str, int] = {}
        self._handler: logging.Handler | None = None
        if path:
            try:
                # Opens a new file when somebody has moved the old one away.
                self._handler = WatchedFileHandler(Path(path), encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"audit_log: {path} can't be written: {error.strerror}") from None
            self._handler.setFormatter(logging.Formatter("%(message)s"))

    def note(self, event: str, **facts: object) -> None:
        """Write an event; facts that are empty are left out."""
        assert event in EVENTS
        now = self._wall()
        second, count = self._seconds.get(event, (0, 0))
        if second != int(now):
            second, count = int(now), 0
        self._seconds[event] = second, count + 1
        if count >= EVENTS_A_SECOND:
            self._omitted[event] = self._omitted.get(event, 0) + 1
            return
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        told: dict[str, object] = {"at": at, "event": event}
        told |= {name: fact for name, fact in facts.items() if fact not in (None, "")}
        if omitted := self._omitted.pop(event, 0):
            told["omitted"] = omitted
        if self._handler is None:
            log.info(Fields(event, told))
        else:
            line = json_text(told, default=str)
            self._handler.handle(log.makeRecord(log.name, logging.INFO, "", 0, line, (), None))

    def close(self) -> None:
        """Close the file."""
        if self._handler is not None:
            self._handler.close()
