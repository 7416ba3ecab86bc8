"""The writing transactions of an SQLite store, as functions that run in its connection's thread.

Each is one transaction from `BEGIN IMMEDIATE` on, so what it reads can't change before it writes.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from plait.persistence import sqlite_outbox
from plait.persistence.announcing import Announcer
from plait.persistence.sqlite_connection import writing
from plait.persistence.store import (
    DELETED,
    UNDELETED,
    DocumentDeleted,
    Event,
    Segment,
    Snapshot,
    Update,
)

IDS_CACHED_MAX = 65_536
"""Documents whose id is remembered; beyond this all are looked up anew."""


@dataclass(slots=True)
class _Added:
    """What one transaction adds to a document's counters."""

    created_ms: int
    modified_ms: int
    updates: int
    log_bytes: int


class Appender:
    """Append updates, with the ids of known documents at hand.

    The cache is only a guess: another process may have deleted or purged the document. The update
    of the counters within the transaction hits exactly one row if the guess is right and the
    document is not deleted. Ids are never used twice, so it can't hit another document's row.

    A document that was known and is no more was purged by another process. What is appended to it
    builds upon content that is gone, so it does not come into being again: that is an error, once.
    """

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._ids: dict[str, int] = {}
        self._made: list[str] = []
        """Documents that the transaction makes."""

    def append(self, connection: sqlite3.Connection, updates: Sequence[Update]) -> Sequence[int]:
        """Append updates in one transaction; return their sequence numbers."""
        if not updates:
            return ()
        added = _sum_up(updates)
        self._made = []
        with writing(connection):
            ids = self._count(connection, added)
            connection.executemany(
                "INSERT INTO updates (document, bytes, who, at_ms) VALUES (?, ?, ?, ?)",
                [(ids[name], update, who, at_ms) for name, update, who, at_ms in updates],
            )
            last = connection.execute("SELECT last_insert_rowid()").fetchone()[0]
            if self._announcer.kinds:
                times = {name: (sums.created_ms, sums.modified_ms) for name, sums in added.items()}
                sqlite_outbox.announce_append(connection, times, self._made, self._announcer)
        # Only now: ids given out by a transaction that was taken back are nobody's.
        if len(self._ids) + len(ids) > IDS_CACHED_MAX:
            self._ids.clear()
        self._ids.update(ids)
        # Nobody else could insert while the lock was held, so the numbers are consecutive.
        return range(last - len(updates) + 1, last + 1)

    def know(self, name: str, identity: int | None) -> None:
        """Remember a document that was loaded, or that there was none."""
        if identity is None:
            self._ids.pop(name, None)
        elif len(self._ids) < IDS_CACHED_MAX:
            self._ids[name] = identity

    def forget(self) -> None:
        """Forget all ids: this process has purged documents itself."""
        self._ids.clear()

    def _count(self, connection: sqlite3.Connection, added: Mapping[str, _Added]) -> dict[str, int]:
        """Add to documents' counters, making those that are not there; return their ids."""
        ids = {name: known for name in added if (known := self._ids.get(name)) is not None}
        if _add(connection, ids, added) != len(ids):
            ids = {name: known for name, known in ids.items() if _is_there(connection, known)}
        for name, sums in added.items():
            if name not in ids:
                ids[name] = self._count_unknown(connection, name, sums)
        return ids

    def _count_unknown(self, connection: sqlite3.Connection, name: str, sums: _Added) -> int:
        """Add to the counters of a document whose id is not known, or make it; return its id."""
        row = connection.execute(
            "SELECT id, deleted_ms FROM documents WHERE name = ?", (name,)
        ).fetchone()
        if row is None and self._ids.pop(name, None) is not None:
            raise DocumentDeleted.of(name)
        if row is None:
            cursor = connection.execute(
                """
                INSERT INTO documents
                    (name, created_ms, modified_ms, updates, log_bytes, tail_updates, tail_bytes)
                VALUES (?1, ?2, ?3, ?4, ?5, ?4, ?5)
                """,
                (name, sums.created_ms, sums.modified_ms, sums.updates, sums.log_bytes),
            )
            assert cursor.lastrowid is not None
            self._made.append(name)
            return cursor.lastrowid
        identity, deleted_ms = row
        if deleted_ms is not None:
            raise DocumentDeleted.of(name)
        _add(connection, {name: identity}, {name: sums})
        return int(identity)


def _sum_up(updates: Sequence[Update]) -> dict[str, _Added]:
    added: dict[str, _Added] = {}
    for name, update, _, at_ms in updates:
        sums = added.get(name)
        if sums is None:
            added[name] = _Added(at_ms, at_ms, 1, len(update))
        else:
            sums.modified_ms = max(sums.modified_ms, at_ms)
            sums.updates += 1
            sums.log_bytes += len(update)
    return added


def _add(
    connection: sqlite3.Connection, ids: Mapping[str, int], added: Mapping[str, _Added]
) -> int:
    """Add to the counters of documents that are there and not deleted; return of how many."""
    if not ids:
        return 0
    return connection.executemany(
        """
        UPDATE documents SET
            modified_ms = max(modified_ms, ?1),
            updates = updates + ?2, log_bytes = log_bytes + ?3,
            tail_updates = tail_updates + ?2, tail_bytes = tail_bytes + ?3
        WHERE id = ?4 AND deleted_ms IS NULL
        """,
        [
            (sums.modified_ms, sums.updates, sums.log_bytes, identity)
            for name, identity in ids.items()
            for sums in (added[name],)
        ],
    ).rowcount


def _is_there(connection: sqlite3.Connection, identity: int) -> bool:
    query = "SELECT 1 FROM documents WHERE id = ? AND deleted_ms IS NULL"
    return connection.execute(query, (identity,)).fetchone() is not None


def compact(
    connection: sqlite3.Connection, document: str, snapshot: Snapshot, segment: Segment | None
) -> bool:
    """Set a snapshot and fold rows, if everything is as the caller thinks it is."""
    with writing(connection):
        row = connection.execute(
            """
            SELECT documents.id, coalesce(upto, 0)
            FROM documents LEFT JOIN snapshots ON snapshots.document = documents.id
            WHERE name = ? AND deleted_ms IS NULL
            """,
            (document,),
        ).fetchone()
        if row is None:
            return False
        identity, covered = row
        if covered > snapshot.upto or (covered == snapshot.upto and segment is None):
            return False
        # A snapshot that claims more than the log has would hide what is appended next.
        ends = [snapshot.upto] if segment is None else [snapshot.upto, segment.first, segment.last]
        if not all(_has_row(connection, identity, seq) for seq in ends):
            return False
        if segment is not None:
            if not segment.first <= segment.last <= snapshot.upto:
                return False
            _fold(connection, identity, segment)
        if covered < snapshot.upto:
            _set_snapshot(connection, identity, snapshot)
        return True


def _has_row(connection: sqlite3.Connection, identity: int, seq: int) -> bool:
    query = "SELECT 1 FROM updates WHERE seq = ? AND document = ?"
    return connection.execute(query, (seq, identity)).fetchone() is not None


def _fold(connection: sqlite3.Connection, identity: int, segment: Segment) -> None:
    run = (identity, segment.first, segment.last)
    where = "document = ? AND seq BETWEEN ? AND ?"
    rows, length, folded, authors, who = connection.execute(
        f"""
        SELECT count(*), sum(length(bytes)), sum(max(folded, 1)), count(DISTINCT who), min(who)
        FROM updates WHERE {where}
        """,
        run,
    ).fetchone()
    connection.execute(f"DELETE FROM updates WHERE {where} AND seq < ?", (*run, segment.last))
    connection.execute(
        "UPDATE updates SET bytes = ?, who = ?, folded = ? WHERE seq = ?",
        (segment.update, who if authors == 1 else "", folded, segment.last),
    )
    connection.execute(
        "UPDATE documents SET updates = updates - ?, log_bytes = log_bytes + ? WHERE id = ?",
        (rows - 1, len(segment.update) - length, identity),
    )


def _set_snapshot(connection: sqlite3.Connection, identity: int, snapshot: Snapshot) -> None:
    connection.execute("DELETE FROM slices WHERE document = ?", (identity,))
    connection.execute("DELETE FROM snapshots WHERE document = ?", (identity,))
    connection.execute(
        """
        INSERT INTO snapshots (document, upto, at_ms, slices, types, lossy, astral, places)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            identity,
            snapshot.upto,
            snapshot.at_ms,
            len(snapshot.slices),
            snapshot.types,
            snapshot.lossy,
            snapshot.astral,
            snapshot.places,
        ),
    )
    connection.executemany(
        "INSERT INTO slices VALUES (?, ?, ?)",
        [(identity, number, piece) for number, piece in enumerate(snapshot.slices)],
    )
    tail = connection.execute(
        """
        SELECT count(*), coalesce(sum(length(bytes)), 0)
        FROM updates WHERE document = ? AND seq > ?
        """,
        (identity, snapshot.upto),
    ).fetchone()
    connection.execute(
        "UPDATE documents SET tail_updates = ?, tail_bytes = ?, snapshot_bytes = ? WHERE id = ?",
        (*tail, sum(map(len, snapshot.slices)), identity),
    )


def delete(connection: sqlite3.Connection, document: str, at_ms: int, announcer: Announcer) -> bool:
    """Mark a document as deleted."""
    with writing(connection):
        cursor = connection.execute(
            "UPDATE documents SET deleted_ms = ? WHERE name = ? AND deleted_ms IS NULL",
            (at_ms, document),
        )
        if cursor.rowcount == 1 and DELETED in announcer.kinds:
            sqlite_outbox.put(connection, [Event(document, DELETED, at_ms)], announcer)
    return cursor.rowcount == 1


def undelete(
    connection: sqlite3.Connection, document: str, now_ms: int, announcer: Announcer
) -> bool:
    """Take back the mark."""
    with writing(connection):
        cursor = connection.execute(
            "UPDATE documents SET deleted_ms = NULL WHERE name = ? AND deleted_ms IS NOT NULL",
            (document,),
        )
        if cursor.rowcount == 1 and UNDELETED in announcer.kinds:
            sqlite_outbox.put(connection, [Event(document, UNDELETED, now_ms)], announcer)
    return cursor.rowcount == 1


def purge_one(connection: sqlite3.Connection, document: str | None, before_ms: int | None) -> bool:
    """Forget one deleted document that fits; return whether there was one.

    One a transaction, so that appends wait for the rows of one document at most.
    """
    with writing(connection):
        row = connection.execute(
            """
            SELECT id FROM documents INDEXED BY documents_deleted
            WHERE deleted_ms IS NOT NULL
                AND (?1 IS NULL OR name = ?1) AND (?2 IS NULL OR deleted_ms < ?2)
            LIMIT 1
            """,
            (document, before_ms),
        ).fetchone()
        if row is None:
            return False
        for table in ("slices", "snapshots", "updates"):
            connection.execute(f"DELETE FROM {table} WHERE document = ?", row)
        connection.execute("DELETE FROM documents WHERE id = ?", row)
    return True


def ping(connection: sqlite3.Connection) -> None:
    """Commit something: a lock that can be taken does not say that the disk has room."""
    with writing(connection):
        connection.execute("UPDATE pings SET count = count + 1")
