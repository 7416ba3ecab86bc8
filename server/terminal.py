"""What the commands say to an operator, on a terminal and in a pipe.

Results go to standard output, as text or as one JSON document; everything else (progress, warnings,
questions) goes to standard error, so that a pipe gets results alone. Names of documents are chosen
by whoever opens a room: nothing of them reaches the terminal that could steer it.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from plait.server.errors import ConfigError, PlaitError
from plait.server.interruption import at_once

REDRAW_SECONDS = 0.1
"""Between two states of the progress line on a terminal."""
LINE_SECONDS = 5.0
"""Between two lines of progress in a log."""

_CLEAR_LINE = "\r\x1b[K"


class Misused(ConfigError):
    """Raised when a command can't be meant as it was given; nothing was done (exit code 2)."""


class Declined(PlaitError):
    """Raised when the operator answers no; nothing was done (exit code 1)."""


@dataclass
class Terminal:
    """Where a command's results, progress and questions go.

    Args:
        as_json: results are one JSON document.
        quiet: neither progress nor sentences; results that were asked for still come.
        assume_yes: questions are not asked.
    """

    as_json: bool = False
    quiet: bool = False
    assume_yes: bool = False
    _told: float = field(default_factory=time.monotonic)
    _drawn: bool = False

    def result(self, value: Mapping[str, Any], *sentences: str) -> None:
        """Give a command's result: the value in JSON, or else the sentences."""
        self.clear()
        if self.as_json:
            print(json_text(value, indent=2))
        elif not self.quiet:
            for sentence in sentences:
                print(sentence)

    def lines(self, lines: Iterable[str]) -> None:
        """Give lines that were asked for, whether quiet or not."""
        self.clear()
        for line in lines:
            print(line)

    def warn(self, sentence: str) -> None:
        """Say something that the operator should know."""
        self.clear()
        print(f"plait: {sentence}", file=sys.stderr)

    def progress(self, what: str, done: int, total: int) -> None:
        """Say how far long work is; implements `plait.persistence.Progress`."""
        if self.quiet:
            return
        drawing = sys.stderr.isatty()
        now = time.monotonic()
        if now - self._told < (REDRAW_SECONDS if drawing else LINE_SECONDS):
            return
        self._told = now
        percent = f" ({100 * done // total} %)" if total else ""
        line = f"{what}: {done:,} of {total:,}{percent}"
        if drawing:
            self._drawn = True
            print(_CLEAR_LINE + line, end="", file=sys.stderr, flush=True)
        else:
            print(f"plait: {line}", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take away the progress line."""
        if self._drawn:
            self._drawn = False
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def confirm(self, what: str, otherwise: str = "Add --yes if that is meant.") -> None:
        """Let the operator confirm what is about to happen.

        Args:
            what: a sentence that says what would be done.
            otherwise: what to do where nobody can be asked.

        Raises:
            Misused: there is nobody to ask, and `--yes` was not given.
            Declined: the operator does not want it.
        """
        if self.assume_yes:
            return
        self.clear()
        if not sys.stdin.isatty():
            raise Misused(f"{what} {otherwise}")
        print(f"{what} Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        answer = ""
        try:
            with at_once():
                answer = sys.stdin.readline()
        finally:
            if not answer.endswith("\n"):  # Ctrl-C, Ctrl-D
                print(file=sys.stderr)
        if answer.strip().lower() not in ("y", "yes"):
            raise Declined("nothing was done")


def printable(text: str) -> str:
    """Return text of strangers with everything escaped that is no visible character."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def json_text(
    value: object, *, indent: int | None = None, default: Callable[[Any], Any] | None = None
) -> str:
    """Return JSON for a log or a terminal: in one line, if it is not indented. JSON lets characters
    stand at which programs end a line (U+0085, U+2028) and that steer a terminal (U+009B); here
    they are escaped, as is all that is not visible.
    """
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=default)
    lines = text.split("\n")
    return "\n".join(line if line.isprintable() else _escaped(line) for line in lines)


def _escaped(line: str) -> str:
    """Escape, in a line of JSON, what is no visible character."""
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in line)


def size_text(size: int) -> str:
    """Return a number of bytes for reading: `12.3 KiB`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def time_text(at_ms: int) -> str:
    """Return a time in UTC for reading; milliseconds since 1970 come in."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def time_json(at_ms: int | None) -> str | None:
    """Return a time as ISO 8601 in UTC; None stays None."""
    if at_ms is None:
        return None
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a count with its noun: `1 document`, `2 documents`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
