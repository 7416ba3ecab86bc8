"""Logging: one line an event, as text for people or as JSON for machines.

Strangers choose names of documents, paths and more that is told in a log. What of them is no
visible character is escaped, so that it neither ends a line nor steers a terminal.

As JSON, a log has nothing else, whoever writes it. So once `begin` was called, what anybody writes
to standard error (Python, a panic of Rust, a helper process) goes through a pipe, and a thread
makes an event of each line. Only what Python tells as it crashes is written as it is.
"""

import atexit
import faulthandler
import fcntl
import logging
import os
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, BinaryIO, TextIO

from plait.server.terminal import json_text, printable

log = logging.getLogger(__name__)
written = logging.getLogger("plait.stderr")
"""Has what was written to standard error, and not logged."""

INDENT = "  "
"""Before each line of a traceback, so that no line of it can pass for an event."""
LINE_BYTES_MAX = 64 * 1024
"""What is written to standard error in one line; more becomes several events."""
PIPE_BYTES = 1 << 20
"""Who writes while holding the interpreter, as pycrdt does, must not wait for the thread."""

_END = b"\0\n"
"""A line that ends the thread which reads the pipe."""

_stream: TextIO | None = None
"""What standard error was before it became a pipe."""


class Fields:
    """An event that is told by names and values: in JSON each is a key, in text they are an object
    of JSON. For `Logger.info` and the like, in place of a message.
    """

    __slots__ = ("fields", "message")

    def __init__(self, message: str, fields: Mapping[str, object]) -> None:
        self.message = message
        self.fields = fields

    def __str__(self) -> str:
        return json_text(self.fields, default=str)


class _TextFormatter(logging.Formatter):
    """A line an event; a traceback follows in lines that are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).split("\n")
        return "\n".join(INDENT + printable(line) for line in lines)

    def formatStack(self, stack_info: str) -> str:
        return "\n".join(INDENT + printable(line) for line in stack_info.split("\n"))


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        told = record.msg if isinstance(record.msg, Fields) else None
        event = _event(record.created, record.levelname, record.name)
        event["message"] = told.message if told else record.getMessage()
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stack"] = record.stack_info
        if told:
            event |= {name: fact for name, fact in told.fields.items() if name not in event}
        return json_text(event, default=str)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes events. One that can't be is told as well as it can be."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exception()
        if isinstance(error, OSError):
            return  # There is nobody to tell.
        where = f"{record.pathname}:{record.lineno}"
        message = f"what {where} logs can't be told: {error!r}; it begins {str(record.msg)!r:.200}"
        told = logging.LogRecord(__name__, logging.ERROR, __file__, 0, "%s", (message,), None)
        self.stream.write(self.format(told) + self.terminator)
        self.flush()


def begin(style: str) -> None:
    """Make a log of whatever this process and its children write to standard error, and of what
    goes wrong where nobody looks. For a process that does nothing else; a second time there is
    nothing to do.
    """
    global _stream
    if style == "json" and _stream is None:
        sys.stderr.flush()
        _stream = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
        reading, writing = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            _enlarge(writing)
        os.dup2(writing, 2)
        os.close(writing)
        pipe = os.fdopen(reading, "rb")
        thread = threading.Thread(target=_tell_lines, args=(pipe,), name="plait-log", daemon=True)
        thread.start()
        atexit.register(_end, thread, pipe)
    configure("info", style)
    logging.captureWarnings(True)
    sys.excepthook = _on_uncaught
    threading.excepthook = _on_uncaught_in_thread
    sys.unraisablehook = _on_unraisable
    faulthandler.enable(_stream or sys.stderr)


def configure(level: str, style: str) -> None:
    """Send the log of the whole process to standard error.

    Args:
        style: `text` or `json`.
    """
    handler = _Handler(_stream or sys.stderr)
    if style == "json":
        handler.setFormatter(json_formatter())
    else:
        handler.setFormatter(_TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # It tells of every connection at this level; Plait tells of those that it closes, and why.
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.setLevel(max(logging.WARNING, logging.root.level))
    uvicorn.addFilter(_is_news)


def json_formatter() -> logging.Formatter:
    """Return what makes JSON of an event."""
    return _JsonFormatter()


def announce(sentence: str, style: str, **facts: object) -> None:
    """Say something on standard output that who started the process waits for; as JSON it is an
    event like those of the log.
    """
    if style == "json":
        event = _event(datetime.now(UTC).timestamp(), "INFO", "plait")
        sentence = json_text({**event, "message": sentence, **facts})
    print(sentence, flush=True)


def _event(at: float, level: str, logger: str) -> dict[str, object]:
    return {
        "at": datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
        "level": level.lower(),
        "logger": logger,
    }


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's says anything. It calls every handshake that is refused with an
    HTTP status an error (0.54, `websockets_sansio_impl.py`, `run_asgi`).
    """
    return record.msg != "ASGI callable returned without completing handshake."


# What nobody logs


def _enlarge(pipe: int) -> None:
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        pass  # As large as the system allows; nobody writes so much at once.


def _tell_lines(pipe: BinaryIO) -> None:
    """Make an event of each line."""
    while line := pipe.readline(LINE_BYTES_MAX):
        text = line.removesuffix(_END).decode(errors="backslashreplace").rstrip()
        if text:
            written.error("%s", text)
        if line.endswith(_END):
            return


def _end(thread: threading.Thread, pipe: BinaryIO) -> None:
    """Have all told that was written, and give standard error back."""
    sys.stderr.flush()
    os.write(2, _END)
    thread.join()
    assert _stream is not None
    os.dup2(_stream.fileno(), 2)
    pipe.close()


def _on_uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    log.critical("the process ends with an error", exc_info=(kind, error, traceback))


def _on_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and args.exc_type is not SystemExit:
        name = args.thread.name if args.thread else "?"
        found = (args.exc_type, args.exc_value, args.exc_traceback)
        log.error("the thread %s ended with an error", name, exc_info=found)


def _on_unraisable(args: "sys.UnraisableHookArgs") -> None:
    what = args.err_msg or "an error can't be raised, and is ignored"
    found = (args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback)
    log.error("%s: %r", what, args.object, exc_info=found)
