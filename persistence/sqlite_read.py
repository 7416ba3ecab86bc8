"""The reading transactions of an SQLite store, as functions that run in its connection's thread."""

import sqlite3
from collections.abc import Sequence

from plait.persistence.sqlite_connection import reading
from plait.persistence.store import (
    DocumentDeleted,
    DocumentInfo,
    LoggedUpdate,
    Snapshot,
    StoreCorrupt,
    Stored,
)

_DOCUMENT_COLUMNS = """
    name, created_ms, modified_ms, updates, log_bytes, snapshot_bytes, tail_updates, tail_bytes,
    deleted_ms
"""

_CHECK_HINT = "Run `plait store check`, and restore a backup with `plait store restore`."


def load(connection: sqlite3.Connection, document: str) -> tuple[Stored, int | None]:
    """Return a document as of one moment, and its id, if there is one."""
    with reading(connection):
        row = connection.execute(
            "SELECT id, deleted_ms, tail_updates FROM documents WHERE name = ?", (document,)
        ).fetchone()
        if row is None:
            return Stored(document), None
        identity, deleted_ms, tail_updates = row
        if deleted_ms is not None:
            raise DocumentDeleted.of(document)
        snapshot = _load_snapshot(connection, identity, document)
        updates = _rows(connection, identity, document, snapshot.upto if snapshot else 0, -1)
    # Rows that vanished would otherwise be taken for a document that never had them.
    if len(updates) != tail_updates or (snapshot is None and not updates):
        raise StoreCorrupt(
            f"{len(updates)} updates are in the log where {tail_updates} were counted",
            document=document,
            hint=_CHECK_HINT,
        )
    return Stored(document, snapshot, updates), identity


def _load_snapshot(connection: sqlite3.Connection, identity: int, document: str) -> Snapshot | None:
    row = connection.execute(
        "SELECT upto, at_ms, types, lossy, astral, places, slices FROM snapshots "
        "WHERE document = ?",
        (identity,),
    ).fetchone()
    if row is None:
        return None
    upto, at_ms, types, lossy, astral, places, count = row
    slices = connection.execute(
        "SELECT number, bytes FROM slices WHERE document = ? ORDER BY number", (identity,)
    ).fetchall()
    if [number for number, _ in slices] != list(range(count)):
        raise StoreCorrupt(
            f"the snapshot has {len(slices)} of {count} slices", document=document, hint=_CHECK_HINT
        )
    pieces = tuple(piece for _, piece in slices)
    return Snapshot(upto, pieces, at_ms, types, bool(lossy), bool(astral), places)


def _rows(
    connection: sqlite3.Connection, identity: int, document: str, after: int, limit: int
) -> tuple[LoggedUpdate, ...]:
    rows = connection.execute(
        """
        SELECT seq, bytes, who, at_ms FROM updates
        WHERE document = ? AND seq > ? ORDER BY seq LIMIT ?
        """,
        (identity, after, limit),
    )
    return tuple(LoggedUpdate(seq, document, update, who, at) for seq, update, who, at in rows)


def log(
    connection: sqlite3.Connection, document: str, after: int, limit: int
) -> Sequence[LoggedUpdate]:
    """Return a page of a document's log."""
    with reading(connection):
        row = connection.execute("SELECT id FROM documents WHERE name = ?", (document,)).fetchone()
        return _rows(connection, row[0], document, after, limit) if row else ()


def documents(
    connection: sqlite3.Connection, prefix: str, after: str, limit: int, in_bin: bool
) -> Sequence[DocumentInfo]:
    """Return a page of the listing."""
    beyond = beyond_prefix(prefix)
    index = "INDEXED BY documents_deleted" if in_bin else ""
    rows = connection.execute(
        f"""
        SELECT {_DOCUMENT_COLUMNS} FROM documents {index}
        WHERE name > ?1 AND name >= ?2 AND (?3 IS NULL OR name < ?3)
            AND deleted_ms IS {"NOT NULL" if in_bin else "NULL"}
        ORDER BY name LIMIT ?4
        """,
        # Two lower bounds would make the planner pick one: give it the higher.
        (after, max(after, prefix), beyond, limit),
    )
    return [DocumentInfo(*row) for row in rows]


def info(connection: sqlite3.Connection, document: str) -> DocumentInfo | None:
    """Return what is known of one document."""
    row = connection.execute(
        f"SELECT {_DOCUMENT_COLUMNS} FROM documents WHERE name = ?", (document,)
    ).fetchone()
    return DocumentInfo(*row) if row else None


def beyond_prefix(prefix: str) -> str | None:
    """Return the lowest text above everything that begins with a prefix; None if there is none."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code == 0xD800:
            code = 0xE000  # surrogates are no characters
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(code)
        prefix = prefix[:-1]
    return None
