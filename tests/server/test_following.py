"""What others wrote into the store gets into the rooms that are open."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from plait.persistence import Changes, LoggedUpdate, StoreUnavailable, Update
from plait.persistence.memory import MemoryStore
from plait.server.document import Document
from plait.server.following import Following
from plait.server.leases import Entry
from plait.server.limits import Limits
from plait.server.room import Room
from tests.support.authors import Author, text_of
from tests.support.deadlines import eventually
from tests.support.rooms import Rig


class AskedStore(MemoryStore):
    """Keeps what it was asked about, and does something while it is."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[dict[str, int]] = []
        self.away = False
        self.meanwhile: Callable[[], None] = lambda: None

    async def changes(self, after: Mapping[str, int]) -> Changes:
        self.asked.append(dict(after))
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        changes = await super().changes(after)
        self.meanwhile()
        return changes


class World:
    """Rooms, the store that they follow, and another writer of it."""

    def __init__(self, pause_seconds: float = 3600.0) -> None:
        self.store = AskedStore()
        self.other = self.store.sibling()
        self.entries: dict[str, Entry] = {}
        self.rigs: dict[str, Rig] = {}
        self.deleted: list[str] = []
        self.following = Following(
            self.store, self.entries, self.deleted.append, lambda: pause_seconds
        )

    def open(self, name: str) -> Entry:
        rig = self.rigs[name] = Rig()
        rig.room.name = name
        entry = self.entries[name] = Entry(name, 0.0, 0, None)
        entry.room = asyncio.get_running_loop().create_future()
        entry.room.set_result(rig.room)
        entry.loaded = rig.room
        return entry

    def text(self, name: str) -> str:
        return text_of(self.rigs[name].room.document.encode())

    async def write(self, name: str, *updates: bytes) -> None:
        await self.other.append([Update(name, update) for update in updates])


async def test_what_another_wrote_gets_into_the_rooms_that_are_open() -> None:
    world = World()
    a, _ = world.open("a"), world.open("b")
    reader = world.rigs["a"].client()
    await world.write("a", Author(1).type("x"))
    await world.write("c", Author(2).type("y"))
    await world.following.follow()
    world.rigs["a"].turn()
    assert (world.text("a"), world.text("b")) == ("x", "")
    assert len(reader.received()) == 1
    assert world.rigs["a"].log.rows == []
    assert (a.followed, a.leases) == (1, 0)
    await world.following.follow()
    assert world.store.asked == [{"a": 0, "b": 0}, {"a": 1, "b": 0}]


async def test_a_look_is_about_one_room_and_comes_at_once() -> None:
    world = World()
    world.open("a"), world.open("b")
    await world.write("a", Author(1).type("x"))
    task = asyncio.create_task(world.following.run())
    world.following.look("a")
    await eventually(lambda: world.text("a") == "x")
    assert world.store.asked == [{"a": 0}]
    task.cancel()


async def test_a_look_may_be_about_all_rooms() -> None:
    world = World()
    world.open("a"), world.open("b")
    task = asyncio.create_task(world.following.run())
    world.following.look("a")
    world.following.look(None)
    await eventually(lambda: world.store.asked)
    assert world.store.asked == [{"a": 0, "b": 0}]
    task.cancel()


async def test_a_look_at_a_room_that_is_not_open_or_still_loaded_harms_nobody() -> None:
    world = World()
    world.open("a")
    loading = world.entries["b"] = Entry("b", 0.0, 0, None)
    loading.room = asyncio.get_running_loop().create_future()
    await world.following.follow({"b", "c"})
    assert world.store.asked == [{}]
    assert loading.followed == 0


async def test_all_rooms_are_asked_about_in_time_however_many_looks_there_are() -> None:
    """A room whose large edits are told every second must not keep the others from being asked."""
    world = World(pause_seconds=0.05)
    world.open("a"), world.open("b")
    world.store.meanwhile = lambda: world.following.look("a")
    task = asyncio.create_task(world.following.run())
    world.following.look("a")
    await eventually(lambda: {"a": 0, "b": 0} in world.store.asked, "asking about all")
    assert world.store.asked[0] == {"a": 0}
    task.cancel()


async def test_a_store_that_is_away_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World(pause_seconds=0.01)
    world.open("a")
    world.store.away = True
    task = asyncio.create_task(world.following.run())
    await eventually(lambda: len(world.store.asked) > 1)
    await world.write("a", Author(1).type("x"))
    world.store.away = False
    await eventually(lambda: world.text("a") == "x")
    assert "can't be followed now" in caplog.text
    task.cancel()


async def test_rows_wait_for_those_that_they_build_upon() -> None:
    world = World()
    entry = world.open("a")
    author = Author(1)
    first, second, third = (author.type(letter) for letter in "abc")
    await world.write("a", third)
    await world.following.follow()
    assert [row.update for row in entry.waiting] == [third]
    await world.write("a", second)
    await world.following.follow()
    assert world.text("a") == ""
    await world.write("a", first)
    await world.following.follow()
    assert world.text("a") == "abc"
    assert entry.waiting == []


async def test_a_row_that_cannot_be_used_keeps_no_other_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    entry = world.open("a")
    await world.write("a", b"\xff\xff", Author(1).type("x"))
    await world.following.follow()
    assert world.text("a") == "x"
    assert entry.waiting == []
    assert "row 1 of the log" in caplog.text


async def test_a_room_that_is_unloaded_meanwhile_is_left_alone() -> None:
    world = World()
    before = world.open("a")
    room = world.rigs["a"].room
    await world.write("a", Author(1).type("x"))

    def reopen() -> None:
        world.open("a")
        world.store.meanwhile = lambda: None

    world.store.meanwhile = reopen
    await world.following.follow()
    assert text_of(room.document.encode()) == ""
    assert world.text("a") == ""
    assert world.entries["a"] is not before
    assert world.entries["a"].followed == 0
    await world.following.follow()
    assert world.text("a") == "x"


async def test_a_room_is_not_unloaded_while_it_takes_in_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    entry = world.open("a")
    may_apply, apply_logged = asyncio.Event(), Room.apply_logged

    async def slowly(room: Room, row: LoggedUpdate) -> bool:
        await may_apply.wait()
        return await apply_logged(room, row)

    monkeypatch.setattr(Room, "apply_logged", slowly)
    await world.write("a", Author(1).type("x"))
    task = asyncio.create_task(world.following.follow())
    await eventually(lambda: entry.leases == 1)
    assert world.text("a") == ""
    may_apply.set()
    await task
    assert (world.text("a"), entry.leases) == ("x", 0)


async def test_a_document_that_is_loaded_anew_holds_up_no_other() -> None:
    world = World()
    entries = world.open("a"), world.open("b")
    world.rigs["a"].room.ready.clear()
    for name in "ab":
        await world.write(name, Author(1).type("x"))
    await world.following.follow()
    assert (world.text("a"), world.text("b")) == ("", "x")
    world.rigs["a"].room.ready.set()
    await world.following.follow()
    assert world.text("a") == "x"
    assert all(entry.followed for entry in entries)


async def test_what_waits_for_a_document_that_is_loaded_anew_meanwhile_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    entry = world.open("a")
    author = Author(1)
    first, second, third = (author.type(letter) for letter in "abc")
    other = Author(2)
    assert other.type("x"), "which nobody gets"
    later = other.type("y")
    await world.write("a", second, third)
    apply_logged = Room.apply_logged

    async def load_anew(room: Room, row: LoggedUpdate) -> bool:
        if entry.followed == 0:  # as `Hub.reload`, which finds one row more
            await world.write("a", first)
            await world.write("a", later)
            *_, last = await world.store.log("a")
            entry.waiting, entry.followed = [last], last.seq
            room.document = Document(Limits())
            for each in (first, second, third):
                room.document.apply(each)
            return False
        return await apply_logged(room, row)

    monkeypatch.setattr(Room, "apply_logged", load_anew)
    await world.following.follow()
    assert world.text("a") == "abc"
    assert [row.update for row in entry.waiting] == [later]
    assert entry.followed == 4, "and not asked for again, as the rows that were found tell"


async def test_a_deleted_document_is_told_once_for_each_that_is_open() -> None:
    world = World()
    world.open("a"), world.open("b")
    await world.write("a", Author(1).type("x"))
    await world.write("c", Author(1).type("x"))
    await world.other.delete("a", 0)
    await world.other.delete("c", 0)
    await world.following.follow()
    assert world.deleted == ["a"]
