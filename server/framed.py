"""A socket that speaks WebSocket frames, after its handshake: bytes come from the transport and
messages go to whoever derives from this; what they write goes to the transport at once.

Nothing here waits, and a client is never given more than its part of the loop's time:

1. All sockets of a loop read into one buffer (`READ_BYTES`): each read is over before the next one
   begins, and a socket that is silent takes no memory for it.
2. Nearly all reads bring one short message. That is recognised by its length and handed on without
   looking for more (`buffer_updated`).
3. Everything else goes frame by frame (`wire.frames`). Whoever has enough for now calls
   `stop_reading`; what was read already waits, unread frames wait in the kernel, and the client
   with them, until `go_on_reading`.
4. After the frame that says good-bye only the client's answer matters. It gets `DEAF_BYTES_MAX` to
   send it; then the socket is not read any more, and cut off when its time is over.
"""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from plait.server.errors import (
    MalformedFrame,
    MessageTooBig,
    PlaitError,
    RoomUnavailable,
    TextRefused,
)
from plait.server.wire.frames import (
    BINARY,
    CLOSE,
    FAST_FIRST,
    FAST_SECOND,
    LONGER_SECOND,
    PART,
    PING,
    PONG,
    TEXT,
    Frame,
    FrameReader,
    apply_mask,
    close_code,
    closing,
    framed,
)

CLOSE_SECONDS: Final = 5.0
"""How long the other side has to take what is on its way, and the reason for closing."""
READ_BYTES: Final = 64 << 10
"""What is read at once."""
DEAF_BYTES_MAX: Final = 256 << 10
"""What a client may still have on its way when it is told good-bye."""
SKIPPED_AT_ONCE: Final = 100
"""Frames that are passed over in one turn of the loop on the way to the client's answer."""
PASSED_OVER: Final = 16
"""A message so many times as large as one may be is passed over, since a client that was offline
sends all that it has in one; a larger one has the socket closed.
"""
PART_BYTES: Final = 64
"""What a part of a message takes besides its bytes; an empty one, too."""

SHORT_BYTES_MAX: Final = 6 + 125
"""The longest frame whose length is in one byte."""


class FramedSocket:
    """The transport's protocol (`asyncio.BufferedProtocol`, from which a compiled class can't
    derive) from the answered handshake to the end.

    `handover` calls `take_over`. Derived classes implement the hooks below it.
    """

    __slots__ = (
        "_broken",
        "_bytes_max",
        "_deaf",
        "_frames",
        "_held",
        "_held_before",
        "_parts",
        "_parts_bytes",
        "_plain",
        "_reader",
        "_space",
        "_stopped",
        "_timer",
        "_too_big",
        "connections",
        "transport",
    )

    def __init__(self) -> None:
        self.connections: set[Any] | None = None
        """Those that uvicorn waits for when it ends, and asks to `shutdown`."""
        self.transport: asyncio.Transport | None = None
        """None before and after."""
        self._space = bytearray()
        self._bytes_max = 0
        self._plain = True
        """Whether nothing is unfinished, so that a read may be one whole message."""
        self._reader: FrameReader | None = None
        self._frames: Iterator[Frame] | None = None
        """What was read and has to wait."""
        self._stopped = False
        self._parts: list[bytes] | None = None
        self._parts_bytes = 0
        self._too_big = False
        """Whether the rest of an unfinished message is passed over."""
        self._held = 0
        """What has come of an unfinished message."""
        self._held_before = 0
        """The same, when somebody looked last."""
        self._deaf = -1
        """What was read since the good-bye; negative before it."""
        self._broken = False
        """Whether nothing can be read any more."""
        self._timer: asyncio.TimerHandle | None = None

    def take_over(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        space: bytearray,
        bytes_max: int,
        answer: bytes,
        early: bytes,
    ) -> None:
        """Begin: the handshake is accepted.

        Args:
            connections: those that uvicorn waits for when it ends.
            space: what all sockets of this loop read into, of `READ_BYTES`.
            bytes_max: what a message may have.
            answer: to the handshake; goes before everything else.
            early: what the client has sent already.
        """
        self.transport = transport
        self.connections = connections
        connections.add(self)
        self._space = space
        self._bytes_max = bytes_max
        transport.set_protocol(_protocol(self, transport))
        self.opened(answer)
        if early:
            self._read(early)

    # What a derived class does

    def opened(self, answer: bytes) -> None:
        """Begin, with the answer to the handshake."""
        self._write(answer)

    def received(self, message: bytes) -> None:
        """Take a message."""

    def begun(self, start: bytes, length: int) -> None:
        """Look at the first bytes of a long message, and its length, before the rest has come."""

    def received_parts(self, parts: list[bytes]) -> None:
        """Take a message that came in parts, each of which was `spent`."""
        self.received(b"".join(parts))

    def too_big(self, error: MessageTooBig) -> None:
        """Learn that a message is larger than one may be. The rest of it is passed over."""

    def may_hold(self, more: int) -> bool:
        """Take down that so much more is held of an unfinished message, or less; return whether it
        may be. If not, it is let go of, and the message is refused.
        """
        return True

    def spent(self, length: int) -> None:
        """Count what is no message yet, or will be none."""

    def ponged(self, payload: bytes) -> None:
        """Learn that a ping was answered."""

    def may_answer(self) -> bool:
        """Return whether the client reads, so that its pings may be answered."""
        return True

    def refused(self, error: PlaitError) -> None:
        """Close: the client broke the rules. Nothing more comes from it."""
        self.say_good_bye(error.close_code, str(error))

    def left(self, code: int) -> None:
        """Learn that the client wants to leave; the frame is answered already."""

    def ended(self) -> None:
        """Let go: the socket is gone."""

    def shutdown(self) -> None:
        """Close the socket: the server ends."""
        self.say_good_bye(1001)

    # What the transport calls

    def pause_writing(self) -> None:
        """Learn that the transport has enough."""

    def resume_writing(self) -> None:
        """Learn that the transport takes more."""

    def eof_received(self) -> None:
        """Let the transport close: nothing more comes."""

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where to read to."""
        return self._space

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""
        space = self._space
        if (
            self._plain
            and 6 <= nbytes <= SHORT_BYTES_MAX
            and space[0] == FAST_FIRST
            and space[1] == nbytes + FAST_SECOND - 6
        ):
            self.received(apply_mask(space[6:nbytes], space[2:6]))
        elif (
            self._plain
            and SHORT_BYTES_MAX < nbytes <= self._bytes_max
            and space[0] == FAST_FIRST
            and space[1] == LONGER_SECOND
            and nbytes == (space[2] << 8) + space[3] + 8
        ):
            self.received(apply_mask(space[8:nbytes], space[4:8]))
        else:
            begin = self._receive_short(nbytes)
            if begin < nbytes:
                self._read(bytes(space[begin:nbytes]))

    def _receive_short(self, nbytes: int) -> int:
        """Take short messages, as long as there are no others; return where the rest begins."""
        space, at = self._space, 0
        while self._plain and nbytes - at >= 6 and space[at] == FAST_FIRST:
            end = at + space[at + 1] - FAST_SECOND + 6
            if not at + 6 <= end <= min(nbytes, at + SHORT_BYTES_MAX):
                break
            self.received(apply_mask(space[at + 6 : end], space[at + 2 : at + 6]))
            at = end
        return at

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        if self.connections is not None:
            self.connections.discard(self)
        self._frames = self._reader = None
        self._let_go()
        self._plain = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.ended()
        self.transport = None

    # Frames

    def stop_reading(self) -> None:
        """Take nothing more until `go_on_reading`."""
        if not self._stopped and self.transport is not None:
            self._stopped, self._plain = True, False
            if not self.transport.is_closing():
                self.transport.pause_reading()

    def go_on_reading(self) -> None:
        """Take what has waited, and then what comes."""
        if not self._stopped or self.transport is None:
            return
        self._stopped = False
        frames, self._frames = self._frames, None
        if frames is not None:
            self._go_through(frames)
        else:
            self._look()
        if not self._stopped and not self.transport.is_closing():
            self.transport.resume_reading()

    @property
    def waiting(self) -> bool:
        """Whether something was read that has to wait."""
        return self._frames is not None

    def _read(self, data: bytes) -> None:
        if self._deaf >= 0:
            self._deaf += len(data)
            if self._deaf > DEAF_BYTES_MAX:
                self._broken = True
                self.stop_reading()
        if self._broken:
            return
        if self._reader is None:
            self._reader = FrameReader(self._bytes_max * PASSED_OVER)
        frames = self._reader.read(data)
        if self._frames is not None:  # A transport with TLS may have had more at hand.
            self._frames = _one_after_another(self._frames, frames)
        elif self._stopped:
            self._frames = frames
        else:
            self._go_through(frames)

    def _go_through(self, frames: Iterator[Frame]) -> None:
        skipped = 0
        try:
            for frame in frames:
                if self._deaf < 0 or frame.opcode == CLOSE:
                    self._take(frame)
                else:
                    skipped += 1
                    if skipped == SKIPPED_AT_ONCE:
                        self.stop_reading()
                        asyncio.get_running_loop().call_soon(self.go_on_reading)
                if self._stopped:
                    self._frames = frames
                    return
        except PlaitError as error:
            self._break(error)
        self._look()

    def _look(self) -> None:
        """See whether anything is unfinished."""
        if self._reader is not None and self._reader.between:
            self._reader = None
        self._plain = (
            self._reader is None and self._parts is None and not self._stopped and self._deaf < 0
        )

    def _refuse(self, error: PlaitError) -> None:
        """Have the socket closed."""
        self._let_go()
        if self._deaf < 0:
            self.refused(error)

    def _break(self, error: PlaitError) -> None:
        """Have the socket closed, and look for no answer: the rest can't be read. A client closes
        its side when it sees ours closed; until then what it sends is thrown away.
        """
        self._refuse(error)
        self._broken = True
        self._reader = None
        if self.transport is not None and self.transport.can_write_eof():
            self.transport.write_eof()

    def _take(self, frame: Frame) -> None:
        opcode = frame.opcode
        length = len(frame.payload)
        if opcode == BINARY and frame.final and self._parts is None and length <= self._bytes_max:
            self.received(frame.payload)
        elif opcode == BINARY or opcode == PART:
            self._take_part(frame)
        elif opcode == CLOSE:
            self._take_leave(frame.payload)
        elif opcode == TEXT:
            self._refuse(TextRefused("send binary frames; the protocol has no text"))
        else:
            self.spent(len(frame.payload))
            if opcode == PING and self._deaf < 0 and self.may_answer():
                self._write(framed(frame.payload, PONG))
            elif opcode == PONG:
                self.ponged(frame.payload)

    def _take_part(self, frame: Frame) -> None:
        """Put together a message that comes in several frames (RFC 6455, 5.4), or pieces."""
        if (frame.opcode == PART) == (self._parts is None):
            self._refuse(MalformedFrame("a message in several frames is out of order"))
            return
        if self._parts is None:
            self._parts, self._parts_bytes = [], 0
            if frame.whole:
                self.begun(frame.payload, frame.length)
                if self._deaf >= 0:
                    return
        if not frame.rest:
            self._parts_bytes += PART_BYTES + (frame.length or len(frame.payload))
            if self._parts_bytes > self._bytes_max + PART_BYTES and not self._pass_over(frame):
                return
        if not self._too_big:
            self._parts.append(frame.payload)
            self._held += len(frame.payload)
            if not self.may_hold(len(frame.payload)):
                told = "too many long messages are on their way; send it again later"
                self._refuse(RoomUnavailable(told, limit="long_messages"))
                return
        self.spent(len(frame.payload))
        if frame.final and self._too_big:
            self._let_go()
        elif frame.final and self._deaf < 0:
            parts = self._parts
            self._let_go()
            self.received_parts(parts)

    def _pass_over(self, frame: Frame) -> bool:
        """Keep nothing of a message that is too large; return whether to go on. An empty part that
        is one too many comes from nobody who means well.
        """
        error = MessageTooBig(
            f"a message may have {self._bytes_max / (1 << 20):g} MiB (message_mb); what is in a "
            "larger one is not saved"
        )
        if not frame.payload or self._parts_bytes > self._bytes_max * PASSED_OVER:
            self._refuse(error)
            return False
        if not self._too_big:
            self._let_go()
            self._parts, self._too_big = [], True
            self.too_big(error)
        return True

    def _let_go(self) -> None:
        """Hold nothing of an unfinished message any more."""
        self._parts, self._too_big = None, False
        if self._held:
            self.may_hold(-self._held)
            self._held = self._held_before = 0

    # The end

    @property
    def said_good_bye(self) -> bool:
        """Whether the frame that ends the conversation was sent."""
        return self._deaf >= 0

    def say_good_bye(self, code: int, reason: str = "") -> None:
        """Send the frame that ends the conversation, and give the client time to answer it."""
        if self._deaf >= 0 or self.transport is None:
            return
        self._write(closing(code, reason))
        self._deaf, self._plain = 0, False
        self._let_go()
        abort = self.transport.abort
        self._timer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, abort)
        if self._stopped:
            asyncio.get_running_loop().call_soon(self.go_on_reading)  # or its answer is never seen

    def _take_leave(self, payload: bytes) -> None:
        """Answer the client's good-bye, or take it for the answer to ours, and close the socket
        (RFC 6455, 5.5.1). One that does not read is cut off.
        """
        assert self.transport is not None
        code = close_code(payload) or 1000
        if self._deaf < 0:
            self.left(code)
            self.say_good_bye(code)
        self.transport.close()

    def _write(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)


class _Buffered(asyncio.BufferedProtocol):
    """A socket as loops want it that know a protocol by its class, asyncio's own for one."""

    def __init__(self, socket: FramedSocket) -> None:
        self.get_buffer = socket.get_buffer  # type: ignore[method-assign]
        self.buffer_updated = socket.buffer_updated  # type: ignore[method-assign]
        self.pause_writing = socket.pause_writing  # type: ignore[method-assign]
        self.resume_writing = socket.resume_writing  # type: ignore[method-assign]
        self.connection_lost = socket.connection_lost  # type: ignore[method-assign]
        self.eof_received = socket.eof_received  # type: ignore[method-assign]


def _protocol(socket: FramedSocket, transport: asyncio.Transport) -> Any:
    """Return what to give to `set_protocol`. uvloop asks for no class."""
    return socket if type(transport).__module__.startswith("uvloop") else _Buffered(socket)


def _one_after_another(*several: Iterator[Frame]) -> Iterator[Frame]:
    for each in several:
        yield from each
