"""Notice what other processes do to the file, at next to no cost while they do nothing.

`PRAGMA data_version` changes on a connection when *another* connection committed. Asked on the
connection that does all of this object's writing, it changes for other objects' commits only.
While it stays, all new rows are this object's, and what is known of deletions stays true as well.

When it has changed, the rows above where most documents have been read up to are read, of all
documents, open or not. Those that are far behind, such as one just opened that was last edited
long ago, are looked up one by one instead.

Nothing depends on what was asked before: whoever asks from the same numbers again is told the same.
Everything here runs in the writing connection's thread.
"""

import sqlite3
from collections.abc import Collection, Mapping

from plait.persistence.ownership import OwnSequences
from plait.persistence.sqlite_connection import reading
from plait.persistence.store import Changes, LoggedUpdate

ROWS_PASSED_MAX = 10_000
"""Rows that one call passes over, of any document: a commit may have to wait for it, some 10 ms."""
LOOK_UP_ROWS = 8
"""Rows that can be passed over in the time that it takes to look up one, or a document."""
BYTES_RETURNED_MAX = 16 << 20
"""Once a call has read as much as this, it returns."""
DELETED_REMEMBERED_MAX = 10_000
"""Names of deleted documents kept; where there are more, each call asks the database."""


class Watch:
    """What is known of the other writers of a file."""

    def __init__(self) -> None:
        self.own = OwnSequences()
        self._version = -1
        self._alone_since = 0
        """All rows above this number were appended by this object, and by no other folded."""
        self._deleted: frozenset[str] | None = None

    def forget_deleted(self) -> None:
        """Note that this object changed which documents are deleted."""
        self._deleted = None

    def changes(self, connection: sqlite3.Connection, after: Mapping[str, int]) -> Changes:
        """Return what others wrote above each document's sequence number, up to a bound."""
        # In the transaction: it sees exactly the commits that the version counts.
        with reading(connection):
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            upto = _last_seq(connection)
            if version != self._version:
                self._version, self._alone_since, self._deleted = version, upto, None
            deleted = self._deleted_of(connection, after)
            search = _Search(connection, self.own)
            behind = {name: seq for name, seq in after.items() if seq < self._alone_since}
            if behind:
                search.run(behind, upto)
        seqs = {name: upto for name, seq in after.items() if seq < upto}
        for name, seq in search.stopped.items():
            if seq > after[name]:
                seqs[name] = seq
            else:
                del seqs[name]
        return Changes(seqs, tuple(search.updates), deleted, more=bool(search.stopped))

    def _deleted_of(
        self, connection: sqlite3.Connection, documents: Collection[str]
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


class _Search:
    """One call's search for rows of others."""

    def __init__(self, connection: sqlite3.Connection, own: OwnSequences) -> None:
        self.updates: list[LoggedUpdate] = []
        self.stopped: dict[str, int] = {}
        """Where the search in a document stopped, if that was before its end."""
        self._connection = connection
        self._own = own
        self._rows_left = ROWS_PASSED_MAX
        self._bytes_left = BYTES_RETURNED_MAX

    def run(self, behind: Mapping[str, int], upto: int) -> None:
        """Search documents, each from a number below `upto` on."""
        start = _scan_start(behind.values(), upto)
        near: dict[str, int] = {}
        for name, seq in behind.items():
            if seq >= start:
                near[name] = seq
            elif self._full:
                self.stopped[name] = seq
            else:
                self._probe(name, seq)
        if self._full:
            self.stopped.update(near)
        elif near:
            self._scan(start, near)

    @property
    def _full(self) -> bool:
        return self._rows_left <= 0 or self._bytes_left <= 0

    def _probe(self, name: str, after: int) -> None:
        self._rows_left -= LOOK_UP_ROWS
        rows = self._connection.execute(
            """
            SELECT updates.seq, updates.folded
            FROM documents JOIN updates ON updates.document = documents.id
            WHERE documents.name = ? AND updates.seq > ? ORDER BY updates.seq
            """,
            (name, after),
        )
        for seq, folded in rows:
            self._rows_left -= 1
            if self._concerns(seq, folded):
                self._take(seq, name)
            if self._full:
                self.stopped[name] = seq
                return

    def _scan(self, start: int, near: Mapping[str, int]) -> None:
        names: dict[int, str | None] = {}
        # The content is read for the rows that are wanted only: others may be large.
        rows = self._connection.execute(
            "SELECT seq, document, folded FROM updates WHERE seq > ? ORDER BY seq", (start,)
        )
        for seq, document, folded in rows:
            self._rows_left -= 1
            if self._concerns(seq, folded):
                if document not in names:
                    names[document] = self._name(document, near)
                name = names[document]
                if name is not None and seq > near[name]:
                    self._take(seq, name)
            if self._full:
                self.stopped.update((name, max(seq, after)) for name, after in near.items())
                return

    def _concerns(self, seq: int, folded: int) -> bool:
        # A row of ours that another has folded may hold rows of others from before it.
        return bool(folded) or seq not in self._own

    def _take(self, seq: int, name: str) -> None:
        self._rows_left -= LOOK_UP_ROWS
        row = self._connection.execute(
            "SELECT bytes, who, at_ms FROM updates WHERE seq = ?", (seq,)
        ).fetchone()
        self.updates.append(LoggedUpdate(seq, name, *row))
        self._bytes_left -= len(self.updates[-1].update)

    def _name(self, identity: int, wanted: Collection[str]) -> str | None:
        self._rows_left -= LOOK_UP_ROWS
        query = "SELECT name FROM documents WHERE id = ?"
        row = self._connection.execute(query, (identity,)).fetchone()
        return row[0] if row and row[0] in wanted else None


def _scan_start(numbers: Collection[int], upto: int) -> int:
    """Return from which number on to read all rows, as against looking up the documents that are
    not there yet, so that it takes the least time; `upto` if none are to be read.
    """
    ordered = sorted(numbers)
    costs = [LOOK_UP_ROWS * below + upto - seq for below, seq in enumerate(ordered)]
    best = min(costs)
    return ordered[costs.index(best)] if best < LOOK_UP_ROWS * len(ordered) else upto


def _last_seq(connection: sqlite3.Connection) -> int:
    """Return the highest sequence number ever given out, even if its row was purged."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'updates'").fetchone()
    return row[0] if row else 0
