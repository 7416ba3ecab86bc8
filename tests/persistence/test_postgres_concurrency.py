"""Several nodes that write to one PostgreSQL at once, and what they see of each other."""

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from plait.persistence import (
    DocumentDeleted,
    StoreUnavailable,
    Update,
    open_store,
    postgres_connection,
    postgres_read,
)
from plait.persistence.memory import MemoryStore
from plait.persistence.postgres import PostgresStore
from plait.persistence.postgres_errors import translated
from tests.persistence import test_store_model as model
from tests.support.deadlines import eventually
from tests.support.postgres import PostgresServer
from tests.support.updates import update


@pytest.fixture
def store(postgres: PostgresStore) -> PostgresStore:
    return postgres


@pytest.fixture
async def other(postgres_url: str, store: PostgresStore) -> AsyncIterator[PostgresStore]:
    other = PostgresStore(postgres_url)
    await other.open()
    yield other
    await other.close()


@pytest.fixture
def conflicts(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Errors that a transaction would be run again for; here it fails."""
    found: list[BaseException] = []

    def note(error: BaseException) -> bool:
        found.append(error)
        return False

    monkeypatch.setattr(postgres_connection, "is_conflict", note)
    return found


async def test_appends_in_different_orders_wait_for_each_other_and_never_in_a_circle(
    store: PostgresStore, other: PostgresStore, conflicts: list[BaseException]
) -> None:
    names = [f"d{number}" for number in range(12)]

    async def write(store: PostgresStore, names: list[str], label: str) -> None:
        for number in range(30):
            # Also documents that nobody has made yet.
            more = [*names, *(f"new{number}-{name}" for name in names)]
            await store.append([update(name, f"{label}{number}") for name in more])

    await asyncio.gather(
        write(store, names, "a"),
        write(other, names[::-1], "b"),
        write(store, names[6:] + names[:6], "c"),
        write(other, names[3:][::-1] + names[:3], "d"),
    )
    assert conflicts == []
    for name in names:
        assert len((await store.load(name)).updates) == 120
    assert list(await store.check()) == []


async def test_who_follows_while_many_write_misses_nothing(
    postgres_url: str, store: PostgresStore
) -> None:
    """Fails if numbers are taken before the documents' rows are locked."""
    writers = [PostgresStore(postgres_url) for _ in range(4)]
    for writer in writers:
        await writer.open()
    names = [f"d{number}" for number in range(3)]
    await writers[0].append([update(name, "first") for name in names])
    writing = asyncio.gather(
        *(
            writer.append([update(name, f"{number}-{turn}") for name in names[turn % 3 :]])
            for number, writer in enumerate(writers)
            for turn in range(60)
        )
    )
    cursors = dict.fromkeys(names, 0)
    seen: dict[str, list[int]] = {name: [] for name in names}

    async def follow() -> bool:
        changes = await store.changes(cursors)
        assert all(seq > cursors[name] for name, seq in changes.seqs.items())
        cursors.update(changes.seqs)
        for row in changes.updates:
            seen[row.document].append(row.seq)
        return not changes.more

    while not writing.done():
        await follow()
    await writing
    await eventually(follow, "the end of the changes")
    for name in names:
        assert seen[name] == [row.seq for row in (await store.load(name)).updates]
    for writer in writers:
        await writer.close()


async def test_documents_made_by_two_at_once_are_one(
    store: PostgresStore, other: PostgresStore, conflicts: list[BaseException]
) -> None:
    for turn in range(10):
        names = [f"{turn}-{number:03}" for number in range(300)]
        await asyncio.gather(
            store.append([update(name, "a") for name in names]),
            other.append([update(name, "b") for name in reversed(names)]),
            store.append([update(name, "c") for name in names[150:] + names[:150]]),
        )
        assert all([len((await store.load(name)).updates) == 3 for name in names[::30]])
    assert conflicts == []
    assert len(await store.documents(limit=10_000)) == 3000


async def test_what_gets_in_anothers_way_is_run_again_a_few_times(store: PostgresStore) -> None:
    runs = 0

    async def work(session: postgres_connection.Session) -> int:
        nonlocal runs
        runs += 1
        await session.run("UPDATE plait.pings SET count = 0")
        if runs % 5:
            raise asyncpg.DeadlockDetectedError("made up")
        return runs

    assert await store._connections.write(work) == 5

    async def never(session: postgres_connection.Session) -> None:
        raise asyncpg.SerializationError("made up")

    with pytest.raises(StoreUnavailable):
        await store._connections.write(never)
    await store.ping()


async def test_a_node_that_hangs_in_the_middle_lets_go_of_its_locks(
    store: PostgresStore, other: PostgresStore
) -> None:
    await store.append([update("a", "1")])
    begin = postgres_connection.BEGIN_WRITING.replace("'10s'", "'100ms'")
    assert begin != postgres_connection.BEGIN_WRITING
    with pytest.raises(StoreUnavailable):
        with translated(store.url):
            async with store._connections.transaction(begin) as session:
                await session.fetch("SELECT id FROM plait.documents FOR UPDATE")
                await other.append([update("a", "2")])
                await session.fetch("SELECT 1")
    assert len((await other.load("a")).updates) == 2
    await store.ping()


async def test_changes_are_cut_where_they_are_many(
    store: PostgresStore, other: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_read, "CHANGES_BYTES", 100)
    monkeypatch.setattr(postgres_read, "CHANGES_ROWS", 7)
    names = ["a", "b", "c", "d"]
    for number in range(5):
        await other.append([Update(name, bytes([number]) * 12) for name in names])
        await store.append([update(name, "own") for name in names])
    await other.append([Update("b", b"large" * 100), update("d", "last")])
    cursors = dict.fromkeys(names, 0)
    found: list[tuple[str, bytes]] = []
    answers = 0
    while True:
        changes = await store.changes(cursors)
        assert 0 < len(changes.updates) <= 7
        cursors |= changes.seqs
        found += [(row.document, row.update) for row in changes.updates]
        answers += 1
        if not changes.more:
            break
    assert answers > 3
    expected = [
        (name, row.update)
        for name in names
        for row in await store.log(name)
        if row.update != b"own"
    ]
    assert found == expected
    assert cursors == {name: (await store.load(name)).seq for name in names}


async def test_random_histories_are_those_of_the_reference_store(
    postgres_server: PostgresServer,
) -> None:
    class Comparison(model.Comparison):
        def __init__(self) -> None:
            RuleBasedStateMachine.__init__(self)
            self.runner = asyncio.Runner()
            self.folder = Path(tempfile.mkdtemp())
            memory = MemoryStore()
            url = postgres_server.url(f"test_{uuid.uuid4().hex}")
            self.pairs = [(memory, PostgresStore(url)), (memory.sibling(), PostgresStore(url))]
            for _, postgres in self.pairs:
                self.run(postgres.open())
            self.writers = {}
            self.cursors = [{store: {} for store in pair} for pair in self.pairs]

    await asyncio.to_thread(
        run_state_machine_as_test, Comparison, settings=model.Comparison.TestCase.settings
    )


async def test_what_is_appended_to_known_documents_takes_one_message(
    store: PostgresStore, other: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await store.append([update("b", "1"), update("a", "1")])
    await other.load("b")
    with monkeypatch.context() as patched:
        patched.setattr(store._connections, "write", None)
        second = await store.append([update("a", "2"), update("b", "2"), update("a", "3")])
    with monkeypatch.context() as patched:
        patched.setattr(other._connections, "write", None)
        third = await other.append([update("b", "3")])
    seqs = [*first, *second, *third]
    assert seqs == sorted(set(seqs))
    assert [row.update for row in (await store.load("a")).updates] == [b"1", b"2", b"3"]
    assert [row.update for row in (await store.load("b")).updates] == [b"1", b"2", b"3"]
    assert list(await store.check()) == []


async def test_of_what_is_appended_to_known_documents_all_is_refused_if_one_was_deleted(
    store: PostgresStore, other: PostgresStore
) -> None:
    await store.append([update("a", "1"), update("b", "1")])
    await other.delete("b", 1)
    with pytest.raises(DocumentDeleted):
        await store.append([update("a", "2"), update("b", "2")])
    assert len((await store.load("a")).updates) == 1
    assert list(await store.check()) == []


async def test_a_backup_is_of_one_moment_while_others_write(
    store: PostgresStore, other: PostgresStore, tmp_path: Path
) -> None:
    names = [f"d{number:02}" for number in range(40)]
    await other.append([update(name, "first") for name in names])
    stop = False

    async def write() -> None:
        while not stop:
            await other.append([update(name, "more") for name in names])

    writing = asyncio.create_task(write())
    for number in range(3):
        await store.backup(tmp_path / f"{number}.db")
    stop = True
    await writing
    for number in range(3):
        copy = open_store(f"sqlite:///{tmp_path / f'{number}.db'}")
        await copy.open()
        counts = {info.updates for info in await copy.documents()}
        assert len(counts) == 1
        assert list(await copy.check()) == []
        await copy.close()


async def test_a_document_deleted_while_it_is_appended_to_is_one_or_the_other(
    store: PostgresStore, other: PostgresStore
) -> None:
    for number in range(20):
        name = f"d{number}"
        await store.append([update(name, "1")])
        appended, deleted = await asyncio.gather(
            store.append([update(name, "2")]), other.delete(name, 1), return_exceptions=True
        )
        assert deleted is True
        rows = len(await store.log(name))
        assert rows == (1 if isinstance(appended, DocumentDeleted) else 2)
    assert list(await store.check()) == []
