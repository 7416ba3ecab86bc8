"""What real peers have written: the vectors in the files, and histories made on the spot."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.node import run_node

FOLDER = Path(__file__).parent


@cache
def vectors(name: str) -> list[dict[str, Any]]:
    """Return the vectors that `vectors/record.mjs` wrote into a file."""
    found: list[dict[str, Any]] = json.loads((FOLDER / "vectors" / f"{name}.json").read_text())
    return found


@cache
def updates() -> dict[str, bytes]:
    """Return the recorded updates by name."""
    return {vector["name"]: bytes.fromhex(vector["hex"]) for vector in vectors("updates")}


def histories(kind: str, seed: int, count: int, edits: int) -> list[dict[str, Any]]:
    """Return random histories of three clients, made by real Yjs (see `histories.mjs`)."""
    printed = run_node(FOLDER / "histories.mjs", kind, str(seed), str(count), str(edits))
    return [json.loads(line) for line in printed.split("\n") if line]
