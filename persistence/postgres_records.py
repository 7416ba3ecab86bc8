"""Records of a PostgreSQL store, as functions of a session.

All nodes put records. Whoever does takes the lock of the only row of `record_state` first, with the
number that comes next, and holds it until the commit. So numbers are committed in their order, and
whoever has read up to one never finds something new below it. As in an SQLite store
(`sqlite_records`), a removed record leaves its row behind for a day.
"""

from collections.abc import Sequence

import asyncpg

from plait.persistence.announcing import DAY_MS, expired
from plait.persistence.postgres_connection import Session
from plait.persistence.store import Record, RecordChanges

_FIELDS = "kind, id, value, at_ms, until_ms, seq"


async def put(session: Session, record: Record, new: bool, now_ms: int) -> bool:
    """Put a record, and forget what is old; return whether it was put."""
    seq = await _next_number(session)
    there = await get(session, record.kind, record.id)
    if new and there is not None and not expired(there.until_ms, record.at_ms):
        return False
    await session.count(
        f"""
        INSERT INTO plait.records ({_FIELDS}) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (kind, id) DO UPDATE SET
            value = excluded.value, at_ms = excluded.at_ms, until_ms = excluded.until_ms,
            seq = excluded.seq, removed_ms = NULL
        """,
        *(record.kind.encode(), record.id.encode(), record.value.encode()),
        *(record.at_ms, record.until_ms, seq),
    )
    await _take_number(session, seq)
    await session.count(
        """
        WITH gone AS (DELETE FROM plait.records WHERE removed_ms < $1 RETURNING seq)
        UPDATE plait.record_state SET forgotten = last
        FROM (SELECT max(seq) AS last FROM gone) AS found WHERE last > forgotten
        """,
        now_ms - DAY_MS,
    )
    await session.count(
        "DELETE FROM plait.records WHERE until_ms <= $1", min(now_ms, record.at_ms) - DAY_MS
    )
    return True


async def _next_number(session: Session) -> int:
    """Return the number that comes next; nobody else gets one before the transaction ends."""
    row = await session.first("SELECT seq + 1 FROM plait.record_state FOR NO KEY UPDATE")
    assert row is not None
    return int(row[0])


async def _take_number(session: Session, seq: int) -> None:
    await session.count("UPDATE plait.record_state SET seq = $1", seq)


async def remove(session: Session, kind: str, id: str, now_ms: int) -> bool:
    """Remove a record, and remember that; return whether there was one."""
    seq = await _next_number(session)
    removed = await session.count(
        """
        UPDATE plait.records SET value = '', until_ms = NULL, removed_ms = $3, seq = $4
        WHERE kind = $1 AND id = $2 AND removed_ms IS NULL
        """,
        *(kind.encode(), id.encode(), now_ms, seq),
    )
    if removed:
        await _take_number(session, seq)
    return removed == 1


async def get(session: Session, kind: str, id: str) -> Record | None:
    """Return a record."""
    row = await session.first(
        f"""
        SELECT {_FIELDS} FROM plait.records
        WHERE kind = $1 AND id = $2 AND removed_ms IS NULL
        """,
        *(kind.encode(), id.encode()),
    )
    return _record(row) if row is not None else None


async def page(session: Session, kind: str, after: str, limit: int) -> Sequence[Record]:
    """List records of a kind by id."""
    rows = await session.fetch(
        f"""
        SELECT {_FIELDS} FROM plait.records
        WHERE kind = $1 AND id > $2 AND removed_ms IS NULL ORDER BY id LIMIT $3
        """,
        *(kind.encode(), after.encode(), limit),
    )
    return [_record(row) for row in rows]


async def since(session: Session, seq: int) -> RecordChanges:
    """Return what was put and removed after a number, in a transaction that sees one moment."""
    state = await session.first("SELECT seq, forgotten FROM plait.record_state")
    assert state is not None
    last, forgotten = state
    whole = seq < max(1, forgotten) or seq > last
    rows = await session.fetch(
        f"SELECT {_FIELDS}, removed_ms FROM plait.records WHERE seq > $1 ORDER BY seq",
        0 if whole else seq,
    )
    gone = [row for row in rows if row["removed_ms"] is not None]
    return RecordChanges(
        last,
        tuple(_record(row) for row in rows if row["removed_ms"] is None),
        () if whole else tuple((row["kind"].decode(), row["id"].decode()) for row in gone),
        whole,
    )


def _record(row: asyncpg.Record) -> Record:
    kind, id, value, at_ms, until_ms, seq = list(row)[:6]
    return Record(kind.decode(), id.decode(), value.decode(), at_ms, until_ms, seq)
