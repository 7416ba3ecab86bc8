"""One SQLite connection in a thread of its own, on which a whole transaction is one call.

A call to aiosqlite costs a hop to its thread and back, about 0.1 ms. More important, a transaction
spread over several calls can be left open by a task that is cancelled between two of them. So the
statements of a transaction are a plain function that runs in the thread from `BEGIN` to `COMMIT`
or `ROLLBACK`; cancelling the one who waits for it changes nothing there.
"""

import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import aiosqlite

from plait.persistence.sqlite_errors import translated

P = ParamSpec("P")
T = TypeVar("T")

_RETRY_SECONDS = 0.005

_WAL_BYTES_KEPT = 64 << 20
"""A write-ahead log that grew beyond this (during a backup) is cut back at the next checkpoint."""


class SqliteConnection(aiosqlite.Connection):
    """A connection that runs functions of `sqlite3.Connection` in its thread, in order."""

    def __init__(self, path: Path, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        self._path = path
        # A program that ends by an error before it closes the store must end all the same.
        self._thread.daemon = True

    async def run(
        self,
        work: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function with the connection in the thread; raise only errors of the contract."""
        with translated(self._path):
            execute: Callable[..., Awaitable[T]] = self._execute
            return await execute(work, self._conn, *args, **kwargs)


async def connect(path: Path, *, busy_seconds: float) -> SqliteConnection:
    """Start a thread with a connection to a database, which is created if there is none."""
    connection = SqliteConnection(path, lambda: open_file(path, busy_seconds=busy_seconds))
    with translated(path):
        await connection
    return connection


def open_file(path: Path, *, busy_seconds: float) -> sqlite3.Connection:
    """Open a database in this thread, in autocommit mode: transactions are begun by name."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=busy_seconds)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def prepare_for_writing(connection: sqlite3.Connection, *, busy_seconds: float) -> None:
    """Make commits durable, and reading independent of them."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            # Asked first, since changing the mode needs the file for itself.
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            # SQLite does not wait for this lock by itself when several open a new file at once.
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
    # In WAL mode NORMAL may lose the last commits with the power; they were acknowledged.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")


def prepare_for_reading(connection: sqlite3.Connection) -> None:
    """Refuse writes on a connection that is there to read."""
    connection.execute("PRAGMA query_only = ON")


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock for the block; commit at its end, or take all of it back."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors (a full disk, for one).
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """See the store as of one moment for the block."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
