"""A room with several members whose frames may be anything, and what must be so nevertheless.

Unrealistic in that the store commits when it is told to, and that a document which failed is loaded
from the rows of that store at once.
"""

import asyncio
import logging
from typing import Any

from plait.server.connection import Connection
from plait.server.document import Applied, Document
from plait.server.errors import DocumentBroken, UpdateRefused
from plait.server.limits import Limits
from plait.server.wire.messages import AwarenessUpdate, SyncStep1, SyncStep2, SyncUpdate
from plait.server.wire.presence import decode_presence
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.fuzz.target import Finding, expect
from tests.fuzz.updates import alike
from tests.support.rooms import Rig

LIMITS = Limits(
    nested_types_max=50,
    awareness_states_max=4,
    awareness_tombstones_max=8,
    awareness_entries_max=50,
    pending_bytes_max=2000,
    document_bytes_max=20_000,
    outbox_bytes_high=4000,
    outbox_bytes_low=500,
)
"""Small ones, so that nonsense reaches them."""

EXPECTED = "; the document is loaded anew"
REFUSALS = {4400, 4422, 4429}
"""Codes with which nonsense may be answered."""


class Errors(logging.Handler):
    """Keeps what the server logs as an error and has no cause that is known."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        text = record.getMessage()
        if record.exc_info or EXPECTED not in text:
            self.found.append(logging.Formatter().format(record))


ERRORS = Errors()
_server = logging.getLogger("plait.server")
_server.addHandler(ERRORS)


class Guest:
    """A member: its connection, and what it has been sent."""

    def __init__(self, rig: Rig) -> None:
        self.connection = Connection(rig.limits, lambda: None, rig.clock.monotonic)
        self.connection.join(rig.room, YWEBSOCKET)
        self.sent: list[bytes] = []
        """Updates."""
        self.asked = 0
        """How often it was asked for what it has."""

    @property
    def code(self) -> int | None:
        """With which code it is closed, if it is."""
        return self.connection.closing.code if self.connection.closing else None

    def read(self) -> None:
        """Read all that there is for it."""
        while (frame := self.connection.take()) is not None:
            if frame[:1] == b"\x02":
                continue  # It is told why its edits are not accepted.
            match YWEBSOCKET.decode(frame):
                case SyncStep2(update) | SyncUpdate(update):
                    self.sent.append(update)
                case SyncStep1():
                    self.asked += 1
                case AwarenessUpdate(update):
                    decode_presence(update, 1000)

    def replica(self) -> Document:
        """Return the document that it has, if it has sent nothing itself: what it was sent builds
        only upon what it was sent before.
        """
        made = Document(Limits())
        for update in self.sent:
            expect(made.apply(update)[0] is not Applied.PENDING, "an update came too early")
        return made


class Gathering:
    """A room, its guests, and one more who only listens. What liars are sent, who tell different
    things of one struct, is nobody's concern; what the listener is sent has to be the document.
    """

    def __init__(self, guests: int, limits: Limits = LIMITS) -> None:
        self.rig = Rig(limits)
        self.guests = [Guest(self.rig) for _ in range(guests + 1)]
        self.listener = self.guests[-1]
        """One who sends nothing."""
        self.broken = False
        """Whether pycrdt failed."""
        ERRORS.found.clear()

    async def receive(self, number: int, frame: bytes) -> None:
        """Give the room a frame of a guest."""
        connection = self.guests[number].connection
        await self.settle()
        expect(not connection.waiting, "a room does not come back")
        connection.receive(frame)

    async def turn(self) -> None:
        """End a turn of the loop."""
        self.rig.turn()
        await self.settle()

    async def commit(self) -> None:
        """Have the store commit what it was given."""
        await self.turn()
        self.rig.log.commit()
        await self.settle()

    async def settle(self) -> None:
        """Load the document anew, if pycrdt failed."""
        source = self.rig.source
        for _ in range(20):
            pending = [each for each in source.documents if not each.done()]
            expect(not source.cuts and not source.states, "a small document is taken for large")
            for each in pending:
                self.broken = True
                each.set_result(self.loaded())
            for state_vector, future in source.differences:
                if not future.done():
                    future.set_result(self.loaded().missing(state_vector))
            await asyncio.sleep(0)
            if self.rig.room.ready.is_set() and not pending:
                return
            self.rig.turn()
        raise Finding("the document is broken again and again")

    def loaded(self) -> Document:
        """Return the document that the log makes."""
        document = Document(self.rig.limits)
        for row in self.rig.log.rows:
            try:
                document.apply(row.update)
            except (UpdateRefused, DocumentBroken) as error:
                raise Finding(f"the log can't be loaded: {error}") from error
        return document

    async def end(self) -> None:
        """Commit and read everything, and check that all who are left have the same."""
        for _ in range(3):
            await self.commit()
            for guest in self.guests:
                guest.read()
        for guest in self.guests:
            expect(guest.code is None or guest.code in REFUSALS, f"closed with {guest.code}")
        expect(not ERRORS.found, "\n".join(ERRORS.found))
        room = self.rig.room
        logged = self.loaded()
        expect(alike(logged, room.document), "the log is not the document")
        left = [guest for guest in self.guests if guest.code is None]
        expect(self.listener in left, "one who says nothing is closed")
        expect(len(room.members) == len(left), "a member has no socket")
        late = Guest(self.rig)
        late.connection.receive(YWEBSOCKET.sync_step1(b"\x00"))
        await self.turn()
        late.read()
        for guest in (self.listener, late):
            replica = guest.replica()
            expect(replica.clocks() == room.document.clocks(), "a member has another state")
            expect(alike(replica, room.document), "a member has other content")
        members = {room.awareness.owner(entry.client) for entry in room.awareness.states()}
        expect(members <= {*room.members}, "somebody is present who has left")


_loop: asyncio.AbstractEventLoop | None = None


def run(work: Any) -> Any:
    """Run a coroutine to its end, in a loop that is made once."""
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
    return _loop.run_until_complete(work)
