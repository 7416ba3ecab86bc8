"""The audit log: a line of JSON an event, bounded whatever is done, in a file that can be moved."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from plait.server.audit import EVENTS, EVENTS_A_SECOND, Audit
from plait.server.errors import ConfigError
from plait.server.logs import json_formatter
from tests.server.auth.parts import NOW, Clock


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_is_one_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    audit = Audit(Clock(), str(path))
    audit.note("auth.refused", document='a\n"b" ü', address=None, reason="", number=7)
    audit.close()
    (line,) = path.read_text().splitlines()
    assert json.loads(line) == {
        "at": "2027-01-15T08:00:00.000+00:00",
        "event": "auth.refused",
        "document": 'a\n"b" ü',
        "number": 7,
    }


def test_nothing_that_a_client_sends_ends_a_line_or_steers_a_terminal(tmp_path: Path) -> None:
    """U+2028, U+0085 and the like once stood in the log as they are: JSON has no objection, but
    programs that read it by lines took what a client had sent for events.
    """
    path = tmp_path / "audit.log"
    audit = Audit(Clock(), str(path))
    told = "".join(map(chr, range(0x2100))) + "\u202e\ufeff😀\U000e0001"
    audit.note("auth.refused", path=told, reason="half \ud83d of it")
    audit.close()
    text = path.read_bytes().decode()
    assert text.endswith("\n") and text[:-1].isprintable()
    (event,) = lines(path)
    assert (event["path"], event["reason"]) == (told, "half \ud83d of it")
    assert "ü" in text and "😀" in text, "what is visible can be read"


def test_a_flood_of_one_kind_is_cut_short_and_counted(tmp_path: Path) -> None:
    path, clock = tmp_path / "audit.log", Clock()
    audit = Audit(clock, str(path))
    for number in range(1000):
        audit.note("auth.refused", number=number)
        clock.at = NOW + number / 1001
    audit.note("key.deleted", id="k")
    assert len(lines(path)) == EVENTS_A_SECOND + 1, "others are told all the same"
    clock.at = NOW + 1
    for number in range(2):
        audit.note("auth.refused", number=number)
    audit.close()
    first, second = lines(path)[-2:]
    assert first["omitted"] == 1000 - EVENTS_A_SECOND
    assert "omitted" not in second


def test_a_file_that_was_moved_away_is_made_anew_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    audit = Audit(Clock(), str(path))
    audit.note("key.created", id="1")
    path.rename(tmp_path / "audit.log.1")
    audit.note("key.created", id="2")
    audit.close()
    audit = Audit(Clock(), str(path))
    audit.note("key.created", id="3")
    audit.close()
    assert [each["id"] for each in lines(tmp_path / "audit.log.1")] == ["1"]
    assert [each["id"] for each in lines(path)] == ["2", "3"]


def test_a_file_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="audit_log"):
        Audit(Clock(), str(tmp_path / "no" / "folder"))


def test_without_a_file_it_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plait.audit")
    audit = Audit(Clock())
    audit.note("key.created", id="100% {}")
    audit.close()
    assert json.loads(caplog.records[0].message)["id"] == "100% {}"


def test_in_a_log_that_is_json_its_fields_are_keys(caplog: pytest.LogCaptureFixture) -> None:
    """The line once was a string within the line, which no log server looks into."""
    caplog.set_level(logging.INFO, "plait.audit")
    Audit(Clock()).note("auth.refused", document="a", level="loud", address=None)
    line = json.loads(json_formatter().format(caplog.records[0]))
    del line["at"]
    assert line == {
        "level": "info",
        "logger": "plait.audit",
        "message": "auth.refused",
        "event": "auth.refused",
        "document": "a",
    }


def test_an_event_that_nobody_knows_is_a_mistake() -> None:
    assert sorted(EVENTS) == list(EVENTS)
    with pytest.raises(AssertionError):
        Audit(Clock()).note("something.else")
