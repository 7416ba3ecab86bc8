"""Clients that mean no good, each a loop that goes on until it is cancelled (`scripts/hostile`).

Unrealistic in that all come from one process, which is slower than a thousand machines.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

HANDSHAKE = (
    "GET /ws/{room}?token={token} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: {address}\r\n{more}\r\n"
)
ASK_ALL = b"\x82\x84\0\0\0\0\x00\x00\x01\x00"
"""A masked frame with a question that the server answers; the mask changes nothing."""
FLOOD = ASK_ALL * 1000
GIANT = b"\x82\xff" + (1 << 30).to_bytes(8) + bytes(4)
LARGEST_BYTES = 64 << 20
LARGEST = b"\x82\xff" + LARGEST_BYTES.to_bytes(8) + bytes(4)
CHUNK = bytes(1 << 14)
"""Written at once. A megabyte keeps the processor in the kernel for 2 ms, and good clients off it.
"""
SENT_BYTES = 1 << 20
"""What is sent of a frame that is too large."""
SLOW_SECONDS = 1.0


@dataclass
class Field:
    """Where attackers are, and what became of what they did."""

    port: int
    token: Callable[[str], str]
    """Makes a valid token of a subject."""
    ends: Counter[str] = field(default_factory=Counter)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Attack = Callable[[Field, int, Streams], Awaitable[None]]


async def _shake(
    place: Field, streams: Streams, kind: str, number: int, token: str, more: str = ""
) -> int:
    """Ask for a WebSocket from one of ten addresses of this kind; return the status."""
    reader, writer = streams
    address = f"198.18.{KINDS.index(kind)}.{number % 10 + 1}"
    room = f"{kind}-{number % 10}".replace(" ", "-")
    head = HANDSHAKE.format(room=room, token=token, address=address, more=more)
    writer.write(head.encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    status = int(answer.split(b" ", 2)[1])
    place.ends[f"{kind}: HTTP {status}"] += 1
    return status


async def _until_closed(place: Field, kind: str, reader: asyncio.StreamReader) -> None:
    """Read until the end; count the code of the close frame that stands there."""
    last = b""
    while data := await reader.read(1 << 16):
        last = (last + data)[-200:]
    at = last.rfind(b"\x88")
    code = int.from_bytes(last[at + 2 : at + 4]) if at >= 0 else 0
    place.ends[f"{kind}: closed {code or 'without a word'}"] += 1


async def _flood(place: Field, number: int, streams: Streams) -> None:
    """Ask for the whole document as fast as the server takes it, and read what it says."""
    reader, writer = streams
    if await _shake(place, streams, "flood", number, place.token(f"flood-{number % 10}")) != 101:
        return
    reading = asyncio.create_task(_until_closed(place, "flood", reader))
    try:
        while not reading.done():
            writer.write(FLOOD)
            await writer.drain()
            await asyncio.sleep(0)
    finally:
        reading.cancel()


async def _slow(place: Field, number: int, streams: Streams) -> None:
    """Send the head of a request, a byte a second."""
    reader, writer = streams
    for byte in HANDSHAKE.encode():
        writer.write(bytes([byte]))
        await asyncio.sleep(SLOW_SECONDS)
        if reader.at_eof():
            break
    place.ends["slow head: ended"] += 1


async def _half_open(place: Field, number: int, streams: Streams) -> None:
    """Connect and say nothing; or shake hands, and send half a frame."""
    reader, writer = streams
    if number % 2:
        await _shake(place, streams, "half open", number, place.token(f"half-{number}"))
        writer.write(ASK_ALL[:7])
    while await reader.read(1 << 16):
        pass
    place.ends["half open: ended"] += 1


async def _giant(place: Field, number: int, streams: Streams) -> None:
    """Announce a frame of a gigabyte; or send one of the largest that may be, which is nothing."""
    reader, writer = streams
    if await _shake(place, streams, "giant", number, place.token(f"giant-{number}")) != 101:
        return
    head, length = (GIANT, SENT_BYTES) if number % 10 else (LARGEST, LARGEST_BYTES)
    writer.write(head)
    for _ in range(length // len(CHUNK)):
        writer.write(CHUNK)
        await writer.drain()
        await asyncio.sleep(0)
    await _until_closed(place, "giant", reader)


async def _bad_token(place: Field, number: int, streams: Streams) -> None:
    """Bring a token that nobody has signed."""
    await _shake(place, streams, "bad token", number, place.token("x")[:-8] + "AAAAAAAA")


async def _browser(place: Field, number: int, streams: Streams) -> None:
    """Come from a page that may not, with a good token, and wait for what happens."""
    more = "Origin: https://evil.example\r\n"
    token = place.token(f"browser-{number}")
    if await _shake(place, streams, "browser", number, token, more) == 101:
        await _until_closed(place, "browser", streams[0])


async def _malformed(place: Field, number: int, streams: Streams) -> None:
    """Send a frame with bytes that mean nothing."""
    token = place.token(f"malformed-{number}")
    if await _shake(place, streams, "malformed", number, token) != 101:
        return
    streams[1].write(b"\x82\xa0\0\0\0\0" + b"\xfe" + random.randbytes(31))
    await _until_closed(place, "malformed", streams[0])


ATTACKS: dict[str, tuple[int, Attack]] = {
    "flood": (200, _flood),
    "slow head": (200, _slow),
    "half open": (150, _half_open),
    "giant": (50, _giant),
    "bad token": (150, _bad_token),
    "browser": (150, _browser),
    "malformed": (100, _malformed),
}
"""How many of a thousand do what."""
KINDS = list(ATTACKS)


async def attack(place: Field, kind: str, number: int) -> None:
    """Do one thing over and over, with a new connection each time, until cancelled."""
    _, doing = ATTACKS[kind]
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        except OSError as error:
            place.ends[f"{kind}: {error.strerror}"] += 1
            await asyncio.sleep(SLOW_SECONDS)
            continue
        try:
            await doing(place, number, (reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            place.ends[f"{kind}: cut off"] += 1
        finally:
            writer.transport.abort()
        await asyncio.sleep(0)
