"""Bugs to be planted into the product, to see whether the simulation finds them."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest.mock import patch

from plait.persistence import writer
from plait.server import awareness, document, link, pending, saving
from plait.server.changes import Change
from plait.server.wire import readiness

Plant = Callable[[], AbstractContextManager[Any]]


def acknowledged_too_early() -> AbstractContextManager[Any]:
    """An acknowledgement is sent when the update is queued, not when it is committed."""
    store = saving.Saving.store

    def too_early(self: saving.Saving, turn: Sequence[Change]) -> None:
        store(self, turn)
        for change in turn:
            if change.author is not None:
                self._room.send(change.author, [change.author.codec.sync_update(change.update)])

    return patch.object(saving.Saving, "store", too_early)


def not_stored_for_others() -> AbstractContextManager[Any]:
    """What a dead node did not store is not stored by those who have it."""
    return patch.object(link.Link, "_vouch", lambda self, rows: None)


def ghosts_of_dead_nodes() -> AbstractContextManager[Any]:
    """The presence of a dead node stays until it is outdated."""
    gone = link.Link.gone

    def without_presence(self: link.Link, node: bytes) -> None:
        with patch.object(awareness.Awareness, "leave", lambda self, owner, but=frozenset(): []):
            gone(self, node)

    return patch.object(link.Link, "gone", without_presence)


def failed_commits_forgotten() -> AbstractContextManager[Any]:
    """What was in a commit that failed is taken for stored."""
    settle = writer.Writer._settle

    def forget(self: writer.Writer, commit: Any) -> None:
        if not commit.cancelled() and commit.exception() is not None:
            self._commit = None
            entries = self.unsaved._in_flight
            self.unsaved.succeed([0] * sum(len(entry.updates) for entry in entries))
            if not self.unsaved.waiting:
                self._work.clear()
            return
        settle(self, commit)

    return patch.object(writer.Writer, "_settle", forget)


def gaps_asked_for_ever() -> AbstractContextManager[Any]:
    """Who sent what builds upon a gap is asked for it each time that the room looks after it."""
    return patch.multiple(pending, ASK_SECONDS=0.0, ASKS_MAX=1_000_000)


def nothing_beside_a_gap() -> AbstractContextManager[Any]:
    """An update is not applied at all if some of it builds upon what is missing."""
    cut = readiness.split

    def whole(update: bytes, known: Mapping[int, int]) -> readiness.Split:
        return cut(update, known)._replace(ready=b"", rest=update)

    return patch.object(document, "split", whole)


def gaps_never_closed() -> AbstractContextManager[Any]:
    """What was kept is not applied when what it builds upon comes."""
    return patch.object(pending.Pending, "take", lambda self, clients, clocks: [])


def shadowed_acknowledged() -> AbstractContextManager[Any]:
    """What another client's structs stand in the way of is acknowledged all the same."""
    return patch.object(document.Document, "shadowed", lambda self, update: [])


PLANTS: dict[str, Plant] = {
    plant.__name__: partial(plant)
    for plant in (
        acknowledged_too_early,
        failed_commits_forgotten,
        gaps_asked_for_ever,
        gaps_never_closed,
        ghosts_of_dead_nodes,
        not_stored_for_others,
        nothing_beside_a_gap,
        shadowed_acknowledged,
    )
}
