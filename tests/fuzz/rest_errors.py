"""What ended schemathesis's work on an operation, and whether it says anything of the server.

Hypothesis has bugs of its own: its shrinker has been seen to read beyond the end of a list. An
error counts as one of those only if it was raised deep inside of hypothesis and is none of the
errors by which hypothesis speaks of what it was given.
"""

import json
import re
import traceback
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import hypothesis
from hypothesis.errors import HypothesisException

INTERNAL = Path(hypothesis.__file__).resolve().parent / "internal"
"""Where no strategy, hook or check is; they are called from there, but raise elsewhere."""

ONLY_ERRORS = re.compile(r"^=+ \d+ errors? in [\d.]+s =+$", re.MULTILINE)
"""How schemathesis ends if there were errors, and no failures."""


@dataclass(frozen=True)
class Ended:
    """An error that ended the work on an operation."""

    operation: str
    what: str
    where: str
    """File and line in which it was raised."""
    hypothesis: bool
    """Whether it is a bug of hypothesis itself."""

    def __str__(self) -> str:
        return f"{self.operation}: {self.what} ({self.where})"


def ended(operation: str, error: BaseException) -> Ended:
    """Judge an error."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = bool(frames) and Path(frames[-1].filename).resolve().is_relative_to(INTERNAL)
    return Ended(
        operation,
        f"{type(error).__name__}: {error}",
        f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere",
        inside and not isinstance(error, HypothesisException),
    )


def keep(file: Path, error: Ended) -> None:
    """Write an error down, for `kept`."""
    with file.open("a") as journal:
        journal.write(json.dumps(asdict(error)) + "\n")


def kept(file: Path) -> list[Ended]:
    """Return the errors that were written down."""
    if not file.exists():
        return []
    return [Ended(**json.loads(line)) for line in file.read_text().split("\n") if line]


def all_is_well(code: int, output: str, errors: Iterable[Ended]) -> bool:
    """Whether a run found nothing, but for bugs of hypothesis.

    Args:
        code: with which schemathesis ended.
        output: what it said.
        errors: all that there were.
    """
    errors = list(errors)
    only_errors = bool(errors) and ONLY_ERRORS.search(output) is not None
    return code == 0 or (code == 1 and only_errors and all(each.hypothesis for each in errors))
