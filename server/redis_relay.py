"""Carry messages between nodes by Redis' publish and subscribe.

Two connections: one publishes, the other hears. Everything published in a turn of the event loop
goes out in one write. Replies are read some milliseconds later, many at once: looking at a socket
costs more than publishing. When too many are missing, messages gather until they have come. Redis
promises nothing: it may be restarted, flushed, paused or far away. Then the connections are made
anew, with pauses that grow, and what was to be published meanwhile is dropped: rooms ask each other
for what they lack when the relay is back.

redis-py makes the connections (TLS, passwords, Sentinel), and `redis_wire` reads them. Its `PubSub`
is not used: it hides reconnections, which rooms have to know of.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import ConnectionPool, RedisError
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from plait.server.errors import ConfigError
from plait.server.redis_wire import Wire, packed
from plait.server.relay import Heard

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
"""How long connecting, or subscribing to everything, may take."""
SUBSCRIBE_SECONDS = 2.0
"""How long a room waits to be heard before it is loaded all the same."""
RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 5.0
QUEUE_BYTES_MAX = 32 << 20
"""What may wait to be published; above it everything that waits is dropped."""
UNANSWERED_MAX = 256
"""Messages that Redis may have before it has said so. Above it, further ones wait here."""
UNANSWERED_BYTES_MAX = 64 << 10
"""The same of the bytes of one turn: if it is larger, it is answered before the next."""
REPLY_SECONDS = 0.02
"""How long Redis' replies to what is published may wait."""
CHANNELS_A_COMMAND = 1000

SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")


class _Stale(Exception):
    """Raised when a connection seems to live and does not."""


class RedisRelay:
    """This node's way to the others; see `plait.server.relay.Relay`.

    Args:
        url: `redis://[user:password@]host[:port][/db]`, `rediss://` for TLS, and
            `redis+sentinel://[user:password@]host:port,host:port/service[/db]`.

    Raises:
        ConfigError: no Redis can be at such a URL.
    """

    def __init__(self, url: str, *, jitter: Callable[[], float] = random.random) -> None:
        self._pool = _pool(url)
        self.url = _without_secrets(url)
        self.connected = False
        self.on_message: Heard = lambda channel, message: None
        self.on_state: Callable[[bool], None] = lambda connected: None
        self.dropped = 0
        self.last_error = ""
        """Why the connection was lost, or can't be made; empty while there is one."""
        self._jitter = jitter
        self._loop: asyncio.AbstractEventLoop
        """Of `run`. Asking which one runs is a system call."""
        self._queue: list[tuple[str, bytes]] = []
        self._queued_bytes = 0
        self._unanswered = 0
        self._unanswered_max = UNANSWERED_MAX
        self._waits = False
        """Whether nothing is sent until there are fewer."""
        self._saying: Wire | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._channels: dict[str, asyncio.Future[None] | None] = {}
        """What this node hears; with who waits for it to be so."""
        self._changes: list[tuple[str, str]] = []
        """Commands for channels that are not sent yet."""
        self._changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._stale = asyncio.Event()
        self._awaited = 0
        """Channels that are subscribed to, and not confirmed, of those there were at the start."""

    # What the cluster uses

    @property
    def queued_bytes(self) -> int:
        """What waits to be published."""
        return self._queued_bytes

    def publish(self, channel: str, message: bytes) -> None:
        """Send a message, soon; it is dropped if there is no connection."""
        if not self.connected:
            self.dropped += 1
            return
        self._queued_bytes += len(message)
        if self._queued_bytes > QUEUE_BYTES_MAX:
            self.dropped += len(self._queue) + 1
            self._queue.clear()
            self._queued_bytes = 0
            self._stale.set()  # Rooms have to learn that something is missing.
            return
        if not self._queue:
            self._idle.clear()
            if not self._waits:
                self._loop.call_soon(self._send_queued)
        self._queue.append((channel, message))

    async def subscribe(self, channel: str) -> None:
        """Hear a channel; returns when Redis has confirmed it, or does not within seconds."""
        waiter = self._channels.get(channel)
        if channel not in self._channels or waiter is not None:
            if waiter is None:
                waiter = self._channels[channel] = asyncio.get_running_loop().create_future()
                self._change("SUBSCRIBE", channel)
            if self.connected:
                await asyncio.wait([waiter], timeout=SUBSCRIBE_SECONDS)

    def unsubscribe(self, channel: str) -> None:
        """Hear a channel no more."""
        if channel in self._channels:
            waiter = self._channels.pop(channel)
            if waiter is not None:
                waiter.cancel()
            self._change("UNSUBSCRIBE", channel)

    async def flush(self) -> None:
        """Wait until everything is published, or given up."""
        while self.connected and not self._idle.is_set():
            if self._saying is not None:
                self._saying.go_on()
            await self._idle.wait()

    def check(self) -> None:
        """Connect anew: what this node says does not come back to it."""
        self._stale.set()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        loop = self._loop = asyncio.get_running_loop()
        pause = 0.0
        while True:
            begun = loop.time()
            try:
                await self._session()
            except (RedisError, OSError, TimeoutError, _Stale) as error:
                self._complain(error)
            finally:
                self._lose()
            lived = loop.time() - begun > RETRY_SECONDS_MAX
            doubled = min(max(2 * pause, RETRY_SECONDS_MIN), RETRY_SECONDS_MAX)
            pause = RETRY_SECONDS_MIN if lived else doubled
            await asyncio.sleep(pause * (0.75 + 0.5 * self._jitter()))

    # One connection's life

    async def _session(self) -> None:
        self._stale.clear()
        self._ready.clear()
        async with asyncio.timeout(CONNECT_SECONDS):
            hearing = await self._connect()
            try:
                saying = await self._connect()
            except BaseException:
                await hearing.disconnect(nowait=True)
                raise
        try:
            await _first(
                self._hear(hearing),
                self._say(saying),
                self._subscribe(hearing),
                self._watch(),
            )
        finally:
            for connection in (hearing, saying):
                await connection.disconnect(nowait=True)

    async def _connect(self) -> AbstractConnection:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        finally:
            if isinstance(self._pool, SentinelConnectionPool):  # It was asked, and is let go.
                for sentinel in self._pool.sentinel_manager.sentinels:
                    await sentinel.aclose()
        return connection

    async def _hear(self, connection: AbstractConnection) -> None:
        """Take in messages and confirmations."""
        await Wire(connection, self._take_in).ended

    def _take_in(self, reply: Any) -> None:
        kind, name, data = reply
        if kind == b"message":
            self.on_message(name.decode(), data)
        elif kind == b"subscribe":
            self._confirm(name.decode())

    async def _say(self, connection: AbstractConnection) -> None:
        """Publish what is queued, a turn's messages in one write."""
        self._saying = Wire(connection, self._take_reply)
        await self._saying.ended

    def _send_queued(self) -> None:
        """At the end of a turn, and when Redis has answered enough of what it was sent before."""
        wire = self._saying
        if wire is None or not self._queue or self._waits:
            return
        batch, self._queue, self._queued_bytes = self._queue, [], 0
        data = b"".join([packed("PUBLISH", *each) for each in batch])
        self._unanswered += len(batch)
        wire.send(data)
        self._unanswered_max = UNANSWERED_MAX if len(data) <= UNANSWERED_BYTES_MAX else 0
        self._waits = self._unanswered > self._unanswered_max
        if self._waits:
            wire.go_on()
        else:
            wire.hold(REPLY_SECONDS)

    def _take_reply(self, reply: Any) -> None:
        self._unanswered -= 1
        if self._waits and self._unanswered <= self._unanswered_max:
            self._waits = False
            self._send_queued()
        if not self._unanswered and not self._queue:
            self._idle.set()

    async def _subscribe(self, connection: AbstractConnection) -> None:
        """Subscribe to all that is to be heard; then follow what changes."""
        self._changes.clear()
        self._changed.clear()
        channels = list(self._channels)
        self._awaited = len(channels)
        for channel in channels:
            if self._channels[channel] is None:
                self._channels[channel] = asyncio.get_running_loop().create_future()
        await _command(connection, "SUBSCRIBE", channels)
        if not channels:
            self._be_connected()
        while True:
            await self._changed.wait()
            self._changed.clear()
            changes, self._changes = self._changes, []
            # In their order: a room may have been closed and opened again.
            start = 0
            for end in range(1, len(changes) + 1):
                if end == len(changes) or changes[end][0] != changes[start][0]:
                    names = [channel for _, channel in changes[start:end]]
                    await _command(connection, changes[start][0], names)
                    start = end

    async def _watch(self) -> None:
        """End the session if it does not get ready, or is found to be stale."""
        async with asyncio.timeout(CONNECT_SECONDS):
            await self._ready.wait()
        await self._stale.wait()
        raise _Stale("nothing comes back from it")

    def _confirm(self, channel: str) -> None:
        waiter = self._channels.get(channel)
        if waiter is not None:
            if not waiter.done():
                waiter.set_result(None)
            self._channels[channel] = None
        if not self.connected:
            self._awaited -= 1
            if self._awaited == 0:
                self._be_connected()

    def _be_connected(self) -> None:
        self.connected = True
        self._ready.set()
        if self.last_error:
            log.warning("the relay %s is back", self.url)
        self.last_error = ""
        self.on_state(True)

    def _lose(self) -> None:
        self.dropped += len(self._queue)
        self._queue.clear()
        self._queued_bytes = self._unanswered = 0
        self._saying = None
        self._waits = False
        self._idle.set()
        if self.connected:
            self.connected = False
            self.on_state(False)

    def _complain(self, error: Exception) -> None:
        if not self.last_error:
            log.error("the relay %s is away, connecting again: %s", self.url, error)
        self.last_error = str(error) or type(error).__name__

    def _change(self, command: str, channel: str) -> None:
        if self.connected or self._awaited:
            self._changes.append((command, channel))
            self._changed.set()


async def _command(connection: AbstractConnection, command: str, channels: list[str]) -> None:
    for start in range(0, len(channels), CHANNELS_A_COMMAND):
        await connection.send_command(
            command, *channels[start : start + CHANNELS_A_COMMAND], check_health=False
        )


async def _first(*works: Coroutine[Any, Any, None]) -> None:
    """Run coroutines until the first of them ends, and raise what ended it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


def _pool(url: str) -> ConnectionPool:
    # No time-outs while reading: what is published comes back, and the cluster notices if not.
    options: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    try:
        scheme, _, rest = url.partition("://")
        if scheme not in SCHEMES:
            raise ValueError(f"the scheme has to be one of {', '.join(SCHEMES)}")
        secrets = rest.rpartition("@")[0]
        if not secrets.isascii() or any(character in secrets for character in "/?#[]@"):
            raise ValueError("in a name or password, / ? # [ ] @ have to be percent-encoded")
        if scheme.endswith("+sentinel"):
            pool: ConnectionPool = _sentinel_pool(url, options)
        else:
            pool = ConnectionPool.from_url(_without_query(url), **options)
        pool.make_connection()  # type: ignore[no-untyped-call]  # knows which options there are
    except (ValueError, TypeError) as error:
        raise ConfigError(f"relay {_without_secrets(url)!r} can't be used: {error}") from None
    return pool


def _sentinel_pool(url: str, options: dict[str, Any]) -> ConnectionPool:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("the name of Sentinel's service is missing: host:26379/service")
    addresses = []
    for each in hosts.split(","):
        host, _, port = each.rpartition(":") if ":" in each else (each, "", "26379")
        addresses.append((host, int(port)))
    known = {
        "username": unquote(user) or None,
        "password": unquote(password) or None,
        "db": int(database or 0),
    }
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        addresses, sentinel_kwargs={"socket_timeout": CONNECT_SECONDS}
    )
    return SentinelConnectionPool(  # type: ignore[no-untyped-call]
        service, sentinel, ssl=parts.scheme.startswith("rediss"), **options, **known
    )


def _without_query(url: str) -> str:
    """Return the URL without what is ours."""
    base, _, query = url.partition("?")
    theirs = "&".join(each for each in query.split("&") if each and not each.startswith("prefix="))
    return f"{base}?{theirs}" if theirs else base


def prefix_of(url: str) -> str:
    """Return what begins the names of a cluster's channels: `?prefix=` of the URL."""
    return (parse_qs(urlsplit(url).query).get("prefix") or ["plait"])[0]


def _without_secrets(url: str) -> str:
    """Return what may be shown of a URL, though it be none: passwords may hold any character."""
    scheme, colon, rest = url.partition("://") if "://" in url else ("", "", url)
    return scheme + colon + rest.rpartition("@")[2].partition("?")[0]
