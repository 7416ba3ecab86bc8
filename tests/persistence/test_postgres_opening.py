"""How a PostgreSQL store is opened: the schema that is made for it, URLs, and passwords."""

import asyncio
import uuid

import pytest

from plait.persistence import (
    Snapshot,
    StoreError,
    StoreUnavailable,
    StoreVersion,
    open_store,
    postgres_connection,
    postgres_schema,
)
from plait.persistence.postgres import PostgresStore
from plait.persistence.postgres_address import POOL, parse
from tests.support.postgres import PASSWORD, PostgresServer, schema_of
from tests.support.updates import update


@pytest.fixture
def store(postgres: PostgresStore) -> PostgresStore:
    return postgres


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


async def test_who_serves_has_connections_ready_and_makes_no_more_for_many_loads(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """A new one takes as long as a hundred loads do."""
    store = PostgresStore(f"{postgres_url}&application_name=serves", serving=True)
    await store.open()
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'serves'"
    assert await postgres_server.fetch(count) == [(POOL // 2,)]
    await asyncio.gather(*(store.load(f"d{number}") for number in range(50)), store.ping())
    assert await postgres_server.fetch(count) == [(POOL // 2,)]
    await store.close()


async def test_a_server_that_gives_less_connections_is_no_reason_not_to_serve(
    postgres_server: PostgresServer,
) -> None:
    await postgres_server.execute(
        f"CREATE ROLE few LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 2;"
        "GRANT CREATE ON DATABASE postgres TO few"
    )
    url = postgres_server.url(f"test_{uuid.uuid4().hex}", user="few")
    store = PostgresStore(url, serving=True)
    await store.open()
    await store.append([update("a", "x")])
    assert len((await store.load("a")).updates) == 1
    await store.close()


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
