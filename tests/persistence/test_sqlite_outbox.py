"""Records and the outbox of an SQLite store: what is one transaction, and what damage is found."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from plait.persistence import ANNOUNCED, Event, Record, StoreError, Update, sqlite_outbox
from plait.persistence.sqlite import SqliteStore


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
        connection.commit()


async def test_an_append_that_can_not_be_told_is_not_made(sqlite: SqliteStore) -> None:
    """And who does not announce does not touch the outbox."""
    announcing = SqliteStore(sqlite.path, announce=ANNOUNCED)
    await announcing.open()
    await sqlite.append([Update("a", b"1"), Update("b", b"1")])
    await sqlite.delete("b", 1)
    execute(sqlite.path, "DROP TABLE outbox")
    for attempt in (
        announcing.append([Update("a", b"2")]),
        announcing.delete("a", 1),
        announcing.undelete("b"),
    ):
        with pytest.raises(StoreError):
            await attempt
    assert [info.name for info in await sqlite.documents()] == ["a"]
    assert [info.name for info in await sqlite.documents(deleted=True)] == ["b"]
    await sqlite.append([Update("a", b"3")])
    assert [row.update for row in await sqlite.log("a")] == [b"1", b"3"]
    assert await sqlite.delete("a", 1) and await sqlite.undelete("a")
    await announcing.close()


async def test_records_and_events_outlive_the_process(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", announce=["changed"])
    await store.open()
    await store.put_record(Record("key", "a", "", 0))
    await store.append([Update("a", b"1")])
    [event] = await store.take_events(0, lease_ms=100)
    await store.close()
    await store.open()
    assert await store.record("key", "a") is not None
    assert await store.take_events(99, lease_ms=100) == []
    assert await store.take_events(100, lease_ms=100) == [event]
    await store.close()


async def test_what_is_long_is_not_read_to_find_what_is_first(sqlite: SqliteStore) -> None:
    """An append looks up one event of each document, and a taker the first ones only."""
    plans = {
        sqlite_outbox.LAST_TOLD: "SEARCH outbox USING INDEX outbox_told (document=?)",
        sqlite_outbox.FIRSTS: "SCAN outbox USING INDEX outbox_first",
    }
    with closing(sqlite3.connect(sqlite.path)) as connection:
        for query, plan in plans.items():
            parameters = (0,) * query.count("?")
            [row] = connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters).fetchall()
            assert row[3] == plan


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            "UPDATE records SET seq = 7",
            "The record 'a' (key) has the number 7, and the last that was given out is 1.",
        ),
        (
            "UPDATE outbox SET first = 0 WHERE document = 'b'",
            "The outbox does not know the first of document 'b', or takes another for it.",
        ),
        (
            "UPDATE outbox SET first = NOT first WHERE document = 'a'",
            "The outbox does not know the first of document 'a', or takes another for it.",
        ),
    ],
)
async def test_check_tells_of_damage(sqlite: SqliteStore, statement: str, problem: str) -> None:
    await sqlite.put_record(Record("key", "a", "", 0))
    await sqlite.post([Event(name, "x", 0) for name in "aab"])
    assert await sqlite.check() == []
    execute(sqlite.path, statement)
    assert await sqlite.check() == [problem]
