"""Work in masses takes a part of each turn; sources alternate."""

import asyncio

import pytest

from plait.server.turns import Ration


async def test_so_many_pieces_are_done_in_a_turn_and_all_in_the_end() -> None:
    done: list[int] = []
    ration = Ration(asyncio.get_running_loop(), pieces=2)
    for number in range(5):
        ration.add(lambda number=number: done.append(number))  # type: ignore[misc]
    seen = []
    while len(ration):
        await asyncio.sleep(0)
        seen.append(len(done))
    assert seen == [2, 4, 5]
    assert done == [0, 1, 2, 3, 4]


async def test_a_turn_ends_when_its_time_is_used_up() -> None:
    done: list[int] = []
    ration = Ration(asyncio.get_running_loop(), seconds=0.0)
    for number in range(3):
        ration.add(lambda number=number: done.append(number))  # type: ignore[misc]
    await asyncio.sleep(0)
    assert done == [0], "one piece, however little time there is"
    await asyncio.sleep(0)
    assert done == [0, 1]


async def test_sources_take_turns() -> None:
    done: list[str] = []
    ration = Ration(asyncio.get_running_loop())
    for number in range(3):
        ration.add(lambda number=number: done.append(f"many {number}"), "many")  # type: ignore[misc]
    ration.add(lambda: done.append("one"), "one")
    await asyncio.sleep(0)
    assert done == ["many 0", "one", "many 1", "many 2"]


async def test_what_fails_keeps_nobody_from_his_turn(caplog: pytest.LogCaptureFixture) -> None:
    done: list[str] = []
    ration = Ration(asyncio.get_running_loop())
    ration.add(lambda: done.append(str(1 // 0)), "bad")
    ration.add(lambda: ration.add(lambda: done.append("added meanwhile")))
    await asyncio.sleep(0)
    assert done == ["added meanwhile"] and not len(ration)
    assert "work of bad failed" in caplog.text
