"""Fill SQLite stores, and change their files behind their backs."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from plait.persistence import Update
from plait.persistence.sqlite import SqliteStore


async def fill(store: SqliteStore, document: str, count: int, size: int = 10) -> None:
    """Append updates of random bytes to a document, in one transaction."""
    await store.append([Update(document, os.urandom(size)) for _ in range(count)])


async def run_sql(path: Path, *statements: str) -> None:
    """Change a file as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
