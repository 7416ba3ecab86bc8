"""The tables of a node's rooms, compared with walking through all of them."""

import random
from types import SimpleNamespace
from typing import Any, cast

from plait.server.leases import Entry
from plait.server.room import Room
from plait.server.rooms import ROOM_TICKS, Rooms
from tests.support.clock import FakeClock

NAMES = ("a", "a/1", "a/2", "a/10", "ab", "b", "é", "é/1", "😀", "😀/2")


def room() -> Room:
    """Return something that takes memory as a room does."""
    memory = random.randrange(1000)
    document, answers = SimpleNamespace(memory_bytes=memory), SimpleNamespace(size=memory // 2)
    made: Any = SimpleNamespace(document=document, answers=answers, dead=False)
    return cast(Room, made)


def check(rooms: Rooms) -> None:
    """Compare every table with what it is made from."""
    opened = rooms.all()
    entries = {each: room for each in rooms.entries.values() if (room := each.loaded) is not None}
    assert len(rooms) == len(opened)
    for prefix in ("", "a", "a/", "é", "x"):
        for after in ("", "a", "a/2", "b", "\U0010ffff"):
            expected = sorted(n for n in opened if n.startswith(prefix) and n > after)
            for limit in (1, 2, 100):
                assert rooms.names(prefix, after, limit) == expected[:limit]
    assert {each for slot in rooms.slots for each in slot} == entries.keys()
    assert all(each in rooms.slots[each.slot] for each in entries)
    assert set(rooms.idle) == {each for each in rooms.entries.values() if not each.leases}
    since = [each.idle_since for each in rooms.idle]
    assert since == sorted(since), "the longest idle is the first"
    assert rooms.memory_bytes == sum(each.document.memory_bytes for each in entries.values())
    assert rooms.states_bytes == sum(each.answers.size for each in entries.values())


def test_the_tables_are_true_whatever_happens() -> None:
    random.seed(1)
    clock = FakeClock()
    rooms = Rooms(clock)
    held: list[Entry] = []
    for _ in range(2000):
        clock.now += 1
        name = random.choice(NAMES)
        entry = rooms.entries.get(name)
        match random.randrange(5):
            case 0 | 1 if entry is None or (entry.loaded and entry.loaded.dead):
                entry = rooms.add(name)
                entry.begin_lease()
                held.append(entry)
            case 0 | 1 if entry is not None:
                entry.begin_lease()
                held.append(entry)
            case 2 if entry is not None and entry.loaded is None:
                rooms.opened(entry, room())
            case 2 if entry is not None and entry.loaded is not None:
                entry.loaded.dead = random.random() < 0.2
            case 3 if held:
                held.pop(random.randrange(len(held))).end_lease(clock)
            case 4 if entry is not None and not entry.leases:
                rooms.remove(entry)
        check(rooms)
    assert ROOM_TICKS > 1 and len(rooms)
