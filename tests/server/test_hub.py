"""The registry of rooms: loaded once, unloaded in time, and never at the cost of an edit."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from plait.persistence import Changes, CompactionPolicy, Update, Writer
from plait.persistence.memory import MemoryStore
from plait.server.compaction import Compactor
from plait.server.connection import Connection
from plait.server.errors import (
    BadRoomName,
    DocumentGone,
    RoomUnavailable,
    ServerFull,
    ServerStopping,
)
from plait.server.hub import Hub
from plait.server.limits import Limits
from plait.server.room import Room
from plait.server.wire.messages import SyncStep1, SyncUpdate
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support.authors import Author, text_of
from tests.support.clock import FakeClock
from tests.support.deadlines import eventually
from tests.support.stores import FaultyStore


@asynccontextmanager
async def running(
    store: MemoryStore | None = None, limits: Limits | None = None, memory_bytes_max: int = 1 << 30
) -> AsyncIterator[Hub]:
    """Run a hub whose clock stands still, so that nothing happens by itself."""
    store = store or FaultyStore()
    limits = limits or Limits()
    clock = FakeClock()
    await store.open()
    writer = Writer(store, interval_seconds=0)
    compactor = Compactor(store, CompactionPolicy(), limits, clock.wall_ms)
    async with Hub(
        store,
        writer,
        compactor,
        limits,
        idle_seconds=30,
        memory_bytes_max=memory_bytes_max,
        clock=clock,
    ) as hub:
        yield hub


def clock_of(hub: Hub) -> FakeClock:
    assert isinstance(hub.clock, FakeClock)
    return hub.clock


def faulty(hub: Hub) -> FaultyStore:
    assert isinstance(hub.store, FaultyStore)
    return hub.store


def connect(hub: Hub, room: Room) -> Connection:
    connection = Connection(hub.limits, lambda: None, hub.clock.monotonic)
    connection.join(room, YWEBSOCKET)
    return connection


def send(connection: Connection, update: bytes) -> None:
    connection.receive(YWEBSOCKET.sync_update(update))


def text_in(room: Room) -> str:
    return text_of(room.document.encode())


# Loading


async def test_all_who_come_at_once_share_one_load_and_one_room() -> None:
    async with running() as hub, AsyncExitStack() as stack:
        faulty(hub).may_load.clear()
        enter = [asyncio.create_task(stack.enter_async_context(hub.room("a"))) for _ in range(9)]
        await eventually(lambda: faulty(hub).loads)
        faulty(hub).may_load.set()
        rooms = await asyncio.gather(*enter)
        assert len({id(room) for room in rooms}) == 1
        assert faulty(hub).loads == 1


async def test_a_stored_document_is_there_again() -> None:
    store = FaultyStore()
    await store.append([Update("a", Author(1).type("hello"))])
    async with running(store) as hub, hub.room("a") as room:
        assert text_in(room) == "hello"


async def test_a_failed_load_is_an_error_and_never_an_empty_document() -> None:
    """hocuspocus #382: a load error became an empty document that overwrote the stored one."""
    store = FaultyStore()
    await store.append([Update("a", Author(1).type("hello"))])
    async with running(store) as hub:
        store.away = True
        with pytest.raises(RoomUnavailable):
            async with hub.room("a"):
                pass
        assert hub.rooms() == {}
        store.away = False
        async with hub.room("a") as room:
            assert text_in(room) == "hello"


async def test_a_corrupt_row_is_an_error_and_never_a_partial_document() -> None:
    store = FaultyStore()
    await store.append([Update("a", Author(1).type("hello")), Update("a", b"\xff\xff")])
    async with running(store) as hub:
        with pytest.raises(RoomUnavailable):
            async with hub.room("a"):
                pass


async def test_who_gives_up_waiting_does_not_spoil_it_for_others() -> None:
    async with running() as hub, AsyncExitStack() as stack:
        faulty(hub).may_load.clear()
        hasty = asyncio.create_task(AsyncExitStack().enter_async_context(hub.room("a")))
        patient = asyncio.create_task(stack.enter_async_context(hub.room("a")))
        await eventually(lambda: faulty(hub).loads)
        hasty.cancel()
        faulty(hub).may_load.set()
        assert (await patient).name == "a"


async def test_rows_that_came_in_another_order_are_put_in_order() -> None:
    author = Author(1)
    first, second = author.type("a"), author.type("b")
    store = FaultyStore()
    await store.append([Update("a", second), Update("a", first)])
    async with running(store) as hub, hub.room("a") as room:
        assert text_in(room) == "ab"


@pytest.mark.parametrize("name", ["", "  ", "x" * 1025, "zero\x00byte", "line\nbreak", "é" * 600])
async def test_a_name_that_cannot_be_a_rooms_is_refused(name: str) -> None:
    async with running() as hub:
        with pytest.raises(BadRoomName):
            async with hub.room(name):
                pass


# Unloading


async def test_a_room_is_unloaded_when_it_was_idle_for_long_enough() -> None:
    async with running() as hub:
        async with hub.room("a"):
            clock_of(hub).now += 100
            await hub.tick()
            assert "a" in hub.rooms(), "somebody holds it"
        clock_of(hub).now += 29
        await hub.tick()
        assert "a" in hub.rooms()
        clock_of(hub).now += 1
        await hub.tick()
        assert hub.rooms() == {}


async def test_a_room_with_unsaved_edits_is_not_unloaded() -> None:
    async with running() as hub:
        async with hub.room("a") as room:
            faulty(hub).away = True
            connection = connect(hub, room)
            send(connection, Author(1).type("hello"))
            connection.lost()
        clock_of(hub).now += 100
        await hub.tick()
        assert "a" in hub.rooms()
        faulty(hub).away = False
        await hub.writer.flush(10)
        await eventually(lambda: not room.busy)
        await hub.tick()
        assert hub.rooms() == {}
        async with hub.room("a") as again:
            assert text_in(again) == "hello"


async def test_above_the_memory_budget_the_longest_idle_rooms_go_at_once() -> None:
    async with running(memory_bytes_max=50_000) as hub:
        for name in ("old", "new"):
            async with hub.room(name) as room:
                await room.apply(Author(1).type("x" * 30_000))
            clock_of(hub).now += 1
        await hub.tick()
        assert list(hub.rooms()) == ["new"]


async def test_thousands_of_empty_rooms_leave_nothing_behind() -> None:
    async with running() as hub:
        for number in range(2000):
            async with hub.room(f"room {number}"):
                pass
        clock_of(hub).now += 31
        await hub.tick()
        assert hub.rooms() == {} and hub._entries == {}
        assert await hub.store.documents() == []


@pytest.mark.parametrize(("typed", "considered"), [(0, []), (3, ["a"])])
async def test_only_a_room_with_a_log_is_considered_for_compaction(
    monkeypatch: pytest.MonkeyPatch, typed: int, considered: list[str]
) -> None:
    names: list[str] = []
    monkeypatch.setattr(Compactor, "consider", lambda self, name: names.append(name))
    store = FaultyStore()
    author = Author(1)
    for number in range(typed):
        await store.append([Update("a", author.type(f"{number}"))])
    async with running(store) as hub:
        async with hub.room("a"):
            pass
        clock_of(hub).now += 31
        await hub.tick()
    assert names == considered


# Other writers of the same store


async def test_what_another_program_appends_reaches_open_rooms() -> None:
    async with running() as hub, hub.room("a") as room:
        connection = connect(hub, room)
        connection.take()
        update = Author(1).type("from elsewhere")
        await faulty(hub).sibling().append([Update("a", update), Update("not open", update)])
        await hub.follow()
        await eventually(lambda: len(connection.outbox))
        frame = connection.take()
        assert frame is not None and YWEBSOCKET.decode(frame) == SyncUpdate(update)
        assert len(await hub.store.log("a")) == 1, "it is not stored a second time"


async def test_what_another_program_appends_too_early_waits_for_what_it_builds_upon() -> None:
    async with running() as hub, hub.room("a") as room:
        author = Author(1)
        first, second = author.type("a"), author.type("b")
        other = faulty(hub).sibling()
        await other.append([Update("a", second)])
        await hub.follow()
        assert text_in(room) == ""
        await other.append([Update("a", first)])
        await hub.follow()
        assert text_in(room) == "ab"


class SlowToAnswer(FaultyStore):
    """A store whose answers about changes come when a test says so. As in SQLite, they are as of
    when the question's turn comes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def changes(self, after: Mapping[str, int]) -> Changes:
        """Answer when `may_answer` is set."""
        self.asked.set()
        await self.may_answer.wait()
        return await super().changes(after)


async def test_a_room_that_opens_while_the_store_is_asked_misses_nothing() -> None:
    """The question of which the answer would have had the row did not name the room yet."""
    store = SlowToAnswer()
    other = store.sibling()
    author = Author(1)
    await other.append([Update("late", author.type("one "))])
    async with running(store) as hub, hub.room("open") as opened:
        following = asyncio.create_task(hub.follow())
        await store.asked.wait()
        async with hub.room("late") as late:
            assert text_in(late) == "one "
            await other.append(
                [Update("late", author.type("two ")), Update("open", Author(2).type("seen"))]
            )
            store.may_answer.set()
            await following
            assert text_in(opened) == "seen"
            await hub.follow()
            assert text_in(late) == "one two "


async def test_rows_committed_while_a_room_is_loaded_are_found_afterwards() -> None:
    store = SlowToAnswer()
    store.may_answer.set()
    author = Author(1)
    other = store.sibling()
    async with running(store) as hub:
        store.may_load.clear()
        opening = asyncio.create_task(hub.lease("a"))
        await eventually(lambda: store.loads)
        await other.append([Update("a", author.type("while it is loaded, "))])
        await hub.follow()
        store.may_load.set()
        lease = await opening
        await other.append([Update("a", author.type("and later"))])
        await hub.follow()
        assert text_in(lease.room) == "while it is loaded, and later"
        lease.release()


async def test_a_document_deleted_while_its_room_is_loaded_sends_its_editors_away() -> None:
    store = SlowToAnswer()
    await store.append([Update("a", Author(1).type("hello"))])
    async with running(store) as hub, hub.room("open"):
        following = asyncio.create_task(hub.follow())
        await store.asked.wait()
        async with hub.room("a") as room:
            connection = connect(hub, room)
            await store.sibling().delete("a", 1)
            store.may_answer.set()
            await following
            await hub.follow()
            assert connection.closing is not None and connection.closing.code == 4404


async def test_a_document_that_another_program_deletes_sends_its_editors_away() -> None:
    async with running() as hub, hub.room("a") as room:
        await room.apply(Author(1).type("hello"))
        connection = connect(hub, room)
        await faulty(hub).sibling().delete("a", 1)
        await hub.follow()
        assert connection.closing is not None and connection.closing.code == 4404


async def test_a_deleted_document_sends_its_editors_away_and_lets_nobody_in() -> None:
    async with running() as hub:
        async with hub.room("a") as room:
            await room.apply(Author(1).type("hello"))
            connection = connect(hub, room)
            assert await hub.delete("a")
            assert connection.closing is not None and connection.closing.code == 4404
        with pytest.raises(DocumentGone):
            async with hub.room("a"):
                pass
        assert await hub.store.undelete("a")
        async with hub.room("a") as again:
            assert text_in(again) == "hello"


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("purge", [True, False])
async def test_edits_on_their_way_do_not_bring_a_deleted_document_back(
    stored: bool, purge: bool
) -> None:
    """After a purge the tail of a document came back alone, and could never be read."""
    async with running() as hub, hub.room("a") as room:
        author = Author(1)
        if stored:
            await room.apply(author.type("one"))
        room.apply(author.type("two"))
        assert await hub.delete("a", purge=purge)
        info = await hub.store.info("a")
        assert info is None if purge else info is not None and info.deleted_ms is not None


# Too many


async def test_a_new_room_takes_the_place_of_one_that_nobody_is_in() -> None:
    async with running(limits=Limits(rooms_max=2)) as hub:
        async with hub.room("a"):
            pass
        clock_of(hub).now += 1
        async with hub.room("b"):
            async with hub.room("c"):
                assert sorted(hub.rooms()) == ["b", "c"]


async def test_without_a_place_a_room_is_refused_and_those_there_live_on() -> None:
    async with running(limits=Limits(rooms_max=1)) as hub:
        async with hub.room("a") as room:
            for _ in range(2):
                with pytest.raises(ServerFull, match="rooms_max") as caught:
                    async with hub.room("b"):
                        pass
            assert (caught.value.status, caught.value.limit) == (503, "rooms_max")
            async with hub.room("a") as again:
                assert again is room
        await hub.tick()
        async with hub.room("b"):
            assert list(hub.rooms()) == ["b"]


async def test_a_room_with_something_unsaved_does_not_make_way() -> None:
    async with running(limits=Limits(rooms_max=1)) as hub:
        async with hub.room("a") as room:
            faulty(hub).away = True
            send(connect(hub, room), Author(1).type("hello"))
        with pytest.raises(ServerFull):
            async with hub.room("b"):
                pass
        faulty(hub).away = False
        await hub.writer.flush(10)


async def test_only_so_many_documents_are_loaded_at_once() -> None:
    async with running(limits=Limits(loads_max=2)) as hub, AsyncExitStack() as stack:
        faulty(hub).may_load.clear()
        enter = [asyncio.create_task(stack.enter_async_context(hub.room(name))) for name in "abcde"]
        await eventually(lambda: faulty(hub).loads == 2)
        for _ in range(20):
            await asyncio.sleep(0)
        assert faulty(hub).loads == 2
        faulty(hub).may_load.set()
        await asyncio.gather(*enter)
        assert len(hub.rooms()) == 5
        assert sum(hub.counters.load_seconds.counts) == 5


# The end


async def test_draining_stores_everything_and_says_good_bye() -> None:
    async with running() as hub, hub.room("a") as room:
        sent: list[bytes] = []
        connection = Connection(
            hub.limits, lambda: sent.extend(iter(connection.take, None)), hub.clock.monotonic
        )
        connection.join(room, YWEBSOCKET)
        update = Author(1).type("last words")
        send(connection, update)
        await hub.drain(10)
        assert YWEBSOCKET.sync_update(update) in sent, "it was acknowledged first"
        assert connection.closing is not None and connection.closing.code == 1012
        assert len(await hub.store.log("a")) == 1
        with pytest.raises(ServerStopping):
            async with hub.room("b"):
                pass


async def test_a_client_is_served_from_its_first_question_to_its_acknowledgement() -> None:
    async with running() as hub, hub.room("a") as room:
        connection = connect(hub, room)
        update = Author(1).type("hello")
        send(connection, update)
        messages = []

        def acknowledged() -> bool:
            while (frame := connection.take()) is not None:
                messages.append(YWEBSOCKET.decode(frame))
            return len(messages) == 2

        await eventually(acknowledged)
        assert messages == [SyncStep1(b"\x00"), SyncUpdate(update)]
        assert [row.update for row in await hub.store.log("a")] == [update]


async def test_all_that_wants_to_know_of_the_time_is_called(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("plait.server.hub.TICK_SECONDS", 0.001)
    called: list[str] = []

    def fail() -> None:
        called.append("one that fails")
        raise ValueError

    async with running() as hub:
        hub.ticked += [fail, lambda: called.append("another")]
        await eventually(lambda: called.count("another") > 1)
    assert called[:2] == ["one that fails", "another"]
    assert "a tick failed" in caplog.text
