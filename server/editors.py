"""A Yjs editor that is nothing but its protocol, so that one core can play ten thousand of them.

It connects, brings itself up to date and types. What it types are real Yjs updates, and the text is
the time at which it was sent: whoever receives it on this machine knows how long it was on its way,
however the server cuts, merges or batches what it hands on. An editor that gets its own text back
takes that as the acknowledgement; Hocuspocus sends those as messages of their own.

`Editor.on_ws_frame` is where a load generator spends its time. It decodes nothing: one regular
expression finds all stamps of a frame, and latencies are appended to a list that the engine
empties.
"""

import asyncio
import re
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from picows import (
    WSCloseCode,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    ws_connect,
)

from plait.server.errors import DecodeError
from plait.server.target import Dialect, DialFailed, Target, refusal, unreachable
from plait.server.terminal import printable
from plait.server.typist import Typist
from plait.server.wire.lib0 import Reader, var_string
from plait.server.wire.presence import Entry, encode_presence
from plait.server.wire.ywebsocket import AWARENESS, STEP1, STEP2, SYNC, UPDATE, YWEBSOCKET

FRAME_BYTES_MAX = 512 << 20
"""A large document arrives in one frame."""

_STAMP = re.compile(rb"~([0-9a-f]{11})([0-9a-f]{6})")
"""Nanoseconds since the run's base, and the sender."""
_TIMES = re.compile(rb"~([0-9a-f]{11})[0-9a-f]{6}")
STAMP_BYTES = 18
"""The length of a stamp: an edit's text is that and nothing else."""
_SENDERS = 1 << 24

_NOTHING = b"\x00\x00"
"""The update without content."""
_EMPTY_STATE_VECTOR = b"\x00"

# Of Hocuspocus: `packages/server/src/types.ts`. Type 4 is a sync message as an answer.
_HOCUSPOCUS_AUTH = b"\x02\x00"
_HOCUSPOCUS_SYNCS = (SYNC, 4)
_HOCUSPOCUS_STORED = b"\x08\x01"
_HOCUSPOCUS_VERSION = "4.7.0"
"""What its provider says of itself."""


@dataclass(slots=True)
class Tally:
    """What happened to all editors of a run; latencies are in nanoseconds.

    The engine takes `deliveries` and `acknowledgements` from time to time, and empties them.
    """

    base: int = field(default_factory=time.monotonic_ns)
    deliveries: list[int] = field(default_factory=list)
    acknowledgements: list[int] = field(default_factory=list)
    syncs: list[int] = field(default_factory=list)
    """From dialling to the document."""
    sent: int = 0
    presence: int = 0
    """Presence messages received."""
    frames: int = 0
    bytes: int = 0
    closed: "Counter[str]" = field(default_factory=Counter)
    """Why connections ended that were not meant to."""


@dataclass(slots=True)
class Room:
    """One document of a run, and how many deliveries there have to be and were."""

    name: str
    expected: int = 0
    delivered: int = 0
    members: int = 0
    """Editors that are connected."""


def stamps(data: bytes) -> list[int]:
    """Return when each edit in an update was sent, in nanoseconds since the base of its run."""
    return [int(sent, 16) for sent in _TIMES.findall(data)]


class Editor(WSListener):
    """One editor.

    Args:
        target: where to connect.
        room: what to edit.
        client: the client id, which no other editor of the room has.
        tally: where to count.
    """

    def __init__(self, target: Target, room: Room, client: int, tally: Tally) -> None:
        assert 0 < client < _SENDERS
        self.target = target
        self.room = room
        self.state_bytes = 0
        """The size of the document that came last."""
        self.connected = False
        self._tally = tally
        self._client = client
        self._mark = b"%06x" % client
        self._typist = Typist(client)
        self._hocuspocus = target.dialect is Dialect.HOCUSPOCUS
        self._prefix = var_string(room.name) if self._hocuspocus else b""
        self._update = self._prefix + bytes((SYNC, UPDATE))
        self._fragments: list[bytes] = []
        self._unconfirmed: deque[int] = deque()
        self._presence_clock = 0
        self._transport: WSTransport | None = None
        self._state: asyncio.Future[None] | None = None
        self._leaving = False
        self._said = ""

    async def open(self) -> None:
        """Connect, and wait for the document.

        Raises:
            DialFailed: the server can't be reached, refuses, or does not answer in time.
        """
        started = time.monotonic_ns()
        arrived = self._state = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self.target.timeout):
                await ws_connect(
                    lambda: self,
                    self.target.address(self.room.name),
                    websocket_handshake_timeout=self.target.timeout,
                    max_frame_size=FRAME_BYTES_MAX,
                    max_redirects=0,
                )
                await arrived
        except TimeoutError:
            self._give_up()
            raise DialFailed(f"no answer within {self.target.timeout:g} s") from None
        except WSHandshakeError as error:
            raise DialFailed(refusal(error)) from None
        except OSError as error:
            raise DialFailed(unreachable(error)) from None
        self._tally.syncs.append(time.monotonic_ns() - started)
        self.connected = True
        self.room.members += 1

    async def replace(self, document: bytes) -> int:
        """Put a document into the room, and wait until the server has it.

        Returns:
            The bytes that the server gives to somebody who has nothing.

        Raises:
            DialFailed: the server ended the connection or does not answer in time.
        """
        self._state = asyncio.get_running_loop().create_future()
        self._send(YWEBSOCKET.sync_update(document))
        # Messages of a socket are handled in order: the answer to this holds the document.
        self._send(YWEBSOCKET.sync_step1(_EMPTY_STATE_VECTOR))
        try:
            async with asyncio.timeout(self.target.timeout):
                await self._state
        except TimeoutError:
            raise DialFailed(f"no answer within {self.target.timeout:g} s") from None
        return self.state_bytes

    def type(self) -> None:
        """Send an edit that carries the time."""
        now = time.monotonic_ns() - self._tally.base
        self._transport_in_use().send(
            WSMsgType.BINARY,
            self._prefix
            + YWEBSOCKET.sync_update(self._typist.type(b"~%011x%b" % (now, self._mark))),
        )
        self._tally.sent += 1
        self.room.expected += self.room.members - 1
        if self._hocuspocus:
            self._unconfirmed.append(now)

    def touch(self) -> None:
        """Send an edit that nobody counts."""
        self._send(YWEBSOCKET.sync_update(self._typist.type(b".")))

    def move(self) -> None:
        """Send presence: a name, a colour and a cursor."""
        self._presence_clock += 1
        clock = self._presence_clock
        state = (
            b'{"user":{"name":"editor %d","color":"#30bced"},"cursor":{"anchor":%d,"head":%d}}'
            % (self._client, clock, clock)
        )
        self._send(YWEBSOCKET.awareness(encode_presence([Entry(self._client, clock, state)])))

    def leave(self) -> None:
        """Close the connection, if there is one."""
        self._leaving = True
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        if self._hocuspocus:
            told = var_string(self.target.token) + var_string(_HOCUSPOCUS_VERSION)
            self._send(_HOCUSPOCUS_AUTH + told)
        self._send(YWEBSOCKET.sync_step1(_EMPTY_STATE_VECTOR))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        data = frame.get_payload_as_bytes()
        if not data.startswith(self._update) or self._fragments or not frame.fin:
            self._take(data, frame)
            return
        tally = self._tally
        tally.frames += 1
        tally.bytes += len(data)
        self._deliver(data)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        why = self._said or "the connection was lost"
        if self.connected:
            self.connected = False
            if not self._leaving:
                self._tally.closed[why] += 1
        if self._state is not None and not self._state.done():
            self._state.set_exception(DialFailed(f"{why} before the document came"))

    def _deliver(self, data: bytes) -> None:
        """Note how long each edit in a frame was on its way."""
        tally = self._tally
        now = time.monotonic_ns() - tally.base
        if self._mark not in data:
            times = _TIMES.findall(data)
            tally.deliveries += [now - int(sent, 16) for sent in times]
            self.room.delivered += len(times)
            return
        for sent, sender in _STAMP.findall(data):
            if sender != self._mark:
                tally.deliveries.append(now - int(sent, 16))
                self.room.delivered += 1
            elif not self._hocuspocus:
                tally.acknowledgements.append(now - int(sent, 16))

    def _take(self, data: bytes, frame: WSFrame) -> None:
        """Take a frame that is not simply one update."""
        kind = frame.msg_type
        if kind == WSMsgType.CLOSE:
            self._closing(data)
            return
        if kind in (WSMsgType.PING, WSMsgType.PONG):  # picows answers pings.
            return
        self._fragments.append(data)
        if not frame.fin:
            return
        whole = b"".join(self._fragments)
        self._fragments.clear()
        self._tally.frames += 1
        self._tally.bytes += len(whole)
        try:
            self._read(whole)
        except (DecodeError, IndexError):
            self._said = "the server sent what is no message of the dialect"
            self.leave()

    def _read(self, data: bytes) -> None:
        """Act on a whole message."""
        reader = Reader(data, len(self._prefix))
        kind = reader.var_uint()
        if kind == SYNC or (self._hocuspocus and kind in _HOCUSPOCUS_SYNCS):
            step = reader.var_uint()
            if step == STEP1:
                self._send(YWEBSOCKET.sync_step2(_NOTHING))
            elif step == STEP2 and self._state is not None and not self._state.done():
                self.state_bytes = len(data)
                self._state.set_result(None)
            else:
                self._deliver(data)
        elif kind == AWARENESS:
            self._tally.presence += 1
        elif self._hocuspocus:
            self._read_of_hocuspocus(data)

    def _read_of_hocuspocus(self, data: bytes) -> None:
        message = data[len(self._prefix) :]
        if message == _HOCUSPOCUS_STORED and self._unconfirmed:
            now = time.monotonic_ns() - self._tally.base
            self._tally.acknowledgements.append(now - self._unconfirmed.popleft())
        elif message.startswith(b"\x02\x01"):
            self._said = "refused: " + printable(Reader(message, 2).var_string())
            self.leave()

    def _closing(self, data: bytes) -> None:
        reason = printable(data[2:].decode(errors="replace"))
        code = int.from_bytes(data[:2])
        self._said = f"closed with {code}" + (f" ({reason})" if reason else "")
        self._transport_in_use().disconnect()

    def _give_up(self) -> None:
        self._state = None
        if self._transport is not None:
            self._transport.disconnect(False)

    def _send(self, message: bytes) -> None:
        self._transport_in_use().send(WSMsgType.BINARY, self._prefix + message)

    def _transport_in_use(self) -> WSTransport:
        assert self._transport is not None, "the editor is not connected"
        return self._transport
