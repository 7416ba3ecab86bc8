"""Logging: one line an event, as text for people or as JSON for machines.

Strangers choose names of documents, paths and more that is told in a log. What of them is no
visible character is escaped, so that it neither ends a line nor steers a terminal.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

from plait.server.terminal import json_text, printable

INDENT = "  "
"""Before each line of a traceback, so that no line of it can pass for an event."""


class _TextFormatter(logging.Formatter):
    """A line an event; a traceback follows in lines that are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).split("\n")
        return "\n".join(INDENT + printable(line) for line in lines)


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json_text(event)


def configure(level: str, style: str) -> None:
    """Send the log of the whole process to standard error.

    Args:
        style: `text` or `json`.
    """
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(_JsonFormatter())
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # It tells of every connection at this level; Plait tells of those that it closes, and why.
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.setLevel(max(logging.WARNING, logging.root.level))
    uvicorn.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's says anything. It calls every handshake that is refused with an
    HTTP status an error (0.54, `websockets_sansio_impl.py`, `run_asgi`).
    """
    return record.msg != "ASGI callable returned without completing handshake."
