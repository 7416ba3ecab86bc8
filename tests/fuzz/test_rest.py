"""The REST API does what its description says, whatever it is asked."""

import pytest

from tests.fuzz.rest import fuzz
from tests.support.rest import DESCRIPTION

NEVER_2XX = {"DELETE /api/revocations", "GET /api/revocations", "GET /api/openapi.json"}
"""The first needs an id, and the second rights that may have been revoked; the last is where
schemathesis has the description from.
"""


@pytest.mark.timeout(300)
async def test_every_operation_answers_as_described() -> None:
    report = await fuzz(seed=1, examples=15)
    assert not report.problems, "\n".join([report.output, *report.problems])
    answered = {line.rpartition(" ")[0] for line in report.answers if line[-3:-2] == "2"}
    operations = {
        f"{method.upper()} {path}"
        for path, described in DESCRIPTION["paths"].items()
        for method in described
        if method != "parameters"
    }
    assert operations - answered <= NEVER_2XX
