"""WebSocket frames as a server reads and writes them (RFC 6455, 5), without extensions.

A long frame is not kept until it is whole: it is given out in pieces as it comes, like a message
that its sender had cut (5.4 allows everybody on the way to do so). So what is read at once stays
short, and what a client announces and does not send takes no memory.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

# In C, where it can be.
from websockets.frames import apply_mask as apply_mask  # type: ignore[attr-defined]

from plait.server.errors import MalformedFrame, MessageTooBig, PlaitError

PART: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_OPCODES: Final = frozenset((PART, TEXT, BINARY, CLOSE, PING, PONG))

CONTROL_BYTES_MAX: Final = 125
"""Payload of a close frame, ping or pong."""
KEPT_BYTES_MAX: Final = 4096
"""A longer frame that has not come whole is given out in pieces."""
PIECE_BYTES: Final = 32 << 10
"""A piece has so much at least, unless it is the last."""

FAST_FIRST: Final = 0x82
"""The first byte of a whole message."""
FAST_SECOND: Final = 0x80
"""What is added to the length of a payload of up to 125 bytes to mark it as masked."""
LONGER_SECOND: Final = 0xFE
"""The second byte of a masked frame whose length is in the two bytes that follow."""


class Frame(NamedTuple):
    """A frame, or a piece of one."""

    opcode: int
    final: bool
    """Whether the message ends with it."""
    payload: bytes
    rest: bool = False
    """Whether it goes on with the frame before, which was cut here."""
    length: int = 0
    """With the first piece of a frame: the length of its payload."""
    whole: bool = False
    """With the first piece of a frame: whether it is a whole message."""


class FrameReader:
    """Reads what one client sends; to be forgotten when it is `between` frames.

    Args:
        bytes_max: payload of a frame.
    """

    __slots__ = ("_begun", "_bytes_max", "_kept", "_left", "_mask", "_opcode", "_whole")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept = bytearray()
        """What can't be given out yet: an unfinished frame, or too little of a long one."""
        self._left = 0
        """What is still missing of the long frame, including what is kept."""
        self._opcode = PART
        self._begun = False
        """Whether a piece of the long frame was given out."""
        self._whole = False
        """Whether the message ends with the long frame."""
        self._mask = b""
        """Of the long frame, from where the next piece begins."""

    @property
    def between(self) -> bool:
        """Whether nothing is unfinished."""
        return not self._left and not self._kept

    def read(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are whole with these bytes, and pieces of a long one.

        Raises:
            MalformedFrame: a frame breaks the rules; nothing can be read after that.
            MessageTooBig: it announces more than it may have.
        """
        if self._kept:
            self._kept += data
            data = bytes(self._kept)
            self._kept.clear()
        at = 0
        while True:
            if self._left:
                if len(data) - at < min(PIECE_BYTES, self._left):
                    break
                piece = data[at : at + self._left]
                at += len(piece)
                yield self._next_piece(piece)
                continue
            frame, start, length, mask = self._head(data, at)
            if start == 0:
                break
            end = start + length
            if end <= len(data):
                at = end
                yield frame._replace(payload=apply_mask(data[start:end], mask))
            elif length > KEPT_BYTES_MAX:
                at = start
                self._opcode, self._whole = frame.opcode, frame.final
                self._left, self._mask, self._begun = length, mask, False
            else:
                break
        if at < len(data):
            self._kept += data[at:]

    def _next_piece(self, piece: bytes) -> Frame:
        payload = apply_mask(piece, self._mask)
        opcode, self._opcode = self._opcode, PART
        begun, self._begun = self._begun, True
        length = 0 if begun else self._left
        self._left -= len(piece)
        turned = len(piece) % 4
        self._mask = self._mask[turned:] + self._mask[:turned]
        whole = not begun and self._whole and opcode != PART
        return Frame(opcode, self._whole and not self._left, payload, begun, length, whole)

    def _head(self, data: bytes, at: int) -> tuple[Frame, int, int, bytes]:
        """Return the frame that begins somewhere, without its payload, and the payload's start,
        length and mask. The start is 0 if the head has not come whole.
        """
        present = len(data) - at
        if present < 2:
            return _UNKNOWN
        first, second = data[at], data[at + 1]
        opcode, length = first & 0x0F, second & 0x7F
        error = _fault(first, second)
        if error is not None:
            raise error
        size = 2
        if length > CONTROL_BYTES_MAX:
            size = 4 if length == 126 else 10
            if present < size:
                return _UNKNOWN
            shortest = 126 if length == 126 else 1 << 16
            length = int.from_bytes(data[at + 2 : at + size])
            if not shortest <= length < 1 << 63:
                raise MalformedFrame("the length of a frame is not written as it has to be")
            if length > self._bytes_max:
                raise MessageTooBig(f"a message may have {self._bytes_max} bytes")
        start = at + size + 4
        if len(data) < start:
            return _UNKNOWN
        return Frame(opcode, first >= 0x80, b""), start, length, data[start - 4 : start]


_UNKNOWN = Frame(PART, False, b""), 0, 0, b""


def _fault(first: int, second: int) -> PlaitError | None:
    """Return what is wrong with the first two bytes of a client's frame."""
    opcode, length = first & 0x0F, second & 0x7F
    if first & 0x70:
        return MalformedFrame("a frame uses an extension, and none was agreed upon")
    if opcode not in _OPCODES:
        return MalformedFrame(f"there are no frames of type {opcode}")
    if second < 0x80:
        return MalformedFrame("a client has to mask its frames")
    if opcode >= CLOSE and (first < 0x80 or length > CONTROL_BYTES_MAX):
        return MalformedFrame("close, ping and pong are single frames of up to 125 bytes")
    return None


def framed(payload: bytes, opcode: int = BINARY) -> bytes:
    """Return a payload in a frame of its own."""
    length = len(payload)
    if length <= CONTROL_BYTES_MAX and opcode == BINARY:
        return _SHORT_HEADERS[length] + payload
    return header(length, opcode) + payload


_SHORT_HEADERS: Final = [bytes((0x80 | BINARY, length)) for length in range(CONTROL_BYTES_MAX + 1)]


def header(length: int, opcode: int = BINARY) -> bytes:
    """Return what comes before a payload of so many bytes in a frame of its own."""
    first = 0x80 | opcode
    if length <= CONTROL_BYTES_MAX:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, 126)) + length.to_bytes(2)
    return bytes((first, 127)) + length.to_bytes(8)


def closing(code: int, reason: str = "") -> bytes:
    """Return the frame that ends a conversation; the reason has up to 123 bytes."""
    return framed(code.to_bytes(2) + reason.encode(), CLOSE)


def close_code(payload: bytes) -> int | None:
    """Return the code in a client's close frame; None if it names none.

    Raises:
        MalformedFrame: it is not one that may be sent (7.4), or what follows is not text.
    """
    if not payload:
        return None
    code = int.from_bytes(payload[:2])
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise MalformedFrame("the reason for closing is not UTF-8") from None
    if len(payload) < 2 or not (code in _CLOSE_CODES or 3000 <= code < 5000):
        raise MalformedFrame("there is no such reason for closing")
    return code


_CLOSE_CODES = frozenset((*range(1000, 1004), *range(1007, 1015)))
