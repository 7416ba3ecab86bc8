"""A socket without tasks: frames go from picows to the connection, and from rooms to the kernel,
within one call each.

Used where the server offers `plait.server.handover`; elsewhere `plait.server.pump` does the same
with two tasks a socket. What those tasks would wait for is done here by being called:

1. A frame for a client is written at once as long as the transport takes it. When it does not
   (`pause_writing`), frames are queued in the outbox, which bounds them, until it does again.
2. A frame from a client is handled at once. If it can't be (the store takes no more, the room
   loads its document anew), or after a good many in a row, the socket is not read any more; what
   the parser has read already waits here. All who have sent many share a small part of each turn
   of the loop (`plait.server.turns`), so that a flood of theirs makes nobody wait who types.
3. A socket that is closed has `CLOSE_SECONDS` to take the reason and to answer. Then it is cut off.
4. A client that has been silent is pinged, and cut off if it does not answer. One timer does this
   for all sockets, in turns (`Sockets.tick`), instead of one a socket.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport

from plait.server.connection import Connection
from plait.server.errors import (
    ClientError,
    CloseCode,
    MessageTooBig,
    ServerStopping,
    TextRefused,
)
from plait.server.hub import Hub
from plait.server.leases import Lease
from plait.server.limits import Limits
from plait.server.outbox import FAST_BYTES_MAX, Outbox
from plait.server.pump import CLOSE_SECONDS, Visit
from plait.server.turns import Ration
from plait.server.wire.messages import Codec

log = logging.getLogger(__name__)

PING_SECONDS = 20
"""How long a client may be silent before it is asked whether it is there."""
PINGS_MAX = 3
"""Pings that may go unanswered before it counts as gone. It may be busy with a large document."""

BURST_UNITS = 64
"""Frames of one client that are handled before the others have their turn: about 2 ms."""
UNIT_BYTES = 4096
"""Long frames count for more, by this measure."""
FLOOD_FRAMES = 8
"""Who had so many waiting is likely to go on like that."""
FLOOD_SECONDS = 0.001
"""What part of a turn those have together who have sent more."""

BINARY = WSMsgType.BINARY
CONTINUATION = WSMsgType.CONTINUATION


class DirectOutbox(Outbox):
    """An outbox that writes to the transport, and queues only what the transport does not take."""

    __slots__ = ("_send", "_unwritten", "_write", "_write_buffer_size")

    def __init__(self, limits: Limits, wake: Callable[[], None]) -> None:
        super().__init__(limits, wake)
        self._unwritten = 0

    def connect(self, transport: WSTransport) -> None:
        """Begin to write to a transport."""
        # Up to 8 KB picows copies a frame behind its header and sends both at once. Above, it gives
        # the transport a view of the header's memory, which the next frame overwrites, while
        # uvloop may keep the view until the end of the turn: so longer ones go without its help.
        self._send = self.fast = partial(transport.send, WSMsgType.BINARY)
        self._write = transport.underlying_transport.writelines
        self._write_buffer_size = transport.underlying_transport.get_write_buffer_size

    def block(self) -> None:
        """Queue from now on."""
        self.fast = None

    def unblock(self) -> None:
        """Write again; nothing may be queued."""
        self.fast = self._send

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
        length = len(frame)
        if length <= FAST_BYTES_MAX:
            self._send(frame)
        else:
            self._write((_header(length), frame))

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


def _header(length: int) -> bytes:
    """Return the header of a whole binary frame of more than 125 bytes (RFC 6455, 5.2)."""
    if length < 1 << 16:
        return b"\x82\x7e" + length.to_bytes(2)
    return b"\x82\x7f" + length.to_bytes(8)


class Sockets:
    """The direct sockets of a node, for what time demands of them."""

    def __init__(self) -> None:
        self._slots: list[set[DirectSocket]] = [set() for _ in range(PING_SECONDS)]
        self._next = 0
        self._ticks = 0
        self._floods: Ration | None = None

    def later(self, work: Callable[[], None], source: str) -> None:
        """Handle what somebody has sent who has sent much, when their turn has come."""
        if self._floods is None:
            self._floods = Ration(asyncio.get_running_loop(), FLOOD_SECONDS)
        self._floods.add(work, source)

    def add(self, socket: "DirectSocket") -> None:
        """Look after a socket. Each slot gets as many as the others."""
        self._next = (self._next + 1) % PING_SECONDS
        socket.slot = self._slots[self._next]
        socket.slot.add(socket)

    def tick(self) -> None:
        """Ask those of one slot whether they are there; to be called once a second."""
        self._ticks += 1
        for socket in list(self._slots[self._ticks % PING_SECONDS]):
            socket.ask()


class DirectSocket(WSListener):
    """One client's socket, between picows and a `Connection`; implements `handover.Listener`.

    Args:
        visit: what the socket holds besides its lease, released when it ends.
    """

    __slots__ = (
        "_burst",
        "_codec",
        "_early",
        "_farewell",
        "_hub",
        "_lease",
        "_limits",
        "_loop",
        "_outbox",
        "_parts",
        "_parts_bytes",
        "_paused",
        "_pings",
        "_sockets",
        "_transport",
        "_visit",
        "_waiting",
        "connection",
        "connections",
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
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._limits = hub.limits
        self._sockets = sockets
        self._lease = lease
        self._visit = visit
        self._codec = codec
        self._outbox = DirectOutbox(hub.limits, self.woken)
        self._transport: WSTransport | None = None
        self._parts: list[bytes] | None = None
        self._parts_bytes = 0
        self._early: deque[bytes] | None = None
        """Frames that were read but have to wait; None if the socket is read."""
        self._farewell: int | None = None
        """The code of the client's close frame, which came behind frames that have to wait."""
        self._waiting: asyncio.Task[None] | None = None
        self._burst = 0
        self._paused = False
        """Whether the transport takes no more."""
        self._pings = 0
        self.slot: set[DirectSocket] = set()
        self.connections: set[Any] = set()
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

    # What picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Join the room: the handshake is answered."""
        self._transport = transport
        self._outbox.connect(transport)
        self._sockets.add(self)
        self.connection.join(self._lease.room, self._codec)
        self._visit.attach(self.connection)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a frame, which is whole, or a part of a message, or about the socket itself."""
        self._pings = 0
        if transport.is_close_frame_sent and frame.msg_type != WSMsgType.CLOSE:
            return  # picows goes on to parse after it has found an error
        if frame.msg_type != BINARY or not frame.fin or self._parts is not None:
            self._received_rarely(transport, frame)
        elif self._early is not None:
            self._early.append(frame.get_payload_as_bytes())
        else:  # Nearly all frames come here; what `_handle` does, without calling it.
            message = frame.get_payload_as_bytes()
            self.connection.receive(message)
            self._burst += 1 + len(message) // UNIT_BYTES
            if self._burst > BURST_UNITS or self._hub.writer.full or self.connection.waiting:
                self._pause()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Leave the room: the socket is gone."""
        self.slot.discard(self)
        self.connections.discard(self)
        self._outbox.block()
        self._wait_no_more()
        if transport.close_handshake and not transport.close_handshake.recv:
            self._note_what_picows_refused(transport)
        self.connection.lost()
        self.release()
        # Nothing refers to itself any more, so all of it goes now and not with the next look of
        # the garbage collector.
        self.connection.forget()
        self._transport = None

    def pause_writing(self) -> None:
        """Queue from now on: the transport has enough."""
        self._paused = True
        self._outbox.block()

    def resume_writing(self) -> None:
        """Write what was queued, as far as the transport takes it."""
        self._paused = False
        while (frame := self.connection.take()) is not None:
            # What comes meanwhile is queued behind it, so the outbox stays blocked.
            self._outbox.write(frame)
            if self._paused:
                return
        if self.connection.closing is None:
            self._outbox.unblock()

    # Frames from the client

    def _received_rarely(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            self._note_what_picows_refused(transport)  # This may be the answer to its close.
            # 0 stands for a frame without a code.
            code = int(frame.get_close_code()) or CloseCode.NORMAL  # type: ignore[call-overload]
            if self._early is None:
                self._take_leave(code)
            else:
                self._farewell = code  # What it said before is heard first.
        elif kind == WSMsgType.PING:
            self.connection.spend(len(frame.get_payload_as_bytes()))
            if self._outbox.fast is not None:
                transport.send_pong(frame.get_payload_as_bytes())
        elif kind == WSMsgType.TEXT:
            self.connection.close(TextRefused("send binary frames; the protocol has no text"))
        elif kind == BINARY or kind == CONTINUATION:
            self._received_part(frame)

    def _received_part(self, frame: WSFrame) -> None:
        """Put together a message that comes in several frames (RFC 6455, 5.4)."""
        if self.connection.closing is not None:
            return
        if (frame.msg_type == CONTINUATION) == (self._parts is None):
            self.connection.close(ClientError("a fragmented message is out of order"))
            return
        if self._parts is None:
            self._parts, self._parts_bytes = [], 0
        part = frame.get_payload_as_bytes()
        if not frame.fin:
            self.connection.spend(0)
        self._parts.append(part)
        self._parts_bytes += len(part)
        # An empty part takes memory, too.
        if self._parts_bytes + 64 * len(self._parts) > self._limits.message_bytes_max:
            self._parts = None
            limit = self._limits.message_bytes_max
            self.connection.close(MessageTooBig(f"a message may have {limit} bytes"))
        elif frame.fin:
            whole, self._parts = b"".join(self._parts), None
            self._received(whole)

    def _received(self, message: bytes) -> None:
        if self._early is not None:
            self._early.append(message)
        elif not self._handle(message):
            self._pause()

    def _handle(self, message: bytes) -> bool:
        """Handle a message; return whether the next one may follow at once."""
        self.connection.receive(message)
        self._burst += 1 + len(message) // UNIT_BYTES
        return not (self._burst > BURST_UNITS or self._hub.writer.full or self.connection.waiting)

    def _pause(self) -> None:
        """Read no more until messages can be handled: the kernel's buffers fill up, and the client
        waits.
        """
        if self.connection.closing is not None:
            return
        self._early = deque()
        self._underlying.pause_reading()
        self._go_on_when_possible()

    def _go_on_when_possible(self) -> None:
        if self._hub.writer.full or self.connection.waiting:
            self._waiting = self._hub.spawn(self._wait())
        else:
            self._sockets.later(self._go_on, self._visit.source)

    async def _wait(self) -> None:
        while self._hub.writer.full or self.connection.waiting:
            await self._hub.writer.wait_not_full()
            await self.connection.ready()
        self._waiting = None
        self._go_on()

    def _wait_no_more(self) -> None:
        self._early = None
        if self._waiting is not None:
            self._waiting.cancel()

    def _go_on(self) -> None:
        """Handle what waited, and read again; but not too much at once."""
        early = self._early
        if early is None:  # It was closed meanwhile.
            return
        self._burst = 0
        handled = 0
        while early:
            go_on = self._handle(early.popleft())
            handled += 1
            if self.connection.closing is not None:
                return
            if not go_on:
                self._go_on_when_possible()
                return
        self._early = None
        if handled > FLOOD_FRAMES:  # The next one waits for its turn again.
            self._burst = BURST_UNITS
        if self._farewell is not None:
            self._take_leave(self._farewell)
        else:
            self._underlying.resume_reading()

    def _note_what_picows_refused(self, transport: WSTransport) -> None:
        """Count and log the violations that picows closed the socket for, which it tells nobody."""
        sent = transport.close_handshake and transport.close_handshake.sent
        if sent and self.connection.closing is None:
            reason = sent.reason or "the frames were malformed"
            too_big = int(sent.code) == CloseCode.TOO_BIG  # type: ignore[call-overload]
            kind = MessageTooBig if too_big else ClientError
            self.connection.close(kind(reason, limit="message_mb" if too_big else ""))

    # The end

    @property
    def _underlying(self) -> Any:
        assert self._transport is not None
        return self._transport.underlying_transport

    def _take_leave(self, code: int) -> None:
        """Answer the client's close frame, or take it for the answer to ours, and close the socket
        (RFC 6455, 5.5.1). One that does not read is cut off.
        """
        assert self._transport is not None
        if self.connection.closing is None:
            self.connection.lost()
            self._transport.send_close(code)  # type: ignore[arg-type]
        self._transport.disconnect()
        self._loop.call_later(CLOSE_SECONDS, self._underlying.abort)

    def woken(self) -> None:
        """Say why the socket is being closed, if it is; called by the connection."""
        closing, transport = self.connection.closing, self._transport
        if closing is None or transport is None:
            return
        self._outbox.block()
        transport.send_close(closing.code, closing.reason)  # type: ignore[arg-type]
        if self._early is not None:
            self._wait_no_more()
            self._underlying.resume_reading()  # or the answer is never seen
        self._loop.call_later(CLOSE_SECONDS, self._underlying.abort)

    def shutdown(self) -> None:
        """Close the socket: the server ends."""
        self.connection.close(ServerStopping("the server is stopping; connect again"))

    # Silence

    def ask(self) -> None:
        """Ping a client that was silent, and cut it off if it has not answered for long."""
        self._pings += 1
        if self._pings > PINGS_MAX + 1:
            log.info("%s does not answer; it is cut off", self.connection.peer)
            self._underlying.abort()
        elif self._pings > 1 and self._outbox.fast is not None and self._transport is not None:
            self._transport.send_ping()
