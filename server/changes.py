"""What a room does with an update that was applied: who hears of it, and what goes into the log."""

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from plait.persistence import StoreError, Update
from plait.server.cutting import Cut
from plait.server.errors import DocumentBroken
from plait.server.intake import Commitment, Upload
from plait.server.member import Member
from plait.server.updates import merge
from plait.server.wire.update import Run, Shape, continued

log = logging.getLogger(__name__)

MERGE_BYTES_MAX: Final = 64 << 10
"""Updates of one turn are merged up to this size; above it, merging costs more than sending one by
one.
"""


class Clock(Protocol):
    """The two times that a room needs; a simulation brings its own."""

    def monotonic(self) -> float:
        """Return seconds that only go forward, for deadlines."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970, to write beside an update. Orders nothing."""


class Log(Protocol):
    """Where a room's updates are made to last: `plait.persistence.Writer.unsaved`."""

    def append(
        self,
        updates: Sequence[Update],
        done: Callable[[Sequence[int]], None],
        failed: Callable[[StoreError], None] | None = None,
    ) -> None:
        """Commit updates in order, and call `done` when they are; never blocks."""


class Change:
    """An update of this turn.

    Args:
        news: whether it changed the document, so that others have to hear of it.
        append: whether it is not in the log yet.
        commitment: told when it is.
        parts: what is logged instead of the update, if it is large, so that loading it stops
            nobody.
        echo: what its author is sent when it is committed, if that is more than the others are
            sent.
        frame: the frame that it came in, if that is what others have to be sent in its author's
            dialect.
    """

    __slots__ = (
        "append",
        "author",
        "commitment",
        "count",
        "echo",
        "frame",
        "news",
        "parts",
        "shape",
        "update",
        "who",
    )

    def __init__(
        self,
        update: bytes,
        shape: Shape,
        author: Member | None = None,
        who: str = "",
        news: bool = True,
        append: bool = True,
        commitment: Commitment | None = None,
        parts: Sequence[bytes] = (),
        echo: bytes = b"",
        frame: bytes = b"",
    ) -> None:
        self.update = update
        self.shape = shape
        self.author = author
        self.who = who
        self.news = news
        self.append = append
        self.commitment = commitment
        self.parts = parts
        self.echo = echo
        self.frame = frame
        self.count = 1
        """Updates of its author that it stands for."""

    @classmethod
    def of(cls, upload: Upload, cut: Cut, news: bool) -> "Change":
        """Return the change that a large update made."""
        return cls(
            upload.update if cut.unknown is None else cut.unknown,
            cut.shape,
            upload.author,
            upload.who,
            news,
            news and upload.append,
            upload.commitment,
            [part for part, _ in cut.parts],
        )

    @property
    def rows(self) -> Sequence[bytes]:
        """Return what has to be appended to the log."""
        return (self.parts or (self.update,)) if self.append else ()

    @property
    def mergeable(self) -> bool:
        """Whether pycrdt merges it with others without loss."""
        return self.shape.lossless and not self.shape.astral and not self.echo

    def continues_with(self, other: "Change") -> bool:
        """Take in what was typed behind this, if it continues this; return whether it does."""
        update = continued(self.update, other.update)
        if update is None:
            return False
        ((client, first, _),) = self.shape.runs
        self.shape = self.shape._replace(runs=[(client, first, other.shape.runs[0][2])])
        self.update, self.frame = update, b""
        self.count += other.count
        return True


def lower(clocks: dict[int, int], runs: Iterable[Run]) -> None:
    """Take runs out of clocks, so that a diff from them holds those runs."""
    for client, first, _ in runs:
        if clocks.get(client, 0) > first:
            clocks[client] = first


def by_author(turn: Sequence[Change]) -> list[Change]:
    """Return a turn with what each author has typed at a stretch as one change: it is one row of
    the log, and one message to each who is told of it. Everything else stays as it came.
    """
    found: list[Change] = []
    last: dict[Member, Change] = {}
    for change in turn:
        own = change.append and not change.echo and not change.parts
        if own and change.author is not None:
            before = last.get(change.author)
            if before and before.who == change.who and before.continues_with(change):
                continue
            last[change.author] = change
        found.append(change)
    return found


def merged(changes: Sequence[Change], *, echo: bool = False) -> list[bytes]:
    """Return the updates of changes as one, where that loses nothing and costs little.

    Args:
        echo: for their author.
    """
    updates = [(echo and each.echo) or each.update for each in changes]
    if (
        len(updates) == 1
        or sum(map(len, updates)) > MERGE_BYTES_MAX
        or not all(each.mergeable for each in changes)
    ):
        return updates
    try:
        return [merge(updates, plain=True)]
    except DocumentBroken:
        log.exception("pycrdt applied updates that it can't merge; they are sent one by one")
        return updates
