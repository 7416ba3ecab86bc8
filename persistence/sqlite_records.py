"""Records of an SQLite store, as functions of a connection.

A removed record leaves its row behind for a day, without its value, so that whoever asks for
changes is told. `record_state` has the last number that was given out, and the last one of a
removal that is forgotten: whoever asks from below that is told all that there is.
"""

import sqlite3
from collections.abc import Sequence

from plait.persistence.announcing import DAY_MS, expired
from plait.persistence.sqlite_connection import reading, writing
from plait.persistence.store import Record, RecordChanges

_FIELDS = "kind, id, value, at_ms, until_ms, seq"


def put(connection: sqlite3.Connection, record: Record, new: bool, now_ms: int) -> bool:
    """Put a record, and forget what is old; return whether it was put."""
    with writing(connection):
        there = get(connection, record.kind, record.id)
        if new and there is not None and not expired(there.until_ms, record.at_ms):
            return False
        connection.execute(
            f"INSERT OR REPLACE INTO records ({_FIELDS}) VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(record.kind, record.id, record.value, record.at_ms, record.until_ms),
                _next_number(connection),
            ),
        )
        _forget(connection, now_ms - DAY_MS, min(now_ms, record.at_ms) - DAY_MS)
    return True


def _next_number(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE record_state SET seq = seq + 1")
    return int(connection.execute("SELECT seq FROM record_state").fetchone()[0])


def _forget(connection: sqlite3.Connection, removed_before: int, ended_before: int) -> None:
    connection.execute(
        """
        UPDATE record_state SET forgotten = max(forgotten, coalesce(
            (SELECT max(seq) FROM records WHERE removed_ms < ?), 0))
        """,
        (removed_before,),
    )
    connection.execute("DELETE FROM records WHERE removed_ms < ?", (removed_before,))
    connection.execute("DELETE FROM records WHERE until_ms <= ?", (ended_before,))


def remove(connection: sqlite3.Connection, kind: str, id: str, now_ms: int) -> bool:
    """Remove a record, and remember that; return whether there was one."""
    with writing(connection):
        if get(connection, kind, id) is None:
            return False
        connection.execute(
            """
            UPDATE records SET value = '', until_ms = NULL, removed_ms = ?, seq = ?
            WHERE kind = ? AND id = ?
            """,
            (now_ms, _next_number(connection), kind, id),
        )
    return True


def get(connection: sqlite3.Connection, kind: str, id: str) -> Record | None:
    """Return a record."""
    row = connection.execute(
        f"SELECT {_FIELDS} FROM records WHERE kind = ? AND id = ? AND removed_ms IS NULL",
        (kind, id),
    ).fetchone()
    return Record(*row) if row is not None else None


def page(connection: sqlite3.Connection, kind: str, after: str, limit: int) -> Sequence[Record]:
    """List records of a kind by id."""
    rows = connection.execute(
        f"""
        SELECT {_FIELDS} FROM records
        WHERE kind = ? AND id > ? AND removed_ms IS NULL ORDER BY id LIMIT ?
        """,
        (kind, after, limit),
    )
    return [Record(*row) for row in rows]


def since(connection: sqlite3.Connection, seq: int) -> RecordChanges:
    """Return what was put and removed after a number."""
    with reading(connection):
        query = "SELECT seq, forgotten FROM record_state"
        last, forgotten = connection.execute(query).fetchone()
        whole = seq < max(1, forgotten) or seq > last
        rows = connection.execute(
            f"SELECT {_FIELDS}, removed_ms FROM records WHERE seq > ? ORDER BY seq",
            (0 if whole else seq,),
        ).fetchall()
    return RecordChanges(
        last,
        tuple(Record(*row[:-1]) for row in rows if row[-1] is None),
        () if whole else tuple((row[0], row[1]) for row in rows if row[-1] is not None),
        whole,
    )
