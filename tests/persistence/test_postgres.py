"""What is particular to PostgreSQL: several writers at once, a server that goes and comes back,
schemas, and passwords.
"""

import asyncio
import os
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from plait.persistence import (
    DocumentDeleted,
    Segment,
    Snapshot,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    StoreVersion,
    Update,
    open_store,
    postgres_connection,
    postgres_read,
    postgres_schema,
)
from plait.persistence.memory import MemoryStore
from plait.persistence.postgres import PostgresStore
from plait.persistence.postgres_address import parse
from plait.persistence.postgres_errors import translated
from tests.persistence import test_store_model as model
from tests.support.deadlines import eventually
from tests.support.postgres import PASSWORD, PostgresServer


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(postgres_url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other(postgres_url: str, store: PostgresStore) -> AsyncIterator[PostgresStore]:
    other = PostgresStore(postgres_url)
    await other.open()
    yield other
    await other.close()


@pytest.fixture
async def own_server() -> AsyncIterator[PostgresServer]:
    """A server that a test may kill or pause, and that waits for the disk."""
    async with PostgresServer(fsync=True) as server:
        yield server


@pytest.fixture
def conflicts(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Errors that a transaction would be run again for; here it fails."""
    found: list[BaseException] = []

    def note(error: BaseException) -> bool:
        found.append(error)
        return False

    monkeypatch.setattr(postgres_connection, "is_conflict", note)
    return found


def update(document: str, text: str, who: str = "") -> Update:
    return Update(document, text.encode(), who)


def schema_of(url: str) -> str:
    return parse(url).schema


# The schema


async def test_a_store_is_made_in_a_schema_of_its_own(
    postgres_server: PostgresServer, postgres_url: str, store: PostgresStore
) -> None:
    newest = len(postgres_schema.MIGRATIONS)
    assert store.versions == (0, newest)
    again = PostgresStore(postgres_url)
    await again.open()
    assert again.versions == (newest, newest)
    await again.close()
    tables = await postgres_server.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = $1", schema_of(postgres_url)
    )
    assert ("documents",) in tables


async def test_nodes_that_start_at_once_make_it_together(postgres_url: str) -> None:
    stores = [PostgresStore(postgres_url) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    for number, store in enumerate(stores):
        await store.append([update("a", str(number))])
    assert len((await stores[0].load("a")).updates) == 6
    for store in stores:
        await store.close()


async def test_stores_in_one_database_know_nothing_of_each_other(
    postgres_server: PostgresServer, store: PostgresStore
) -> None:
    other = open_store(postgres_server.url(f"test_{uuid.uuid4().hex}"))
    await other.open()
    assert await other.identity() != await store.identity()
    await store.append([update("a", "x")])
    assert await other.info("a") is None
    await other.close()


async def test_a_newer_schema_is_refused(
    postgres_server: PostgresServer, postgres_url: str, store: PostgresStore
) -> None:
    await postgres_server.execute(f"UPDATE {schema_of(postgres_url)}.plait_schema SET version = 99")
    with pytest.raises(StoreVersion, match="99"):
        await PostgresStore(postgres_url).open()


async def test_tables_of_another_program_are_refused_and_left_alone(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    schema = schema_of(postgres_url)
    await postgres_server.execute(
        f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.documents (x int)"
    )
    with pytest.raises(StoreVersion, match="schema="):
        await PostgresStore(postgres_url).open()
    tables = await postgres_server.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = $1", schema
    )
    assert tables == [("documents",)]


async def test_an_empty_schema_is_used(postgres_server: PostgresServer, postgres_url: str) -> None:
    await postgres_server.execute(f"CREATE SCHEMA {schema_of(postgres_url)}")
    store = PostgresStore(postgres_url)
    await store.open()
    await store.append([update("a", "x")])
    await store.close()


async def test_an_older_schema_is_brought_forward_once(
    postgres_url: str, store: PostgresStore
) -> None:
    await store.append([update("a", "x")])
    later = [*postgres_schema.MIGRATIONS, "ALTER TABLE plait.documents ADD COLUMN new bigint"]
    connections = postgres_connection.Connections(parse(postgres_url))
    await connections.open()
    results = await asyncio.gather(
        *(postgres_schema.migrate(connections, "", migrations=later) for _ in range(3))
    )
    assert {last for _, last in results} == {len(later)}
    row = await connections.read(lambda session: session.first("SELECT new FROM plait.documents"))
    assert row is not None and row[0] is None
    with pytest.raises(StoreVersion):
        await postgres_schema.migrate(connections, "")
    await connections.close()


async def test_a_migration_that_fails_leaves_the_version_before_it(
    postgres_url: str, store: PostgresStore
) -> None:
    broken = [*postgres_schema.MIGRATIONS, "CREATE TABLE plait.half (x int); SELECT 1 / 0"]
    connections = postgres_connection.Connections(parse(postgres_url))
    await connections.open()
    with pytest.raises(StoreError):
        await postgres_schema.migrate(connections, "", migrations=broken)
    newest = len(postgres_schema.MIGRATIONS)
    assert await postgres_schema.migrate(connections, "") == (newest, newest)
    row = await connections.read(
        lambda session: session.first(
            "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename = 'half'",
            session.schema,
        )
    )
    assert row is not None and row[0] == 0
    await connections.close()


async def test_a_store_that_is_not_there_is_not_made_unless_asked_for(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with pytest.raises(StoreUnavailable, match="no store"):
        await open_store(postgres_url, create=False).open()
    assert not await postgres_server.fetch(
        "SELECT 1 FROM pg_namespace WHERE nspname = $1", schema_of(postgres_url)
    )


# Several writers


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


# What is saved


async def test_what_was_acknowledged_is_there_after_the_server_was_killed(
    own_server: PostgresServer,
) -> None:
    store = PostgresStore(own_server.url())
    await store.open()
    acknowledged: list[bytes] = []

    async def write(label: int) -> None:
        number = 0
        while True:
            each = update("a", f"{label}-{number}")
            await store.append([each, update(f"b{label}", "x")])
            acknowledged.append(each.update)
            number += 1

    writing = [asyncio.create_task(write(label)) for label in range(4)]
    await eventually(lambda: len(acknowledged) > 100, "appends")
    own_server.kill()
    results = await asyncio.gather(*writing, return_exceptions=True)
    assert all(isinstance(result, StoreUnavailable) for result in results), results
    await own_server.start()
    there = {row.update for row in (await store.load("a")).updates}
    assert set(acknowledged) <= there
    assert list(await store.check()) == []
    await store.close()


@pytest.mark.parametrize(
    ("default", "used"), [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply",) * 2]
)
async def test_commits_wait_for_the_disk_whatever_the_default_is(
    postgres_server: PostgresServer, default: str, used: str
) -> None:
    url = postgres_server.url(f"test_{uuid.uuid4().hex}", synchronous_commit=default)
    store = PostgresStore(url)
    await store.open()
    async with store._connections.transaction(postgres_connection.BEGIN_WRITING) as session:
        row = await session.first("SELECT current_setting('synchronous_commit')")
    assert row is not None and row[0] == used
    await store.append([update("a", "1")])
    schema = schema_of(url)
    await postgres_server.execute(f"CREATE TABLE {schema}.seen (setting text)")
    await postgres_server.execute(
        f"""
        CREATE FUNCTION {schema}.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO {schema}.seen VALUES (current_setting('synchronous_commit'));
            RETURN NULL;
        END $$
        """
    )
    await postgres_server.execute(
        f"""
        CREATE CONSTRAINT TRIGGER see AFTER INSERT ON {schema}.updates
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {schema}.see()
        """
    )  # It is called as the transaction is about to be committed.
    await store.append([update("a", "2")])
    assert await postgres_server.fetch(f"SELECT setting FROM {schema}.seen") == [(used,)]
    await store.close()


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


async def test_what_no_replica_has_is_not_acknowledged_if_one_has_to(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends such a wait as if all were well when it is told to cancel. Nobody tells it
    to before this side has given up.
    """
    begin = postgres_connection.BEGIN_WRITING.replace("'8s'", "'100ms'")
    assert begin != postgres_connection.BEGIN_WRITING
    monkeypatch.setattr(postgres_connection, "BEGIN_WRITING", begin)
    monkeypatch.setattr(postgres_connection, "ANSWER_SECONDS", 1.0)
    store = PostgresStore(own_server.url())
    await store.open()
    await own_server.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    await own_server.execute("SELECT pg_reload_conf()")
    with pytest.raises(StoreUnavailable, match="in time"):
        # The first ones may be faster than the new setting.
        while True:
            await store.append([update("a", "x")])
    await store.close()


async def test_cancelled_appends_are_whole_or_nothing_and_give_their_connections_back(
    postgres_server: PostgresServer,
) -> None:
    name = f"test_{uuid.uuid4().hex}"
    store = PostgresStore(postgres_server.url(name, pool=2, application_name=name))
    await store.open()
    for turn in range(40):
        appending = asyncio.ensure_future(
            store.append([update(f"d{turn}", str(number)) for number in range(5)])
        )
        # Each time a little later, from before the connection is taken until after the commit.
        for _ in range(turn):
            await asyncio.sleep(0)
        appending.cancel()
        await asyncio.wait([appending])
    for turn in range(40):
        assert len((await store.load(f"d{turn}")).updates) in (0, 5)
    await asyncio.gather(*(store.append([update("after", "x")]) for _ in range(10)))
    assert len((await store.load("after")).updates) == 10
    assert list(await store.check()) == []
    activity = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"

    async def few() -> bool:
        return (await postgres_server.fetch(activity, name))[0][0] in (1, 2)

    await eventually(few, "connections of cancelled appends ending")
    await store.close()


# A server that goes and comes back


async def test_a_server_that_was_restarted_is_found_again(own_server: PostgresServer) -> None:
    store = PostgresStore(own_server.url())
    await store.open()
    await asyncio.gather(*(store.append([update(f"d{n}", "before")]) for n in range(8)))
    own_server.kill()
    with pytest.raises(StoreUnavailable, match="needs a restart"):
        await store.append([update("a", "lost")])
    with pytest.raises(StoreUnavailable):
        await store.load("d0")
    await own_server.start()
    assert len((await store.load("d0")).updates) == 1
    await store.append([update("a", "kept")])
    own_server.stop()
    await own_server.start()
    # At once, on connections whose end this process may not have noticed yet.
    assert [row.update for row in (await store.load("a")).updates] == [b"kept"]
    await store.close()


async def test_a_server_that_is_away_is_told_at_start(own_server: PostgresServer) -> None:
    own_server.stop()
    store = PostgresStore(own_server.url())
    with pytest.raises(StoreUnavailable, match="Check that PostgreSQL runs") as caught:
        await store.open()
    assert PASSWORD not in str(caught.value)
    await own_server.start()
    await store.open()
    await store.ping()
    await store.close()


async def test_a_server_that_became_a_replica_is_left_for_another(
    postgres_server: PostgresServer,
) -> None:
    """A fail-over may leave connections to the old primary, which can't be written any more."""
    name = f"test_{uuid.uuid4().hex}"
    store = PostgresStore(postgres_server.url(name, pool=2, application_name=name))
    await store.open()
    await store.append([update("a", "1")])

    async def connections() -> list[tuple[object, ...]]:
        return await postgres_server.fetch(
            "SELECT pid FROM pg_stat_activity WHERE application_name = $1", name
        )

    async with store._connections.session() as session:
        await session.run("SET default_transaction_read_only = on")
    before = await connections()
    with pytest.raises(StoreUnavailable, match="target_session_attrs"):
        await store.append([update("a", "2")])
    await store.append([update("a", "3")])
    await eventually(connections, "the new connection")
    assert not set(before) & set(await connections())
    assert [row.update for row in (await store.load("a")).updates] == [b"1", b"3"]
    await store.close()


async def test_a_server_that_hangs_is_not_waited_for(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(postgres_connection, "CONNECT_SECONDS", 0.5)
    store = PostgresStore(own_server.url(pool=2))
    await store.open()
    await store.append([update("a", "before")])
    own_server.pause()
    # More than there are connections, so that some wait for one.
    results = await asyncio.gather(
        *(store.append([update("a", f"{n}")]) for n in range(4)),
        store.load("a"),
        store.ping(),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [StoreUnavailable] * 6
    assert any("in time" in str(result) for result in results)
    own_server.resume()

    async def works() -> bool:
        try:
            await store.append([update("b", "after")])
        except StoreUnavailable:
            return False
        return True

    await eventually(works, "appends going on")
    assert (await store.load("a")).updates[0].update == b"before"
    await store.close()


# URLs and passwords


async def test_neither_the_url_nor_an_error_tells_the_password(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    store = PostgresStore(postgres_url)
    assert store.url.startswith("postgresql://plait@127.0.0.1:")
    assert schema_of(postgres_url) in store.url
    wrong = postgres_server.dsn.replace("plait:", "plait:wrong").replace("/postgres", "/missing")
    for url in (wrong, postgres_server.url(user="nobody"), f"{postgres_server.dsn}?sslmode=odd"):
        with pytest.raises(StoreError) as caught:
            await PostgresStore(url).open()
        assert "s3cret" not in f"{caught.value!r} {caught.value}"
    assert "s3cret" not in repr(parse(postgres_url))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://plait:secret/1@host/db",
        "postgresql://plait:12/secret@host/db",
        "postgresql://plait:secret@1@host/db",
        "postgresql://plait:secret#1@host/db",
        "postgresql://plait:secret?1@host/db",
        "postgres://plait:secret@[host/db",
        "postgres://host:secret/db",
        "postgres://plait:secret@host/db?schema=Public;",
        "postgres://plait:secret@host/db?schema=pg_catalog",
        "postgres://plait:secret@host/db?pool=1",
        "postgres://plait:secret@host/db?pool=many",
        "postgres://plait:secret@host/db?statement_cache=-1",
        "postgres://plait:secret@host/db?schema",
    ],
)
def test_urls_that_can_not_be_used_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://db", "postgresql://db"),
        ("postgresql:///plait", "postgresql:///plait"),
        ("postgres://u:p%40%2F@h:1,i:2/db?target_session_attrs=any", "postgresql://u@h:1,i:2/db"),
        ("postgresql://u@[::1]:5432/db?schema=other", "postgresql://u@[::1]:5432/db?schema=other"),
        ("postgresql:///db?host=/run/postgresql&password=secret", "postgresql:///db"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert open_store(url).url == shown


async def test_a_setting_that_nobody_knows_is_told(postgres_server: PostgresServer) -> None:
    with pytest.raises(StoreError, match="statement_cache"):
        await PostgresStore(postgres_server.url(scheme="x")).open()


async def test_a_store_that_is_not_open_says_so(postgres_url: str) -> None:
    with pytest.raises(StoreUnavailable, match="not open"):
        await PostgresStore(postgres_url).load("a")


async def test_a_proxy_that_gives_each_transaction_another_session_is_enough(
    postgres_server: PostgresServer,
) -> None:
    store = PostgresStore(postgres_server.url(f"test_{uuid.uuid4().hex}", statement_cache=0))
    await store.open()
    seqs = await store.append([update("a", "1"), update("a", "2")])
    assert await store.compact("a", Snapshot(seqs[0], (b"s",)))
    assert len((await store.load("a")).updates) == 1
    assert (await store.changes({"a": 0})).seqs == {"a": seqs[1]}
    # Outside of a transaction, the two messages of one statement could go to two sessions.
    row = await store._connections.read(
        lambda session: session.first("SELECT current_setting('transaction_isolation')")
    )
    assert row is not None and row[0] == "repeatable read"
    # Nothing may be left in a session that the next transaction, of whomever, would find. That jit
    # is on again is what asyncpg leaves, which switches it off while it looks up types.
    async with store._connections.session() as session:
        rows = await session.fetch(
            "SELECT name FROM pg_settings WHERE source = 'session' AND name != 'jit' UNION ALL "
            "SELECT name FROM pg_prepared_statements WHERE name != ''"
        )
    assert rows == []
    await store.close()


# What can be kept, and what is damaged


async def test_authors_may_hold_nul(store: PostgresStore) -> None:
    await store.append([update("a\0b", "x", "who\0else")])
    assert (await store.load("a\0b")).updates[0].who == "who\0else"


async def test_numbers_and_names_beyond_what_a_column_holds_are_refused(
    store: PostgresStore,
) -> None:
    with pytest.raises(StoreError):
        await store.append([Update("a", b"x", "", 1 << 63)])
    with pytest.raises(StoreError):
        await store.append([Update(os.urandom(3000).hex(), b"x")])
    assert await store.documents() == []


async def test_large_documents_are_loaded_page_by_page(store: PostgresStore) -> None:
    slices = tuple(os.urandom(1 << 18) for _ in range(40))
    seqs = await store.append([update("a", "1")])
    await store.compact("a", Snapshot(seqs[0], slices, 5, types=2, astral=True, places=b"\x00\xff"))
    rows = [os.urandom(5000) for _ in range(2000)]
    await store.append([Update("a", row) for row in rows])
    await store.append([Update("a", os.urandom(3 << 20)), update("a", "last")])
    stored = await store.load("a")
    assert stored.snapshot == Snapshot(seqs[0], slices, 5, types=2, astral=True, places=b"\x00\xff")
    assert [row.update for row in stored.updates[:2000]] == rows
    assert len(stored.updates) == 2002 and stored.updates[-1].update == b"last"
    async with store.reading() as view:
        assert await view.load("a") == stored


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "damage", ["DELETE FROM {}.updates WHERE seq = 3", "DELETE FROM {}.slices WHERE number = 1"]
)
async def test_what_vanished_is_not_taken_for_what_never_was(
    postgres_server: PostgresServer,
    postgres_url: str,
    store: PostgresStore,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
    large: bool,
) -> None:
    seqs = await store.append([update("a", str(number)) for number in range(4)])
    await store.compact("a", Snapshot(seqs[0], (b"s", b"t", b"u")))
    if large:
        monkeypatch.setattr(postgres_read, "AT_ONCE_ROWS", 0)
    await postgres_server.execute(damage.format(schema_of(postgres_url)))
    with pytest.raises(StoreCorrupt, match="plait store check"):
        await store.load("a")


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("DELETE FROM {}.updates WHERE seq = 2", "counts"),
        ("DELETE FROM {}.updates WHERE seq = 3", "which is no row of its log"),
        ("DELETE FROM {}.updates WHERE seq = 4", "says that its log ends at 4"),
        ("DELETE FROM {}.updates", "nothing in the log"),
        ("DELETE FROM {}.slices WHERE number = 0", "should have 2 slices, and has 1"),
        ("UPDATE {}.slices SET bytes = '' WHERE number = 0", "The snapshot of document 'a' counts"),
        ("UPDATE {}.documents SET tail_bytes = 7", "after its snapshot"),
        ("SELECT setval('{}.seqs', 1)", "the next number to be given out"),
        ("UPDATE {}.updates SET document = 99 WHERE seq = 1", "which is unknown"),
        ("DROP TABLE {}.slices CASCADE", "Reading failed"),
    ],
)
async def test_check_finds_what_is_wrong(
    postgres_server: PostgresServer,
    postgres_url: str,
    store: PostgresStore,
    damage: str,
    found: str,
) -> None:
    seqs = await store.append([update("a", str(number)) for number in range(4)])
    await store.compact("a", Snapshot(seqs[2], (b"s", b"t")), Segment(seqs[0], seqs[0], b"0"))
    assert list(await store.check()) == []
    await postgres_server.execute(damage.format(schema_of(postgres_url)))
    problems = await store.check()
    assert any(found in problem for problem in problems), problems


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
