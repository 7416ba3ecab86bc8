"""Whoever works on the loop leaves as much of it to the others."""

import asyncio
from time import perf_counter

from plait.server import pace
from plait.server.pace import Pace


def work(seconds: float) -> None:
    until = perf_counter() + seconds
    while perf_counter() < until:
        pass


async def test_after_work_there_is_a_rest_as_long() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    its = Pace()
    begun = perf_counter()
    for _ in range(5):
        work(0.01)
        await its.rest()
    beside.cancel()
    assert perf_counter() - begun >= 0.1
    assert turns > 20, "an edit needs several turns of the loop"


async def test_little_work_is_not_interrupted() -> None:
    its = Pace()
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    assert pace.WORK_SECONDS > 0.0001
    await its.rest()
    assert not turned.is_set()
