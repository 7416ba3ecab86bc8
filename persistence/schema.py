"""The tables of an SQLite store, as numbered migrations that run forward at start.

`PRAGMA user_version` holds the number of the last migration, `PRAGMA application_id` says that the
file is ours. A migration is never changed once released; a new one is added at the end.

Listings show counts and sizes of documents, and there may be millions of rows. So the documents'
rows carry them as counters, kept in the same transaction as what they count.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from plait.persistence.sqlite_connection import writing
from plait.persistence.store import StoreVersion

APPLICATION_ID = 0x506C6169
"""“Plai”, in the header of every file of ours."""

Migration = Sequence[str]

MIGRATIONS: Sequence[Migration] = (
    (
        # AUTOINCREMENT: an id or a sequence number that was used is never used again, so that a
        # cached id can't mean another document, and nobody waits for a number that went by.
        """
        CREATE TABLE documents (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE COLLATE BINARY,
            created_ms INTEGER NOT NULL,
            modified_ms INTEGER NOT NULL,
            deleted_ms INTEGER,
            updates INTEGER NOT NULL DEFAULT 0,
            log_bytes INTEGER NOT NULL DEFAULT 0,
            tail_updates INTEGER NOT NULL DEFAULT 0,
            tail_bytes INTEGER NOT NULL DEFAULT 0,
            snapshot_bytes INTEGER NOT NULL DEFAULT 0
        )
        """,
        "CREATE INDEX documents_deleted ON documents (name) WHERE deleted_ms IS NOT NULL",
        # `folded` is the number of rows that a segment stands for, 0 for a row as it was appended.
        """
        CREATE TABLE updates (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            document INTEGER NOT NULL REFERENCES documents (id),
            bytes BLOB NOT NULL,
            who TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            folded INTEGER NOT NULL DEFAULT 0
        )
        """,
        "CREATE INDEX updates_document ON updates (document, seq)",
        """
        CREATE TABLE snapshots (
            document INTEGER PRIMARY KEY REFERENCES documents (id),
            upto INTEGER NOT NULL,
            at_ms INTEGER NOT NULL,
            slices INTEGER NOT NULL,
            types INTEGER NOT NULL,
            lossy INTEGER NOT NULL,
            astral INTEGER NOT NULL
        )
        """,
        """
        CREATE TABLE slices (
            document INTEGER NOT NULL REFERENCES snapshots (document),
            number INTEGER NOT NULL,
            bytes BLOB NOT NULL,
            PRIMARY KEY (document, number)
        )
        """,
        # One row that `ping` rewrites: only a commit tells whether the disk takes one.
        "CREATE TABLE pings (id INTEGER PRIMARY KEY CHECK (id = 1), count INTEGER NOT NULL)",
        "INSERT INTO pings VALUES (1, 0)",
    ),
    (
        # What was removed of late has its time in `removed_ms`, and no value.
        """
        CREATE TABLE records (
            kind TEXT NOT NULL COLLATE BINARY,
            id TEXT NOT NULL COLLATE BINARY,
            value TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            until_ms INTEGER,
            seq INTEGER NOT NULL UNIQUE,
            removed_ms INTEGER,
            PRIMARY KEY (kind, id)
        )
        """,
        "CREATE INDEX records_until ON records (until_ms) WHERE until_ms IS NOT NULL",
        "CREATE INDEX records_removed ON records (removed_ms) WHERE removed_ms IS NOT NULL",
        """
        CREATE TABLE record_state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            seq INTEGER NOT NULL,
            forgotten INTEGER NOT NULL
        )
        """,
        "INSERT INTO record_state VALUES (1, 0, 0)",
        # Documents by name, since what is told of one outlives it. `taken` says that somebody has
        # or had it in hand, until `due_ms` if that is still to come.
        """
        CREATE TABLE outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            document TEXT NOT NULL COLLATE BINARY,
            kind TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            data TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            due_ms INTEGER NOT NULL DEFAULT 0,
            taken INTEGER NOT NULL DEFAULT 0,
            first INTEGER NOT NULL
        )
        """,
        "CREATE INDEX outbox_document ON outbox (document, id)",
        "CREATE INDEX outbox_first ON outbox (id, due_ms) WHERE first",
        """
        CREATE INDEX outbox_told ON outbox (document, id)
        WHERE kind IN ('changed', 'created', 'deleted', 'undeleted')
        """,
    ),
    # In snapshots that were made before, nobody has looked for keys.
    ("ALTER TABLE snapshots ADD COLUMN keyed INTEGER NOT NULL DEFAULT 1",),
    # It says more than `keyed`, which only older versions read.
    ("ALTER TABLE snapshots ADD COLUMN places BLOB",),
)


def version_of(connection: sqlite3.Connection, path: Path, newest: int = len(MIGRATIONS)) -> int:
    """Return the number of the last migration of a file; 0 if it is empty.

    Raises:
        StoreVersion: the file belongs to another program, or to a newer version of this one.
    """
    # In this order: another process may commit its first migration, which sets both, in between.
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id != APPLICATION_ID:
        if application_id or tables:
            raise StoreVersion(
                f"{path} is a database of another program",
                hint="Give the path of a store, or of a file that does not exist yet.",
            )
        return 0
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > newest:
        raise StoreVersion(
            f"{path} was written by a newer Plait: its schema is {version}, "
            f"this program knows up to {newest}",
            hint="Install the newer version again, or restore a backup made by this one.",
        )
    return version


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    migrations: Sequence[Migration] = MIGRATIONS,
) -> None:
    """Bring a file forward to the last migration, each in a transaction of its own.

    Raises:
        StoreVersion: a newer program wrote it, or another one.
    """
    newest = len(migrations)
    while version_of(connection, path, newest) < newest:
        with writing(connection):
            # Another process may have done it while this one waited for the lock.
            version = version_of(connection, path, newest)
            if version < newest:
                for statement in migrations[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {version + 1}")
