"""Each target of the fuzzer, for a fixed number of inputs; `scripts/fuzz --seconds` goes on."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.running import fuzz, replay
from tests.fuzz.target import Finding
from tests.fuzz.targets import TARGETS
from tests.fuzz.updates import document
from tests.support.hostile import CLOCK_OVERFLOW

SEED = 20_26

RUNS = {"document": 6000, "frames": 2500, "gaps": 1000, "sockets": 6000, "update": 6000}
"""Slow targets."""
FAST = 15_000


@pytest.mark.skipif(find_spec("atheris") is None, reason="there is no atheris for this machine")
@pytest.mark.parametrize("name", TARGETS)
def test_target_finds_nothing(name: str, tmp_path: Path, rounds: Callable[[int], int]) -> None:
    runs = rounds(RUNS.get(name, FAST))
    outcome = fuzz(name, tmp_path / "corpus", tmp_path / "found", seed=SEED, runs=runs)
    assert not outcome.failed and not outcome.findings, outcome.output[-5000:]
    assert outcome.runs >= runs
    begin, end = outcome.coverage
    assert end > begin > 0, "the server is not instrumented"


@pytest.mark.parametrize("name", TARGETS)
def test_genuine_inputs_are_fine(name: str) -> None:
    target = TARGETS[name]
    outcomes = {target.run(each) for each in target.seeds()}
    assert outcomes - {"refused"}, "no seed gets through"
    assert all(len(each) <= target.bytes_max for each in target.seeds())


def test_what_was_found_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "update-crash-0123"
    found.write_bytes(b"\x02\x00\x00" + bytes((len(CLOCK_OVERFLOW),)) + CLOCK_OVERFLOW)
    assert replay(found) == 0
    assert capsys.readouterr().out == "update: refused\n"
    assert replay(tmp_path / "unknown") == 2


def test_a_document_that_loses_something_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.updates.slice_state", lambda state, size: [])
    sequence = next(each for each in TARGETS["document"].seeds() if len(each) > 100)
    with pytest.raises(Finding, match="slices make another document"):
        document(sequence)
