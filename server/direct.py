"""A socket without tasks: messages go from its frames to the connection, and from rooms to the
kernel, within one call each.

Used where the server offers `plait.server.handover`; elsewhere `plait.server.pump` does the same
with two tasks a socket. What those tasks would wait for is done here by being called:

1. A frame for a client is written at once as long as the transport takes it. When it does not
   (`pause_writing`), frames are queued in the outbox, which bounds them, until it does again.
2. A message from a client is handled at once. If it can't be (the store takes no more, the room
   loads its document anew), or after a good many in a row, the socket is not read any more; what
   was read already waits. All who have sent many share a small part of each turn of the loop
   (`plait.server.turns`), so that a flood of theirs makes nobody wait who types.
3. A client that has been silent is pinged, and cut off if it does not answer. One timer does this
   for all sockets, in turns (`Sockets.tick`), instead of one a socket.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from plait.server.connection import Connection
from plait.server.errors import MessageTooBig, PlaitError, RoomUnavailable, ServerStopping
from plait.server.framed import SHORT_BYTES_MAX, FramedSocket
from plait.server.hub import Hub
from plait.server.leases import Lease
from plait.server.limits import Limits
from plait.server.outbox import FAST_BYTES_MAX, Outbox
from plait.server.pump import Visit
from plait.server.turns import ration
from plait.server.wire.frames import (
    FAST_FIRST,
    FAST_SECOND,
    PING,
    apply_mask,
    framed,
    header,
)
from plait.server.wire.messages import Codec

log = logging.getLogger(__name__)

PING_SECONDS: Final = 30
"""How long a client may be silent before it is asked whether it is there."""
ASKED_A_TURN: Final = 64
"""Sockets that are pinged in one turn of the loop: up to a millisecond."""
PINGS_MAX: Final = 2
"""Pings that may go unanswered before it counts as gone. It may be busy with a large document."""

AT_ONCE_UNITS: Final = 8
"""Messages that are handled at once of a client that has sent several; what comes beyond that has
to wait for its turn.
"""
UNIT_BYTES: Final = 4096
"""Long messages count for more, by this measure."""
SLOW_BYTES: Final = 256 << 10
"""What has to come of a long message in `PING_SECONDS`."""
FLOOD_UNITS: Final = 2
"""What is handled then: 0.05 ms."""
JOINED_BYTES: Final = 256 << 10
"""Longer messages are put together in a thread."""


class DirectOutbox(Outbox):
    """An outbox that writes to the transport, and queues only what the transport does not take."""

    __slots__ = ("_asked", "_receipts", "_unwritten", "_write", "_write_buffer_size", "_writelines")

    def __init__(self, limits: Limits, wake: Callable[[], None]) -> None:
        super().__init__(limits, wake)
        self._asked = self._unwritten = 0
        self._receipts: dict[bytes, Callable[[], None]] = {}
        """What to call when a ping is answered, by what the ping holds."""
        self._write: Callable[[bytes], object] = _nothing_left
        self._writelines: Callable[[Sequence[bytes]], object] = _nothing_left
        self._write_buffer_size: Callable[[], int] = int

    def connect(self, transport: asyncio.Transport) -> None:
        """Begin to write to a transport."""
        self._write = self.fast = transport.write
        self._writelines = transport.writelines
        self._write_buffer_size = transport.get_write_buffer_size

    def disconnect(self) -> None:
        """Let go of the transport, which refers back: it is gone."""
        self.fast = None
        self._receipts.clear()
        self._write = self._writelines = _nothing_left
        self._write_buffer_size = int

    def block(self) -> None:
        """Queue from now on."""
        self.fast = None

    def unblock(self) -> None:
        """Write again; nothing may be queued."""
        self.fast = self._write

    def push(self, frame: bytes, now: float) -> bool:
        """Write a frame, or queue it unless lagging; return whether the reader will get it."""
        if self.fast is None:
            return super().push(frame, now)
        self.write(frame)
        return True

    def push_presence(self, frame: bytes, now: float) -> bool:
        """Write a frame, or queue it unless much else is queued."""
        if self.fast is None:
            return super().push_presence(frame, now)
        self.write(frame)
        return True

    def write(self, frame: bytes) -> None:
        """Give a frame to the transport."""
        if len(frame) <= FAST_BYTES_MAX:
            self._write(framed(frame))
        else:
            self._writelines((header(len(frame)), frame))

    def ask_receipt(self, arrived: Callable[[], None]) -> bool:
        """Have something called when what was written has arrived: a client, or its browser,
        answers pings in the order in which it gets what is sent.
        """
        self._asked += 1
        name = self._asked.to_bytes(4)
        self._receipts[name] = arrived
        self._write(framed(name, PING))
        return True

    def answered(self, name: bytes) -> None:
        """Learn that a ping was answered."""
        arrived = self._receipts.pop(name, None)
        if arrived is not None:
            arrived()

    def overdue(self, now: float) -> bool:
        """Whether the reader had its time to catch up and did not. One that is still taking a large
        document has more time.
        """
        if self.lagging_since is not None:
            unwritten = self._write_buffer_size()
            if unwritten < self._unwritten:
                self.lagging_since = now
            self._unwritten = unwritten
        return super().overdue(now)


def _nothing_left(data: object) -> None:
    """Write to nobody."""


class Sockets:
    """The direct sockets of a node, for what time demands of them."""

    def __init__(self) -> None:
        self._slots: list[set[DirectSocket]] = [set() for _ in range(PING_SECONDS)]
        self._next = 0
        self._ticks = 0
        self.held = 0
        """Bytes of messages that have not come whole yet."""

    def later(self, work: Callable[[], None], source: str) -> None:
        """Handle what somebody has sent who has sent much, when their turn has come."""
        ration(asyncio.get_running_loop()).add(work, source)

    def add(self, socket: "DirectSocket") -> None:
        """Look after a socket. Each slot gets as many as the others."""
        self._next = (self._next + 1) % PING_SECONDS
        socket.slot = self._slots[self._next]
        socket.slot.add(socket)

    async def tick(self) -> None:
        """Ask those of one slot whether they are there; to be called once a second."""
        self._ticks += 1
        slot = self._slots[self._ticks % PING_SECONDS]
        for number, socket in enumerate(list(slot), 1):
            if socket in slot:
                socket.ask()
            if number % ASKED_A_TURN == 0:
                await asyncio.sleep(0)


class DirectSocket(FramedSocket):
    """One client's socket, between the transport and a `Connection`.

    Args:
        visit: what the socket holds besides its lease, released when it ends.
    """

    __slots__ = (
        "_codec",
        "_hub",
        "_lease",
        "_outbox",
        "_paused",
        "_pings",
        "_sockets",
        "_units",
        "_unsaved",
        "_visit",
        "_waiting",
        "connection",
        "slot",
    )

    def __init__(
        self,
        hub: Hub,
        sockets: Sockets,
        lease: Lease,
        codec: Codec,
        peer: str,
        visit: Visit,
    ) -> None:
        super().__init__()
        self._hub = hub
        self._unsaved = hub.writer.unsaved
        self._sockets = sockets
        self._lease = lease
        self._visit = visit
        self._codec = codec
        self._outbox = DirectOutbox(hub.limits, self.woken)
        self._waiting: asyncio.Task[None] | None = None
        self._units = AT_ONCE_UNITS
        """What may still be handled at once."""
        self._paused = False
        """Whether the transport takes no more."""
        self._pings = 0
        self.slot: set[DirectSocket] = set()
        self.connection = Connection(
            hub.limits,
            self.woken,
            hub.clock.monotonic,
            peer,
            outbox=self._outbox,
            counters=hub.counters,
            visitor=visit,
        )

    def release(self) -> None:
        """Let go of what is held; for a socket that was not taken over after all."""
        self._lease.release()
        self._visit.release()

    # Beginning and end

    def opened(self, answer: bytes) -> None:
        """Join the room. The answer to the handshake and the greeting are one write: what each of
        them costs the kernel is a twentieth of the whole.
        """
        transport = self.transport
        assert transport is not None
        self._sockets.add(self)
        self.connection.join(self._lease.room, self._codec)
        first = [answer]
        while (frame := self.connection.take()) is not None:
            first.append(framed(frame))
        self._outbox.connect(transport)
        transport.write(b"".join(first))
        self._visit.attach(self.connection)

    def refused(self, error: PlaitError) -> None:
        """Close: the client broke the rules."""
        self.connection.close(error)

    def woken(self) -> None:
        """Say why the socket is being closed, if it is; called by the connection."""
        closing = self.connection.closing
        if closing is not None:
            self._outbox.block()
            if self._waiting is not None:
                self._waiting.cancel()
            self.say_good_bye(closing.code, closing.reason)

    def left(self, code: int) -> None:
        """Leave the room: the client says good-bye."""
        self._outbox.block()
        self.connection.lost()

    def ended(self) -> None:
        """Leave the room: the socket is gone."""
        self.slot.discard(self)
        self._outbox.block()
        if self._waiting is not None:
            self._waiting.cancel()
        self.connection.lost()
        self.release()
        # Nothing refers to itself any more, so all of it goes now and not with the next look of
        # the garbage collector.
        self.connection.forget()
        self._outbox.disconnect()

    def shutdown(self) -> None:
        """Close the socket: the server ends."""
        self.connection.close(ServerStopping("the server is stopping; connect again"))

    # To the client

    def pause_writing(self) -> None:
        """Queue from now on: the transport has enough."""
        self._paused = True
        self._outbox.block()

    def resume_writing(self) -> None:
        """Write what was queued, as far as the transport takes it."""
        self._paused = False
        if self.said_good_bye:
            return
        while (frame := self.connection.take()) is not None:
            # What comes meanwhile is queued behind it, so the outbox stays blocked.
            self._outbox.write(frame)
            if self._paused:
                return
        if self.connection.closing is None:
            self._outbox.unblock()

    def may_answer(self) -> bool:
        """Return whether the client reads: pongs would be queued without end for who does not."""
        return self._outbox.fast is not None

    # From the client

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read. Nearly all that the server does begins here, so this does what the
        base class and `received` do with one short message, without calling them.
        """
        space = self._space
        if (
            self._plain
            and 6 <= nbytes <= SHORT_BYTES_MAX
            and space[0] == FAST_FIRST
            and space[1] == nbytes + FAST_SECOND - 6
        ):
            self._pings = 0
            connection = self.connection
            if (
                not connection.receive(apply_mask(space[6:nbytes], space[2:6]))
                and connection.waiting
                or self._unsaved.full
            ):
                self._pause()
        else:
            self._units = AT_ONCE_UNITS
            super().buffer_updated(nbytes)

    def received(self, message: bytes) -> None:
        """Take a message."""
        self._pings = 0
        self._units -= 1 + len(message) // UNIT_BYTES
        if (
            not self.connection.receive(message)
            and self.connection.waiting
            or self._units < 0
            or self._unsaved.full
        ):
            self._pause()

    def begun(self, start: bytes, length: int) -> None:
        """Look at the beginning of a long message."""
        if length > JOINED_BYTES:
            self.connection.begin(start, length)

    def too_big(self, error: MessageTooBig) -> None:
        """Tell the client that a message is passed over, and go on."""
        self.connection.turn_away(error)

    def received_parts(self, parts: list[bytes]) -> None:
        """Take a message that came in parts, which are counted already."""
        if sum(map(len, parts)) <= JOINED_BYTES:
            self.connection.receive_counted(b"".join(parts))
            if self._unsaved.full or self.connection.waiting:
                self._pause()
        else:
            self.stop_reading()
            self._waiting = self._hub.spawn(self._receive_parts(parts))

    async def _receive_parts(self, parts: list[bytes]) -> None:
        await self.connection.receive_parts(parts)
        parts = []
        await self._wait()

    def may_hold(self, more: int) -> bool:
        """Count what is held of a long message, for all sockets."""
        self._sockets.held += more
        return self._sockets.held <= self._hub.limits.long_messages_bytes_max

    def ponged(self, payload: bytes) -> None:
        """Learn that a ping was answered."""
        self._outbox.answered(payload)

    def spent(self, length: int) -> None:
        """Count what is no message, or a part of one."""
        self._pings = 0
        self.connection.spend(length)
        self._units -= 1 + length // UNIT_BYTES
        if self._units < 0 or self.connection.waiting:
            self._pause()

    def _pause(self) -> None:
        """Read no more until messages can be handled: the kernel's buffers fill up, and the client
        waits.
        """
        if self.connection.closing is None:
            self.stop_reading()
            self._go_on_when_possible()

    def _go_on_when_possible(self) -> None:
        if self._waiting is not None:
            return
        if self._unsaved.full or self.connection.waiting:
            self._waiting = self._hub.spawn(self._wait())
        else:
            self._sockets.later(self._go_on, self._visit.source)

    async def _wait(self) -> None:
        while self._unsaved.full or self.connection.waiting:
            await self._hub.writer.wait_not_full()
            await self.connection.ready()
        self._waiting = None
        self._sockets.later(self._go_on, self._visit.source)

    def _go_on(self) -> None:
        """Handle what waited, and read again; but not too much at once. Who has more waits for the
        next turn.
        """
        if self._waiting is None:
            self._units = FLOOD_UNITS
            self.go_on_reading()

    # Silence

    def ask(self) -> None:
        """Ping a client that was silent, and cut it off if it has not answered for long, or if a
        message of its does not come on.
        """
        assert self.transport is not None
        if self._held_before and self._held - self._held_before < SLOW_BYTES and not self._stopped:
            told = "the rest of a message did not come; send it again"
            self.connection.close(RoomUnavailable(told, limit="slow_message"))
            return
        self._held_before = self._held
        if self._stopped:
            return  # Its answers are not read either.
        self._pings += 1
        if self._pings > PINGS_MAX + 1:
            log.info("%s does not answer; it is cut off", self.connection.peer)
            self.transport.abort()
        elif self._pings > 1 and self._outbox.fast is not None:
            self.transport.write(framed(b"", PING))
