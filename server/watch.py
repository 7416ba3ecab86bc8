"""HTTP for those who mean no good: uvicorn's protocol with bounds in time and size.

uvicorn waits for ever for the head of a connection's first request, keeps whatever comes of it, and
waits for ever for who does not take a response. Here

1. the head of a request has to be there within `Limits.head_seconds`, counted from the connection,
   or from its first byte on a connection that is used again;
2. it may have `Limits.head_bytes_max`; a larger one is answered with 431;
3. there may be `Limits.heads_max` connections that have not sent a whole head; when there is one
   more, the oldest is cut off;
4. who sends nothing more of a request's body, or takes nothing more of a response, for
   `Limits.stall_seconds` is cut off.

A connection that becomes a WebSocket is not watched any more from then on.

All connections of a server have one `Watch` with one timer. As everybody has the same time, those
whose time ends first are always those who began first, so nothing has to be sorted or searched.

Sources: uvicorn `httptools_impl.py`, of which this overrides what the parser and the transport
call; the dependency is pinned to the versions that the tests cover.
"""

import asyncio
from math import inf
from typing import Any, Generic, Protocol, TypeVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from plait.server.counters import Counters
from plait.server.limits import Limits

GRAIN_SECONDS = 0.25
"""The timer is no more exact than this: so many connections are looked at together."""

_TOO_LARGE = (
    "HTTP/1.1 431 Request Header Fields Too Large\r\n"
    "content-type: text/plain; charset=utf-8\r\n"
    "content-length: {}\r\nconnection: close\r\n\r\n{}"
)


class Watched(Protocol):
    """A connection that is watched until its first head is there."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop


W = TypeVar("W", bound=Watched)


class _Deadlines(Generic[W]):
    """Connections that all have the same time from when they were put in; the first ends first."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ends: dict[W, float] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, connection: W, now: float) -> None:
        """Put a connection in; one that is in keeps its time."""
        self._ends.setdefault(connection, now + self.seconds)

    def renew(self, connection: W, now: float) -> None:
        """Give a connection its time anew."""
        self._ends.pop(connection, None)
        self._ends[connection] = now + self.seconds

    def discard(self, connection: W) -> None:
        """Take a connection out, if it is in."""
        self._ends.pop(connection, None)

    def first(self) -> W:
        """Take out the one that has been here longest, and return it."""
        connection = next(iter(self._ends))
        del self._ends[connection]
        return connection

    def ended(self, now: float) -> list[W]:
        """Take out those whose time has ended, and return them."""
        ended = []
        while self._ends and next(iter(self._ends.values())) <= now:
            ended.append(self.first())
        return ended

    @property
    def next(self) -> float | None:
        """When the next one's time ends; None if there is none."""
        return next(iter(self._ends.values()), None)


class Watch:
    """Watches the connections of a server until they are WebSockets, or gone."""

    def __init__(self, limits: Limits, counters: Counters) -> None:
        self.limits = limits
        self._counters = counters
        self._heads: _Deadlines[Watched] = _Deadlines(limits.head_seconds)
        self._bodies: _Deadlines[WatchedProtocol] = _Deadlines(limits.stall_seconds)
        self._responses: _Deadlines[WatchedProtocol] = _Deadlines(limits.stall_seconds)
        self._timer: asyncio.TimerHandle | None = None
        self._at = inf
        """When the timer ends."""

    @property
    def heads(self) -> int:
        """How many connections have not sent a whole head."""
        return len(self._heads)

    def begin_head(self, connection: Watched) -> None:
        """Expect a head from a connection, from when this is called for the first time."""
        now = connection.loop.time()
        self._heads.add(connection, now)
        if len(self._heads) > self.limits.heads_max:
            self._cut_head(self._heads.first(), "open_heads")
        if self._at > now + self._heads.seconds:
            self._wind(connection.loop)

    def end_head(self, connection: Watched) -> None:
        """Expect no head: it is there."""
        self._heads.discard(connection)

    def begin_body(self, connection: "WatchedProtocol") -> None:
        """Expect more of a request's body; called again when some of it has come."""
        self._bodies.renew(connection, connection.loop.time())
        self._wind(connection.loop)

    def end_body(self, connection: "WatchedProtocol") -> None:
        """Expect no body: it is there, or nobody asks for it any more."""
        self._bodies.discard(connection)

    def begin_response(self, connection: "WatchedProtocol") -> None:
        """Expect that what is written is taken."""
        connection.unwritten = connection.transport.get_write_buffer_size()
        self._responses.renew(connection, connection.loop.time())
        self._wind(connection.loop)

    def end_response(self, connection: "WatchedProtocol") -> None:
        """Expect nothing: it was taken."""
        self._responses.discard(connection)

    def forget(self, connection: "WatchedProtocol") -> None:
        """Watch a connection no more: it is gone, or something else now."""
        self._heads.discard(connection)
        self._bodies.discard(connection)
        self._responses.discard(connection)

    def count(self, limit: str) -> None:
        """Count that a limit was reached."""
        self._counters.limits[limit] += 1

    def _wind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look again when the next one's time ends; there is no timer while there is nobody."""
        ends = [each.next for each in (self._heads, self._bodies, self._responses)]
        due = min((end for end in ends if end is not None), default=None)
        if due is None or self._at <= due + GRAIN_SECONDS:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = max(due, loop.time() + GRAIN_SECONDS)
        self._timer = loop.call_at(self._at, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, self._at = None, inf
        now = loop.time()
        for waiting in self._heads.ended(now):
            self._cut_head(waiting, "slow_head")
        for connection in self._bodies.ended(now):
            if connection.flow.read_paused:  # It is us who take no more.
                self._bodies.renew(connection, now)
            else:
                self._cut(connection, "slow_body")
        for connection in self._responses.ended(now):
            unwritten = connection.transport.get_write_buffer_size()
            if unwritten >= connection.unwritten > 0:
                self._cut(connection, "slow_response")
            elif unwritten:
                connection.unwritten = unwritten
                self._responses.renew(connection, now)
        self._wind(loop)

    def _cut_head(self, connection: Watched, limit: str) -> None:
        self.count(limit)
        connection.transport.abort()

    def _cut(self, connection: "WatchedProtocol", limit: str) -> None:
        self.count(limit)
        self.forget(connection)
        connection.transport.abort()


class WatchedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol under a watch.

    For `uvicorn.Config(http=...)` the watch is bound with `functools.partial`.

    Args:
        before: what the connection was watched as before, until its first head is there.
    """

    def __init__(
        self, *args: Any, watch: Watch, before: Watched | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._watch = watch
        self._as: Watched = before or self
        """Who is watched for a head."""
        self._in_head = False
        """Whether the parser has seen the beginning of a head, and not its end."""
        self._in_body = False
        """Whether a head has ended and its body has not, be it answered or not."""
        self._head_ended = False
        """Whether a head has ended in what is being parsed."""
        self._head_bytes = 0
        self.unwritten = 0
        """What had not been taken when the watch looked last."""

    # What the transport calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first head."""
        super().connection_made(transport)
        self._watch.begin_head(self._as)

    def data_received(self, data: bytes) -> None:
        """Parse, and count what belongs to an unfinished head."""
        expected = self._expects_head
        self._head_ended = False
        super().data_received(data)
        if self.parser is None or self.transport.is_closing():
            return
        if not self._expects_head:
            self._expect_body()
            return
        self._watch.begin_head(self._as)
        if expected and not self._head_ended:
            self._head_bytes += len(data)
            if self._head_bytes > self._watch.limits.head_bytes_max:
                self.send_400_response("")
        else:
            self._head_bytes = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Be watched no more."""
        self._leave_watch()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait until the client takes more; but not for ever."""
        super().pause_writing()
        self._watch.begin_response(self)

    def resume_writing(self) -> None:
        """Go on: the client takes more."""
        super().resume_writing()
        self._watch.end_response(self)

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """End a head. It may have come at once, so it is measured here as well."""
        self._in_head, self._head_ended, self._in_body = False, True, True
        size = len(self.url) + 4 * len(self.headers)
        for name, value in self.headers:
            size += len(name) + len(value)
        self._head_bytes = size
        self._watch.end_head(self._as)
        self._as = self
        if self._head_bytes > self._watch.limits.head_bytes_max:
            raise _HeadTooLarge
        self._head_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a body."""
        self._in_body = False
        self._watch.end_body(self)
        super().on_message_complete()

    # What uvicorn calls

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, or has too large a head, and close."""
        self._leave_watch()
        most = self._watch.limits.head_bytes_max
        if self._head_bytes > most:
            self._watch.count("too_large_head")
            reason = f"the head of a request may have {most} bytes"
            self.transport.write(_TOO_LARGE.format(len(reason), reason).encode())
            self.transport.close()
        else:
            super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """Wait for the next request, once the client has taken the whole response."""
        self._watch.end_body(self)
        if self.transport.get_write_buffer_size():
            self._watch.begin_response(self)
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        """Pass the socket on, and be watched no more."""
        self._leave_watch()
        self.pass_on()
        # It refers back. Kept until the garbage collector comes by, both would take more memory
        # than the WebSocket does.
        self.parser = None  # type: ignore[assignment]

    def pass_on(self) -> None:
        """Give the socket to the protocol that makes a WebSocket of it."""
        super().handle_websocket_upgrade()

    # What is expected

    def _leave_watch(self) -> None:
        self._watch.end_head(self._as)
        self._watch.forget(self)

    @property
    def _expects_head(self) -> bool:
        answered = self.cycle is None or self.cycle.response_complete
        return self._in_head or (answered and not self._in_body)

    def _expect_body(self) -> None:
        if self.cycle.more_body:
            self._watch.begin_body(self)


class _HeadTooLarge(Exception):
    """Raised to stop the parser."""
