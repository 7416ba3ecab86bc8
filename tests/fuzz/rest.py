"""Fuzz the REST API of a running server from its own description, with schemathesis."""

import asyncio
import os
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import jwt

from tests.fuzz.rest_errors import all_is_well, kept
from tests.fuzz.updates import BREAKS
from tests.support.server import PlaitProcess

ROOT = Path(__file__).resolve().parents[2]
ANSWERS, ERRORS = "PLAIT_FUZZ_ANSWERS", "PLAIT_FUZZ_ERRORS"
"""See `rest_hooks`."""
HOOKS = "tests.fuzz.rest_hooks"

SECRET = "a-secret-of-the-fuzzer-of-32-characters-or-more"
"""With which tokens are signed."""
CLAIMS = {
    "sub": "fuzzer",
    "exp": 4_000_000_000,
    "grants": [{"docs": "*", "access": "admin"}],
}

REVOCATIONS = "^/api/revocations"
"""Called last: they may take the fuzzer's own rights away."""

CONFIGURATION = """
[checks.use_after_free]
# What was deleted may be brought back.
enabled = false

[checks.positive_data_acceptance]
# No schema tells an update from other bytes (422), or which documents were deleted (410).
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 410, 422, 503]

[checks.negative_data_rejection]
# 413: what is above a schema's maximum may be above the server's limit as well.
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422]

[[operations]]
include-operation-id = "read_state"
# No schema tells which bytes are a state vector.
checks.positive_data_acceptance.expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 410, 503]
"""

QUIET = re.compile(r"^\S+ \S+ (INFO|WARNING) ")
SERVER_ERROR = re.compile(r" (ERROR|CRITICAL) |Traceback")
REBUILT = re.compile(
    rf" plait\.server\.room: room .*({'|'.join(BREAKS)}).*; the document is loaded anew$"
)
"""What the server logs, beside its answer of 422, of updates that nothing but pycrdt can tell from
good ones.
"""


@dataclass
class Report:
    """How a run ended."""

    problems: list[str]
    """Empty if all is well."""
    summary: str
    output: str
    """What schemathesis says, with calls that reproduce each problem."""
    answers: Counter[str] = field(default_factory=Counter)
    """How often each operation was answered with which status: `GET /healthz 200`."""


async def fuzz(*, seed: int, seconds: int | None = None, examples: int = 100) -> Report:
    """Call everything that the API describes with what is allowed and what is not.

    Args:
        seconds: go on for so long; without it, the same calls are made each time.
        examples: calls of each operation in each phase, at most, if not so long.
    """
    report = Report([], "", "")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "schemathesis.toml").write_text(CONFIGURATION)
        async with PlaitProcess(folder / "server", "--token-secret", SECRET) as server:
            for what, share in (("--exclude-path-regex", 0.9), ("--include-path-regex", 0.1)):
                bounds: tuple[str, ...] = (
                    "--max-examples",
                    str(examples),
                    "--generation-deterministic",
                )
                if seconds is not None:
                    time = str(max(round(seconds * share), 1))
                    bounds = ("--max-time", time, "--seed", str(seed))
                await _call(server, folder, report, what, REVOCATIONS, *bounds)
            lines = server.stderr.split("\n")
            report.problems += [ascii(line) for line in lines if alarming(line)]
            rebuilt = sum(map(bool, map(REBUILT.search, lines)))
            report.summary += f"; {rebuilt} times a document was loaded anew"
            if report.problems:
                said = [line for line in lines if not QUIET.search(line)]
                report.output += "\n".join(["The server's log:", *said[:200]])
            report.answers.update((folder / "answers").read_text().splitlines())
            if code := await server.end():
                report.problems.append(f"the server ended with {code}")
    return report


def alarming(line: str) -> bool:
    """Whether the server should not have logged a line.

    Nothing of a request may end a line of the log, or steer a terminal.
    """
    return not line.isprintable() or bool(SERVER_ERROR.search(line) and not REBUILT.search(line))


async def _call(server: PlaitProcess, folder: Path, report: Report, *options: str) -> None:
    """Run schemathesis."""
    token = jwt.encode(CLAIMS, SECRET, "HS256")
    errors = folder / "errors"
    errors.unlink(missing_ok=True)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file"),
        *(str(folder / "schemathesis.toml"), "run", f"{server.url}/api/openapi.json"),
        *("--header", f"Authorization: Bearer {token}"),
        *("--continue-on-failure", "--no-color", "--warnings", "off", *options),
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": HOOKS,
            ANSWERS: str(folder / "answers"),
            ERRORS: str(errors),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await child.communicate()
    output = printed.decode(errors="replace")
    report.output += output
    made = re.search(r"^ *(\d+ generated.*)$", output, re.MULTILINE)
    report.summary += f"{'; ' * bool(report.summary)}{made[1] if made else 'no calls'}"
    assert child.returncode is not None
    happened = kept(errors)
    if not all_is_well(child.returncode, output, happened):
        report.problems.append(f"schemathesis ended with {child.returncode}")
    told = [f"a bug of hypothesis, not of ours: {each}" for each in happened if each.hypothesis]
    report.output += "".join(f"{line}\n" for line in told)
    report.summary += "".join(f"; {line}" for line in told)
