"""Records and the outbox of a PostgreSQL store, where transactions of several nodes overlap."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from plait.persistence import (
    Event,
    Record,
    StoreError,
    StoreUnavailable,
    Update,
    postgres_outbox,
    postgres_records,
    postgres_schema,
)
from plait.persistence.postgres import PostgresStore
from plait.persistence.postgres_address import parse
from plait.persistence.postgres_connection import BEGIN_WRITING
from tests.support.deadlines import eventually
from tests.support.postgres import PostgresServer


@pytest.fixture
async def nodes(postgres_url: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    one, two = (PostgresStore(postgres_url, announce=["changed"]) for _ in range(2))
    await one.open()
    await two.open()
    yield one, two
    await one.close()
    await two.close()


async def waits_for_a_lock(store: PostgresStore) -> bool:
    row = await store._connections.read(
        lambda session: session.first(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = $1", "Lock"
        )
    )
    return row is not None


async def test_an_event_is_not_taken_while_an_append_counts_on_it(
    nodes: tuple[PostgresStore, PostgresStore],
) -> None:
    one, two = nodes
    await one.append([Update("a", b"1"), Update("b", b"1")])
    async with one._connections.transaction(BEGIN_WRITING) as session:
        await one._appender.append(session, [Update("a", b"2")])
        taken = await two.take_events(0, lease_ms=100)
        assert [event.document for event in taken] == ["b"]
    [event] = await two.take_events(0, lease_ms=100)
    assert event.document == "a"
    assert [row.update for row in await two.log("a")] == [b"1", b"2"]
    assert len(await two.events()) == 2


async def test_an_append_waits_for_who_takes_and_tells_anew(
    nodes: tuple[PostgresStore, PostgresStore],
) -> None:
    one, two = nodes
    await one.append([Update("a", b"1")])
    async with two._connections.transaction(BEGIN_WRITING) as session:
        await postgres_outbox.take(session, 0, 100, 10)
        appending = asyncio.create_task(one.append([Update("a", b"2")]))
        await eventually(lambda: waits_for_a_lock(two))
        assert not appending.done()
    await appending
    assert len(await one.events()) == 2


async def test_takers_follow_one_after_the_other(
    nodes: tuple[PostgresStore, PostgresStore],
) -> None:
    one, two = nodes
    await one.post([Event("a", "x", 0), Event("b", "x", 0)])
    async with one._connections.transaction(BEGIN_WRITING) as session:
        [first] = await postgres_outbox.take(session, 0, 100, 1)
        taking = asyncio.create_task(two.take_events(0, lease_ms=100))
        await eventually(lambda: waits_for_a_lock(one))
    assert first.document == "a"
    assert [event.document for event in await taking] == ["b"]


async def test_an_older_event_that_is_committed_late_waits_for_the_one_in_hand(
    nodes: tuple[PostgresStore, PostgresStore],
) -> None:
    one, two = nodes
    async with one._connections.transaction(BEGIN_WRITING) as session:
        await postgres_outbox.put(session, [Event("a", "late", 0)], one._announcer)
        await two.post([Event("a", "early", 0)])
        [early] = await two.take_events(0, lease_ms=100)
    assert await one.take_events(0, lease_ms=100) == []
    await two.end_events([early.id])
    [late] = await one.take_events(0, lease_ms=100)
    assert (early.kind, late.kind) == ("early", "late")
    assert late.id < early.id


async def test_a_record_that_is_committed_late_has_no_later_one_before_it(
    nodes: tuple[PostgresStore, PostgresStore],
) -> None:
    one, two = nodes
    async with one._connections.transaction(BEGIN_WRITING) as session:
        await postgres_records.put(session, Record("key", "slow", "", 0), False, 0)
        putting = asyncio.create_task(two.put_record(Record("key", "quick", "", 0)))
        await eventually(lambda: waits_for_a_lock(one))
        # Nobody who reads waits.
        assert (await two.records_since(0)).seq == 0
    await putting
    assert [each.id for each in (await two.records_since(0)).records] == ["slow", "quick"]


async def test_what_is_told_is_taken_back_with_the_append(
    nodes: tuple[PostgresStore, PostgresStore],
) -> None:
    one, two = nodes
    with pytest.raises(StoreUnavailable):
        async with one._connections.transaction(BEGIN_WRITING) as session:
            await one._appender.append(session, [Update("a", b"1")])
            assert len(await postgres_outbox.page(session, 0, 10)) == 1
            raise StoreUnavailable("lost")
    assert await two.events() == []
    assert await two.info("a") is None


async def test_only_who_announces_touches_the_outbox(
    postgres_server: PostgresServer, postgres_url: str, nodes: tuple[PostgresStore, PostgresStore]
) -> None:
    one, _ = nodes
    quiet = PostgresStore(postgres_url)
    await quiet.open()
    await postgres_server.execute(f"DROP TABLE {parse(postgres_url).schema}.outbox")
    await quiet.append([Update("a", b"1")])
    assert await quiet.delete("a", 1) and await quiet.undelete("a")
    with pytest.raises(StoreError):
        await one.append([Update("a", b"2")])
    assert [row.update for row in await quiet.log("a")] == [b"1"]
    await quiet.close()


async def test_a_store_without_records_is_brought_forward(
    postgres_url: str,
) -> None:
    store = PostgresStore(postgres_url)
    await store._connections.open()
    first = postgres_schema.MIGRATIONS[:1]
    await postgres_schema.migrate(store._connections, store.url, migrations=first)
    await store.append([Update("a", b"1")])
    await store.close()
    await store.open()
    assert store.versions == (1, len(postgres_schema.MIGRATIONS))
    assert [row.update for row in await store.log("a")] == [b"1"]
    await store.put_record(Record("key", "a", "", 0))
    await store.post([Event("a", "x", 0)])
    assert len(await store.take_events(0, lease_ms=1)) == 1
    assert await store.check() == []
    await store.close()


async def test_check_tells_of_a_number_that_was_not_given_out(
    postgres_server: PostgresServer, postgres_url: str, nodes: tuple[PostgresStore, PostgresStore]
) -> None:
    one, _ = nodes
    await one.put_record(Record("key", "a", "", 0))
    await postgres_server.execute(f"UPDATE {parse(postgres_url).schema}.records SET seq = 7")
    assert list(await one.check()) == [
        "The record 'a' (key) has the number 7, and the last that was given out is 1."
    ]
