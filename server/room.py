"""A room: one document, who is present, and the clients that edit it together.

The way of an update (DESIGN.md): it is applied first, so that a poison update reaches nobody. At
the end of the turn (`plait.server.tempo`) all its updates go to every *other* member, encoded once
for each dialect, and to the store's writer. When they are committed, each author is sent its own
updates: that echo is the acknowledgement, and means stored.

The room is synchronous: it waits for no member, and the store's writer calls it back. What takes
time comes from a `Source`: a fresh document after pycrdt failed (`ready` is unset meanwhile; edits
are held, and sockets are not read), the parts of a large update, the state of a large document.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from plait.persistence import LoggedUpdate
from plait.server.answers import PACED_BYTES, Answers, Source, is_large
from plait.server.attendance import Attendance
from plait.server.awareness import Awareness
from plait.server.capacity import Capacity
from plait.server.changes import Change, Clock, Log, by_author, lower, merged
from plait.server.counters import Counters
from plait.server.cutting import Cut
from plait.server.document import Applied, Document, Outcome
from plait.server.errors import ClientError, DocumentBroken, PlaitError, RoomUnavailable
from plait.server.errors import UpdateRefused as Refused
from plait.server.fanout import fan_out
from plait.server.holding import Holding
from plait.server.intake import Commitment, Intake, Receipt, Upload
from plait.server.limits import Limits
from plait.server.link import Link
from plait.server.member import Member, care
from plait.server.remote import REMOTE_BYTES
from plait.server.saving import Saving
from plait.server.session import (
    ApplyPresence,
    ApplyUpdate,
    RefusePresence,
    RefuseUpdate,
    SendMissing,
    SendPresence,
)
from plait.server.wire.messages import Codec, Message
from plait.server.wire.readiness import Missing, in_words, without_clients
from plait.server.wire.state_vector import encode_state_vector
from plait.server.wire.update import Runs, Shape, inspect

log = logging.getLogger(__name__)


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
        end_turn: Callable[[Callable[[], None]], object] | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.name = name
        self.document = document
        self.awareness = Awareness(limits)
        self.members: dict[Member, None] = {}
        """In the order in which they came, so that a simulation can be repeated exactly."""
        self._counters = counters or Counters()
        self.attendance = Attendance(self.members, clock, call_soon, self._counters)
        self._halted = False  # As long as `ready` is not set.
        self.ready = asyncio.Event()
        self.ready.set()
        self.dead = False
        """Whether the document was deleted or not rebuilt; who comes now gets another room."""
        self.saving = Saving(self, writer, clock, call_soon, self._counters)
        self._source = source
        self._stays = False  # Whether the document could not be moved to another process.
        self.answers = Answers(self, source, limits, clock.monotonic)
        show = self.answers.answer_waiting
        self.intake = Intake(self, source, limits, show, clock.monotonic)
        self._clock = clock
        self._call_soon = self._soon = call_soon
        self._end_turn = end_turn or call_soon
        self._turn: list[Change] = []
        self._keepalive_seconds = limits.keepalive_seconds
        self._capacity: Capacity[Member] = Capacity(limits)
        self.holding = Holding(self, self._capacity, limits, clock, self._counters)
        self.link: Link | None = None
        """The way to other nodes that have the room open, if there may be any."""

    @property
    def busy(self) -> bool:
        """Whether there is anything that is not committed yet, or may be held."""
        lent = self.link and self.link.borrowed
        return bool(self.saving.unsaved or self._turn or self.intake.busy or lent or self._halted)

    # Members

    def join(self, member: Member) -> None:
        """Greet a new member as y-websocket-server (`utils.js`) does: ask for what it has, tell who
        is here; and tell one who may not write so.
        """
        self.members[member] = None
        self.ask(member)
        if not member.session.may_write:
            self.send(member, [member.codec.permission(writes=False)])
        if len(self.awareness):
            member.send_presence(self.awareness.states(), self._clock.monotonic())

    def leave(self, member: Member) -> None:
        """Forget a member, and tell the others that its presence is gone."""
        self.members.pop(member, None)
        self.holding.leave(member)
        for each in (self._capacity, self.answers):
            each.forget(member)
        member.session.close()
        self.attendance.tell(self.awareness.leave(member))

    def receive(self, member: Member, message: Message) -> None:
        """Do what a member's message asks for. Raises what the member is to be closed with."""
        match member.session.receive(message):
            case ApplyUpdate(update):
                self.apply_of(member, update)
            case ApplyPresence(entries):
                self.attendance.take_in(member, self.awareness, entries)
            case RefusePresence(error):
                self.attendance.refuse(member, error)
            case SendMissing(state_vector):
                self.answers.send_missing(member, state_vector, self._clock.monotonic())
            case SendPresence():
                member.send_presence(self.awareness.states(), self._clock.monotonic())
            case RefuseUpdate():
                self.holding.refuse(member)

    def receive_plain(self, member: Member, frame: bytes, update: bytes) -> bool:
        """Do what `receive` does for a frame with an update, if that is what typing makes, as nine
        of ten are, and there is nothing special to it; return whether that was so.
        """
        if self._halted or self.intake.line or not member.session.takes_updates:
            return False
        if self.document.size_bytes + len(update) > self._capacity.bytes_max:
            return False
        try:
            shape = self.document.apply_typed(update)
        except DocumentBroken as error:
            self.holding.turn_away(member, update, self._broken(error))
            return True
        if shape is None:
            return False
        self._counters.updates_applied += 1
        member.unacknowledged += 1
        if not self._turn:
            self._soon(self.flush)
        self._turn.append(Change(update, shape, member, member.who, frame=frame))
        return True

    def permit(self, member: Member, may_write: bool) -> None:
        """Let a member write from now on, or no more."""
        if not may_write:
            self.holding.forget(member)
        member.session.permit(may_write)
        self.send(member, [member.codec.permission(writes=may_write)])
        self.ask(member)

    def catch_up(self, member: Member) -> None:
        """Bring a member up to date whose socket lagged and is read again."""
        if self.ready.is_set() and member in self.members:
            self.answers.catch_up(member, self._clock.monotonic())

    def tick(self) -> None:
        """Do at once what time demands."""
        deque(self.care(), 0)

    def care(self) -> Iterator[None]:
        """Drop stale presence, keep silent members alive, close who does not read; in steps."""
        now = self._clock.monotonic()
        self.attendance.tell(self.awareness.expire(now))
        self.attendance.flush()  # Whoever has heard this needs no other sign of life.
        yield from care(self.members, now, self._keepalive_seconds)
        self.answers.tick()
        for member in self._capacity.fitting(self.document, now):
            self.ask(member)
        if self.holding and not self._halted:
            self.holding.tick()

    def close(self, error: PlaitError) -> None:
        """Close the connection of every member, with a reason."""
        for member in list(self.members):
            member.socket.close(error)
        self.holding.close()

    def unload(self) -> None:
        """Let go of the memory; the room is of no more use."""
        self.holding.close()
        self.document.close()

    # Updates that come from no member

    def apply(
        self, update: bytes, who: str = "", check: Callable[[], None] | None = None
    ) -> "asyncio.Future[Receipt]":
        """Apply what is ready of an update; the future is done when that is committed, and tells
        what became of it. It may raise what this raises.

        Args:
            check: called just before anything changes; may raise a `PlaitError` to prevent it.

        Raises:
            UpdateRefused: it is malformed, or all of it builds upon something that the document
                lacks.
            LimitReached: the document would become too large.
        """
        committed = asyncio.get_running_loop().create_future()
        commitment = Commitment(committed)
        if self.intake.concerns(update):
            self.intake.add(Upload(update, who=who, check=check, commitment=commitment))
            return committed
        if check is not None:
            check()
        self._capacity.check(self.document, update, self._clock.monotonic())
        outcome = self._try(update)
        if outcome.applied is Applied.PENDING:
            raise _not_ready(outcome.missing)
        changed = outcome.applied is Applied.CHANGED
        shadowed = self._shadowed(outcome)
        commitment.receipt = Receipt(changed, len(outcome.rest), outcome.missing, tuple(shadowed))
        self._add(Change(outcome.update, outcome.shape, None, who, changed, changed, commitment))
        return committed

    async def apply_logged(self, row: LoggedUpdate) -> bool:
        """Take in what another writer of the same store committed; return whether it was ready."""
        if self.intake.concerns(row.update):
            upload = Upload(row.update, append=False)
            self.intake.add(upload)
            applied = await upload.done
            return applied is not Applied.PENDING and not (upload.cut and upload.cut.rest)
        outcome = self._try(row.update)
        if outcome.applied is Applied.CHANGED:
            self._add(Change(outcome.update, outcome.shape, append=False))
        return not outcome.rest

    # Other nodes; implements `link.Host`

    @property
    def usable(self) -> bool:
        """Whether the document is there."""
        return self.ready.is_set() and not self.dead

    def take_in(self, update: bytes) -> Outcome:
        """Apply an update that another node stores; a large one is applied later. Raises like
        `apply`.
        """
        if self.intake.concerns(update):
            self.intake.add(Upload(update, append=False))
            return Outcome(Applied.CHANGED, inspect(update), update, update, False)
        outcome = self._try(update, typed=True)
        if outcome.applied is Applied.CHANGED:
            self._add(Change(outcome.update, outcome.shape, append=False))
        return outcome

    def difference(self, state_vector: bytes, bytes_max: int) -> bytes | None:
        """Return what is missed; None if that is more than it should be, or takes long."""
        if self.intake.applying or self._halted or is_large(self.document):
            return None
        try:
            missing = self.document.missing(state_vector)
        except DocumentBroken:
            return None  # Its state is in the store.
        return missing if len(missing) <= bytes_max else None

    # A member's update, and the end of the turn

    def apply_of(self, member: Member, update: bytes) -> None:
        """Apply what is ready of a member's update, and hold the rest. Raises what the member is to
        be closed with.
        """
        if self.intake.concerns(update):
            self.intake.add(Upload(update, member, member.who))
            return
        if self._halted:  # What is applied now is in the next document, or in none.
            self.holding.wait(member, update)
            return
        try:
            if self.document.size_bytes + len(update) > self._capacity.bytes_max:
                self._capacity.check(self.document, update, self._clock.monotonic())
            outcome = self._try(update)
        except ClientError as error:
            self.holding.turn_away(member, update, error)
            return
        if outcome.applied is not Applied.PENDING:
            changed = outcome.applied is Applied.CHANGED
            change = Change(
                outcome.update, outcome.shape, member, member.who, news=changed, append=changed
            )
            shadowed = self._shadowed(outcome)
            self._add_of(member, change, outcome.ready, shadowed)
        if outcome.rest:
            self.holding.hold(member, outcome.rest, outcome.missing)

    def apply_left(self, update: bytes, who: str) -> None:
        """Apply what is ready of an update whose author has left. Raises like `apply`."""
        if self.intake.concerns(update):
            self.intake.add(Upload(update, who=who))
            return
        self._capacity.check(self.document, update, self._clock.monotonic())
        outcome = self._try(update)
        if outcome.applied is Applied.CHANGED:
            self._add(Change(outcome.update, outcome.shape, None, who))

    def _add_of(self, member: Member, change: Change, ready: bytes, shadowed: Runs) -> None:
        """Have what a member sent broadcast, stored and acknowledged, but for what is shadowed.

        Args:
            ready: what was ready of it, as it came.
        """
        self._counters.updates_applied += change.news
        self._counters.updates_duplicate += not change.news
        if shadowed:
            self.holding.shadow(member, shadowed)
            if not change.news:
                change.update = without_clients(ready, {client for client, _, _ in shadowed})
                if not change.update:
                    return
                change.shape = inspect(change.update)
        elif change.update is not ready and change.update != ready:
            change.echo = ready
        member.unacknowledged += 1
        self._add(change)

    def _shadowed(self, outcome: Outcome) -> Runs:
        """Return what the document has with other content than an update."""
        if outcome.misplaced:
            return [(client, clock, clock + 1) for client, clock in outcome.misplaced]
        if not outcome.repeats:
            return []
        try:
            return self.document.shadowed(outcome.ready)
        except DocumentBroken as error:  # Then the clocks are all that is known.
            log.error("room %r: what an update repeats can't be read: %s", self.name, error)
            return []

    def _try(self, update: bytes, *, typed: bool = False) -> Outcome:
        try:
            if typed and (shape := self.document.apply_typed(update)) is not None:
                return Outcome(Applied.CHANGED, shape, update, update, False)
            return self.document.apply(update)
        except DocumentBroken as error:
            raise self._broken(error) from error

    def _broken(self, error: DocumentBroken) -> Refused:
        """Load the document anew; return what the author of the last update is told."""
        log.error("room %r: %s; the document is loaded anew", self.name, error)
        self.rebuild()
        return Refused("the update can't be applied to this document", genuine=True, broke=True)

    def _add(self, change: Change) -> None:
        if not self._turn:
            self._soon(self.flush)
        self._turn.append(change)

    def flush(self) -> None:
        """Send this turn's updates to the other members and to the store's writer."""
        try:
            self.document.settle()
        except DocumentBroken as error:
            log.error("room %r: %s; the document is loaded anew", self.name, error)
        if self.document.unsettled:
            count, self.document.unsettled = self.document.unsettled, 0
            self.holding.take_back(self._turn[-count:])
            del self._turn[-count:]
            if self.ready.is_set():
                self.rebuild()  # which sends what is left of the turn
                return
        turn, self._soon = self._turn, self._call_soon
        if len(turn) > 1:  # More may follow closely.
            turn, self._soon = by_author(turn), self._end_turn
            self._counters.merges += len(turn) == 1
        news = turn if len(turn) == 1 and turn[0].news else [each for each in turn if each.news]
        link = self.link
        if link is not None and link.borrowed.size:
            link.before_commit(turn)
        try:  # The turn stays in place while it is sent: see before_this_turn.
            self.saving.store(turn)
            if link is not None:
                link.turn(turn)
            if news:
                self.answers.turns += 1
                self._broadcast(news)
                if self.answers.follows:
                    self.answers.note(news)
        finally:
            self._turn = []
        if news and self.holding:
            self.holding.came(change.shape.runs for change in news)

    def _broadcast(self, news: Sequence[Change]) -> None:
        members = self.members
        frames: dict[Codec, list[bytes]] = {}
        if len(news) == 1:
            change = news[0]
            author, authors = change.author, None
            updates = [change.update]
            if change.frame and change.author is not None:
                frames[change.author.codec] = [change.frame]
        else:
            author, authors = None, dict.fromkeys(each.author for each in news)
            updates = merged(news)
            self._counters.merges += len(updates) < len(news)
            for each in authors:
                if each is not None and each in members:
                    theirs = [other.update for other in news if other.author is not each]
                    self.send(each, map(each.codec.sync_update, theirs))
        if not frames and sum(map(len, updates)) >= PACED_BYTES:
            readers = [each for each in members if each not in (authors or (author,))]
            self.answers.send_in_turn(readers, updates, self.before_this_turn())
            self._counters.deliveries += len(readers) * len(updates)
            return
        now = self._clock.monotonic()
        sent, others = fan_out(members, author, authors, updates, now, frames)
        self._counters.frames_sent += sent
        self._counters.bytes_sent += sent * len(updates[0])
        self._counters.deliveries += sent + len(others) * len(updates)
        for member, encoded in others:
            self.send(member, encoded)

    # Large updates; implements `intake.Host`

    async def admit(self, upload: Upload, shape: Shape) -> None:
        """Check that a large update does not make the document too large, or too large for here.

        Raises:
            DocumentFull: it would be too large.
        """
        size = len(upload.update)
        document = self.document
        if not document.remote and not self._stays and document.size_bytes + size > REMOTE_BYTES:
            self.rebuild(remote=True)
            return
        if not self._capacity.exceeds(self.document, size) or not self.document.lacks(shape):
            return
        if is_large(self.document):  # That it seems so has to be measured elsewhere.
            await self.answers.exact(self._clock.monotonic())
        else:
            self.document.encode()
        if self._capacity.exceeds(self.document, size):
            raise self._capacity.full()

    def taken_in(self, upload: Upload, cut: Cut, applied: Applied, shadowed: Runs) -> None:
        """Make what was ready of a large update known, and hold the rest."""
        author, commitment = upload.author, upload.commitment
        if author is not None and cut.rest and author in self.members:
            self.holding.hold(author, cut.rest, cut.missing)
        if applied is Applied.PENDING:
            if commitment is not None:
                raise _not_ready(cut.missing)
            return
        change = Change.of(upload, cut, applied is Applied.CHANGED)
        if commitment is not None:
            commitment.receipt = Receipt(change.news, len(cut.rest), cut.missing, tuple(shadowed))
        if author is None:
            self._add(change)
        else:
            self._add_of(author, change, cut.ready or upload.update, shadowed)

    def not_taken_in(self, upload: Upload, error: PlaitError) -> None:
        """Tell who sent a large update that it failed."""
        author = upload.author
        if upload.commitment is not None:
            upload.commitment.fail(error)
        elif author is None:
            log.error("room %r: a row of the log: %s", self.name, error)
        elif author in self.members:
            self.holding.turn_away_or_close(author, upload.update, error)

    # When pycrdt fails

    def rebuild(self, *, remote: bool = False) -> None:
        """Take a fresh document from the store; if `remote`, it moves to another process."""
        self._halted = True
        self.ready.clear()
        self.answers.drop()
        self.flush()

        def rebuilt(loaded: "asyncio.Future[Document]") -> None:
            failed = loaded.cancelled() or loaded.exception() is not None
            if remote and failed:
                self._stays = True
            elif failed:
                self.dead = True
                self.close(RoomUnavailable("the document can't be loaded now; connect again"))
            else:
                self.document.close()
                self.document = loaded.result()
            self._halted = False
            self.ready.set()
            if self.link is not None:
                self.link.hello()  # Others may have told of something meanwhile.
            self.holding.retry()
            for member in list(self.members):
                if member.socket.outbox.lagging_since is None:
                    self.catch_up(member)

        self._source.document(remote=remote).add_done_callback(rebuilt)

    # Sending

    def ask(self, member: Member) -> None:
        if not member.session.may_write:
            return
        if self.intake.applying:
            # Not what could go again: the member would not send it, and nobody else might.
            state_vector = encode_state_vector(self.settled_clocks())
        else:
            state_vector = self.document.state_vector()
        self.send(member, [member.codec.sync_step1(state_vector)])

    def send(
        self, member: Member, frames: Iterable[bytes], have: dict[int, int] | None = None
    ) -> bool:
        """Send frames of sync; return whether all arrive. If not, a diff will, later.

        Args:
            have: clocks of what the member has without the last of the frames, if it has not got
                all that others have.
        """
        now = self._clock.monotonic()
        for frame in frames:
            if member.waits_for_state or not member.send(frame, now):
                if member.lagging_from is None:
                    self._counters.lagged += 1
                    member.lagging_from = dict(have) if have else self.before_this_turn()
                return False
            self._counters.send(1, len(frame))
        return True

    def settled_clocks(self) -> dict[int, int]:
        """Return the document's clocks, less the part of an update that it has got so far."""
        clocks = self.document.clocks()
        self.intake.lower(clocks)
        return clocks

    def before_this_turn(self) -> dict[int, int]:
        """Return clocks that everybody has been sent: those of the document, less what this turn
        brought.
        """
        clocks = self.settled_clocks()
        for change in self._turn:
            lower(clocks, change.shape.runs)
        return clocks


def _not_ready(missing: Sequence[Missing]) -> Refused:
    return Refused(f"nothing of the update can be applied: {in_words(missing)}; send a whole state")
