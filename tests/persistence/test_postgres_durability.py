"""What PostgreSQL has acknowledged is kept, and a server that was killed, hangs or is away is found
again.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from plait.persistence import StoreUnavailable, postgres_connection
from plait.persistence.postgres import PostgresStore
from tests.support.deadlines import eventually
from tests.support.postgres import PASSWORD, PostgresServer, schema_of
from tests.support.updates import update


@pytest.fixture
async def own_server() -> AsyncIterator[PostgresServer]:
    """A server that a test may kill or pause, and that waits for the disk."""
    async with PostgresServer(fsync=True) as server:
        yield server


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
