"""The outbox of a PostgreSQL store, as functions of a session.

Who appends holds the lock of the document's row, and so the events of its changes get their numbers
in order. If a "changed" waits that is to tell of the append as well, it is locked until the commit,
so that nobody takes it and reads the document as it was before.

Who takes never waits for those, but passes over what is locked. Takers, though, follow one after
the other: each has to see what the one before it has in hand.
"""

import logging
from collections.abc import Collection, Mapping, Sequence

import asyncpg

from plait.persistence.announcing import TOLD, Announcer
from plait.persistence.postgres_connection import Session
from plait.persistence.store import CHANGED, Event

logger = logging.getLogger(__name__)

TAKERS = 0x506C616974746B
"""“Plaittk”: the advisory lock of those who take, together with the schema's name."""
ROWS_LOOKED_AT = 10_000
"""Of the oldest events, by a taker at first; ten times as many if there is none to take."""

_FIELDS = "document, kind, at_ms, data, id, attempts"


async def announce_append(
    session: Session,
    times: Mapping[str, tuple[int, int]],
    made: Collection[str],
    announcer: Announcer,
) -> None:
    """Tell of an append, within its transaction, which holds the locks of the documents."""
    waiting: Collection[str] = ()
    if CHANGED in announcer.kinds:
        waiting = await _hold_changes(session, [name for name in times if name not in made])
    await put(session, announcer.of_append(times, made, waiting), announcer)


async def _hold_changes(session: Session, documents: Sequence[str]) -> Collection[str]:
    """Return the documents of which the last that is told is a change that nobody took yet.

    It is not taken before the transaction ends.
    """
    rows = await session.fetch(
        f"""
        SELECT document FROM plait.outbox WHERE NOT taken AND id = ANY(ARRAY(
            SELECT last.id FROM unnest($1::bytea[]) AS given (name), LATERAL (
                SELECT id, kind FROM plait.outbox
                WHERE document = name AND kind IN ({TOLD}) ORDER BY id DESC LIMIT 1
            ) AS last WHERE last.kind = '{CHANGED}'
        )) FOR SHARE OF outbox
        """,
        [document.encode() for document in documents],
    )
    return {row["document"].decode() for row in rows}


async def put(session: Session, events: Sequence[Event], announcer: Announcer) -> None:
    """Put events in, within a transaction, and drop the oldest if there are too many."""
    if not events:
        return
    await session.count(
        """
        INSERT INTO plait.outbox (document, kind, at_ms, data, attempts)
        SELECT document, kind, at_ms, data, attempts FROM unnest(
            $1::bytea[], $2::bytea[], $3::bigint[], $4::bytea[], $5::bigint[]
        ) WITH ORDINALITY AS given (document, kind, at_ms, data, attempts, place) ORDER BY place
        """,
        [event.document.encode() for event in events],
        [event.kind.encode() for event in events],
        [event.at_ms for event in events],
        [event.data.encode() for event in events],
        [event.attempts for event in events],
    )
    if announcer.looks(len(events)):
        await _shorten(session, announcer.most)


async def _shorten(session: Session, most: int) -> None:
    dropped = await session.count(
        """
        DELETE FROM plait.outbox WHERE id IN (
            SELECT id FROM plait.outbox WHERE NOT taken
                AND id <= (SELECT id FROM plait.outbox ORDER BY id DESC OFFSET $1 LIMIT 1)
            ORDER BY id FOR UPDATE SKIP LOCKED
        )
        """,
        most,
    )
    if dropped:
        logger.warning("the outbox is full, events dropped: %d", dropped)


async def take(session: Session, now_ms: int, lease_ms: int, limit: int) -> Sequence[Event]:
    """Take the oldest event of each document."""
    await session.fetch(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, $2))", *(session.schema, TAKERS)
    )
    looked_at = ROWS_LOOKED_AT
    # What is older than others of its document among the oldest of all is its document's oldest.
    while not (rows := await _find(session, now_ms, limit, looked_at)):
        query = "SELECT 1 FROM plait.outbox ORDER BY id OFFSET $1 LIMIT 1"
        if await session.first(query, looked_at) is None:
            return []
        looked_at *= 10
    await session.count(
        "UPDATE plait.outbox SET taken = true, due_ms = $2 WHERE id = ANY($1::bigint[])",
        *([row["id"] for row in rows], now_ms + lease_ms),
    )
    return [_event(row) for row in rows]


async def _find(
    session: Session, now_ms: int, limit: int, looked_at: int
) -> Sequence[asyncpg.Record]:
    """Lock and return what can be taken among the oldest events.

    Numbers of posted events may be committed out of order, and then something that is not the
    oldest any more is in somebody's hands. So that is looked for by itself.
    """
    return await session.fetch(
        f"""
        WITH oldest AS MATERIALIZED (
            SELECT id, document FROM plait.outbox ORDER BY id LIMIT $3
        ), firsts AS MATERIALIZED (SELECT min(id) AS first FROM oldest GROUP BY document)
        SELECT {_FIELDS} FROM plait.outbox JOIN firsts ON id = first
        WHERE due_ms <= $1 AND NOT EXISTS (
            SELECT 1 FROM plait.outbox AS held
            WHERE held.document = outbox.document AND held.taken AND held.due_ms > $1
        )
        ORDER BY id LIMIT $2 FOR UPDATE OF outbox SKIP LOCKED
        """,
        *(now_ms, limit, looked_at),
    )


async def end(session: Session, ids: Sequence[int]) -> None:
    """Remove events that are in somebody's hands."""
    await session.count(
        """
        DELETE FROM plait.outbox WHERE id IN (
            SELECT id FROM plait.outbox WHERE id = ANY($1::bigint[]) AND taken
            ORDER BY id FOR UPDATE
        )
        """,
        list(ids),
    )


async def put_back(session: Session, id: int, due_ms: int) -> None:
    """Let an event be taken again."""
    await session.count(
        """
        UPDATE plait.outbox SET taken = false, due_ms = $2, attempts = attempts + 1
        WHERE id = $1 AND taken
        """,
        *(id, due_ms),
    )


async def page(session: Session, after: int, limit: int) -> Sequence[Event]:
    """List events by id."""
    rows = await session.fetch(
        f"SELECT {_FIELDS} FROM plait.outbox WHERE id > $1 ORDER BY id LIMIT $2", after, limit
    )
    return [_event(row) for row in rows]


async def counts(session: Session) -> tuple[int, int]:
    """Return how many there are, and the time of the oldest."""
    row = await session.first(
        """
        SELECT count(*),
            coalesce((SELECT at_ms FROM plait.outbox ORDER BY id LIMIT 1), 0)
        FROM plait.outbox
        """
    )
    assert row is not None
    return row[0], row[1]


def _event(row: asyncpg.Record) -> Event:
    document, kind, at_ms, data, id, attempts = row
    return Event(document.decode(), kind.decode(), at_ms, data.decode(), id, attempts)
