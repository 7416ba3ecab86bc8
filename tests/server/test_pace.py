"""Whoever works on the loop leaves as much of it to the others, if they want it."""

import asyncio
from time import perf_counter

import pytest

from plait.server import pace
from plait.server.pace import Pace

Rests = list[float]


def work(seconds: float) -> None:
    until = perf_counter() + seconds
    while perf_counter() < until:
        pass


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> Rests:
    """How long was rested; each rest is one turn of the loop, so that no time is waited for."""
    found: Rests = []
    turn = asyncio.sleep

    async def noted(seconds: float) -> None:
        found.append(seconds)
        await turn(0)

    monkeypatch.setattr("plait.server.pace.asyncio.sleep", noted)
    return found


async def test_after_work_there_is_a_rest_as_long_if_others_have_something_to_do(
    rests: Rests,
) -> None:
    its = Pace()
    for _ in range(5):
        work(0.01)
        asyncio.get_running_loop().call_soon(work, 10 * pace.IDLE_SECONDS)
        await its.rest()
    assert len(rests) == 10
    assert all(seconds >= 0.01 for seconds in rests[1::2])


async def test_nobody_waits_for_others_who_have_nothing_to_do(
    rests: Rests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "IDLE_SECONDS", 10.0)  # however busy the machine is
    its = Pace()
    for _ in range(5):
        work(0.01)
        await its.rest()
    assert rests == [0] * 5


async def test_little_work_is_not_interrupted(rests: Rests) -> None:
    its = Pace()
    assert pace.WORK_SECONDS > 0.0001
    await its.rest()
    assert rests == []
