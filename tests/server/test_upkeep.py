"""What time demands of very many rooms, and of very many members, keeps nobody waiting."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from plait.server import member, upkeep
from plait.server.room import Room
from plait.server.rooms import ROOM_TICKS
from tests.server.test_hub import clock_of, connect, running


async def test_others_have_turns_while_many_rooms_are_looked_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All rooms were once looked at, and unloaded, in one turn: 10,000 kept others waiting for a
    tenth of a second, every second.
    """
    cared_for: list[str] = []
    care = Room.care

    def counted(room: Room) -> Iterator[None]:
        cared_for.append(room.name)
        return care(room)

    monkeypatch.setattr(upkeep, "ROOMS_A_TURN", 4)
    monkeypatch.setattr(upkeep, "UNLOADED_A_TURN", 2)
    async with running() as hub, AsyncExitStack() as stack:
        monkeypatch.setattr(Room, "care", counted)
        names = [f"room {number}" for number in range(100)]
        for name in names[:50]:
            await stack.enter_async_context(hub.room(name))
        for name in names[50:]:
            async with hub.room(name):
                pass
        clock_of(hub).now += 31
        seen = [(0, 100)]
        for _ in range(ROOM_TICKS):
            ticking = asyncio.create_task(hub.tick())
            while not ticking.done():
                await asyncio.sleep(0)
                seen.append((len(cared_for), hub.open_count))
            await ticking
        assert sorted(hub.rooms()) == sorted(names[:50])
        assert set(names[:50]) <= set(cared_for) and len(cared_for) == len(set(cared_for))
        for (cared, there), (cared_then, there_then) in pairwise(seen):
            assert cared_then - cared <= 4 and there - there_then <= 2


async def test_members_of_a_large_room_are_looked_after_some_in_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(member, "CARED_FOR_A_STEP", 4)
    async with running() as hub, hub.room("a") as room:
        connections = [connect(hub, room) for _ in range(21)]
        while connections[0].take() is not None:
            pass
        clock_of(hub).now += hub.limits.keepalive_seconds
        told = [
            sum(each.sent_at == clock_of(hub).now for each in room.members) for _ in room.care()
        ]
        assert told == [4, 8, 12, 16, 20]
        assert all(each.sent_at == clock_of(hub).now for each in room.members)
