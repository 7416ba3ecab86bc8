"""Connections to PostgreSQL, and transactions on them that end, whatever happens.

Rules:

1. Nothing is set for a session, so that a proxy which gives each transaction another session
   (PgBouncer) changes nothing. What a transaction needs is set as it begins, in the same message.
2. A connection on which anything but an error of the server happened is thrown away: a time-out, a
   cancelled task, a lost peer. The server takes back what was not committed.
3. A server that hangs is noticed here after `ANSWER_SECONDS`. The other way around, locks of a node
   that hangs in the middle of a transaction are taken from it after `IDLE_SECONDS`.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from typing import Any, TypeVar

import asyncpg

from plait.persistence.postgres_address import Address
from plait.persistence.postgres_errors import is_conflict, is_lost, is_of_replica, translated
from plait.persistence.store import StoreError, StoreUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_SECONDS = 5.0
"""For a connection to be made or to become free."""
ANSWER_SECONDS = 8.0
"""For the answer to one statement. Together with the above, about what a caller waits at most."""
IDLE_SECONDS = 10
"""How long a transaction may wait for its node between two statements."""
UNUSED_SECONDS = 300.0
"""After which a connection that nobody used is closed."""
CONFLICTS_MAX = 5
"""Runs of a transaction that gets in others' way, before it is `StoreUnavailable`."""

_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 3, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 15_000}
"""A peer whose network is gone is noticed after about 20 s, also by connections that idle."""

_LIMITS = f"""
    SET LOCAL statement_timeout = '{ANSWER_SECONDS:.0f}s';
    SET LOCAL idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'
"""

DURABLE = """
    SELECT set_config('synchronous_commit', 'on', true)
        WHERE current_setting('synchronous_commit') IN ('off', 'local')
"""
"""A commit that is told has to be on the disk, whatever the server's default is."""

BEGIN_WRITING = f"BEGIN ISOLATION LEVEL READ COMMITTED; {_LIMITS}; {DURABLE}"

BEGIN_READING = f"BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; {_LIMITS}"

BEGIN_LONG = """
    BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '10min'
"""
"""For work on the whole store. It holds no locks that anybody waits for."""

BEGIN_COPYING = f"""
    BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '10min';
    {DURABLE}
"""
"""For filling a store, by somebody who is alone in it."""


@cache
def named(statement: str, schema: str) -> str:
    """Return a statement, which is written for the schema `plait`, for another one."""
    return statement.replace("plait.", f'"{schema}".')


class Session:
    """One connection, for the length of a transaction or of one statement."""

    def __init__(self, connection: asyncpg.pool.PoolConnectionProxy, schema: str) -> None:
        self._connection = connection
        self.schema = schema

    async def fetch(
        self, statement: str, *arguments: object, seconds: float | None = None
    ) -> Sequence[asyncpg.Record]:
        """Return all rows."""
        return await self._connection.fetch(
            named(statement, self.schema), *arguments, timeout=seconds
        )

    async def first(self, statement: str, *arguments: object) -> asyncpg.Record | None:
        """Return the first row, if there is one."""
        return await self._connection.fetchrow(named(statement, self.schema), *arguments)

    async def count(self, statement: str, *arguments: object, seconds: float | None = None) -> int:
        """Return how many rows a statement changed."""
        status = await self._connection.execute(
            named(statement, self.schema), *arguments, timeout=seconds
        )
        return int(status.rpartition(" ")[2])

    async def run(self, statements: str, *, seconds: float | None = None) -> None:
        """Run statements without arguments, several in one message."""
        await self._connection.execute(named(statements, self.schema), timeout=seconds)

    async def many(
        self, statement: str, rows: Iterable[Sequence[object]], *, seconds: float
    ) -> None:
        """Run a statement for each of many rows."""
        await self._connection.executemany(named(statement, self.schema), rows, timeout=seconds)


class Connections:
    """A pool of connections to one store."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pool: asyncpg.Pool | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.ready = max(1, address.pool // 2)
        """How many are kept ready, if any are."""

    async def open(self) -> None:
        """Get ready. Connects only when a connection is needed."""
        address = self._address
        self._pool = await asyncpg.create_pool(
            address.dsn,
            min_size=0,
            max_size=address.pool,
            max_inactive_connection_lifetime=UNUSED_SECONDS,
            # Between transactions nothing is left that would have to be reset.
            reset=_leave_as_it_is,
            init=_keep_alive,
            timeout=CONNECT_SECONDS,
            command_timeout=ANSWER_SECONDS,
            statement_cache_size=address.statement_cache,
        )

    async def keep_ready(self, work: Callable[[Session], Awaitable[object]]) -> None:
        """Make half of the connections, and keep them until `close`.

        A server's new session takes 100 ms for the first statement that others run within one:
        it has read nothing about the tables. After a node died, everybody would wait for that.

        Args:
            work: runs that statement.
        """
        if not self._address.statement_cache:  # A proxy has sessions, and keeps them.
            return
        await self._make_ready(work)
        self._keeping = asyncio.create_task(self._keep_ready(work))

    async def _keep_ready(self, work: Callable[[Session], Awaitable[object]]) -> None:
        while True:
            await asyncio.sleep(UNUSED_SECONDS / 2)
            await self._make_ready(work)

    async def _make_ready(self, work: Callable[[Session], Awaitable[object]]) -> None:
        try:
            with translated(self._address.url):
                async with AsyncExitStack() as stack:
                    sessions = [
                        await stack.enter_async_context(self.session()) for _ in range(self.ready)
                    ]
                    for session in sessions:
                        await work(session)
        except StoreError as error:
            log.info("connections are made when they are needed: %s", error)

    async def close(self) -> None:
        """Close all connections."""
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await pool.close()
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pool.terminate()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Give a connection; each statement is a transaction of its own."""
        if self._pool is None:
            raise StoreUnavailable(f"the store {self._address.url} is not open")
        pool = self._pool
        try:
            connection = await pool.acquire(timeout=CONNECT_SECONDS)
        except ValueError as error:
            if isinstance(error, asyncpg.InterfaceError):
                raise
            # asyncpg reads the URL as it connects. What it says may hold a password.
            raise asyncpg.exceptions.ClientConfigurationError("unreadable") from None
        try:
            yield Session(connection, self._address.schema)
        except (asyncpg.PostgresError, StoreError, ValueError) as error:
            if is_of_replica(error):
                connection.terminate()  # the next one may find the primary
            raise
        except BaseException:
            connection.terminate()
            raise
        finally:
            await pool.release(connection)

    @asynccontextmanager
    async def transaction(self, begin: str) -> AsyncIterator[Session]:
        """Give a connection within a transaction, which is committed if the block ends well."""
        async with self.session() as session:
            try:
                await session.run(begin)
                yield session
                await session.run("COMMIT")
            except (asyncpg.PostgresError, StoreError, ValueError):
                # If that fails too, the connection is lost, and the transaction with it.
                await session.run("ROLLBACK")
                raise

    async def read(self, work: Callable[[Session], Awaitable[T]], begin: str = "") -> T:
        """Run reading work, once more on another connection if the first one was lost.

        Args:
            begin: what begins the transaction; without, each statement may be one.
        """
        if not self._address.statement_cache:
            # A proxy may send a statement's two messages to two sessions, unless in a transaction.
            begin = begin or BEGIN_READING
        with translated(self._address.url):
            try:
                return await self._read(work, begin)
            except Exception as error:
                if not is_lost(error):
                    raise
            return await self._read(work, begin)

    async def _read(self, work: Callable[[Session], Awaitable[T]], begin: str) -> T:
        how = self.transaction(begin) if begin else self.session()
        async with how as session:
            return await work(session)

    async def attempt(self, work: Callable[[Session], Awaitable[T]]) -> T | None:
        """Run work that is one statement, and so a transaction by itself; return None if it can't
        be, or got in another's way.

        The server sets it no limit: it holds locks only while it runs. asyncpg cancels it after
        `ANSWER_SECONDS`; if that is lost too, it is committed later, as any lost commit may be.
        """
        if not self._address.statement_cache:  # See `read`.
            return None
        with translated(self._address.url):
            try:
                async with self.session() as session:
                    return await work(session)
            except asyncpg.PostgresError as error:
                if not is_conflict(error):
                    raise
        return None

    async def write(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Run work in one transaction; again if it got in another's way, but not if it was lost.

        Whether a lost transaction was committed is not known. Who called may run it again.
        """
        with translated(self._address.url):
            for _ in range(CONFLICTS_MAX - 1):
                try:
                    async with self.transaction(BEGIN_WRITING) as session:
                        return await work(session)
                except asyncpg.PostgresError as error:
                    if not is_conflict(error):
                        raise
            async with self.transaction(BEGIN_WRITING) as session:
                return await work(session)


class OneTransaction(Connections):
    """Stands for the connections to a store within a transaction, of which all that is read and
    written becomes a part. Who began it ends it.
    """

    def __init__(self, address: Address, session: Session) -> None:
        super().__init__(address)
        self._session = session

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """Give the one connection."""
        yield self._session

    @asynccontextmanager
    async def transaction(self, begin: str) -> AsyncIterator[Session]:
        """Give the one connection, on which everything is in the transaction already."""
        yield self._session

    async def attempt(self, work: Callable[[Session], Awaitable[T]]) -> T | None:
        """Return None: a statement that got in another's way would end the transaction."""
        return None

    async def write(self, work: Callable[[Session], Awaitable[T]]) -> T:
        """Run work once, for the same reason."""
        with translated(self._address.url):
            return await work(self._session)


async def _leave_as_it_is(connection: object) -> None:
    pass


async def _keep_alive(connection: Any) -> None:
    # asyncpg has no public way to the socket.
    sock = connection._transport.get_extra_info("socket")
    if sock is None or sock.family == socket.AF_UNIX:
        return
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # not every system has all of them
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
