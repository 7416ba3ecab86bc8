"""How an SQLite store finds what others wrote, and that it reads and remembers little for it."""

import pytest

from plait.persistence import Changes, Update, sqlite_watch
from plait.persistence.sqlite import SqliteStore
from tests.support.sqlite import fill


async def test_while_nobody_else_writes_changes_reads_nothing(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seqs = dict((await sqlite.changes({"a": 0, "idle": 0})).seqs)
    assert seqs == {}

    def forbidden(*_: object) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(sqlite_watch._Search, "run", forbidden)
    for number in range(3):
        await fill(sqlite, "a", 5)
        await sqlite.delete("a", 1)
        await sqlite.undelete("a")
        # As good for those that were asked about in one call and not in the next.
        changes = await sqlite.changes({"a": 5 * number, "idle": 0})
        assert changes == Changes({"a": 5 * number + 5, "idle": 5 * number + 5})


async def test_a_document_that_is_far_behind_does_not_cause_the_log_to_be_read(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "ROWS_PASSED_MAX", 100)
    other = SqliteStore(sqlite.path)
    await other.open()
    await fill(other, "old", 1)
    await fill(other, "busy", 5000)
    await fill(other, "recent", 1)
    changes = await sqlite.changes({"old": 0, "recent": 5000, "unknown": 0, "busy": 4999})
    assert [(row.document, row.seq) for row in changes.updates] == [
        ("old", 1),
        ("busy", 5000),
        ("busy", 5001),
        ("recent", 5002),
    ]
    assert changes.seqs == dict.fromkeys(["old", "recent", "unknown", "busy"], 5002)
    assert not changes.more
    await other.close()


async def test_many_documents_that_are_far_behind_are_looked_up_in_bounded_parts(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "ROWS_PASSED_MAX", 20 * sqlite_watch.LOOK_UP_ROWS)
    other = SqliteStore(sqlite.path)
    await other.open()
    cursors: dict[str, int] = {}
    for number in range(50):
        await fill(other, f"d{number}", 1)
        await fill(other, "busy", 50)
        cursors[f"d{number}"] = 0
    parts: list[int] = []
    while True:
        changes = await sqlite.changes(cursors)
        cursors |= changes.seqs
        parts.append(len(changes.updates))
        if not changes.more:
            break
    assert sum(parts) == 50
    assert len(parts) >= 5 and max(parts) <= 10
    assert set(cursors.values()) == {50 * 51}
    await other.close()


async def test_many_changes_come_in_bounded_parts(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "BYTES_RETURNED_MAX", 100)
    monkeypatch.setattr(sqlite_watch, "ROWS_PASSED_MAX", 7)
    other = SqliteStore(sqlite.path)
    await other.open()
    for _ in range(3):
        await fill(other, "large", 4, size=60)
        await fill(other, "not asked", 20)
    await other.close()
    seq, seen, parts = 0, 0, 0
    while True:
        changes = await sqlite.changes({"large": seq})
        assert sum(len(row.update) for row in changes.updates) <= 160
        seq = changes.seqs.get("large", seq)
        seen, parts = seen + len(changes.updates), parts + 1
        if not changes.more:
            break
    assert (seq, seen) == (72, 12)
    assert parts >= 6


async def test_many_changes_of_many_documents_come_in_bounded_parts(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "ROWS_PASSED_MAX", 100)
    other = SqliteStore(sqlite.path)
    await other.open()
    names = [f"d{number}" for number in range(100)]
    for number in range(7):
        await other.append([Update(name, f"{number}".encode()) for name in names])
        await sqlite.append([Update(name, b"mine") for name in names])
    await other.close()
    cursors = dict.fromkeys(names, 0)
    seen: dict[str, list[bytes]] = {name: [] for name in names}
    parts = 0
    while True:
        changes = await sqlite.changes(cursors)
        cursors |= changes.seqs
        for row in changes.updates:
            seen[row.document].append(row.update)
        assert len(changes.updates) <= 100
        parts += 1
        if not changes.more:
            break
    assert all(rows == [b"0", b"1", b"2", b"3", b"4", b"5", b"6"] for rows in seen.values())
    assert parts >= 14


async def test_many_deleted_documents_are_told_without_being_remembered(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_watch, "DELETED_REMEMBERED_MAX", 2)
    for name in "abcd":
        await fill(sqlite, name, 1)
        await sqlite.delete(name, 1)
    await fill(sqlite, "live", 1)
    for _ in range(2):
        assert (await sqlite.changes({"live": 5, "d": 5, "b": 5})).deleted == ("d", "b")
