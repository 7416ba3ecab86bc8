"""Hubs that share a store and a relay, in one process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from plait.persistence import CompactionPolicy, StoreError, Update, Writer
from plait.persistence.memory import MemoryStore
from plait.server import hub as hub_module
from plait.server.cluster import Cluster
from plait.server.compaction import Compactor
from plait.server.connection import Connection
from plait.server.counters import Counters
from plait.server.errors import DocumentGone, ServerStopping
from plait.server.hub import FOLLOW_SECONDS, Hub
from plait.server.limits import Limits
from plait.server.relay import Exchange, LocalRelay
from plait.server.room import Room
from plait.server.wire.presence import Entry, encode_presence
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support.authors import Author, text_of
from tests.support.clock import FakeClock
from tests.support.deadlines import DEADLINE_SECONDS, eventually
from tests.support.stores import FaultyStore


@pytest.fixture(autouse=True)
def _nobody_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes has come by the relay, or because somebody said where to look."""
    monkeypatch.setattr(hub_module, "FOLLOW_RELAYED_SECONDS", 3600.0)


class LateStore(MemoryStore):
    """A store whose commits wait for the test."""

    def __init__(self) -> None:
        super().__init__()
        self.may_append = asyncio.Event()
        self.may_append.set()

    async def append(self, updates: Sequence[Update]) -> Sequence[int]:
        """Append, when that is allowed."""
        await self.may_append.wait()
        return await super().append(updates)


class World:
    """The store's content, the relay, and the time, which stands still."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = FakeClock()
        self.exchange = Exchange(lambda call: asyncio.get_running_loop().call_soon(call))
        self.relays: list[LocalRelay] = []

    @asynccontextmanager
    async def node(self, store: MemoryStore | None = None) -> AsyncIterator[Hub]:
        """Run a node."""
        store = store or self.store.sibling()
        limits, counters, relay = Limits(), Counters(), self.exchange.relay()
        self.relays.append(relay)
        number = bytes((len(self.relays),)) * 8
        writer = Writer(store, interval_seconds=0)
        compactor = Compactor(store, CompactionPolicy(), limits, self.clock.wall_ms)
        cluster = Cluster(relay, number, limits, self.clock, counters)
        hub = Hub(
            store,
            writer,
            compactor,
            limits,
            clock=self.clock,
            counters=counters,
            cluster=cluster,
        )
        async with hub:
            await eventually(lambda: len(relay.channels) == 2)
            yield hub

    def away(self) -> FaultyStore:
        """Return a store with the same content that can be taken away."""
        store = FaultyStore()
        store._content = self.store._content
        store.away = True
        return store


def connect(hub: Hub, room: Room) -> Connection:
    connection = Connection(hub.limits, lambda: None, hub.clock.monotonic)
    connection.join(room, YWEBSOCKET)
    return connection


def send(connection: Connection, update: bytes) -> None:
    connection.receive(YWEBSOCKET.sync_update(update))


def tell(connection: Connection, client: int) -> None:
    update = encode_presence([Entry(client, 1, b"{}")])
    connection.receive(YWEBSOCKET.awareness(update))


def text_in(room: Room) -> str:
    return text_of(room.document.encode())


async def test_an_edit_at_one_node_reaches_the_others_and_is_stored_once() -> None:
    world = World()
    async with world.node() as first, world.node() as second:
        async with first.room("a") as here, second.room("a") as there:
            send(connect(first, here), Author(1).type("hello"))
            await eventually(lambda: text_in(there) == "hello")
            await first.writer.flush(10)
            await first.tick()
            await eventually(lambda: not there.busy, "that nothing is borrowed any more")
    assert len(await world.store.log("a")) == 1


async def test_who_opens_a_room_while_others_type_misses_nothing() -> None:
    world = World()
    author = Author(1)
    async with world.node() as first, world.node() as second:
        async with first.room("a") as here:
            connection = connect(first, here)
            typed = ""
            for number in range(30):
                typed += f"{number} "
                send(connection, author.type(f"{number} "))
                if number == 10:
                    opening = asyncio.create_task(second.lease("a"))
                await asyncio.sleep(0)
            lease = await opening
            await eventually(lambda: text_in(lease.room) == typed)
            lease.release()


async def test_what_is_not_stored_yet_is_there_where_the_room_is_opened() -> None:
    world = World()
    async with world.node(world.away()) as first, world.node() as second:
        async with _opened(first, "a") as here:
            send(connect(first, here), Author(1).type("hello"))
            async with second.room("a") as there:
                await eventually(lambda: text_in(there) == "hello")
            assert await world.store.log("a") == []
            assert isinstance(first.store, FaultyStore)
            first.store.away = False


@asynccontextmanager
async def _opened(hub: Hub, name: str) -> AsyncIterator[Room]:
    """Open a room of a node whose store goes away right after."""
    assert isinstance(hub.store, FaultyStore)
    hub.store.away = False
    async with hub.room(name) as room:
        hub.store.away = True
        yield room


async def test_a_document_that_is_loaded_anew_gets_what_another_node_has_not_stored() -> None:
    world = World()
    async with world.node(world.away()) as first, world.node() as second:
        async with _opened(first, "a") as here, second.room("a") as there:
            send(connect(first, here), Author(1).type("hello"))
            await eventually(lambda: text_in(there) == "hello")
            document = await second.reload("a", False)
            assert text_of(document.encode()) == "hello"
            state, _ = await second.loader.state("a")
            assert text_of(state) == "hello"
            assert await world.store.log("a") == []
            assert isinstance(first.store, FaultyStore)
            first.store.away = False


async def test_a_room_is_not_unloaded_while_it_holds_what_another_node_has_not_stored() -> None:
    world = World()
    async with world.node(world.away()) as first, world.node() as second:
        async with _opened(first, "a") as here:
            async with second.room("a") as there:
                send(connect(first, here), Author(1).type("hello"))
                await eventually(lambda: text_in(there) == "hello")
            world.clock.now += 5
            second._upkeep._idle_seconds = 0
            await second.tick()
            assert list(second.rooms()) == ["a"]
            world.clock.now += 10
            await second.tick()
            await second.writer.flush(10)
            await second.tick()
            assert [row.update for row in await world.store.log("a")] != []
            world.clock.now += 10
            await second.tick()
            assert list(second.rooms()) == []
            assert isinstance(first.store, FaultyStore)
            first.store.away = False


async def test_a_room_that_is_unloaded_is_heard_no_more() -> None:
    world = World()
    async with world.node() as hub:
        async with hub.room("a"):
            assert len(world.relays[0].channels) == 3
        world.clock.now += 60
        await hub.tick()
        assert hub.rooms() == {}
        assert len(world.relays[0].channels) == 2


async def test_a_room_that_cannot_be_loaded_is_heard_no_more() -> None:
    world = World()
    async with world.node(world.away()) as hub:
        with pytest.raises(Exception, match="can't be loaded"):
            await hub.lease("a")
        assert len(world.relays[0].channels) == 2


@pytest.mark.parametrize("purge", [True, False])
async def test_a_deletion_closes_the_room_at_every_node(purge: bool) -> None:
    world = World()
    await world.store.append([Update("a", Author(1).type("hello"))])
    async with world.node() as first, world.node() as second:
        async with first.room("a"), second.room("a") as there:
            member = connect(second, there)
            await first.delete("a", purge=purge)
            if purge:  # If the store has nothing more to tell when it is asked, it refuses this.
                send(member, Author(2).type("late"))
            await eventually(lambda: member.closing)
            assert member.closing is not None
            assert member.closing.code == DocumentGone.close_code
        assert (await world.store.info("a") is None) is purge


async def test_what_is_on_its_way_to_the_store_does_not_bring_back_what_is_purged() -> None:
    """The other node had opened the document before there was one, so its store knew of none."""
    world, late = World(), LateStore()
    late._content = world.store._content
    async with world.node() as first, world.node(late) as second:
        async with second.room("a") as there, first.room("a") as here:
            member = connect(second, there)
            send(connect(first, here), Author(1).type("hello"))
            await eventually(lambda: text_in(there) == "hello")
            await first.writer.flush(10)
            late.may_append.clear()
            send(member, Author(2).type("late"))
            purging = asyncio.create_task(first.delete("a", purge=True))
            await eventually(lambda: member.closing)
            late.may_append.set()
            assert await purging
        await second.writer.flush(10)
    assert await world.store.info("a") is None


async def test_the_store_is_asked_often_while_a_node_is_silent() -> None:
    """It may be cut off from the relay, and then the store is the only way to hear of it."""
    world = World()
    async with world.node() as first, world.node() as second:
        for _ in range(2):
            await first.tick()
            await second.tick()
            await eventually(lambda: first.cluster is not None and first.cluster.nodes == 2)
        assert first._follow_seconds() == hub_module.FOLLOW_RELAYED_SECONDS
        world.relays[1].switch(False)
        for _ in range(5):
            world.clock.now += 1
            await first.tick()
            for _ in range(5):
                await asyncio.sleep(0)
        assert first._follow_seconds() == FOLLOW_SECONDS
        world.relays[1].switch(True)
        await second.tick()
        await eventually(lambda: first._follow_seconds() == hub_module.FOLLOW_RELAYED_SECONDS)


async def test_a_node_that_stops_takes_its_presence_along_and_says_good_bye() -> None:
    world = World()
    async with world.node() as first, world.node() as second:
        async with first.room("a") as here, second.room("a") as there:
            tell(connect(first, here), 7)
            await eventually(lambda: len(there.awareness) == 1)
            await first.tick()
            assert first.cluster is not None and second.cluster is not None
            cluster = second.cluster
            await eventually(lambda: cluster.nodes == 2)
            await first.drain(10)
            await eventually(lambda: cluster.nodes == 1)
            assert len(there.awareness) == 0
            await first.tick()
            for _ in range(5):
                await asyncio.sleep(0)
            assert cluster.nodes == 1


async def test_a_node_that_could_not_store_everything_says_good_bye_all_the_same() -> None:
    """Then the others store what it had told them, at once."""
    world = World()
    away = world.away()
    async with world.node() as second:
        with pytest.raises(StoreError):
            async with world.node(away) as first:
                away.away = False
                async with second.room("a") as there, first.room("a") as here:
                    away.away = True
                    send(connect(first, here), Author(1).type("hello"))
                    await eventually(lambda: text_in(there) == "hello")
                    await first.drain(0.1)
        await eventually(lambda: world.store.info("a"))
        await second.writer.flush(10)
    stored = await world.store.log("a")
    assert [text_of(row.update) for row in stored] == ["hello"]


async def test_connections_are_closed_one_by_one_when_a_node_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They come back to other nodes, which are not to be overrun; until then they are served."""
    world = World()
    typed = Author(1).type("still here")
    closed_at_first: list[int] = []
    rest = asyncio.sleep

    async with world.node() as hub, hub.room("a") as room:
        members = [connect(hub, room) for _ in range(10)]

        async def after_the_first(seconds: float) -> None:
            closed = sum(member.closing is not None for member in members)
            if closed and not closed_at_first:
                closed_at_first.append(closed)
                send(members[-1], typed)
            await rest(seconds)

        monkeypatch.setattr(asyncio, "sleep", after_the_first)
        await hub.drain(10)
        monkeypatch.undo()
        assert closed_at_first == [1]
        assert {member.closing.code for member in members if member.closing} == {1012}
        assert all(member.closing for member in members)
        assert [row.update for row in await world.store.log("a")] == [typed]


async def test_many_connections_are_closed_faster_so_that_the_time_is_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_module, "CLOSED_A_SECOND", 0.1)
    world = World()
    async with world.node() as hub, hub.room("a") as room:
        members = [connect(hub, room) for _ in range(200)]
        async with asyncio.timeout(DEADLINE_SECONDS):
            await hub.drain(0.4)
        assert all(member.closing for member in members)


async def test_who_waits_for_a_room_while_the_node_stops_is_refused() -> None:
    world = World()
    async with world.node() as hub:
        waiting = asyncio.create_task(hub.lease("a"))
        await asyncio.sleep(0)
        await hub.drain(10)
        with pytest.raises(ServerStopping):
            await waiting


async def test_the_store_is_asked_less_often_while_the_relay_is_there() -> None:
    world = World()
    async with world.node() as hub:
        assert hub._follow_seconds() == 3600
        world.relays[0].switch(False)
        assert hub._follow_seconds() == FOLLOW_SECONDS


async def test_without_the_relay_nodes_meet_in_the_store() -> None:
    world = World()
    async with world.node() as first, world.node() as second:
        for relay in world.relays:
            relay.switch(False)
        async with first.room("a") as here, second.room("a") as there:
            send(connect(first, here), Author(1).type("hello"))
            here.flush()
            await first.writer.flush(10)
            await second.follow()
            assert text_in(there) == "hello"


async def test_a_large_edit_is_fetched_from_the_store_at_once() -> None:
    world = World()
    async with world.node() as first, world.node() as second:
        async with first.room("a") as here, second.room("a") as there:
            text = "x" * 700_000
            author, other = Author(1), Author(2)
            connection = connect(first, here)
            await eventually(lambda: here.ready.is_set())
            send(connection, author.type(text))
            send(connect(first, here), other.type("y" * 50_000))
            await eventually(lambda: len(text_in(there)) == len(text) + 50_000)
            await eventually(lambda: not there.busy)


async def test_a_write_of_nobody_s_node_is_found_when_it_is_looked_for() -> None:
    world = World()
    async with world.node() as hub, hub.room("a") as room:
        await world.store.append([Update("a", Author(1).type("hello"))])
        hub.look("a")
        await eventually(lambda: text_in(room) == "hello")
