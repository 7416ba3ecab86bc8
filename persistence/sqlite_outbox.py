"""The outbox of an SQLite store, as functions of a connection.

The oldest event of each document is marked as its first, so that taking some looks neither at what
waits behind them nor at how much that is. There is one writer at a time, and so the mark is exact;
what is in somebody's hands is always a first one.
"""

import logging
import sqlite3
from collections.abc import Collection, Mapping, Sequence

from plait.persistence.announcing import TOLD, Announcer
from plait.persistence.sqlite_connection import writing
from plait.persistence.store import CHANGED, Event

logger = logging.getLogger(__name__)

_FIELDS = "document, kind, at_ms, data, id, attempts"
LAST_TOLD = f"""
    SELECT kind, taken FROM outbox
    WHERE document = ? AND kind IN ({TOLD}) ORDER BY id DESC LIMIT 1
"""
FIRSTS = f"SELECT {_FIELDS} FROM outbox WHERE first AND due_ms <= ? ORDER BY id LIMIT ?"


def announce_append(
    connection: sqlite3.Connection,
    times: Mapping[str, tuple[int, int]],
    made: Collection[str],
    announcer: Announcer,
) -> None:
    """Tell of an append, within its transaction."""
    waiting: Collection[str] = ()
    if CHANGED in announcer.kinds:
        waiting = [document for document in times if _tells_of_changes(connection, document)]
    put(connection, announcer.of_append(times, made, waiting), announcer)


def _tells_of_changes(connection: sqlite3.Connection, document: str) -> bool:
    """Return whether the last that is told of a document is a change that nobody took yet."""
    row = connection.execute(LAST_TOLD, (document,)).fetchone()
    return row is not None and tuple(row) == (CHANGED, 0)


def put(connection: sqlite3.Connection, events: Sequence[Event], announcer: Announcer) -> None:
    """Put events in, within a transaction, and drop the oldest if there are too many."""
    connection.executemany(
        """
        INSERT INTO outbox (document, kind, at_ms, data, attempts, first)
        VALUES (?1, ?2, ?3, ?4, ?5, NOT EXISTS (SELECT 1 FROM outbox WHERE document = ?1))
        """,
        [(e.document, e.kind, e.at_ms, e.data, e.attempts) for e in events],
    )
    if announcer.looks(len(events)):
        _shorten(connection, announcer.most)


def _shorten(connection: sqlite3.Connection, most: int) -> None:
    row = connection.execute(
        "SELECT id FROM outbox ORDER BY id DESC LIMIT 1 OFFSET ?", (most,)
    ).fetchone()
    if row is None:
        return
    which = "FROM outbox WHERE id <= ? AND NOT taken"
    documents = connection.execute(f"SELECT DISTINCT document {which}", row).fetchall()
    dropped = connection.execute(f"DELETE {which}", row).rowcount
    _mark_firsts(connection, documents)
    if dropped:
        logger.warning("the outbox is full, events dropped: %d", dropped)


def _mark_firsts(connection: sqlite3.Connection, documents: Collection[tuple[str]]) -> None:
    connection.executemany(
        "UPDATE outbox SET first = 1 WHERE id = (SELECT min(id) FROM outbox WHERE document = ?)",
        documents,
    )


def post(connection: sqlite3.Connection, events: Sequence[Event], announcer: Announcer) -> None:
    """Put events in."""
    with writing(connection):
        put(connection, events, announcer)


def take(connection: sqlite3.Connection, now_ms: int, lease_ms: int, limit: int) -> Sequence[Event]:
    """Take the oldest event of each document."""
    # Asked first, since most often there is nothing, and a transaction that writes is dear.
    if not connection.execute(FIRSTS, (now_ms, 1)).fetchone():
        return []
    with writing(connection):
        events = [Event(*row) for row in connection.execute(FIRSTS, (now_ms, limit))]
        connection.executemany(
            "UPDATE outbox SET taken = 1, due_ms = ? WHERE id = ?",
            [(now_ms + lease_ms, event.id) for event in events],
        )
    return events


def end(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """Remove events that are in somebody's hands."""
    with writing(connection):
        documents = set()
        for id in ids:
            row = connection.execute(
                "SELECT document FROM outbox WHERE id = ? AND taken", (id,)
            ).fetchone()
            if row is not None:
                connection.execute("DELETE FROM outbox WHERE id = ?", (id,))
                documents.add(row)
        _mark_firsts(connection, documents)


def put_back(connection: sqlite3.Connection, id: int, due_ms: int) -> None:
    """Let an event be taken again."""
    with writing(connection):
        connection.execute(
            """
            UPDATE outbox SET taken = 0, due_ms = ?, attempts = attempts + 1
            WHERE id = ? AND taken
            """,
            (due_ms, id),
        )


def page(connection: sqlite3.Connection, after: int, limit: int) -> Sequence[Event]:
    """List events by id."""
    query = f"SELECT {_FIELDS} FROM outbox WHERE id > ? ORDER BY id LIMIT ?"
    return [Event(*row) for row in connection.execute(query, (after, limit))]


def counts(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many there are, and the time of the oldest."""
    row = connection.execute(
        """
        SELECT count(*), coalesce((SELECT at_ms FROM outbox ORDER BY id LIMIT 1), 0) FROM outbox
        """
    ).fetchone()
    return row[0], row[1]
