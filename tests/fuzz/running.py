"""Run a target in a process of its own, and tell what came of it."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plait.server.memory import raise_stack_limit
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]

INPUT_SECONDS = 20
"""An input that takes longer is a finding."""
MEMORY_MB = 2048
ROUND_SECONDS = 120
"""A process lasts no longer, so that what pycrdt leaks does not add up."""

_KINDS = ("crash", "timeout", "oom", "leak")
_STATUS = re.compile(r"^#\d+\s.*\bcov: (\d+) ft: (\d+)", re.MULTILINE)
_RUNS = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)


@dataclass
class Outcome:
    """How a run of a target ended."""

    name: str
    runs: int
    coverage: tuple[int, int]
    """Places in the code that were reached by the seeds, and in the end."""
    findings: list[Path]
    """Inputs that show bugs; `scripts/fuzz --replay` tells what they do."""
    failed: bool
    output: str

    def __str__(self) -> str:
        begin, end = self.coverage
        found = ", ".join(map(str, self.findings)) or "nothing found"
        if self.failed and not self.findings:
            found = f"failed\n{self.output[-3000:]}"
        return f"{self.name}: {self.runs} inputs, coverage {begin} -> {end}, {found}"


def fuzz(
    name: str,
    corpus: Path,
    findings: Path,
    *,
    seed: int,
    runs: int | None = None,
    seconds: int | None = None,
) -> Outcome:
    """Run a target for a number of inputs, or for a time, and keep what reaches new places.

    Args:
        corpus: a folder for inputs that reach something new; filled with the seeds.
        findings: a folder for inputs that show bugs.
    """
    target = TARGETS[name]
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        (corpus / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    bounds = [f"-runs={runs}"] if runs is not None else [f"-max_total_time={seconds}"]
    before = set(findings.iterdir())
    child = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.child", name, *bounds),
            *(f"-seed={seed}", f"-max_len={target.bytes_max}", f"-timeout={INPUT_SECONDS}"),
            *(f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=1", "-len_control=0"),
            *(f"-artifact_prefix={findings}/{name}-", str(corpus)),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    seen = [int(cov) for cov, _ in _STATUS.findall(child.stdout)] or [0]
    done = [int(each) for each in _RUNS.findall(child.stdout)] or [0]
    found = sorted(set(findings.glob(f"{name}-*")) - before)
    return Outcome(name, done[-1], (seen[0], seen[-1]), found, child.returncode != 0, child.stdout)


def replay(file: Path, name: str | None = None) -> int:
    """Give a file to its target, in this process; return the exit code."""
    if name is None:
        name = next(
            (each for each in TARGETS if re.match(f"{each}-({'|'.join(_KINDS)})-", file.name)), None
        )
    if name is None:
        print(f"which of {', '.join(TARGETS)} is {file} for? give --target", file=sys.stderr)
        return 2
    raise_stack_limit()
    print(f"{name}: {TARGETS[name].run(file.read_bytes())}")
    return 0


def fuzz_all(names: Sequence[str], seconds: int, folder: Path, seed: int) -> bool:
    """Run targets in turn for a time in all; return whether nothing was found.

    A target that has found something is not run again: it would find the same.
    """
    left = {name: seconds / len(names) for name in names}
    totals: dict[str, Outcome] = {}
    while any(left.values()):
        for name in [name for name in left if left[name]]:
            share = min(left[name], ROUND_SECONDS)
            left[name] = left[name] - share if left[name] - share >= 1 else 0
            outcome = fuzz(
                name,
                folder / "corpus" / name,
                folder / "findings",
                seed=seed,
                seconds=max(round(share), 1),
            )
            seed += 1
            print(outcome, flush=True)
            if outcome.failed:
                left[name] = 0
            before = totals.get(name)
            if before is not None:
                outcome.runs += before.runs
                outcome.coverage = before.coverage[0], outcome.coverage[1]
            totals[name] = outcome
    print("In all:")
    for outcome in totals.values():
        print(outcome)
    return not any(outcome.failed for outcome in totals.values())
