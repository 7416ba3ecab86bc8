"""Target: what a client sends after the handshake, however the network cuts it."""

import asyncio
import random
from typing import Any, cast
from unittest.mock import patch

from plait.server.errors import PlaitError
from plait.server.framed import READ_BYTES, FramedSocket
from plait.server.wire import frames
from tests.fuzz.bytes_of import join, split
from tests.fuzz.gathering import run
from tests.fuzz.target import Target, expect
from tests.wire.fuzz_updates import change_bytes

BYTES_MAX = 300
"""Of a message, so that short inputs reach it."""


class _Transport:
    """What a socket does to its transport."""

    def __init__(self) -> None:
        self.written = b""
        self.paused = self.ended = False

    def set_protocol(self, protocol: object) -> None:
        pass

    def write(self, data: bytes) -> None:
        expect(not self.ended, "something is written after the end")
        self.written += data

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.ended

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self.ended = True

    abort = close


class _Socket(FramedSocket):
    """Notes what it hears, and stops reading now and then."""

    def __init__(self, stops_every: int) -> None:
        super().__init__()
        self.heard: list[bytes] = []
        self.counted = 0
        self.error = ""
        self._stops_every = stops_every

    def received(self, message: bytes) -> None:
        expect(not self.said_good_bye, "a message is heard after the good-bye")
        expect(len(message) <= BYTES_MAX, "a message is too long")
        self.heard.append(message)
        if self._stops_every and len(self.heard) % self._stops_every == 0:
            self.stop_reading()

    def spent(self, length: int) -> None:
        self.counted += length

    def refused(self, error: PlaitError) -> None:
        expect(not self.error, "it is refused twice")
        self.error = str(error)
        super().refused(error)

    def left(self, code: int) -> None:
        expect(not self.error, "it leaves after it was refused")
        self.error = f"left with {code}"


def sockets(data: bytes) -> str:
    """Let a socket read, cut in places and at once; it has to hear the same."""
    how, stream = (*split(data), b"", b"")[:2]
    with patch.object(frames, "KEPT_BYTES_MAX", 130), patch.object(frames, "PIECE_BYTES", 24):
        cut = run(_heard(stream, how[1:], how[0] % 4 if how else 0))
        whole = run(_heard(stream, b"", 0))
    expect(cut == whole, "it matters how the network cuts what a client sends")
    heard, error, written = whole
    if error:
        return "left" if error.startswith("left") else "refused"
    return "heard" if heard else "answered" if written else "nothing"


async def _heard(stream: bytes, sizes: bytes, stops_every: int) -> tuple[list[bytes], str, bytes]:
    transport, space = _Transport(), bytearray(READ_BYTES)
    socket = _Socket(stops_every)
    given = cast(asyncio.Transport, cast(Any, transport))
    socket.take_over(given, set(), space, BYTES_MAX, b"", b"")
    at, number = 0, 0
    while at < len(stream) and not transport.ended:
        for _ in range(1000):
            if not transport.paused:
                break
            await asyncio.sleep(0)
            socket.go_on_reading()
        if transport.paused:
            break
        size = (sizes[number % len(sizes)] or 1) if sizes else len(stream)
        number += 1
        chunk = stream[at : at + size]
        at += len(chunk)
        socket.get_buffer(-1)[: len(chunk)] = chunk
        socket.buffer_updated(len(chunk))
    while socket.waiting and not transport.ended:
        socket.go_on_reading()
        await asyncio.sleep(0)
    expect(socket.error or not socket.said_good_bye, "it says good-bye for no reason")
    outcome = socket.heard, socket.error, transport.written
    socket.connection_lost(None)
    return outcome


def _frame(payload: bytes, opcode: int, *, final: bool = True, mask: bytes = b"abcd") -> bytes:
    head = bytes((0x80 * final | opcode,))
    if len(payload) < 126:
        head += bytes((0x80 | len(payload),))
    else:
        head += b"\xfe" + len(payload).to_bytes(2)
    return head + mask + frames.apply_mask(payload, mask)


def _conversations() -> list[bytes]:
    said = _frame(b"hello", 2) + _frame(b"x" * 200, 2) + _frame(b"are you there", 9)
    parts = _frame(b"a" * 20, 2, final=False) + _frame(b"", 9) + _frame(b"b" * 90, 0)
    bye = _frame((1000).to_bytes(2) + b"bye", 8)
    streams = [said, parts, said + parts + bye, parts * 3, _frame(b"", 10) * 5]
    streams += [_frame(b"text", 1) + bye, _frame(b"y" * 301, 2), _frame(b"z", 0), said[:-3]]
    return [join(how, stream) for stream in streams for how in (b"", b"\x00\x01", b"\x02\x05\x30")]


def _change(rng: random.Random, data: bytes) -> bytes:
    """Change bytes of the stream, or put in, take out or move frames' worth of it."""
    how, stream = (*split(data), b"", b"")[:2]
    if rng.random() < 0.2:
        how = change_bytes(rng, how or b"\x00")
    elif rng.random() < 0.5:
        stream = change_bytes(rng, stream or b"\x82")
    else:
        length = rng.choice((0, 1, 125, 126, 150, 299, 300, 301))
        opcode = rng.choice((0, 0, 1, 2, 2, 2, 8, 9, 10))
        new = _frame(rng.randbytes(length), opcode, final=rng.random() < 0.7)
        stream = new + stream if rng.random() < 0.5 else stream + new
    return join(how[:40], stream[:1900])


TARGETS = {"sockets": Target(sockets, _conversations, _change, 2000)}
