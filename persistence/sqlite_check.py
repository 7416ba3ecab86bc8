"""Look for damage in an SQLite store: SQLite's own tests, and what the store's code relies on."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from plait.persistence.sqlite_connection import reading
from plait.persistence.sqlite_errors import translate
from plait.persistence.store import Progress

PROBLEMS_MAX = 100
"""Sentences per rule; a damaged file could have one for each row."""

_RULES: tuple[tuple[str, str], ...] = (
    (
        "Document {0!r} counts {1} updates of {2} bytes, and has {3} of {4} bytes.",
        """
        SELECT name, updates, log_bytes, count(seq), coalesce(sum(length(bytes)), 0)
        FROM documents LEFT JOIN updates ON document = id GROUP BY id
        HAVING updates != count(seq) OR log_bytes != coalesce(sum(length(bytes)), 0)
        """,
    ),
    (
        "Document {0!r} counts {1} updates of {2} bytes after its snapshot, and has {3} of {4}.",
        """
        SELECT name, tail_updates, tail_bytes, count(seq), coalesce(sum(length(bytes)), 0)
        FROM documents LEFT JOIN snapshots ON snapshots.document = id
            LEFT JOIN updates ON updates.document = id AND seq > coalesce(upto, 0)
        GROUP BY id
        HAVING tail_updates != count(seq) OR tail_bytes != coalesce(sum(length(bytes)), 0)
        """,
    ),
    (
        "Document {0!r} has nothing in the log.",
        """
        SELECT name FROM documents
        WHERE NOT EXISTS (SELECT 1 FROM updates WHERE document = id)
        """,
    ),
    (
        "The snapshot of document {0!r} reaches to {1}, beyond the log, which ends at {2}.",
        """
        SELECT name, upto, (SELECT coalesce(max(seq), 0) FROM updates WHERE document = id) AS last
        FROM snapshots JOIN documents ON documents.id = snapshots.document WHERE upto > last
        """,
    ),
    (
        "The snapshot of document {0!r} should have {1} slices, and has {2}, or gaps among them.",
        """
        SELECT name, snapshots.slices, count(number)
        FROM snapshots JOIN documents ON documents.id = snapshots.document
            LEFT JOIN slices ON slices.document = snapshots.document
        GROUP BY snapshots.document
        HAVING count(number) != snapshots.slices OR count(number) = 0
            OR min(number) != 0 OR max(number) != snapshots.slices - 1
        """,
    ),
    (
        "The snapshot of document {0!r} counts {1} bytes, and has {2}.",
        """
        SELECT name, snapshot_bytes, coalesce(sum(length(bytes)), 0)
        FROM documents LEFT JOIN slices ON slices.document = id GROUP BY id
        HAVING snapshot_bytes != coalesce(sum(length(bytes)), 0)
        """,
    ),
    (
        "Update {0} is of document number {1}, which is unknown.",
        """
        SELECT seq, document FROM updates
        WHERE document NOT IN (SELECT id FROM documents)
        """,
    ),
    (
        "The record {1!r} ({0}) has the number {2}, and the last that was given out is {3}.",
        """
        SELECT kind, records.id, records.seq, record_state.seq FROM records, record_state
        WHERE records.seq > record_state.seq
        """,
    ),
    (
        "The outbox does not know the first of document {0!r}, or takes another for it.",
        """
        SELECT document FROM outbox GROUP BY document
        HAVING sum(first) != 1 OR min(id) != max(CASE WHEN first THEN id END)
        """,
    ),
)


def check(
    connection: sqlite3.Connection, path: Path, progress: Progress | None = None
) -> list[str]:
    """Return what is wrong with a store file, in sentences."""
    steps = len(_RULES) + 2
    problems: list[str] = []
    try:
        with reading(connection):
            for step, found in enumerate(_examine(connection)):
                problems += found
                if progress is not None:
                    progress("check", step + 1, steps)
    except sqlite3.DatabaseError as error:
        problems.append(f"Reading failed: {translate(error, path)}")
    return problems


def _examine(connection: sqlite3.Connection) -> Iterator[list[str]]:
    rows = connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})").fetchall()
    yield [f"SQLite finds: {text}" for (text,) in rows if text != "ok"]
    rows = connection.execute("PRAGMA foreign_key_check").fetchmany(PROBLEMS_MAX)
    yield [
        f"Row {row} of {table} refers to {parent}, which lacks it."
        for table, row, parent, _ in rows
    ]
    for sentence, query in _RULES:
        rows = connection.execute(query).fetchmany(PROBLEMS_MAX)
        yield [sentence.format(*row) for row in rows]
