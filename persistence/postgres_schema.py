"""The tables of a PostgreSQL store, as numbered migrations that run forward at open.

They are in a schema of their own, so that a database can hold other things, and several stores. The
table `plait_schema` holds the number of the last migration, and says that the schema is ours. A
migration is never changed once released; a new one is added at the end.

Names and authors are bytes: text would be ordered by a collation, and can't hold NUL. Counters of
documents are kept as in an SQLite store (`schema`), and `last_seq` beside them, so that whoever
asks for changes need not look at the rows of documents that have not moved.
"""

import asyncio
import time
from collections.abc import Sequence

from plait.persistence.postgres_connection import Connections, Session
from plait.persistence.store import StoreUnavailable, StoreVersion

Migration = str

MIGRATE_SECONDS = 3600.0
"""For one migration, or for another node's that is waited for."""

COPYING = 0x506C61697463
"""“Plaitc”: the advisory lock of who fills a store, together with the schema's name."""

COPYING_SECONDS = 5.0
"""For another one to end, or to be noticed to have ended."""
ASK_AGAIN_SECONDS = 0.1

LOCK = 0x506C616974
"""“Plait”: the advisory lock under which migrations run, together with the schema's name."""

MIGRATIONS: Sequence[Migration] = (
    # A fill factor leaves room in each page, so that the counters can be updated in place.
    # Updates have no foreign key, which would cost as much as the insert: each transaction that
    # adds or removes some holds the lock of the document's row. `plait store check` looks for
    # orphans. `folded` is the number of rows that a segment stands for, 0 for a row as it was
    # appended; `writer` is whose it is, 0 of a segment, which is everybody's news.
    """
    CREATE SEQUENCE plait.seqs;
    CREATE TABLE plait.documents (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name bytea NOT NULL UNIQUE,
        created_ms bigint NOT NULL,
        modified_ms bigint NOT NULL,
        deleted_ms bigint,
        last_seq bigint NOT NULL DEFAULT 0,
        updates bigint NOT NULL DEFAULT 0,
        log_bytes bigint NOT NULL DEFAULT 0,
        tail_updates bigint NOT NULL DEFAULT 0,
        tail_bytes bigint NOT NULL DEFAULT 0,
        snapshot_bytes bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 50);
    CREATE INDEX documents_deleted ON plait.documents (name) WHERE deleted_ms IS NOT NULL;
    CREATE TABLE plait.updates (
        document bigint NOT NULL,
        seq bigint NOT NULL,
        writer bigint NOT NULL,
        bytes bytea NOT NULL,
        who bytea NOT NULL,
        at_ms bigint NOT NULL,
        folded bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (document, seq)
    );
    CREATE TABLE plait.snapshots (
        document bigint PRIMARY KEY REFERENCES plait.documents (id),
        upto bigint NOT NULL,
        at_ms bigint NOT NULL,
        slices integer NOT NULL,
        types bigint NOT NULL,
        lossy boolean NOT NULL,
        astral boolean NOT NULL
    );
    CREATE TABLE plait.slices (
        document bigint NOT NULL REFERENCES plait.snapshots (document),
        number integer NOT NULL,
        bytes bytea NOT NULL,
        PRIMARY KEY (document, number)
    );
    CREATE TABLE plait.pings (id bigint PRIMARY KEY, count bigint NOT NULL)
    """,
    # What was removed of late has its time in `removed_ms`, and no value. The outbox has documents
    # by name, since what is told of one outlives it. `taken` says that somebody has or had an event
    # in hand, until `due_ms` if that is still to come.
    """
    CREATE TABLE plait.records (
        kind bytea NOT NULL,
        id bytea NOT NULL,
        value bytea NOT NULL,
        at_ms bigint NOT NULL,
        until_ms bigint,
        seq bigint NOT NULL UNIQUE,
        removed_ms bigint,
        PRIMARY KEY (kind, id)
    );
    CREATE INDEX records_until ON plait.records (until_ms) WHERE until_ms IS NOT NULL;
    CREATE INDEX records_removed ON plait.records (removed_ms) WHERE removed_ms IS NOT NULL;
    CREATE TABLE plait.record_state (
        id integer PRIMARY KEY CHECK (id = 1),
        seq bigint NOT NULL,
        forgotten bigint NOT NULL
    );
    INSERT INTO plait.record_state VALUES (1, 0, 0);
    CREATE TABLE plait.outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        document bytea NOT NULL,
        kind bytea NOT NULL,
        at_ms bigint NOT NULL,
        data bytea NOT NULL,
        attempts bigint NOT NULL,
        due_ms bigint NOT NULL DEFAULT 0,
        taken boolean NOT NULL DEFAULT false
    );
    CREATE INDEX outbox_taken ON plait.outbox (document) WHERE taken;
    CREATE INDEX outbox_told ON plait.outbox (document, id)
        WHERE kind IN ('changed', 'created', 'deleted', 'undeleted')
    """,
    # In snapshots that were made before, nobody has looked for keys.
    "ALTER TABLE plait.snapshots ADD COLUMN keyed boolean NOT NULL DEFAULT true",
    # It says more than `keyed`, which only older versions read; they may still run.
    "ALTER TABLE plait.snapshots ADD COLUMN places bytea",
)


async def version_of(session: Session, newest: int = len(MIGRATIONS)) -> int:
    """Return the number of the last migration of a schema; 0 if it is empty or not there.

    Raises:
        StoreVersion: its tables belong to another program, or to a newer version of this one.
    """
    row = await session.first(
        """
        SELECT count(*), count(*) FILTER (WHERE relname = 'plait_schema' AND relkind = 'r')
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1
        """,
        session.schema,
    )
    tables, ours = row if row else (0, 0)
    if not ours:
        if tables:
            raise StoreVersion(
                f"the schema {session.schema} of the database belongs to another program",
                hint="Name another one for the store with ?schema= in its URL.",
            )
        return 0
    row = await session.first("SELECT version FROM plait.plait_schema")
    version = int(row[0]) if row else 0
    if version > newest:
        raise StoreVersion(
            f"the schema {session.schema} was written by a newer Plait: its version is {version}, "
            f"this program knows up to {newest}",
            hint="Install the newer version again, or restore a backup made by this one.",
        )
    return version


async def locked_for_copying(session: Session) -> bool:
    """Return whether nobody else fills the store; nobody else can until the transaction ends.

    The server takes a moment to notice that who did was killed.
    """
    deadline = time.monotonic() + COPYING_SECONDS
    while True:
        row = await session.first(
            "SELECT pg_try_advisory_xact_lock(hashtextextended($1, $2))", session.schema, COPYING
        )
        if row is not None and row[0]:
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(ASK_AGAIN_SECONDS)


async def migrate(
    connections: Connections,
    url: str,
    *,
    create: bool = True,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> tuple[int, int]:
    """Bring a schema forward, each migration in a transaction; return the versions from and to.

    Args:
        create: make the store if there is none.

    Raises:
        StoreVersion: a newer program wrote it, or another one.
        StoreUnavailable: there is none.
    """
    newest = len(migrations)
    first = await connections.read(lambda session: version_of(session, newest))
    if first == 0 and not create:
        raise StoreUnavailable(
            f"there is no store at {url}", hint="Name it with --store or PLAIT_STORE."
        )
    version = first
    while version < newest:
        version = await connections.write(lambda session: _step(session, migrations))
    return first, version


async def _step(session: Session, migrations: Sequence[Migration]) -> int:
    """Run the next migration, if there is one; return the version then."""
    await session.run("SET LOCAL statement_timeout = 0")
    await session.fetch(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, $2))",
        *(session.schema, LOCK),
        seconds=MIGRATE_SECONDS,
    )
    # Another node may have done it while this one waited for the lock.
    version = await version_of(session, len(migrations))
    if version == len(migrations):
        return version
    if version == 0:
        if not await session.first("SELECT 1 FROM pg_namespace WHERE nspname = $1", session.schema):
            # A user who may not make schemas can be given one that is empty.
            await session.run(f'CREATE SCHEMA "{session.schema}"')
        await session.run(
            "CREATE TABLE plait.plait_schema (version integer NOT NULL, identity uuid NOT NULL);"
            "INSERT INTO plait.plait_schema VALUES (0, gen_random_uuid())"
        )
    await session.run(migrations[version], seconds=MIGRATE_SECONDS)
    await session.run(f"UPDATE plait.plait_schema SET version = {version + 1}")
    return version + 1
