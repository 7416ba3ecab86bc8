"""`plait bench` understands its options, and tells results so that problems are seen."""

import json
import resource
from collections import Counter
from pathlib import Path

import pytest

from plait.server import cli, machine
from plait.server.cli_bench import report
from plait.server.load import Load
from plait.server.scenarios import PRESETS, Result, Scenario
from plait.server.target import Dialect, Target

URL = "ws://127.0.0.1:1"
OTHER_URL = "ws://127.0.0.1:2"
"""Where nobody listens."""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--url", URL, "--rooms", "0"],
        ["--url", URL, "--rooms", "many"],
        ["--url", URL, "--rate", "-1"],
        ["--url", URL, "--scenario", "tea"],
        ["--url", URL, "--dialect", "morse"],
    ],
)
def test_what_is_not_understood_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(["bench", *arguments])
    assert exit.value.code == cli.MISUSED
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--url", "http://127.0.0.1:1"], "ws://HOST:PORT"),
        (["--url", "ws://"], "ws://HOST:PORT"),
        (["--url", "ws://host:port"], "ws://HOST:PORT"),
        (["--url", URL + "?a=1"], "--query"),
        (["--url", URL, "--url", "http://127.0.0.1:1"], "--url http://127.0.0.1:1"),
        (["--url", URL, "--clients", "2", "--writers", "3"], "3 writers"),
        (["--url", URL, "--presence", "2"], "0 to 1"),
        (["--url", URL, "--document", "nothing.yjs"], "nothing.yjs"),
    ],
)
def test_what_can_not_be_meant_is_misuse(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *arguments]) == cli.MISUSED
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and word in said.err


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_server_that_is_not_there_is_one_line(
    options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "--url", URL, *options]) == cli.FAILED
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"plait: {URL} can't be used: connection refused\n"


def test_too_few_descriptors_are_told_before_anything_is_tried(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(which: int, limits: tuple[int, int]) -> None:
        if limits[1] > 256:
            raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda which: (128, 256))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert cli.main(["bench", "--url", URL, "--rooms", "50"]) == cli.FAILED
    said = capsys.readouterr().err
    assert "500 connections need 564 file descriptors, and this process may have 256" in said


def test_too_few_ports_are_told_before_anything_is_tried(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ports = tmp_path / "ip_local_port_range"
    ports.write_text("32768\t32800\n")
    monkeypatch.setattr(machine, "_PORT_RANGE", ports)
    assert cli.main(["bench", "--url", URL]) == cli.FAILED
    assert "100 connections need as many source ports" in capsys.readouterr().err


def test_ports_suffice_if_they_do_for_each_node(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ports = tmp_path / "ip_local_port_range"
    ports.write_text("32768\t32828\n")
    monkeypatch.setattr(machine, "_PORT_RANGE", ports)
    assert cli.main(["bench", "--url", URL, "--url", OTHER_URL]) == cli.FAILED
    assert "connection refused" in capsys.readouterr().err


@pytest.mark.parametrize("together", [False, True])
def test_editors_are_spread_over_nodes(together: bool) -> None:
    targets = [Target(URL), Target(OTHER_URL)]
    load = Load(targets, Scenario(rooms=3, clients=4), together=together)
    met = [[targets.index(each.target) for each in load.editors[n : n + 4]] for n in (0, 4, 8)]
    if together:
        assert met == [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    else:
        assert met == [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]


def test_a_token_that_is_empty_is_not_taken_for_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(["bench", "--url", URL, "--token", ""])
    assert exit.value.code == cli.MISUSED
    assert "--token: is empty" in capsys.readouterr().err


def test_every_preset_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "--help"])
    shown = capsys.readouterr().out
    assert "{" + ",".join(sorted(PRESETS)) + "}" in shown


def test_rooms_are_where_the_dialect_has_them() -> None:
    plain = Target("wss://host/collab/", token="t", query="a=1&b=2")
    assert plain.address("bench-1") == "wss://host/collab/bench-1?a=1&b=2&token=t"
    assert Target("ws://host").address("bench-1") == "ws://host/bench-1"
    hocuspocus = Target("ws://host/", Dialect.HOCUSPOCUS, token="t", query="a=1")
    assert hocuspocus.address("bench-1") == "ws://host?a=1"


def test_a_result_without_problems_says_nothing_of_any() -> None:
    result = Result(Scenario(), connected=100, edits=10, expected=90, delivered=90, seconds=2)
    result.latency.record([400_000] * 90)
    assert result.flawless
    lines = report(result)
    assert "deliveries            90 of 90, 45/s" in lines
    assert "edits                 10, 5/s" in lines
    assert "acknowledged          0 of 10" in lines
    assert lines[-1].endswith("#" * 40)
    json.dumps(result.summary())


def test_problems_are_told_with_their_reasons() -> None:
    result = Result(Scenario(), connected=97, edits=10, expected=90, delivered=88, seconds=1)
    result.failures = Counter({"refused with HTTP 503 Service Unavailable": 3})
    result.closed = Counter({"closed with 4429 (too many messages)": 1})
    assert not result.flawless
    assert report(result)[-3:] == [
        "3 could not connect: refused with HTTP 503 Service Unavailable",
        "1 were cut off: closed with 4429 (too many messages)",
        "2 deliveries did not happen",
    ]
    result.delivered = 91
    assert report(result)[-1] == "1 delivery too many"
