"""Notice what other processes do to the file, at next to no cost while they do nothing.

`PRAGMA data_version` changes on a connection when *another* connection committed. Asked on the
connection that does all of this object's writing, it changes for other objects' commits only.
While it stays, there is nothing to read, and what is known of deletions stays true as well.

Everything here runs in the writing connection's thread, so nothing comes between.
"""

import sqlite3
from collections.abc import Sequence

from plait.persistence.ownership import OwnSequences
from plait.persistence.sqlite_connection import reading
from plait.persistence.store import Changes, LoggedUpdate

ROWS_PASSED_MAX = 100_000
"""Rows that one call passes over, of any document."""
BYTES_RETURNED_MAX = 16 << 20
"""Once a call has read as much as this, it returns."""
DELETED_REMEMBERED_MAX = 10_000
"""Names of deleted documents kept; where there are more, each call asks the database."""


class Watch:
    """What is known of the other writers of a file."""

    def __init__(self) -> None:
        self.own = OwnSequences()
        self._version = -1
        self._unread = True
        self._read_upto = 0
        self._deleted: frozenset[str] | None = None

    def forget_deleted(self) -> None:
        """Note that this object changed which documents are deleted."""
        self._deleted = None

    def changes(
        self, connection: sqlite3.Connection, after: int, documents: Sequence[str]
    ) -> Changes:
        """Return what others wrote above a sequence number, up to a bound."""
        if after < 0:
            return Changes(_last_seq(connection))
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._version, self._unread, self._deleted = version, True, None
        # A commit that comes between changes the version next time; it is read twice at worst.
        with reading(connection):
            deleted = self._deleted_of(connection, documents)
            if not self._unread and after >= self._read_upto:
                return Changes(max(after, self.own.last), (), deleted)
            upto = _last_seq(connection)
            seq, updates = self._read(connection, after, frozenset(documents))
        if seq is not None:
            return Changes(seq, updates, deleted, more=True)
        self._unread, self._read_upto = False, upto
        return Changes(max(after, upto), updates, deleted)

    def _read(
        self, connection: sqlite3.Connection, after: int, wanted: frozenset[str]
    ) -> tuple[int | None, tuple[LoggedUpdate, ...]]:
        """Return the rows of others, and where reading stopped if it did before the end."""
        names: dict[int, str | None] = {}
        updates: list[LoggedUpdate] = []
        length = 0
        # The content is read for the rows that are wanted only: others may be large.
        rows = connection.execute(
            "SELECT seq, document, folded FROM updates WHERE seq > ? ORDER BY seq LIMIT ?",
            (after, ROWS_PASSED_MAX),
        )
        passed = 0
        for passed, (seq, document, folded) in enumerate(rows, start=1):  # noqa: B007
            # A row of ours that another has folded may hold rows of others from before it.
            if seq in self.own and not folded:
                continue
            if document not in names:
                names[document] = _name(connection, document, wanted)
            name = names[document]
            if name is None:
                continue
            row = connection.execute(
                "SELECT bytes, who, at_ms FROM updates WHERE seq = ?", (seq,)
            ).fetchone()
            updates.append(LoggedUpdate(seq, name, *row))
            length += len(updates[-1].update)
            if length >= BYTES_RETURNED_MAX:
                return seq, tuple(updates)
        return (seq if passed == ROWS_PASSED_MAX else None), tuple(updates)

    def _deleted_of(
        self, connection: sqlite3.Connection, documents: Sequence[str]
    ) -> tuple[str, ...]:
        if self._deleted is None:
            names = connection.execute(
                """
                SELECT name FROM documents INDEXED BY documents_deleted
                WHERE deleted_ms IS NOT NULL LIMIT ?
                """,
                (DELETED_REMEMBERED_MAX + 1,),
            ).fetchall()
            if len(names) > DELETED_REMEMBERED_MAX:
                query = "SELECT 1 FROM documents WHERE name = ? AND deleted_ms IS NOT NULL"
                return tuple(n for n in documents if connection.execute(query, (n,)).fetchone())
            self._deleted = frozenset(name for (name,) in names)
        deleted = self._deleted
        return tuple(name for name in documents if name in deleted) if deleted else ()


def _last_seq(connection: sqlite3.Connection) -> int:
    """Return the highest sequence number ever given out, even if its row was purged."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'updates'").fetchone()
    return row[0] if row else 0


def _name(connection: sqlite3.Connection, identity: int, wanted: frozenset[str]) -> str | None:
    row = connection.execute("SELECT name FROM documents WHERE id = ?", (identity,)).fetchone()
    return row[0] if row and row[0] in wanted else None
