"""The REST API does what its description says, whatever it is asked."""

from collections.abc import Callable

import pytest

from tests.fuzz.rest import alarming, fuzz
from tests.support.rest import DESCRIPTION

NEVER_2XX = {"DELETE /api/revocations", "GET /api/revocations", "GET /api/openapi.json"}
"""The first needs an id, and the second rights that may have been revoked; the last is where
schemathesis has the description from.
"""


async def test_every_operation_answers_as_described(rounds: Callable[[int], int]) -> None:
    report = await fuzz(seed=1, examples=rounds(60))
    assert not report.problems, "\n".join([report.output, *report.problems])
    answered = {line.rpartition(" ")[0] for line in report.answers if line[-3:-2] == "2"}
    operations = {
        f"{method.upper()} {path}"
        for path, described in DESCRIPTION["paths"].items()
        for method in described
        if method != "parameters"
    }
    assert operations - answered <= NEVER_2XX


ERROR = "2026-11-24 19:38:51,105 ERROR   plait.server.room: room 'a': "
CIRCLE = "the update's structs wait for one another"
WRONG_PARENT = "pycrdt failed: Cannot apply update: block parent <1#9> must be deleted"


@pytest.mark.parametrize(
    ("line", "is_alarming"),
    [
        ("2026-11-24 19:38:51,105 INFO    plait.audit: {}", False),
        (f"{ERROR}{CIRCLE}; the document is loaded anew", False),
        (f"{ERROR}{WRONG_PARENT}; the document is loaded anew", True),
        (f"{ERROR}{CIRCLE}", True),
        ("Traceback (most recent call last):", True),
        ('2026-11-24 19:38:51,105 INFO    plait.audit: {"path": "\u2028"}', True),
    ],
)
def test_only_errors_that_hostile_updates_bring_about_are_no_findings(
    line: str, is_alarming: bool
) -> None:
    assert alarming(line) is is_alarming
