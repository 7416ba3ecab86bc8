"""Facts about a stored document for an operator who wonders what it is and why it is large."""

import json
from typing import Any, NamedTuple

from plait.persistence import Stored
from plait.server.content import roots_as_json
from plait.server.errors import PlaitError
from plait.server.folding import read
from plait.server.limits import Limits
from plait.server.state import whole_state
from plait.server.wire.structs import read_deletes, read_structs, sections

CLIENTS_MAX = 10
"""Clients that are named; a document may have thousands."""


class Facts(NamedTuple):
    """What a document consists of."""

    state_bytes: int
    """Of its whole state as one update."""
    clients: int
    """Client ids that have written; each opening of an editor makes one."""
    most_active: list[tuple[int, int]]
    """The client ids with the highest clocks, and those."""
    structs: int
    """Structs of the encoded state."""
    types: int
    """Shared types that were ever created."""
    clocks: int
    """All that was ever inserted: characters, elements, values."""
    deleted: int
    """How much of that is deleted."""
    waiting: int
    """Rows that build upon others that are missing."""
    content: dict[str, Any] | None
    """Root types by name, each with `type` and `value`; None if it can't be told."""
    content_problem: str | None
    """Why not."""


def facts(stored: Stored, limits: Limits) -> Facts:
    """Return what a document consists of. May take long: run it apart.

    Raises:
        DocumentBroken, UpdateRefused: it can't be read.
    """
    state, waiting = whole_state(stored, limits)
    document, _ = read(stored, limits)
    clocks = document.clocks()
    _, position = sections(state)
    deletes = read_deletes(state, position).values()
    content, problem = None, None
    try:
        content = json.loads(roots_as_json(state))
    except PlaitError as error:
        problem = str(error)
    return Facts(
        state_bytes=len(state),
        clients=len(clocks),
        most_active=sorted(clocks.items(), key=lambda each: -each[1])[:CLIENTS_MAX],
        structs=sum(1 for _ in read_structs(state)),
        types=document.types,
        clocks=sum(clocks.values()),
        deleted=sum(length for ranges in deletes for _, length in ranges),
        waiting=waiting,
        content=content,
        content_problem=problem,
    )
