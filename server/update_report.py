"""What REST and the command line tell of an update: what of it is not in the document, and why."""

from collections.abc import Sequence
from typing import Any, Final

from plait.server.wire.readiness import Missing
from plait.server.wire.update import Run

Json = dict[str, Any]

_CLOCKS: Final[Json] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "properties": {
            "client": {"type": "integer", "minimum": 0, "description": "A Yjs client id."},
            "first": {"type": "integer", "minimum": 0, "description": "The first clock."},
            "end": {"type": "integer", "minimum": 1, "description": "The clock after the last."},
        },
        "required": ["client", "first", "end"],
        "additionalProperties": False,
    },
}

LEFT_OUT: Final[Json] = {
    "left": {
        "type": "object",
        "description": "What was left out, since it builds on structs that are missing.",
        "properties": {
            "bytes": {"type": "integer", "minimum": 1},
            "missing": {**_CLOCKS, "description": "The structs that are missing."},
        },
        "required": ["bytes", "missing"],
        "additionalProperties": False,
    },
    "shadowed": {
        **_CLOCKS,
        "description": "What was left out, since others used its client ids and clocks before.",
    },
}
"""JSON Schema of what `report` may add to an answer."""


def report(left_bytes: int, missing: Sequence[Missing], shadowed: Sequence[Run]) -> Json:
    """Return what was left out of an update, for an answer; empty if nothing was."""
    found: Json = {}
    if left_bytes:
        found["left"] = {"bytes": left_bytes, "missing": [_clocks(*gap) for gap in missing]}
    if shadowed:
        found["shadowed"] = [_clocks(*run) for run in shadowed]
    return found


def _clocks(client: int, first: int, end: int) -> Json:
    return {"client": client, "first": first, "end": end}
