"""Look for damage in a PostgreSQL store: what the store's code relies on, and no rule enforces."""

from collections.abc import Sequence

import asyncpg

from plait.persistence.postgres_connection import Session
from plait.persistence.postgres_errors import translate
from plait.persistence.store import Progress

PROBLEMS_MAX = 100
"""Sentences per rule; a damaged store could have one for each row."""
RULE_SECONDS = 3600.0

_RULES: tuple[tuple[str, str], ...] = (
    (
        "Document {0!r} counts {1} updates of {2} bytes, and has {3} of {4} bytes.",
        """
        SELECT name, updates, log_bytes, rows, length
        FROM plait.documents LEFT JOIN LATERAL (
            SELECT count(*) AS rows, coalesce(sum(octet_length(bytes)), 0) AS length
            FROM plait.updates WHERE document = id
        ) AS found ON true
        WHERE updates != rows OR log_bytes != length
        """,
    ),
    (
        "Document {0!r} counts {1} updates of {2} bytes after its snapshot, and has {3} of {4}.",
        """
        SELECT name, tail_updates, tail_bytes, rows, length
        FROM plait.documents LEFT JOIN plait.snapshots ON snapshots.document = id
        LEFT JOIN LATERAL (
            SELECT count(*) AS rows, coalesce(sum(octet_length(bytes)), 0) AS length
            FROM plait.updates WHERE updates.document = id AND seq > coalesce(upto, 0)
        ) AS found ON true
        WHERE tail_updates != rows OR tail_bytes != length
        """,
    ),
    (
        "Document {0!r} has nothing in the log.",
        """
        SELECT name FROM plait.documents
        WHERE NOT EXISTS (SELECT 1 FROM plait.updates WHERE document = id)
        """,
    ),
    (
        "Document {0!r} says that its log ends at {1}, and it ends at {2}.",
        """
        SELECT name, last_seq, last FROM plait.documents JOIN (
            SELECT document, max(seq) AS last FROM plait.updates GROUP BY document
        ) AS ends ON document = id
        WHERE last_seq != last
        """,
    ),
    (
        "The log of document {0!r} ends at {1}, and the next number to be given out is {2}.",
        """
        SELECT name, last_seq, last_value FROM plait.documents, plait.seqs
        WHERE last_seq > last_value
        """,
    ),
    (
        "The snapshot of document {0!r} reaches to {1}, which is no row of its log.",
        """
        SELECT name, upto FROM plait.snapshots JOIN plait.documents ON id = snapshots.document
        WHERE NOT EXISTS (
            SELECT 1 FROM plait.updates WHERE updates.document = id AND seq = upto
        )
        """,
    ),
    (
        "The snapshot of document {0!r} should have {1} slices, and has {2}, or gaps among them.",
        """
        SELECT name, snapshots.slices, count(number)
        FROM plait.snapshots JOIN plait.documents ON id = snapshots.document
            LEFT JOIN plait.slices ON slices.document = id
        GROUP BY id, snapshots.document
        HAVING count(number) != snapshots.slices OR count(number) = 0
            OR min(number) != 0 OR max(number) != snapshots.slices - 1
        """,
    ),
    (
        "The snapshot of document {0!r} counts {1} bytes, and has {2}.",
        """
        SELECT name, snapshot_bytes, coalesce(sum(octet_length(bytes)), 0)
        FROM plait.documents LEFT JOIN plait.slices ON document = id GROUP BY id
        HAVING snapshot_bytes != coalesce(sum(octet_length(bytes)), 0)
        """,
    ),
    (
        "Update {0} is of document number {1}, which is unknown.",
        """
        SELECT seq, document FROM plait.updates
        WHERE NOT EXISTS (SELECT 1 FROM plait.documents WHERE id = document)
        """,
    ),
    (
        "The record {1!r} ({0}) has the number {2}, and the last that was given out is {3}.",
        """
        SELECT kind, records.id, records.seq, record_state.seq
        FROM plait.records, plait.record_state WHERE records.seq > record_state.seq
        """,
    ),
)


async def check(session: Session, url: str, progress: Progress | None = None) -> Sequence[str]:
    """Return what is wrong with a store, in sentences; in a long transaction."""
    problems: list[str] = []
    for step, (sentence, query) in enumerate(_RULES, start=1):
        try:
            rows = await session.fetch(f"{query} LIMIT {PROBLEMS_MAX}", seconds=RULE_SECONDS)
        except asyncpg.PostgresError as error:
            # The transaction is at its end with that.
            return [*problems, f"Reading failed: {translate(error, url)}"]
        problems += [sentence.format(*map(_readable, row)) for row in rows]
        if progress is not None:
            progress("check", step, len(_RULES))
    return problems


def _readable(value: object) -> object:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
