"""The log: one line an event."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from plait.server import logs


@pytest.fixture(autouse=True)
def _restore() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)


def test_json_has_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    log = logging.getLogger("plait.test")
    log.debug("not shown")
    log.warning("room %r", "é\n")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["message"]) == ("warning", "room 'é\\n'")
    assert "ValueError: why" in second["exception"]


HOSTILE = "a\r\n2026-01-01 00:00:00,000 ERROR   plait.x: no\x1b[2J\x85\x9b\u2028\u2029\x7f\v\f\x1c"


@pytest.mark.parametrize("style", ["text", "json"])
def test_nothing_that_a_client_sends_ends_a_line_or_steers_a_terminal(
    style: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A path with %1B or U+2028 in it was once logged as it is, when the store was away; and JSON
    has no objection to U+2028.
    """
    logs.configure("info", style)
    log = logging.getLogger("plait.test")
    log.warning("GET %s: %s", HOSTILE, "ü 😀 \ud83d")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("failed")
    first, second, *more = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in (first, second, *more))
    assert "ü 😀" in first and "failed" in second
    assert more if style == "text" else not more
    assert all(line.startswith(logs.INDENT) for line in more), "no event begins in a traceback"


def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning", "text")
    logging.getLogger("plait.test").warning("something")
    assert "WARNING plait.test: something" in capsys.readouterr().err


def events_of(script: str) -> list[dict[str, Any]]:
    """Run a script whose standard error is a log; return its events, and nothing is beside them."""
    begin = "from plait.server import logs; logs.begin('json')\n"
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", begin + script], capture_output=True, text=True
    )
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(each.keys() >= {"at", "level", "logger", "message"} for each in events)
    return events


@pytest.mark.parametrize(
    ("script", "level", "message", "exception"),
    [
        ("1 / 0", "critical", "the process ends with an error", "ZeroDivisionError"),
        (
            "import threading\nthreading.Thread(target=lambda: 1 / 0, name='t').start()",
            *("error", "the thread t ended with an error", "ZeroDivisionError"),
        ),
        (
            "class A:\n  def __del__(self): 1 / 0\nA()",
            *("error", "ignored", "ZeroDivisionError"),
        ),
        (
            "import asyncio\nasync def a(): asyncio.get_running_loop().call_soon(int, 'x')\n"
            "asyncio.run(a())",
            *("error", "Exception in callback", "ValueError"),
        ),
        ("import warnings\nwarnings.warn('look')", "warning", "UserWarning: look", None),
        (
            "import logging\nlogging.warning('%d', 'x')",
            *("error", "can't be told: TypeError", None),
        ),
        ("import os\nos.write(2, b'thread panicked\\xff')", "error", r"thread panicked\xff", None),
        (
            "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import x_y_z'])",
            *("error", "ModuleNotFoundError: No module named 'x_y_z'", None),
        ),
        ("import sys\nsys.exit('no more')", "error", "no more", None),
    ],
)
def test_whoever_tells_something_in_whatever_way_it_is_json(
    script: str, level: str, message: str, exception: str | None
) -> None:
    *_, event = events_of(script)
    assert event["level"] == level
    assert message in event["message"]
    assert (exception or "") in event.get("exception", "")


def test_what_is_written_last_is_told_and_much_at_once_too() -> None:
    script = "import sys\nsys.stderr.write('x' * 600_000 + '\\n')\nprint('y', file=sys.stderr)"
    events = events_of(script)
    assert "".join(each["message"] for each in events) == "x" * 600_000 + "y"
