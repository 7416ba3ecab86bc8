"""Bugs of hypothesis are told from findings, and nothing else passes for one."""

from pathlib import Path

import pytest
from hypothesis.errors import FlakyFailure, Unsatisfiable

from tests.fuzz.rest_errors import INTERNAL, Ended, all_is_well, ended, keep, kept

SHRINKER = INTERNAL / "conjecture" / "shrinker.py"


def raised(error: Exception, file: Path) -> Exception:
    """Return an error that was raised in a file."""
    try:
        exec(compile("raise error", str(file), "exec"), {"error": error})
    except Exception as caught:
        return caught
    raise AssertionError("it raises")


def test_an_index_error_of_the_shrinker_is_a_bug_of_hypothesis() -> None:
    assert SHRINKER.exists(), "hypothesis has changed: look where its bugs are now"
    error = ended("GET /healthz", raised(IndexError("Index 91 out of range [-56, 56)"), SHRINKER))
    assert error.hypothesis
    assert str(error) == (
        f"GET /healthz: IndexError: Index 91 out of range [-56, 56) ({SHRINKER}:1)"
    )


@pytest.mark.parametrize(
    "error",
    [
        raised(Unsatisfiable("no example fits the schema"), SHRINKER),
        raised(FlakyFailure("it was answered differently", [ValueError()]), SHRINKER),
        raised(IndexError(), Path(__file__)),
        raised(TypeError(), INTERNAL.parent / "strategies" / "_internal" / "core.py"),
        raised(OSError("Read timed out"), Path("/x/site-packages/requests/adapters.py")),
        IndexError("never raised"),
    ],
)
def test_all_else_is_a_finding(error: Exception) -> None:
    assert not ended("GET /healthz", error).hypothesis


def test_errors_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "errors"
    assert kept(file) == []
    errors = [ended("a", IndexError("\u2028")), ended("b", KeyError("x"))]
    for error in errors:
        keep(file, error)
    assert kept(file) == errors


THEIRS = Ended("GET /", "IndexError", "shrinker.py:1", hypothesis=True)
OURS = Ended("GET /", "ReadTimeout", "adapters.py:1", hypothesis=False)
ERRORS = "Test cases:\n  7 generated, 1 errored\n\n===== 1 error in 8.26s =====\n"
FAILURES = "Test cases:\n  7 generated\n\n===== 1 failure, 1 error in 8.26s =====\n"


@pytest.mark.parametrize(
    ("code", "output", "errors", "well"),
    [
        (0, "", [], True),
        (1, ERRORS, [THEIRS], True),
        (1, ERRORS.replace("1 error ", "2 errors "), [THEIRS, THEIRS], True),
        (1, ERRORS, [THEIRS, OURS], False),
        (1, ERRORS, [], False),
        (1, FAILURES, [THEIRS], False),
        (1, "", [THEIRS], False),
        (2, ERRORS, [THEIRS], False),
    ],
)
def test_a_run_is_well_only_if_nothing_else_was_found(
    code: int, output: str, errors: list[Ended], well: bool
) -> None:
    assert all_is_well(code, output, errors) is well
