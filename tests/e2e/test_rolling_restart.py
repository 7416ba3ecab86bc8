"""Nodes behind HAProxy, which are restarted one after the other while people type and others come:
nobody notices more than a moment offline. `scripts/uptime` tells how long that is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tests.support.balancers import Balancer
from tests.support.cluster import Cluster
from tests.support.deadlines import eventually
from tests.support.drivers import Driver
from tests.support.redis import RedisServer

EDITORS, ROOMS = 12, 4


async def test_a_rolling_restart_loses_nothing_and_refuses_nobody(
    tmp_path: Path, postgres_url: str
) -> None:
    async with RedisServer() as redis:
        options = ("--allow-anonymous", "--trusted-proxies", "127.0.0.1")
        async with Cluster(tmp_path, postgres_url, [redis.url] * 2, *options) as cluster:
            await cluster.met()
            async with (
                Balancer("haproxy", cluster.nodes, tmp_path).running() as balancer,
                Driver("uptime.mjs") as driver,
            ):
                where = {
                    "version": "v3",
                    "url": f"wss://127.0.0.1:{balancer.port}/ws",
                    "ca": balancer.authority,
                    "rooms": ROOMS,
                }
                assert (await driver.ask("open", editors=EDITORS, **where))["synced"]
                await driver.ask("type", seconds=0.1)
                async with newcomers(balancer):
                    for number, node in enumerate(cluster.nodes, 1):
                        await node.stop()
                        assert (await driver.ask("there"))["synced"]
                        await node.start()
                        await eventually(
                            partial(is_given_clients, balancer, number),
                            f"the balancer's noticing that node {number} is back",
                        )
                absences = await driver.ask("report")
                assert len(absences) >= EDITORS, "each was on one of the nodes"
                assert {absence["code"] for absence in absences} == {1012}
                assert {absence["failed"] for absence in absences} == {0}
                settled = await driver.ask("settle", **where)
                assert settled["settled"]
                assert settled["kept"] == settled["written"] > 0
            await cluster.stop()


@asynccontextmanager
async def newcomers(balancer: Balancer) -> AsyncIterator[None]:
    """Open rooms that nobody has opened before, one after the other; none may be refused."""
    done = False

    async def come() -> int:
        count = 0
        while not done:
            async with balancer.socket(f"/ws/new-{count}") as socket:
                assert await socket.recv()
            count += 1
        return count

    coming = asyncio.create_task(come())
    try:
        yield
        done = True
        assert await coming > 0
    finally:
        coming.cancel()


def is_given_clients(balancer: Balancer, node: int) -> bool:
    """Whether HAProxy holds a node for ready, as its log has it."""
    name = f"Server rooms/plait-{node} is"
    return balancer.log.count(f"{name} DOWN") == balancer.log.count(f"{name} UP")
