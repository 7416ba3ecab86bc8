"""Nodes that share a store and a relay: whatever happens to Redis, PostgreSQL or a node while
people type, all end with the same, and nothing that was acknowledged is lost.

`PLAIT_TEST_PAUSE_SECONDS` lets Redis hang for as long as that.
"""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from pycrdt import Doc, Text

from tests.support.cluster import (
    RELAY_AWAY,
    STORE_AWAY,
    Clients,
    Cluster,
    client,
    state_on,
)
from tests.support.deadlines import eventually
from tests.support.drivers import Driver
from tests.support.postgres import PostgresServer
from tests.support.proxy import Proxy
from tests.support.redis import RedisSentinel, RedisServer

PAUSE_SECONDS = float(os.environ.get("PLAIT_TEST_PAUSE_SECONDS", "0"))
UPDATE = {"content-type": "application/octet-stream"}


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """The file or the URL of a store that nobody has made yet."""
    if request.param == "sqlite":
        return tmp_path / "plait.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with RedisServer() as server:
        yield server


@asynccontextmanager
async def typists(cluster: Cluster, room: str = "room") -> AsyncIterator[Clients]:
    """Give clients that type: 0 and 1 on the first node, 2 and 3 on the second one."""
    async with Driver("cluster.mjs") as driver:
        clients = Clients(driver, room)
        for number in range(2):
            await clients.open(cluster, "v3", "v1", node=number)
        await clients.type()
        yield clients


async def exchange(clients: Clients) -> None:
    """Wait until those on either node have heard those on the other."""
    await clients.acknowledged([0, 1, 2, 3])
    await clients.heard([2, 3], [0, 1])
    await clients.heard([0, 1], [2, 3])


async def test_nodes_show_each_others_edits_and_presence(
    tmp_path: Path, redis: RedisServer, store: Path | str
) -> None:
    async with Cluster(tmp_path, store, [redis.url] * 3) as cluster:
        await cluster.met()
        async with typists(cluster) as clients:
            await exchange(clients)
            more = await clients.open(cluster, "v3", node=2)
            await clients.present(range(5), range(5))
            await clients.heard([0, 2], more)
            await clients.ask("leave", of=[0])
            await clients.present([1, 2, 3, 4], [1, 2, 3, 4])
            await clients.ask("leave", of=[4], abruptly=True)
            await clients.present([1, 2, 3], [1, 2, 3])
            await clients.settle(cluster)
        await cluster.stop()


async def test_a_room_opened_while_others_type_misses_nothing(
    tmp_path: Path, redis: RedisServer, store: Path | str
) -> None:
    async with Cluster(tmp_path, store, [redis.url] * 2) as cluster:
        await cluster.met()
        async with Driver("cluster.mjs") as driver:
            rooms = [Clients(driver, f"room {number}") for number in range(20)]
            first = [await clients.open(cluster, "v3", node=0) for clients in rooms]
            await rooms[0].type()
            for clients, there in zip(rooms, first, strict=True):
                late = await clients.open(cluster, "v3", node=1)
                await clients.heard(late, there)
            for clients in rooms:
                await clients.settle(cluster)
        await cluster.stop()


async def test_redis_is_flushed_killed_and_restarted(
    tmp_path: Path, redis: RedisServer, postgres_url: str
) -> None:
    relays = [redis.url] * 2
    async with Cluster(tmp_path, postgres_url, relays, expected=[RELAY_AWAY]) as cluster:
        await cluster.met()
        async with typists(cluster) as clients:
            await exchange(clients)
            await redis.flushall()
            await exchange(clients)
            await redis.restart()
            await exchange(clients)
            redis.kill()
            await eventually(lambda: cluster.say(relay="away"), "the nodes' noticing it")
            await exchange(clients)
            await redis.start()
            await cluster.met()
            await exchange(clients)
            await clients.present(range(4), range(4))
            await clients.settle(cluster)
        await cluster.stop()


async def test_redis_hangs(tmp_path: Path, redis: RedisServer, postgres_url: str) -> None:
    relays = [redis.url] * 2
    async with Cluster(tmp_path, postgres_url, relays, expected=[RELAY_AWAY]) as cluster:
        await cluster.met()
        async with typists(cluster) as clients:
            await exchange(clients)
            until = time.monotonic() + PAUSE_SECONDS
            redis.pause()
            await eventually(lambda: cluster.say(relay="away"), "the nodes' noticing it")
            await exchange(clients)
            while time.monotonic() < until:
                await exchange(clients)
            redis.resume()
            await cluster.met()
            await exchange(clients)
            await clients.present(range(4), range(4))
            await clients.settle(cluster)
        await cluster.stop()


async def test_redis_comes_later_than_the_nodes(tmp_path: Path) -> None:
    async with RedisServer() as redis:
        redis.kill()
        relays, store = [redis.url] * 2, tmp_path / "plait.db"
        async with Cluster(tmp_path, store, relays, expected=[RELAY_AWAY]) as cluster:
            assert await cluster.say(relay="away", nodes=1)
            async with typists(cluster) as clients:
                await exchange(clients)
                await redis.start()
                await cluster.met()
                await exchange(clients)
                await clients.present(range(4), range(4))
                await clients.settle(cluster)
            await cluster.stop()


async def test_postgres_is_killed_and_restarted(tmp_path: Path, redis: RedisServer) -> None:
    async with PostgresServer(fsync=True) as postgres:
        relays = [redis.url] * 2
        store = postgres.url()
        async with Cluster(tmp_path, store, relays, expected=[STORE_AWAY]) as cluster:
            await cluster.met()
            async with typists(cluster) as clients:
                await exchange(clients)
                postgres.kill()
                await clients.heard([2, 3], [0, 1])
                await clients.heard([0, 1], [2, 3])
                await postgres.start()
                await exchange(clients)
                await clients.present(range(4), range(4))
                await clients.settle(cluster)
            await cluster.stop()


async def test_everything_dies_at_once(tmp_path: Path) -> None:
    async with PostgresServer(fsync=True) as postgres, RedisServer() as redis:
        relays = [redis.url] * 2
        store = postgres.url()
        async with Cluster(tmp_path, store, relays, expected=[STORE_AWAY, RELAY_AWAY]) as cluster:
            await cluster.met()
            async with typists(cluster) as clients:
                await exchange(clients)
                await clients.ask("doom", of=[0, 1, 2, 3])  # Nobody is left who could repeat it.
                postgres.kill()
                redis.kill()
                await asyncio.gather(*(node.kill() for node in cluster.nodes))
                await asyncio.gather(postgres.start(), redis.start())
                await asyncio.gather(*(node.start() for node in cluster.nodes))
                for node in cluster.nodes:
                    await clients.same(await state_on(node, "room"), node.url)
                assert sum(each["acknowledged"] for each in await clients.report()) >= 20
            await cluster.stop()


async def test_a_node_is_killed(tmp_path: Path, redis: RedisServer, store: Path | str) -> None:
    async with Cluster(tmp_path, store, [redis.url] * 2) as cluster:
        await cluster.met()
        async with typists(cluster) as clients:
            lost = await clients.open(cluster, "v3", "v1", node=0)
            await clients.present(range(6), range(6))
            await clients.acknowledged(lost, edits=20)
            await clients.ask("doom", of=lost)  # What they had acknowledged nobody repeats.
            await cluster.nodes[0].kill()
            await clients.present([2, 3], [0, 1, 2, 3])
            await exchange(clients)
            await clients.settle(cluster)
            await clients.type()
            await cluster.nodes[0].start()
            await cluster.met()
            (more,) = await clients.open(cluster, "v3", node=0)
            await clients.heard([0, 2], [more])
            await clients.settle(cluster)
        await cluster.stop()


async def test_a_node_hangs(tmp_path: Path, redis: RedisServer, postgres_url: str) -> None:
    async with Cluster(tmp_path, postgres_url, [redis.url] * 2) as cluster:
        await cluster.met()
        async with typists(cluster) as clients:
            await exchange(clients)
            await clients.present(range(4), range(4))
            await clients.settle(cluster)
            os.kill(cluster.nodes[0].pid, signal.SIGSTOP)
            await clients.present([2, 3], [2, 3])
            os.kill(cluster.nodes[0].pid, signal.SIGCONT)
            await clients.present(range(4), range(4))
            await clients.type()
            await exchange(clients)
            await clients.settle(cluster)
        await cluster.stop()


@pytest.mark.parametrize("how", ["cut", "hang"])
async def test_one_node_loses_redis(
    tmp_path: Path, redis: RedisServer, postgres_url: str, how: str
) -> None:
    async with Proxy(redis.port) as proxy:
        relays = [redis.url_of(proxy.port), redis.url]
        async with Cluster(tmp_path, postgres_url, relays, expected=[RELAY_AWAY]) as cluster:
            await cluster.met()
            async with typists(cluster) as clients:
                await exchange(clients)
                await clients.present(range(4), range(4))
                await lose(proxy, how)
                await clients.present([2, 3], [2, 3])
                await clients.present([0, 1], [0, 1])
                await eventually(lambda: cluster.say(0, relay="away"), "its noticing it")
                assert await cluster.say(1, relay="connected", nodes=1)
                await exchange(clients)
                await proxy.heal()
                await cluster.met()
                await exchange(clients)
                await clients.present(range(4), range(4))
                await clients.settle(cluster)
            await cluster.stop()


async def test_what_is_built_upon_unsaved_edits_survives_the_nodes_death(
    tmp_path: Path, redis: RedisServer, postgres_server: PostgresServer, postgres_url: str
) -> None:
    async with Proxy(postgres_server.port) as proxy:
        stores = [through(proxy, postgres_server, postgres_url), postgres_url]
        async with Cluster(tmp_path, postgres_url, [redis.url] * 2, stores=stores) as cluster:
            await cluster.met()
            async with typists(cluster) as clients:
                await exchange(clients)
                await proxy.cut()
                await clients.heard([2, 3], [0, 1])
                await clients.acknowledged([2, 3], edits=20)
                await clients.ask("doom", of=[0, 1, 2, 3])
                await asyncio.gather(*(node.kill() for node in cluster.nodes))
                await proxy.heal()
                await cluster.nodes[1].start()
                await clients.same(await state_on(cluster.nodes[1], "room"), "the store")


@pytest.mark.parametrize("how", ["cut", "hang"])
async def test_one_node_loses_postgres(
    tmp_path: Path,
    redis: RedisServer,
    postgres_server: PostgresServer,
    postgres_url: str,
    how: str,
) -> None:
    async with Proxy(postgres_server.port) as proxy:
        stores = [through(proxy, postgres_server, postgres_url), postgres_url]
        async with Cluster(
            tmp_path, postgres_url, [redis.url] * 2, stores=stores, expected=[STORE_AWAY]
        ) as cluster:
            await cluster.met()
            async with typists(cluster) as clients:
                await exchange(clients)
                await lose(proxy, how)
                node = cluster.nodes[0]
                await eventually(lambda: "can't be saved" in node.stderr, "its noticing it")
                before = await stable_acknowledgements(clients)
                await clients.heard([2, 3], [0, 1])
                await clients.heard([0, 1], [2, 3])
                await clients.acknowledged([2, 3])
                assert acknowledgements(await clients.report()) == before
                await proxy.heal()
                await exchange(clients)
                await clients.present(range(4), range(4))
                await clients.settle(cluster)
            await cluster.stop()


def through(proxy: Proxy, postgres: PostgresServer, url: str) -> str:
    """Return the URL by which a store is reached through a proxy."""
    return url.replace(f":{postgres.port}/", f":{proxy.port}/")


async def lose(proxy: Proxy, how: str) -> None:
    """Take away what is behind a proxy."""
    if how == "cut":
        await proxy.cut()
    else:
        proxy.hang()


async def stable_acknowledgements(clients: Clients) -> list[int]:
    """Return how many edits of those on the first node are acknowledged, once none is any more,
    though what the other node acknowledges shows that time goes on.
    """
    while True:
        before = acknowledgements(await clients.report())
        await clients.acknowledged([2, 3])
        if acknowledgements(await clients.report()) == before:
            return before


def acknowledgements(report: Any) -> list[int]:
    """Return how many edits of those on the first node are acknowledged."""
    return [each["acknowledged"] for each in report[:2]]


async def test_all_nodes_are_restarted_one_after_another(
    tmp_path: Path, redis: RedisServer, postgres_url: str
) -> None:
    async with Cluster(tmp_path, postgres_url, [redis.url] * 2) as cluster:
        await cluster.met()
        async with typists(cluster) as clients:
            for node in cluster.nodes:
                await exchange(clients)
                await node.stop()
                await node.start()
                await cluster.met()
            await exchange(clients)
            await clients.settle(cluster)
            codes = [each["codes"] for each in await clients.report()]
            assert all(each and set(each) == {1012} for each in codes), codes
        await cluster.stop()


async def test_a_document_is_deleted_on_another_node(
    tmp_path: Path, redis: RedisServer, store: Path | str
) -> None:
    async with Cluster(tmp_path, store, [redis.url] * 2) as cluster:
        await cluster.met()
        async with typists(cluster) as clients:
            await exchange(clients)
            async with client(cluster.nodes[0]) as http:
                answer = await http.delete("/api/docs/room")
                assert answer.status_code == 204, answer.text
                closed = await clients.ask("closed", of=[0, 1, 2, 3], code=4404)
                assert closed["reached"], closed
            for node in cluster.nodes:
                async with client(node) as http:
                    answer = await http.get("/api/docs/room/state")
                    assert answer.status_code == 410, answer.text
        await cluster.stop()


async def test_a_large_document_is_imported_on_another_node(
    tmp_path: Path, redis: RedisServer, postgres_url: str
) -> None:
    imported: Doc[Any] = Doc(client_id=1)
    text = imported.get("import", type=Text)
    for _ in range(256):
        text.insert(0, "x" * 8192)  # Each in front of the other: they do not become one.
    async with Cluster(tmp_path, postgres_url, [redis.url] * 2) as cluster:
        await cluster.met()
        async with typists(cluster) as clients:
            await exchange(clients)
            async with client(cluster.nodes[0]) as http:
                answer = await http.put(
                    "/api/docs/room?merge=true", content=imported.get_update(), headers=UPDATE
                )
                assert answer.status_code == 200, answer.text
            arrived = await clients.ask("text", by=[0, 1, 2, 3], name="import", length=2 << 20)
            assert arrived["reached"]
            await exchange(clients)
            await clients.settle(cluster)
        await cluster.stop()


async def test_redis_behind_tls_and_a_password(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    async with (
        RedisServer(password="s3cret/pass@word") as redis,
        Proxy(redis.port, tls=context) as proxy,
    ):
        relay = f"{redis.url_of(proxy.port, 'rediss')}?ssl_ca_certs={trusted}"
        store = tmp_path / "plait.db"
        async with Cluster(tmp_path, store, [relay] * 2, expected=[RELAY_AWAY]) as cluster:
            await cluster.met()
            async with typists(cluster) as clients:
                await exchange(clients)
                await proxy.cut()
                await eventually(lambda: cluster.say(relay="away"), "the nodes' noticing it")
                await proxy.heal()
                await cluster.met()
                await exchange(clients)
                await clients.settle(cluster)
            await cluster.stop()
            assert not any("s3cret" in node.stderr for node in cluster.nodes)


async def test_sentinel_promotes_a_replica(tmp_path: Path) -> None:
    async with (
        RedisServer() as master,
        RedisServer(replica_of=master.port) as replica,
        RedisSentinel(master.port) as sentinel,
    ):
        await eventually(sentinel.knows_a_replica, "Sentinel's finding the replica")
        relays = [sentinel.url] * 2
        store = tmp_path / "plait.db"
        async with Cluster(tmp_path, store, relays, expected=[RELAY_AWAY]) as cluster:
            await cluster.met()
            async with typists(cluster) as clients:
                await exchange(clients)
                master.kill()

                async def promoted() -> bool:
                    return await sentinel.master() == replica.port

                await eventually(promoted, "the replica's promotion")
                await cluster.met()
                await exchange(clients)
                await clients.present(range(4), range(4))
                await clients.settle(cluster)
            await cluster.stop()
