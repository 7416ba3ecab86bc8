"""The reading transactions of a PostgreSQL store, as functions of a session.

Small documents are loaded by one statement, which is as consistent as a transaction and needs one
round trip. Large ones are read page by page within a transaction, so that neither the event loop
nor the time-out of one statement has to hold out for all of it.
"""

from collections.abc import Mapping, Sequence

import asyncpg

from plait.persistence.postgres_connection import Session
from plait.persistence.store import (
    Changes,
    DocumentDeleted,
    DocumentInfo,
    LoggedUpdate,
    Snapshot,
    StoreCorrupt,
    Stored,
)

AT_ONCE_BYTES = 1 << 20
AT_ONCE_ROWS = 2000
"""Documents with no more than this are loaded by one statement."""
PAGE_BYTES = 4 << 20
PAGE_ROWS = 5000
"""Of one page of a larger one, about."""
CHANGES_BYTES = 8 << 20
CHANGES_ROWS = 5000
"""Of one answer of `changes`; a single larger row comes alone."""

_CHECK_HINT = "Run `plait store check`, and restore a backup with `plait store restore`."

_INFO_COLUMNS = """
    name, created_ms, modified_ms, updates, log_bytes, snapshot_bytes, tail_updates, tail_bytes,
    deleted_ms
"""

_HEAD = """
    d.id, d.deleted_ms, d.tail_updates, d.tail_bytes, d.snapshot_bytes,
    s.upto, s.at_ms, s.types, s.lossy, s.astral, s.places, s.slices
"""

_LOAD_HEAD = f"""
    SELECT {_HEAD} FROM plait.documents d LEFT JOIN plait.snapshots s ON s.document = d.id
    WHERE d.name = $1
"""

_LOAD_AT_ONCE = f"""
    SELECT {_HEAD}, slices.numbers, slices.pieces, rows.seqs, rows.bytes, rows.who, rows.at
    FROM plait.documents d LEFT JOIN plait.snapshots s ON s.document = d.id
    LEFT JOIN LATERAL (
        SELECT array_agg(number ORDER BY number) numbers, array_agg(bytes ORDER BY number) pieces
        FROM plait.slices WHERE slices.document = d.id
    ) slices ON d.tail_bytes + d.snapshot_bytes <= {AT_ONCE_BYTES}
        AND d.tail_updates <= {AT_ONCE_ROWS} AND d.deleted_ms IS NULL
    LEFT JOIN LATERAL (
        SELECT array_agg(seq ORDER BY seq) seqs, array_agg(bytes ORDER BY seq) bytes,
            array_agg(who ORDER BY seq) who, array_agg(u.at_ms ORDER BY seq) at
        FROM plait.updates u WHERE u.document = d.id AND u.seq > coalesce(s.upto, 0)
    ) rows ON d.tail_bytes + d.snapshot_bytes <= {AT_ONCE_BYTES}
        AND d.tail_updates <= {AT_ONCE_ROWS} AND d.deleted_ms IS NULL
    WHERE d.name = $1
"""


_CHANGES = """
    SELECT place, seq, bytes, who, at_ms, found FROM (
        SELECT *, count(*) OVER () AS found, row_number() OVER so_far AS number,
            sum(octet_length(bytes)) OVER so_far - octet_length(bytes) AS before
        FROM (
            SELECT place, seq, bytes, who, at_ms
            FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS asked (id, cursor, place)
                JOIN plait.updates ON document = id AND seq > cursor AND writer != $3
            ORDER BY place, seq LIMIT $5 + 1
        ) AS first
        WINDOW so_far AS (ORDER BY place, seq)
    ) AS measured
    WHERE before < $4 AND number <= $5 ORDER BY place, seq
"""
"""The length of a value is known without reading it, so what is left out costs little."""


async def identity(session: Session) -> str:
    """Return what names the content, in whatever database and server it is.

    A dump that is restored elsewhere holds the same `plait_schema`. The server's own number stays
    the same when a replica takes its place.
    """
    row = await session.first(
        """
        SELECT identity, pg_database.oid, system_identifier
        FROM plait.plait_schema, pg_database, pg_control_system()
        WHERE datname = current_database()
        """
    )
    if row is None:
        raise StoreCorrupt("the table plait_schema is empty", hint=_CHECK_HINT)
    return "postgresql-" + "-".join(map(str, row))


async def load_at_once(session: Session, document: str) -> tuple[Stored, int | None] | None:
    """Return a document and its id, if there is one; None of all if it is too large for that."""
    head = await session.first(_LOAD_AT_ONCE, document.encode())
    if head is None:
        return Stored(document), None
    if head["deleted_ms"] is not None:
        raise DocumentDeleted.of(document)
    large = head["tail_bytes"] + head["snapshot_bytes"] > AT_ONCE_BYTES
    if large or head["tail_updates"] > AT_ONCE_ROWS:
        return None
    slices = list(zip(head["numbers"] or (), head["pieces"] or (), strict=True))
    rows = zip(*(head[column] or () for column in ("seqs", "bytes", "who", "at")), strict=True)
    updates = tuple(
        LoggedUpdate(seq, document, update, who.decode(), at) for seq, update, who, at in rows
    )
    return _stored(document, head, slices, updates), head["id"]


async def load(session: Session, document: str) -> tuple[Stored, int | None]:
    """Return a document as of one moment, and its id, if there is one; in a transaction."""
    head = await session.first(_LOAD_HEAD, document.encode())
    if head is None:
        return Stored(document), None
    if head["deleted_ms"] is not None:
        raise DocumentDeleted.of(document)
    slices: list[tuple[int, bytes]] = []
    count = head["slices"] or 0
    size = _rows_a_page(count, head["snapshot_bytes"])
    for first in range(0, count, size):
        page = await session.fetch(
            """
            SELECT number, bytes FROM plait.slices
            WHERE document = $1 AND number >= $2 AND number < $3 ORDER BY number
            """,
            *(head["id"], first, first + size),
        )
        slices += ((row["number"], row["bytes"]) for row in page)
    updates: list[LoggedUpdate] = []
    size = _rows_a_page(head["tail_updates"], head["tail_bytes"])
    after = head["upto"] or 0
    while rows := await _rows(session, head["id"], document, after, size):
        updates += rows
        after = rows[-1].seq
    return _stored(document, head, slices, tuple(updates)), head["id"]


def _rows_a_page(rows: int, length: int) -> int:
    """Return how many rows make a page, if they are of about the same size."""
    return min(PAGE_ROWS, max(1, PAGE_BYTES * rows // max(1, length)))


def _stored(
    document: str,
    head: asyncpg.Record,
    slices: Sequence[tuple[int, bytes]],
    updates: tuple[LoggedUpdate, ...],
) -> Stored:
    snapshot = None
    if head["upto"] is not None:
        if [number for number, _ in slices] != list(range(head["slices"])):
            raise StoreCorrupt(
                f"the snapshot has {len(slices)} of {head['slices']} slices",
                document=document,
                hint=_CHECK_HINT,
            )
        snapshot = Snapshot(
            head["upto"],
            tuple(piece for _, piece in slices),
            head["at_ms"],
            head["types"],
            head["lossy"],
            head["astral"],
            head["places"],
        )
    # Rows that vanished would otherwise be taken for a document that never had them.
    if len(updates) != head["tail_updates"] or (snapshot is None and not updates):
        raise StoreCorrupt(
            f"{len(updates)} updates are in the log where {head['tail_updates']} were counted",
            document=document,
            hint=_CHECK_HINT,
        )
    return Stored(document, snapshot, updates)


async def _rows(
    session: Session, identity: int, document: str, after: int, limit: int
) -> Sequence[LoggedUpdate]:
    rows = await session.fetch(
        """
        SELECT seq, bytes, who, at_ms FROM plait.updates
        WHERE document = $1 AND seq > $2 ORDER BY seq LIMIT $3
        """,
        *(identity, after, limit),
    )
    return [LoggedUpdate(seq, document, update, who.decode(), at) for seq, update, who, at in rows]


async def log(session: Session, document: str, after: int, limit: int) -> Sequence[LoggedUpdate]:
    """Return a page of a document's whole log."""
    rows = await session.fetch(
        """
        SELECT seq, bytes, who, at_ms
        FROM plait.updates JOIN plait.documents ON documents.id = updates.document
        WHERE name = $1 AND seq > $2 ORDER BY seq LIMIT $3
        """,
        *(document.encode(), after, limit),
    )
    return [LoggedUpdate(seq, document, update, who.decode(), at) for seq, update, who, at in rows]


async def documents(
    session: Session, prefix: str, after: str, limit: int, deleted: bool
) -> Sequence[DocumentInfo]:
    """List documents by name."""
    start = prefix.encode()
    above, beyond = after.encode(), beyond_prefix(start)
    marked = "IS NOT NULL" if deleted else "IS NULL"
    rows = await session.fetch(
        f"""
        SELECT {_INFO_COLUMNS} FROM plait.documents
        WHERE name > $1 AND name >= $2 AND ($3::bytea IS NULL OR name < $3)
            AND deleted_ms {marked}
        ORDER BY name LIMIT $4
        """,
        *(above, start, beyond, limit),
    )
    return [_info(row) for row in rows]


async def info(session: Session, document: str) -> DocumentInfo | None:
    """Return what is known of one document."""
    row = await session.first(
        f"SELECT {_INFO_COLUMNS} FROM plait.documents WHERE name = $1", document.encode()
    )
    return _info(row) if row else None


def _info(row: asyncpg.Record) -> DocumentInfo:
    name, *rest = row
    return DocumentInfo(name.decode(), *rest)


def beyond_prefix(prefix: bytes) -> bytes | None:
    """Return the lowest bytes above everything that begins with a prefix; None if there are none.

    The prefix is UTF-8, in which no byte is the highest.
    """
    return prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else None


async def changes(session: Session, after: Mapping[str, int], writer: int) -> Changes:
    """Return rows of other writers; in a transaction."""
    asked = list(after)
    moved = await session.fetch(
        """
        SELECT place, id, cursor, last_seq, deleted_ms IS NOT NULL AS deleted
        FROM unnest($1::bytea[], $2::bigint[]) WITH ORDINALITY AS asked (name, cursor, place)
            JOIN plait.documents USING (name)
        WHERE last_seq > cursor OR deleted_ms IS NOT NULL
        ORDER BY place
        """,
        *([name.encode() for name in asked], list(after.values())),
    )
    deleted = tuple(asked[row["place"] - 1] for row in moved if row["deleted"])
    ahead = [row for row in moved if row["last_seq"] > row["cursor"]]
    if not ahead:
        return Changes(deleted=deleted)
    rows = await session.fetch(
        _CHANGES,
        [row["id"] for row in ahead],
        [row["cursor"] for row in ahead],
        *(writer, CHANGES_BYTES, CHANGES_ROWS),
    )
    names = [asked[row["place"] - 1] for row in ahead]
    seqs = {name: row["last_seq"] for name, row in zip(names, ahead, strict=True)}
    more = bool(rows) and len(rows) < rows[0]["found"]
    if more:
        # Whole up to the document of the last row, which goes on, and those that follow it.
        reached = rows[-1]["place"]
        seqs = {name: seqs[name] for name in names[: reached - 1]}
        seqs[names[reached - 1]] = rows[-1]["seq"]
    updates = tuple(
        LoggedUpdate(seq, names[place - 1], update, who.decode(), at)
        for place, seq, update, who, at, _ in rows
    )
    return Changes(seqs, updates, deleted, more)
