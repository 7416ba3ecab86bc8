"""A room without sockets, loop or store: every step is taken by the test."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from plait.persistence import StoreError, Update
from plait.server.cutting import Cut
from plait.server.document import Document
from plait.server.errors import PlaitError
from plait.server.kept_state import State
from plait.server.limits import Limits
from plait.server.member import Member
from plait.server.outbox import Outbox
from plait.server.room import Room
from plait.server.wire.messages import AwarenessUpdate, Message
from plait.server.wire.portions import portions
from plait.server.wire.presence import Entry, decode_presence, encode_presence
from plait.server.wire.update import Id
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support.clock import FakeClock


class HeldLog:
    """A writer that commits when the test says so. Unrealistic: it never groups or retries."""

    def __init__(self, after: Callable[[], None] = lambda: None) -> None:
        self.rows: list[Update] = []
        self._after = after
        self._waiting: list[
            tuple[int, Callable[[Sequence[int]], None], Callable[[StoreError], None] | None]
        ] = []

    def append(
        self,
        updates: Sequence[Update],
        done: Callable[[Sequence[int]], None],
        failed: Callable[[StoreError], None] | None = None,
    ) -> None:
        """Take note of updates."""
        self.rows += updates
        self._waiting.append((len(updates), done, failed))

    def commit(self) -> None:
        """Commit everything."""
        waiting, self._waiting = self._waiting, []
        for count, done, _ in waiting:
            done(range(count))
        self._after()

    def commit_first(self) -> None:
        """Commit what was appended first, alone."""
        count, done, _ = self._waiting.pop(0)
        done(range(count))
        self._after()

    def fail(self, error: StoreError) -> None:
        """Give up on everything."""
        waiting, self._waiting = self._waiting, []
        for _, _, failed in waiting:
            assert failed is not None
            failed(error)


class HeldSource:
    """Loads documents when the test says so."""

    def __init__(self) -> None:
        self.documents: list[asyncio.Future[Document]] = []
        self.differences: list[tuple[bytes, asyncio.Future[bytes]]] = []
        self.states: list[asyncio.Future[State]] = []
        self.cuts: list[tuple[bytes, dict[int, int], asyncio.Future[Cut]]] = []
        self.reserved = 0
        self.reserved_max = 1 << 30

    def document(self, *, remote: bool = False) -> "asyncio.Future[Document]":
        """Return a document that is yet to come."""
        self.documents.append(asyncio.get_running_loop().create_future())
        return self.documents[-1]

    def missing(self, state_vector: bytes) -> "asyncio.Future[bytes]":
        """Return a difference that is yet to come."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.differences.append((state_vector, future))
        return future

    def state(self) -> "asyncio.Future[State]":
        """Return a state that is yet to come."""
        self.states.append(asyncio.get_running_loop().create_future())
        return self.states[-1]

    def portions(
        self, state: bytes, size: int, known: Mapping[int, int], whole: bool
    ) -> "asyncio.Future[list[bytes]]":
        """Return portions, which are there at once."""
        future: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        future.set_result(portions(state, size, known, whole=whole))
        return future

    def cut(
        self, update: bytes, known: dict[int, int], strangers: frozenset[Id]
    ) -> "asyncio.Future[Cut]":
        """Return a cut update that is yet to come."""
        future: asyncio.Future[Cut] = asyncio.get_running_loop().create_future()
        self.cuts.append((update, known, future))
        return future

    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Future[None]":
        """Run a coroutine."""
        return asyncio.ensure_future(work)

    def reserve(self, length: int) -> bool:
        """Take so many bytes, if there is room for them."""
        self.reserved += length
        return self.reserved <= self.reserved_max

    def release(self, length: int) -> None:
        """Give them back."""
        self.reserved -= length


class RecordingSocket:
    """A socket that keeps what it is sent."""

    def __init__(self, limits: Limits) -> None:
        self.outbox = Outbox(limits, lambda: None)
        self.closed_with: PlaitError | None = None

    def close(self, error: PlaitError) -> None:
        """Keep the first reason."""
        self.closed_with = self.closed_with or error


class Client:
    """A member of a room, seen from its socket."""

    def __init__(self, rig: "Rig") -> None:
        self._rig = rig
        self.socket = RecordingSocket(rig.limits)
        self.member = Member(self.socket, YWEBSOCKET, rig.limits, rig.clock.monotonic())
        rig.room.join(self.member)

    def send(self, message: Message) -> None:
        """Send a message to the room."""
        self._rig.room.receive(self.member, message)

    def received(self) -> list[Message]:
        """Return the messages that arrived since the last call."""
        messages = []
        while (frame := self.socket.outbox.take()) is not None:
            messages.append(YWEBSOCKET.decode(frame))
        return messages

    def read(self) -> list[Message]:
        """Return what arrived, and let the room bring it up to date if it lagged."""
        messages = self.received()
        if self.socket.outbox.drained() or self.member.missed_presence:
            self._rig.room.catch_up(self.member)
        return messages + self.received()

    def leave(self) -> None:
        """Leave the room."""
        self._rig.room.leave(self.member)


class Rig:
    """A room and all that it needs."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.clock = FakeClock()
        self.log = HeldLog(self.turn)
        self.source = HeldSource()
        self._soon: list[Callable[[], None]] = []
        self.room = Room(
            "room",
            Document(self.limits),
            self.log,
            self.limits,
            source=self.source,
            clock=self.clock,
            call_soon=lambda call: self._soon.append(call),
        )

    def client(self) -> Client:
        """Return a new member that has read its greeting."""
        client = Client(self)
        client.received()
        return client

    def turn(self) -> None:
        """End the turn of the event loop."""
        soon, self._soon = self._soon, []
        for call in soon:
            call()


def told(client: int, clock: int, state: bytes | None = b"{}") -> AwarenessUpdate:
    """Return a message that tells of one client's presence."""
    return AwarenessUpdate(encode_presence([Entry(client, clock, state)]))


def presence(message: Message) -> list[Entry]:
    """Return what a message tells of presence."""
    assert isinstance(message, AwarenessUpdate)
    return decode_presence(message.update, 100)
