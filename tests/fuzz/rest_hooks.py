"""What schemathesis has to know of the API beyond its description: bodies that are updates, and
names that are met again; and what is to be known of its work. Loaded by it
(`SCHEMATHESIS_HOOKS`).
"""

import os
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import cli
from schemathesis.engine import events

from tests.fuzz.gaps import merged, pieces
from tests.fuzz.rest_errors import ended, keep
from tests.wire import fuzz_updates

ANSWERS = "PLAIT_FUZZ_ANSWERS"
"""The variable that names a file for lines of operation and status."""
ERRORS = "PLAIT_FUZZ_ERRORS"
"""The variable that names a file for `rest_errors`."""

NAMES = ("a", "b", "a/b", "ü 😀", "%2F", "..", "?x=1#y")
"""Few, so that what one call made is there for the next."""

FIRST = pieces()[:1]

_updates, _states = fuzz_updates.corpus()

schemathesis.openapi.media_type(
    "application/octet-stream",
    st.one_of(
        st.sampled_from(_states),
        st.sampled_from(_updates),
        # What is left of them builds upon others, and some are of two authors with one client id.
        st.lists(st.sampled_from(pieces()), max_size=3).map(lambda some: merged([*FIRST, *some])),
        st.binary(max_size=40),
        st.builds(
            fuzz_updates.change_bytes,
            st.randoms(use_true_random=False),
            st.sampled_from(_updates),
        ),
    ),
)


@schemathesis.hook
def map_path_parameters(
    context: schemathesis.HookContext, path_parameters: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Give most calls a name that others have too."""
    if not path_parameters or not isinstance(path_parameters.get("name"), str):
        return path_parameters
    name = path_parameters["name"]
    # As good as chance, and the same for the same call, as Hypothesis wants it.
    if sum(name.encode(errors="replace")) % 4:
        return {**path_parameters, "name": NAMES[len(name) % len(NAMES)]}
    return path_parameters


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], response: schemathesis.Response
) -> None:
    """Write down which operation was answered with which status."""
    path, method = case.operation.path, case.method
    with Path(os.environ[ANSWERS]).open("a") as file:
        file.write(f"{method} {path} {response.status_code}\n")


@cli.handler()
class _Errors(cli.EventHandler[cli.ExecutionContext]):
    """Writes down what ended the work on an operation."""

    def handle_event(self, ctx: cli.ExecutionContext, event: events.EngineEvent) -> None:
        if isinstance(event, events.NonFatalError):
            keep(Path(os.environ[ERRORS]), ended(event.label, event.value))
