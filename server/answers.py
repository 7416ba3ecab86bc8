"""Answer who asks for a room's document, without encoding it again and again.

Encoding the whole state takes pycrdt 4 ms a megabyte, and proving it up to 30. So:

1. A state is encoded once and kept together with its *tail*, the updates that were broadcast since.
   Whoever wants the whole is sent the state, then the tail: a join storm costs one encoding, even
   while others type.
2. The state of a large document is encoded in another process, from the store and what the writer
   still holds. Who asks meanwhile waits, and is treated like a member that lags: it is not sent
   updates, which it could not use without what they build upon, but it is owed them. When the state
   is there it gets that and the tail, and from then on what everybody gets. If its socket does not
   take all of it at once, it is brought up to date by a diff from the state's clocks, as any slow
   reader is.
3. A member that lacks little gets a diff. One that lacks more gets the whole: a superset is right
   for everybody, and one encoding serves all of them.
4. While a large update is being applied, nobody is shown the document with a part of it
   (`plait.server.intake`).
5. What takes long over a slow line goes in portions (`plait.server.lines`).
6. The kept state goes when nobody has asked for it for a while, or when all rooms' states take too
   much memory.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from plait.server import intake, lines
from plait.server.apart import run_apart_now
from plait.server.awareness import Awareness
from plait.server.cutting import CUT_SECONDS
from plait.server.document import Document
from plait.server.errors import DocumentBroken, RoomUnavailable
from plait.server.intake import Intake
from plait.server.kept_state import Broadcast, Clocks, Kept, State, Tail, problem, too_long
from plait.server.limits import Limits
from plait.server.lines import Lines
from plait.server.member import Member
from plait.server.remote import RemoteDocument
from plait.server.updates import difference
from plait.server.wire.messages import Codec
from plait.server.wire.state_vector import EMPTY as EMPTY_STATE_VECTOR
from plait.server.wire.state_vector import decode_state_vector, encode_state_vector

log = logging.getLogger(__name__)

INLINE_BYTES = 512 << 10
"""Documents up to here are encoded at once: 2 ms, with the proof up to 15."""
DIFF_BYTES = 2 << 20
"""A diff up to here is made at once: 5 to 10 ms."""
LOSSY_DIFF_BYTES = 128 << 10
"""The same where values have to be put back into it (`wire.stand_ins`)."""
KEPT_BYTES_MIN = 32 << 10
"""A smaller state is encoded anew each time: it takes less than a millisecond."""
PACED_BYTES = 1 << 20
"""What is larger than this goes to one member after another, with pauses."""
PACED_BYTES_PER_SECOND = 200 << 20
"""How fast."""
IDLE_SECONDS = 60.0
"""How long a state is kept that nobody asks for."""


class _Owed(NamedTuple):
    """Frames that a member is to be sent when its turn comes."""

    frames: Sequence[bytes]
    before: Clocks
    after: Clocks
    """Of what it has without them, and with them."""
    turn: int
    """When everybody else was sent them, by the number of turns."""


class Host(Protocol):
    """The room, as far as it is needed here."""

    name: str
    document: Document
    members: dict[Member, None]
    awareness: Awareness
    ready: asyncio.Event
    intake: Intake

    def settled_clocks(self) -> dict[int, int]:
        """Return the document's clocks without such a part."""

    def flush(self) -> None:
        """Give all that was applied to the members and the writer."""

    def send(
        self, member: Member, frames: Iterable[bytes], have: dict[int, int] | None = None
    ) -> bool:
        """Send frames; if not all arrive, remember what the member has."""

    def catch_up(self, member: Member) -> None:
        """Bring a member up to date, if that is possible now."""

    def rebuild(self) -> None:
        """Load the document anew."""


class Source(intake.Source, lines.Source, Protocol):
    """Where a room gets what takes time."""

    def document(self, *, remote: bool = False) -> "asyncio.Future[Document]":
        """Load the document anew, with the updates that are not committed yet; into another
        process, if it is large or that is asked for.
        """

    def state(self) -> "asyncio.Future[State]":
        """Encode the document in another process."""

    def missing(self, state_vector: bytes) -> "asyncio.Future[bytes]":
        """Return from the log what a holder of the state vector misses."""


class Answers:
    """What a room answers to those who ask for its document."""

    def __init__(
        self, room: Host, source: Source, limits: Limits, clock: Callable[[], float]
    ) -> None:
        self._room = room
        self._lines = Lines(room, source, limits, clock, lambda: self.turns)
        self._source = source
        self._kept: Kept | None = None
        self._flight: asyncio.Future[State] | None = None
        """The state that is being encoded."""
        self._coming: Tail | None = None
        """The tail of that."""
        self._waiting: dict[Member, _Owed | None] = {}
        """Members that wait for their turn: for frames, or for an answer to their question."""
        self._pacing = self._again = False
        self._served: Member | None = None
        """The member whose turn it is."""
        self.turns = 0
        """Turns of the room that brought something new."""
        self.asked_at = 0.0
        """When somebody asked last, in the room's time."""

    @property
    def size(self) -> int:
        """The memory that the kept state takes."""
        return self._lines.size + (self._kept.size if self._kept is not None else 0)

    @property
    def follows(self) -> bool:
        """Whether broadcasts have to be noted."""
        return self._kept is not None or self._coming is not None

    def note(self, broadcasts: Iterable[Broadcast]) -> None:
        """Take down what was broadcast."""
        tails = [kept.tail] if (kept := self._kept) is not None else []
        tails += [self._coming] if self._coming is not None else []
        for each in broadcasts:
            for tail in tails:
                tail.add(each.update, mergeable=each.mergeable)
        if kept is not None and kept.useless:
            self._kept = None

    def drop(self) -> None:
        """Forget the kept state."""
        self._kept = None
        self._lines.drop()

    def forget(self, member: Member) -> None:
        """Answer a member no more."""
        self._waiting.pop(member, None)
        self._lines.forget(member)

    def tick(self) -> None:
        """Look after what is on its way."""
        self._lines.tick()

    # Members

    def send_missing(self, member: Member, state_vector: bytes, now: float) -> None:
        """Send a member what it misses, now or as soon as possible.

        Raises:
            DecodeError: the state vector is malformed.
        """
        clocks = decode_state_vector(state_vector)
        if member in self._lines:
            return  # The answer is on its way.
        if member.socket.outbox.lagging_since is not None:
            member.lagging_from = clocks
            return
        room = self._room
        whole = self._lacks_much(clocks)
        if whole and self._kept is not None and not member.unacknowledged:
            if len(self._kept.state.encoded) < PACED_BYTES or member is self._served:
                self._send_kept(member, self._kept, clocks, now)
            else:
                self._wait(member, clocks)
                self.answer_waiting()
        elif room.intake.applying or (whole and is_large(room.document)):
            self._postpone(member, clocks, now)
        else:
            self._send_now(member, state_vector, now)

    def catch_up(self, member: Member, now: float) -> None:
        """Send a member what it was not sent while its socket lagged or it waited for an answer."""
        if self._waiting.get(member) is not None:
            return  # Its turn will come.
        if member in self._lines:
            self._lines.go_on(member)
            return
        # The diff holds the member's own updates as well, which it must not see before they are
        # committed.
        if member.lagging_from is not None and not member.unacknowledged:
            state_vector = encode_state_vector(member.lagging_from)
            member.lagging_from = None
            self.send_missing(member, state_vector, now)
        if member.missed_presence:
            member.missed_presence = False
            member.send_presence(self._room.awareness.states(), now)

    def send_in_turn(
        self, members: Iterable[Member], updates: Sequence[bytes], before: Clocks
    ) -> None:
        """Send members large updates, each when its turn has come.

        Args:
            before: clocks of what everybody has without them.
        """
        frames: dict[Codec, list[bytes]] = {}
        after = self._room.settled_clocks()
        for member in members:
            if member in self._waiting:
                continue  # It gets more than this.
            if member.lagging_from is not None or member.socket.outbox.lagging_since is not None:
                member.lagging_from = member.lagging_from or dict(before)
                continue  # It gets a diff when it has read.
            codec = member.codec
            if codec not in frames:
                frames[codec] = [codec.sync_update(update) for update in updates]
            self._wait(member, dict(before))
            self._waiting[member] = _Owed(frames[codec], before, after, self.turns)
        self.answer_waiting()

    def answer_waiting(self) -> None:
        """Answer those that wait, one after another, as far as that is possible now.

        The kernel copies what is written. 20 MB for each of 20 members, all at once, would take
        longer than an edit in another room may.
        """
        self._again = True
        if self._waiting and not self._pacing:
            self._pacing = True
            self._source.start(self._answer_in_turn())

    async def _answer_in_turn(self) -> None:
        try:
            while self._again:
                self._again = False
                for member in list(self._waiting):
                    if member in self._waiting:
                        await asyncio.sleep(self._serve(member) / PACED_BYTES_PER_SECOND)
        finally:
            self._pacing = False

    def _serve(self, member: Member) -> int:
        """Send a member what it waits for, if that is possible; return about how much it was."""
        room = self._room
        owed = self._waiting[member]
        if owed is None:
            self._served = member
            room.catch_up(member)
            self._served = None
            kept = self._kept
            return len(kept.state.encoded) if kept and member not in self._waiting else 0
        if member.socket.outbox.lagging_since is not None:
            self._answered(member)  # It is brought up to date when it has read.
            return 0
        self._answered(member)
        has, member.lagging_from = member.lagging_from or {}, None
        # Own updates were acknowledged meanwhile, which it was not told.
        own = {client: clock for client, clock in has.items() if clock < owed.before[client]}
        if room.send(member, owed.frames, has) and (own or owed.turn != self.turns):
            member.lagging_from = {**owed.after, **own}
            room.catch_up(member)
        return sum(map(len, owed.frames))

    def _send_kept(self, member: Member, kept: Kept, has: Clocks, now: float) -> None:
        if kept.outgrown:
            if not is_large(self._room.document):
                self._send_now(member, EMPTY_STATE_VECTOR, now)
                return
            self._encode_apart()
        self.asked_at = now
        state, turn = kept.state, -1 if kept.tail.size else self.turns
        if self._lines.deliver(member, state.encoded, has, state.clocks, turn, whole=True):
            self._waiting.pop(member, None)
            return
        self._answered(member)
        self._room.send(member, kept.frames(member.codec), state.clocks)

    def _send_now(self, member: Member, state_vector: bytes, now: float) -> None:
        room = self._room
        if isinstance(room.document, RemoteDocument):
            self._answered(member)
            self._send_later(member, state_vector, room.document)
            return
        try:
            missing = room.document.missing(state_vector)
        except DocumentBroken as error:
            log.error("room %r: %s; its state is taken from the log", room.name, error)
            self._send_from_log(member, state_vector)
            return
        self._answered(member)
        if state_vector == EMPTY_STATE_VECTOR and len(missing) >= KEPT_BYTES_MIN:
            self.asked_at = now
            self._kept = Kept(State(missing, room.settled_clocks()), Tail())
            room.send(member, self._kept.frames(member.codec))
        else:
            self._send_diff(member, missing, state_vector, room.settled_clocks(), self.turns)

    def _send_diff(
        self, member: Member, missing: bytes, state_vector: bytes, after: Clocks, turn: int = -1
    ) -> bool:
        """Send a diff of this turn; return whether it will arrive. Who has it has the clocks."""
        has = decode_state_vector(state_vector)
        frames = [member.codec.sync_step2(missing)]
        deliver = self._lines.deliver
        return deliver(member, missing, has, after, turn) or self._room.send(member, frames)

    def _send_later(self, member: Member, state_vector: bytes, document: RemoteDocument) -> None:
        """Send a diff when it is there. Meanwhile the member is sent what happens, which may build
        upon the diff; clients hold such updates, and it is a matter of milliseconds.
        """

        after = self._room.settled_clocks()

        async def send() -> None:
            try:
                missing = await self._difference(document, state_vector)
            except DocumentBroken:
                if member in self._room.members:  # The next document answers.
                    self._owe(member, decode_state_vector(state_vector))
                    self._room.catch_up(member)
                return
            if member not in self._room.members:
                return
            if member in self._lines or not self._send_diff(member, missing, state_vector, after):
                self._owe(member, decode_state_vector(state_vector))

        self._source.start(send())

    async def _difference(self, document: RemoteDocument, state_vector: bytes) -> bytes:
        try:
            return await document.difference(state_vector)
        except DocumentBroken as error:
            if self._room.document is document and self._room.ready.is_set():
                log.error("room %r: %s; the document is loaded anew", self._room.name, error)
                self._room.rebuild()
            raise

    def _owe(self, member: Member, clocks: dict[int, int]) -> None:
        """Remember that a member has no more than this, whatever it was sent since."""
        later = member.lagging_from or clocks
        member.lagging_from = {
            client: min(clock, clocks.get(client, 0)) for client, clock in later.items()
        }

    def _send_from_log(self, member: Member, state_vector: bytes) -> None:
        def loaded(missing: "asyncio.Future[bytes]") -> None:
            if missing.cancelled() or missing.exception() is not None:
                member.socket.close(RoomUnavailable("the document can't be loaded now"))
            elif member in self._room.members:
                self._answered(member)
                self._send_diff(member, missing.result(), state_vector, after)

        after = self._room.settled_clocks()
        self._source.missing(state_vector).add_done_callback(loaded)

    def _postpone(self, member: Member, clocks: dict[int, int], now: float) -> None:
        self._wait(member, clocks)
        self.asked_at = now
        # One with updates that are not committed waits for them: it must not see them before.
        own = self._kept is not None and member.unacknowledged
        if not self._room.intake.applying and not own:
            self._encode_apart()

    def _wait(self, member: Member, clocks: Clocks) -> None:
        member.waits_for_state = True
        member.lagging_from = clocks
        self._waiting.setdefault(member, None)

    def _answered(self, member: Member) -> None:
        member.waits_for_state = False
        self._waiting.pop(member, None)

    def _lacks_much(self, clocks: dict[int, int]) -> bool:
        """Whether the whole state is to be sent rather than a diff."""
        if not clocks:
            return True
        document = self._room.document
        if not is_large(document):
            return False
        known = document.clocks()
        total = sum(known.values())
        has = sum(min(clock, known.get(client, 0)) for client, clock in clocks.items())
        estimate = document.size_bytes * (total - has) / total if total else 0.0
        return estimate > (LOSSY_DIFF_BYTES if document.lossy else DIFF_BYTES)

    # The state

    async def read(self, state_vector: bytes, now: float) -> bytes:
        """Return what a holder of a state vector misses, or more; everything that was applied when
        this was called is in it.

        Raises:
            DecodeError: the state vector is malformed.
            StoreError, PlaitError: the state can't be had.
        """
        clocks = decode_state_vector(state_vector)
        await self._room.intake.whole()
        document = self._room.document
        if not (self._lacks_much(clocks) and is_large(document)):
            if isinstance(document, RemoteDocument):
                return await self._difference(document, state_vector)
            try:
                return document.missing(state_vector)
            except DocumentBroken as error:
                log.error("room %r: %s; its state is taken from the log", self._room.name, error)
                return await self._source.missing(state_vector)
        state = await self.exact(now)
        if not clocks:
            return state.encoded
        return await run_apart_now(difference, CUT_SECONDS, state.encoded, state_vector)

    async def exact(self, now: float) -> State:
        """Return a state with everything that was applied when this was called.

        Raises:
            StoreError, PlaitError: it can't be had.
        """
        self._room.flush()
        self.asked_at = now
        while self._flight is not None and self._coming is not None and self._coming.size:
            await asyncio.wait((self._flight,))
        if self._kept is not None and not self._kept.tail.size:
            return self._kept.state
        return await asyncio.shield(self._encode_apart())

    def _encode_apart(self) -> "asyncio.Future[State]":
        """Have the state encoded in another process, unless that is under way."""
        if self._flight is not None:
            return self._flight
        room = self._room
        room.flush()
        at_least = room.settled_clocks()
        self._coming = Tail()
        self._flight = flight = asyncio.get_running_loop().create_future()
        flight.add_done_callback(lambda done: done.cancelled() or done.exception())

        def encoded(outcome: "asyncio.Future[State]") -> None:
            tail, self._coming, self._flight = self._coming, None, None
            assert tail is not None
            error: BaseException | None
            if outcome.cancelled():
                error = RoomUnavailable("the document can't be encoded now")
            elif (error := outcome.exception()) is None:
                error = problem(outcome.result(), at_least)
            if error is not None:
                flight.set_exception(error)
                self._failed(error)
                return
            self._take(outcome.result(), tail)
            flight.set_result(outcome.result())

        self._source.state().add_done_callback(encoded)
        return flight

    def _take(self, state: State, tail: Tail) -> None:
        self._room.document.size_bytes = len(state.encoded) + tail.size
        if not too_long(tail, state):
            self._kept = Kept(state, tail)
        self.answer_waiting()

    def _failed(self, error: BaseException) -> None:
        log.error("room %r: its state can't be encoded: %s", self._room.name, error)
        for member, owed in list(self._waiting.items()):
            if owed is None:
                self._answered(member)
                member.socket.close(RoomUnavailable("the document can't be loaded now"))


def is_large(document: Document) -> bool:
    """Whether a document is too large to be encoded at once."""
    return document.remote or document.size_bytes > INLINE_BYTES
