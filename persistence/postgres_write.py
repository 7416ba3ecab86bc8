"""The writing transactions of a PostgreSQL store, as functions of a session.

Several nodes write at once, and there is no lock for all. What keeps a document's numbers in the
order of its commits is the lock of its row in `documents`: whoever appends takes it first, then
numbers, and holds it until the commit. Otherwise a lower number could be committed after a higher
one, and whoever had read that far would never see it.

Locks are taken in one order, so that two nodes never wait for each other: first names that are new,
by their bytes, then rows, by their ids.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from plait.persistence import postgres_outbox
from plait.persistence.announcing import Announcer
from plait.persistence.postgres_connection import DURABLE, Session
from plait.persistence.store import (
    DELETED,
    UNDELETED,
    DocumentDeleted,
    Event,
    Segment,
    Snapshot,
    StoreUnavailable,
    Update,
)

IDS_CACHED_MAX = 65_536
"""Documents whose id is remembered; beyond this all are looked up anew."""
LOCK_ATTEMPTS_MAX = 5
"""Times that a document may vanish and come back between looking it up and locking it."""
SLICES_SECONDS = 60.0
"""For all slices of a snapshot."""
PING_ROWS = 1024
PURGE_SECONDS = 600.0
"""For forgetting one document. Nobody waits for the lock of one that is deleted."""

_APPEND = """
    WITH numbered AS (
        SELECT nextval('plait.seqs') AS seq, added.* FROM (
            SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[])
                WITH ORDINALITY AS given (document, bytes, who, at_ms, place)
            WHERE true ORDER BY place
        ) AS added
    ), inserted AS (
        INSERT INTO plait.updates (document, seq, writer, bytes, who, at_ms)
        SELECT document, seq, $5, bytes, who, at_ms FROM numbered
    ), counted AS (
        UPDATE plait.documents SET
            modified_ms = greatest(modified_ms, latest), last_seq = last,
            updates = updates + rows, log_bytes = log_bytes + length,
            tail_updates = tail_updates + rows, tail_bytes = tail_bytes + length
        FROM (
            SELECT document, max(at_ms) AS latest, max(seq) AS last, count(*) AS rows,
                sum(octet_length(bytes))::bigint AS length
            FROM numbered GROUP BY document
        ) AS sums
        WHERE id = document
    )
    SELECT seq FROM numbered ORDER BY place
"""

_APPEND_KNOWN = _APPEND.replace(
    "WITH numbered AS",
    f"""
    WITH durable AS ({DURABLE}), locked AS (
        SELECT deleted_ms FROM plait.documents
        WHERE id = ANY($6::bigint[]) ORDER BY id FOR NO KEY UPDATE
    ), there AS (
        SELECT count(*) FILTER (WHERE deleted_ms IS NULL) AS documents,
            (SELECT count(*) FROM durable) AS settings
        FROM locked
    ), numbered AS""",
).replace(
    "WHERE true",
    "WHERE (SELECT documents = cardinality($6) AND settings >= 0 FROM there)",
)
"""The same for documents that are locked by it, if all of them are there; else it does nothing. The
condition names no row, so it is known, and the locks are held, before the first number is taken.
"""


class Appended(NamedTuple):
    """What a transaction appended, which counts once it is committed."""

    seqs: Sequence[int]
    ids: Mapping[str, int]


class Appender:
    """Append updates, with the ids of known documents at hand.

    The cache is only a guess: another node may have deleted or purged the document. Locking its row
    tells. Ids are never used twice, so a wrong guess can't hit another document's row.

    A document that was known and is no more was purged by another node. What is appended to it
    builds upon content that is gone, so it does not come into being again: that is an error, once.
    """

    def __init__(self, writer: int, announcer: Announcer) -> None:
        self._writer = writer
        self._announcer = announcer
        self._ids: dict[str, int] = {}

    async def append_known(self, session: Session, updates: Sequence[Update]) -> Sequence[int]:
        """Append updates by one statement; return no numbers if that was not possible.

        People type in documents that this node has loaded, so this is the usual way. What a commit
        takes a node is mostly its messages to the server and back.
        """
        known = {update.document: self._ids.get(update.document) for update in updates}
        if None in known.values() or self._announcer.kinds:
            return ()
        rows = await session.fetch(
            _APPEND_KNOWN, *_columns(updates, known), self._writer, list(known.values())
        )
        return [row["seq"] for row in rows]

    async def append(self, session: Session, updates: Sequence[Update]) -> Appended:
        """Append updates in a transaction.

        Raises:
            DocumentDeleted: with the name of the first document that is.
        """
        first: dict[str, int] = {}
        for update in updates:
            first.setdefault(update.document, update.at_ms)
        made: set[str] = set()
        ids = await self._lock(session, first, made)
        rows = await session.fetch(_APPEND, *_columns(updates, ids), self._writer)
        if self._announcer.kinds:
            times = _times(updates)
            await postgres_outbox.announce_append(session, times, made, self._announcer)
        return Appended([row["seq"] for row in rows], ids)

    def know(self, ids: Mapping[str, int]) -> None:
        """Remember documents that were appended to, now that this is committed.

        Ids that were given out by a transaction that was taken back are nobody's.
        """
        if len(self._ids) + len(ids) > IDS_CACHED_MAX:
            self._ids.clear()
        self._ids.update(ids)

    def know_loaded(self, name: str, identity: int | None) -> None:
        """Remember a document that was loaded, or that there was none."""
        if identity is None:
            self._ids.pop(name, None)
        elif len(self._ids) < IDS_CACHED_MAX:
            self._ids[name] = identity

    def forget(self) -> None:
        """Forget all ids: this process has purged documents itself."""
        self._ids.clear()

    async def _lock(
        self, session: Session, first: Mapping[str, int], made: set[str]
    ) -> Mapping[str, int]:
        """Lock the rows of documents, making those that are not there; return their ids.

        Adds to `made` the names of those that it made.
        """
        # Again only if somebody purges documents at this very moment. Then locks may be taken out
        # of order, and PostgreSQL would end a deadlock, after which the transaction is run again.
        for _ in range(LOCK_ATTEMPTS_MAX):
            ids = await self._identify(session, first, made)
            rows = await session.fetch(
                """
                SELECT id, deleted_ms FROM plait.documents
                WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE
                """,
                list(ids.values()),
            )
            deleted = {row["id"]: row["deleted_ms"] is not None for row in rows}
            gone = [name for name in first if ids.get(name) not in deleted]
            missing = await self._missing(session, gone)
            for name in first:
                if name in missing or deleted.get(ids.get(name, 0)):
                    raise DocumentDeleted.of(name)
            if not gone:
                return ids
        raise StoreUnavailable("documents come and go faster than they can be written")

    async def _missing(self, session: Session, gone: Sequence[str]) -> Sequence[str]:
        """Return which documents were known, and were purged and not made again."""
        known = [name for name in gone if self._ids.pop(name, None) is not None]
        if not known:
            return ()
        there = await _ids_of(session, known)
        return [name for name in known if name not in there]

    async def _identify(
        self, session: Session, first: Mapping[str, int], made: set[str]
    ) -> Mapping[str, int]:
        """Return the ids of documents, making those that are not there, before any is locked."""
        ids = {name: self._ids[name] for name in first if name in self._ids}
        unknown = [name for name in first if name not in ids]
        if not unknown:
            return ids
        ids.update(await _ids_of(session, unknown))
        new = [name for name in unknown if name not in ids]
        if not new:
            return ids
        rows = await session.fetch(
            """
            INSERT INTO plait.documents (name, created_ms, modified_ms)
            SELECT name, at_ms, at_ms FROM unnest($1::bytea[], $2::bigint[]) AS new (name, at_ms)
            ORDER BY name
            ON CONFLICT (name) DO NOTHING RETURNING name, id
            """,
            [name.encode() for name in new],
            [first[name] for name in new],
        )
        ids.update((row["name"].decode(), row["id"]) for row in rows)
        made.update(row["name"].decode() for row in rows)
        if len(rows) < len(new):  # another node was faster
            ids.update(await _ids_of(session, [name for name in new if name not in ids]))
        return ids


def _columns(
    updates: Sequence[Update], ids: Mapping[str, int | None]
) -> tuple[Sequence[object], ...]:
    """Return the first arguments of `_APPEND`."""
    return (
        [ids[update.document] for update in updates],
        [update.update for update in updates],
        [update.who.encode() for update in updates],
        [update.at_ms for update in updates],
    )


def _times(updates: Sequence[Update]) -> Mapping[str, tuple[int, int]]:
    """Return the first and the last time of each document's updates."""
    times: dict[str, tuple[int, int]] = {}
    for update in updates:
        first, last = times.get(update.document, (update.at_ms, update.at_ms))
        times[update.document] = (first, max(last, update.at_ms))
    return times


async def _ids_of(session: Session, names: Sequence[str]) -> Mapping[str, int]:
    rows = await session.fetch(
        "SELECT name, id FROM plait.documents WHERE name = ANY($1::bytea[])",
        [name.encode() for name in names],
    )
    return {row["name"].decode(): row["id"] for row in rows}


async def compact(
    session: Session, document: str, snapshot: Snapshot, segment: Segment | None
) -> bool:
    """Set a snapshot and fold rows, if everything is as the caller thinks it is."""
    row = await session.first(
        """
        SELECT id FROM plait.documents
        WHERE name = $1 AND deleted_ms IS NULL FOR NO KEY UPDATE
        """,
        document.encode(),
    )
    if row is None:
        return False
    identity = row["id"]
    # A statement of its own, which sees what was committed while this one waited for the lock.
    row = await session.first("SELECT upto FROM plait.snapshots WHERE document = $1", identity)
    covered = row["upto"] if row else 0
    if covered > snapshot.upto or (covered == snapshot.upto and segment is None):
        return False
    # A snapshot that claims more than the log has would hide what is appended next.
    ends = {snapshot.upto} if segment is None else {snapshot.upto, segment.first, segment.last}
    there = await session.fetch(
        "SELECT seq FROM plait.updates WHERE document = $1 AND seq = ANY($2::bigint[])",
        *(identity, list(ends)),
    )
    if len(there) != len(ends):
        return False
    if segment is not None:
        if not segment.first <= segment.last <= snapshot.upto:
            return False
        await _fold(session, identity, segment)
    if covered < snapshot.upto:
        await _set_snapshot(session, identity, snapshot)
    return True


async def _fold(session: Session, identity: int, segment: Segment) -> None:
    run = (identity, segment.first, segment.last)
    row = await session.first(
        """
        SELECT count(*), sum(octet_length(bytes))::bigint, sum(greatest(folded, 1))::bigint,
            count(DISTINCT who), min(who)
        FROM plait.updates WHERE document = $1 AND seq BETWEEN $2 AND $3
        """,
        *run,
    )
    assert row is not None
    rows, length, folded, authors, who = row
    await session.count(
        "DELETE FROM plait.updates WHERE document = $1 AND seq >= $2 AND seq < $3", *run
    )
    await session.count(
        """
        UPDATE plait.updates SET bytes = $3, who = $4, folded = $5, writer = 0
        WHERE document = $1 AND seq = $2
        """,
        *(identity, segment.last, segment.update, who if authors == 1 else b"", folded),
    )
    await session.count(
        "UPDATE plait.documents SET updates = updates - $2, log_bytes = log_bytes + $3 "
        "WHERE id = $1",
        *(identity, rows - 1, len(segment.update) - length),
    )


async def _set_snapshot(session: Session, identity: int, snapshot: Snapshot) -> None:
    await session.count("DELETE FROM plait.slices WHERE document = $1", identity)
    await session.count("DELETE FROM plait.snapshots WHERE document = $1", identity)
    await session.count(
        """
        INSERT INTO plait.snapshots (document, upto, at_ms, slices, types, lossy, astral, places)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        """,
        *(identity, snapshot.upto, snapshot.at_ms, len(snapshot.slices)),
        *(snapshot.types, snapshot.lossy, snapshot.astral, snapshot.places),
    )
    await session.many(
        "INSERT INTO plait.slices VALUES ($1, $2, $3)",
        [(identity, number, piece) for number, piece in enumerate(snapshot.slices)],
        seconds=SLICES_SECONDS,
    )
    await session.count(
        """
        UPDATE plait.documents
        SET tail_updates = rows, tail_bytes = length, snapshot_bytes = $3
        FROM (
            SELECT count(*) AS rows, coalesce(sum(octet_length(bytes)), 0)::bigint AS length
            FROM plait.updates WHERE document = $1 AND seq > $2
        ) AS tail
        WHERE id = $1
        """,
        *(identity, snapshot.upto, sum(map(len, snapshot.slices))),
    )


async def delete(session: Session, document: str, at_ms: int, announcer: Announcer) -> bool:
    """Mark a document as deleted."""
    marked = await session.count(
        "UPDATE plait.documents SET deleted_ms = $2 WHERE name = $1 AND deleted_ms IS NULL",
        *(document.encode(), at_ms),
    )
    if marked == 1 and DELETED in announcer.kinds:
        await postgres_outbox.put(session, [Event(document, DELETED, at_ms)], announcer)
    return marked == 1


async def undelete(session: Session, document: str, now_ms: int, announcer: Announcer) -> bool:
    """Take back the mark."""
    marked = await session.count(
        "UPDATE plait.documents SET deleted_ms = NULL WHERE name = $1 AND deleted_ms IS NOT NULL",
        document.encode(),
    )
    if marked == 1 and UNDELETED in announcer.kinds:
        await postgres_outbox.put(session, [Event(document, UNDELETED, now_ms)], announcer)
    return marked == 1


async def to_purge(session: Session, document: str | None, before_ms: int | None) -> Sequence[int]:
    """Return the ids of deleted documents that fit."""
    rows = await session.fetch(
        """
        SELECT id FROM plait.documents WHERE deleted_ms IS NOT NULL
            AND ($1::bytea IS NULL OR name = $1) AND ($2::bigint IS NULL OR deleted_ms < $2)
        """,
        *(None if document is None else document.encode(), before_ms),
    )
    return [row["id"] for row in rows]


async def purge_one(session: Session, identity: int, before_ms: int | None) -> bool:
    """Forget a document, unless it was brought back meanwhile; return whether it is gone by this.

    One a transaction, so that others wait for the rows of one document at most.
    """
    await session.run("SET LOCAL statement_timeout = 0")
    row = await session.first(
        """
        SELECT id FROM plait.documents
        WHERE id = $1 AND deleted_ms IS NOT NULL AND ($2::bigint IS NULL OR deleted_ms < $2)
        FOR UPDATE
        """,
        *(identity, before_ms),
    )
    if row is None:
        return False
    for table in ("slices", "snapshots", "updates"):
        await session.count(
            f"DELETE FROM plait.{table} WHERE document = $1", identity, seconds=PURGE_SECONDS
        )
    await session.count("DELETE FROM plait.documents WHERE id = $1", identity)
    return True


async def ping(session: Session, writer: int) -> None:
    """Commit something: that it answers does not say that its disk has room.

    Few share a row: who waits for another that hangs would tell of the wrong trouble.
    """
    await session.count(
        """
        INSERT INTO plait.pings VALUES ($1, 1)
        ON CONFLICT (id) DO UPDATE SET count = pings.count + 1
        """,
        writer % PING_ROWS,
    )
