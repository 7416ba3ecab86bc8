"""What comes on a connection to Redis, taken where the event loop hands it over.

redis-py connects, and says who we are. Its way to read costs a node of a busy cluster a third of
its time: a stream, a task that is woken and two coroutines for each message. So once a connection
stands, its transport is given another protocol, which parses what comes and hands it on at once.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, ResponseError

REPLIES_A_TURN: Final = 32
"""Replies that are handed on before sockets get their turn."""

_NONE = object()


class Wire(asyncio.Protocol):
    """Takes a connection over, and hands on what comes.

    Args:
        take: told of each reply. What it raises ends the connection.
    """

    def __init__(self, connection: AbstractConnection, take: Callable[[Any], None]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is, with why."""
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._replies = hiredis.Reader(
            protocolError=InvalidResponse, replyError=ResponseError, notEnoughData=_NONE
        )
        self._held = self._late = False
        # redis-py has no public way to its transport.
        writer = connection._writer
        assert writer is not None, "it is not connected"
        self._transport: asyncio.Transport = writer.transport  # type: ignore[assignment]
        self._transport.set_protocol(self)

    def send(self, data: bytes) -> None:
        """Send commands."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def hold(self, seconds: float) -> None:
        """Leave what comes with the kernel for a while: nothing is urgent."""
        if not self._held and not self._late and not self.ended.done():
            self._held = True
            self._transport.pause_reading()
            self._loop.call_later(seconds, self.go_on)

    def go_on(self) -> None:
        """Read again."""
        if self._held:
            self._held = False
            if not self.ended.done() and not self._late:
                self._transport.resume_reading()

    # Implements asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Hand on what is complete."""
        self._replies.feed(data)
        if not self._late:
            self._hand_on()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell that it ended."""
        self._end(error or ConnectionError("Connection closed by server."))

    def _hand_on(self) -> None:
        late, self._late = self._late, False
        take, gets = self._take, self._replies.gets
        try:
            for _ in range(REPLIES_A_TURN):
                if self.ended.done():
                    return
                reply = gets(False)
                if reply is _NONE:
                    break
                if isinstance(reply, Exception):
                    raise reply
                take(reply)
            else:
                self._late = True
        except Exception as error:
            self._end(error)
            return
        if self._late:
            if not late:
                self._transport.pause_reading()
            self._loop.call_soon(self._hand_on)
        elif late and not self._held:
            self._transport.resume_reading()

    def _end(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()  # Nobody has to ask for it.


def packed(*command: str | bytes) -> bytes:
    """Return the bytes of a command."""
    data: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return data
