"""A room: one document, who is present, and the clients that edit it together.

The way of an update (DESIGN.md): it is applied first, so that a poison update reaches nobody. At
the end of the turn of the event loop all updates of that turn go to every *other* member, encoded
once for each dialect, and to the store's writer. When they are committed, each author is sent its
own updates: that echo is the acknowledgement, and means stored.

The room is synchronous: it waits for no member, and the store's writer calls it back. Two things
take time and come from a `Source`: a fresh document after pycrdt failed (`ready` is unset
meanwhile, and whoever reads from a socket waits for it), and a state put together from the log when
pycrdt can't encode its document.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from plait.persistence import DocumentDeleted, LoggedUpdate, StoreError, Update
from plait.server.awareness import Awareness
from plait.server.document import Applied, Document, merge
from plait.server.errors import (
    DocumentBroken,
    DocumentGone,
    PlaitError,
    RoomUnavailable,
    UpdateRefused,
)
from plait.server.limits import Limits
from plait.server.member import Member
from plait.server.session import ApplyPresence, ApplyUpdate, SendMissing, SendPresence
from plait.server.wire.messages import Codec, Message
from plait.server.wire.presence import Entry, encode_presence
from plait.server.wire.state_vector import decode_state_vector, encode_state_vector
from plait.server.wire.update import Shape

log = logging.getLogger(__name__)

MERGE_BYTES_MAX = 64 << 10
"""Updates of one turn are merged up to this size; above it, merging costs more than sending one by
one.
"""

Run = tuple[int, int, int]
"""A client, and the first and the end clock of its structs in an update."""


class Clock(Protocol):
    """The two times that a room needs; a simulation brings its own."""

    def monotonic(self) -> float:
        """Return seconds that only go forward, for deadlines."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970, to write beside an update. Orders nothing."""


class Log(Protocol):
    """Where a room's updates are made to last: `plait.persistence.Writer`."""

    def append(
        self,
        updates: Sequence[Update],
        done: Callable[[Sequence[int]], None],
        failed: Callable[[StoreError], None] | None = None,
    ) -> None:
        """Commit updates in order, and call `done` when they are; never blocks."""


class Source(Protocol):
    """Where a room gets from the store what pycrdt can't give it."""

    def document(self) -> "asyncio.Future[Document]":
        """Load the document anew, with the updates that are not committed yet."""

    def missing(self, state_vector: bytes) -> "asyncio.Future[bytes]":
        """Return from the log what a holder of the state vector misses."""


@dataclass(slots=True)
class _Change:
    """An update of this turn."""

    update: bytes
    shape: Shape
    author: Member | None = None
    who: str = ""
    news: bool = True
    """Whether it changed the document, so that others have to hear of it."""
    append: bool = True
    """Whether it is not in the log yet."""
    committed: "asyncio.Future[bool] | None" = None
    """Told when it is."""


class Room:
    """One open document and its members."""

    def __init__(
        self,
        name: str,
        document: Document,
        writer: Log,
        limits: Limits,
        *,
        source: Source,
        clock: Clock,
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self.name = name
        self.document = document
        self.awareness = Awareness(limits)
        self.members: set[Member] = set()
        self.ready = asyncio.Event()
        self.ready.set()
        self.dead = False
        """Whether the document was deleted or could not be rebuilt; who comes now gets another
        room.
        """
        self.unsaved = 0
        """Turns given to the writer and not committed yet."""
        self.logged = 0
        """Rows replayed or logged since somebody last considered compaction, and set it to 0."""
        self._writer = writer
        self._source = source
        self._clock = clock
        self._call_soon = call_soon
        self._turn: list[_Change] = []
        self._holding: set[Member] = set()
        """Members whose sessions may hold updates that are not ready."""

    @property
    def busy(self) -> bool:
        """Whether there is anything that is not committed yet."""
        return bool(self.unsaved or self._turn)

    # Members

    def join(self, member: Member) -> None:
        """Greet a new member: ask for what it has, tell who is here (as y-websocket-server
        `utils.js` does).
        """
        self.members.add(member)
        self._ask(member)
        if len(self.awareness):
            member.send_presence(self.awareness.states(), self._clock.monotonic())

    def leave(self, member: Member) -> None:
        """Forget a member, and tell the others that its presence is gone."""
        self.members.discard(member)
        self._holding.discard(member)
        member.session.close()
        self._broadcast_presence(self.awareness.leave(member))

    def receive(self, member: Member, message: Message) -> None:
        """Do what a member's message asks for.

        Raises:
            PlaitError: the member is to be closed with it; nobody else is concerned.
        """
        match member.session.receive(message):
            case ApplyUpdate(update):
                self._apply(member, update)
            case ApplyPresence(entries):
                heard = self.awareness.apply(entries, member, self._clock.monotonic())
                self._broadcast_presence(heard.news)
                if heard.corrections:
                    member.send_presence(heard.corrections, self._clock.monotonic())
            case SendMissing(state_vector):
                self._send_missing(member, state_vector)
            case SendPresence():
                member.send_presence(self.awareness.states(), self._clock.monotonic())
            case None:
                pass

    def catch_up(self, member: Member) -> None:
        """Bring a member up to date whose socket lagged and is read again."""
        if not self.ready.is_set() or member not in self.members:
            return
        # The diff holds the member's own updates as well, which it must not see before they are
        # committed.
        if member.lagging_from is not None and not member.unacknowledged:
            state_vector = encode_state_vector(member.lagging_from)
            member.lagging_from = None
            self._send_missing(member, state_vector)
        if member.session.holds:
            self._ask(member)
        if member.missed_presence:
            member.missed_presence = False
            member.send_presence(self.awareness.states(), self._clock.monotonic())

    def tick(self) -> None:
        """Do what time demands: drop stale presence, keep silent members alive, close those who do
        not read.
        """
        now = self._clock.monotonic()
        self._broadcast_presence(self.awareness.expire(now))
        for member in list(self.members):
            if member.socket.outbox.overdue(now):
                member.socket.close(RoomUnavailable("you read too slowly; connect again"))
            elif member.session.needs_keepalive(now):
                member.send_presence([], now)

    def close(self, error: PlaitError) -> None:
        """Close the connection of every member, with a reason."""
        for member in list(self.members):
            member.socket.close(error)

    # Updates that come from no member

    def apply(self, update: bytes, who: str = "") -> "asyncio.Future[bool]":
        """Apply an update; the future is done when it is committed, and tells whether it changed
        anything.

        Raises:
            UpdateRefused: it is malformed, or builds upon something that the document lacks.
            LimitReached: the document would become too large.
        """
        applied, shape, update = self._try(update)
        if applied is Applied.PENDING:
            raise UpdateRefused("the update builds upon others that the document does not hold")
        change = _Change(
            update, shape, who=who, committed=asyncio.get_running_loop().create_future()
        )
        change.news = change.append = applied is Applied.CHANGED
        self._add(change)
        assert change.committed is not None
        return change.committed

    def apply_logged(self, row: LoggedUpdate) -> bool:
        """Take in what another writer of the same store committed; return whether it was ready."""
        applied, shape, update = self._try(row.update)
        if applied is Applied.CHANGED:
            self._add(_Change(update, shape, append=False))
        return applied is not Applied.PENDING

    # A member's update, and the end of the turn

    def _apply(self, member: Member, update: bytes) -> None:
        applied, shape, new = self._try(update)
        if applied is Applied.PENDING:
            self._holding.add(member)
            if member.session.hold(update):
                self._ask(member)
            return
        changed = applied is Applied.CHANGED
        member.unacknowledged += 1
        self._add(_Change(new, shape, member, member.who, news=changed, append=changed))

    def _try(self, update: bytes) -> tuple[Applied, Shape, bytes]:
        try:
            return self.document.apply(update)
        except DocumentBroken as error:
            log.error("room %r: %s; the document is loaded anew", self.name, error)
            self._rebuild()
            raise UpdateRefused("the update can't be applied to this document") from error

    def _add(self, change: _Change) -> None:
        if not self._turn:
            self._call_soon(self.flush)
        self._turn.append(change)

    def flush(self) -> None:
        """Send this turn's updates to the other members and to the store's writer."""
        news = [each for each in self._turn if each.news]
        try:  # The turn stays in place while it is sent: see _before_this_turn.
            self._store(self._turn)
            self._broadcast(news)
        finally:
            self._turn = []
        if news:
            self._retry_held()

    def _retry_held(self) -> None:
        """Apply what was held, now that the document has changed; hold again what is not ready."""
        holding, self._holding = self._holding, set()
        for member in holding:
            try:
                for update in member.session.take_held():
                    self._apply(member, update)
            except PlaitError as error:
                member.socket.close(error)

    def _broadcast(self, news: list[_Change]) -> None:
        if not news or not self.members:
            return
        authors = {each.author for each in news}
        updates = _merged(news)
        frames: dict[Codec, list[bytes]] = {}
        for member in self.members:
            if member in authors:
                others = [each.update for each in news if each.author is not member]
                self._send(member, [member.codec.sync_update(update) for update in others])
                continue
            encoded = frames.get(member.codec)
            if encoded is None:
                encoded = [member.codec.sync_update(update) for update in updates]
                frames[member.codec] = encoded
            self._send(member, encoded)

    # The store

    def _store(self, turn: Sequence[_Change]) -> None:
        now = self._clock.wall_ms()
        rows = [Update(self.name, each.update, each.who, now) for each in turn if each.append]
        waiting = [each for each in turn if each.author or each.committed]
        if not rows and not waiting:
            return
        self.unsaved += 1
        self.logged += len(rows)

        def done(_: Sequence[int]) -> None:
            self.unsaved -= 1
            self._committed(waiting)

        def failed(error: StoreError) -> None:
            self.unsaved -= 1
            self._not_committed(waiting, error)

        # Without rows, too: what changed nothing is acknowledged when what it repeats is committed.
        self._writer.append(rows, done, failed)

    def _committed(self, changes: Iterable[_Change]) -> None:
        own: dict[Member, list[_Change]] = {}
        for change in changes:
            if change.author is not None:
                own.setdefault(change.author, []).append(change)
            elif change.committed is not None and not change.committed.done():
                change.committed.set_result(change.news)
        for member, acknowledged in own.items():
            self._acknowledge(member, acknowledged)

    def _acknowledge(self, member: Member, changes: list[_Change]) -> None:
        member.unacknowledged -= len(changes)
        if member not in self.members:
            return
        if not self._send(member, [member.codec.sync_update(each) for each in _merged(changes)]):
            assert member.lagging_from is not None
            for change in changes:
                _lower(member.lagging_from, change.shape.runs)
        if member.socket.outbox.lagging_since is None:
            self.catch_up(member)

    def _not_committed(self, changes: Iterable[_Change], error: StoreError) -> None:
        for change in changes:
            if change.committed is not None and not change.committed.done():
                change.committed.set_exception(error)
        if isinstance(error, DocumentDeleted):
            self.dead = True
            self.close(DocumentGone("this document was deleted"))
        else:
            log.error("room %r: an update could not be stored: %s", self.name, error)
            self.close(RoomUnavailable("the update could not be stored; connect again"))

    # When pycrdt fails

    def _rebuild(self) -> None:
        """Take a fresh document from the store; until it is there, nobody's messages are taken."""
        self.ready.clear()
        self.flush()

        def rebuilt(loaded: "asyncio.Future[Document]") -> None:
            if loaded.cancelled() or loaded.exception() is not None:
                self.dead = True
                self.close(RoomUnavailable("the document can't be loaded now; connect again"))
            else:
                self.document.close()
                self.document = loaded.result()
            self.ready.set()
            for member in list(self.members):
                if member.socket.outbox.lagging_since is None:
                    self.catch_up(member)

        self._source.document().add_done_callback(rebuilt)

    def _send_missing_from_log(self, member: Member, state_vector: bytes) -> None:
        def loaded(missing: "asyncio.Future[bytes]") -> None:
            if missing.cancelled() or missing.exception() is not None:
                member.socket.close(RoomUnavailable("the document can't be loaded now"))
            elif member in self.members:
                self._send(member, [member.codec.sync_step2(missing.result())])

        self._source.missing(state_vector).add_done_callback(loaded)

    # Sending

    def _ask(self, member: Member) -> None:
        self._send(member, [member.codec.sync_step1(self.document.state_vector())])

    def _send_missing(self, member: Member, state_vector: bytes) -> None:
        clocks = decode_state_vector(state_vector)
        if member.socket.outbox.lagging_since is not None:
            member.lagging_from = clocks
            return
        try:
            missing = self.document.missing(state_vector)
        except DocumentBroken as error:
            log.error("room %r: %s; its state is taken from the log", self.name, error)
            self._send_missing_from_log(member, state_vector)
        else:
            self._send(member, [member.codec.sync_step2(missing)])

    def _send(self, member: Member, frames: Iterable[bytes]) -> bool:
        """Send frames of sync; return whether all arrive. If not, a diff will, later."""
        now = self._clock.monotonic()
        for frame in frames:
            if not member.send(frame, now):
                if member.lagging_from is None:
                    member.lagging_from = self._before_this_turn()
                return False
        return True

    def _before_this_turn(self) -> dict[int, int]:
        """Return clocks that everybody has been sent: those of the document, less what this turn
        brought.
        """
        clocks = self.document.clocks()
        for change in self._turn:
            _lower(clocks, change.shape.runs)
        return clocks

    def _broadcast_presence(self, entries: list[Entry]) -> None:
        if not entries:
            return
        now = self._clock.monotonic()
        update = encode_presence(entries)
        frames: dict[Codec, bytes] = {}
        for member in self.members:
            frame = frames.get(member.codec)
            if frame is None:
                frame = frames[member.codec] = member.codec.awareness(update)
            member.send_presence_frame(frame, now)


def _lower(clocks: dict[int, int], runs: Iterable[Run]) -> None:
    """Take runs out of clocks, so that a diff from them holds those runs."""
    for client, first, _ in runs:
        if clocks.get(client, 0) > first:
            clocks[client] = first


def _merged(changes: Sequence[_Change]) -> list[bytes]:
    """Return the updates of changes as one, where that loses nothing and costs little."""
    updates = [each.update for each in changes]
    if (
        len(updates) == 1
        or sum(map(len, updates)) > MERGE_BYTES_MAX
        or not all(each.shape.lossless and not each.shape.astral for each in changes)
    ):
        return updates
    try:
        return [merge(updates)]
    except DocumentBroken:
        log.exception("pycrdt applied updates that it can't merge; they are sent one by one")
        return updates
