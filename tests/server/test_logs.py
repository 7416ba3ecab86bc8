"""The log: one line an event."""

import json
import logging

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
