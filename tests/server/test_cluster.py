"""A node among others: who lives, who does not, and what is told to whom."""

import logging
from collections.abc import Callable

import pytest

from plait.server import cluster as cluster_module
from plait.server.cluster import DEAD_SECONDS, Cluster
from plait.server.counters import Counters
from plait.server.limits import Limits
from plait.server.relay import Exchange, LocalRelay
from plait.server.wire.envelope import (
    VERSION,
    Envelope,
    Kind,
    decode_envelope,
    encode_envelope,
    encode_updates,
    seal,
    unseal,
)
from plait.server.wire.messages import AwarenessUpdate, SyncUpdate
from plait.server.wire.presence import Entry, encode_presence
from tests.support.authors import Author, text_of
from tests.support.clock import FakeClock
from tests.support.rooms import Rig

ALL, ROOM = "plait::nodes", "plait::room:room"
KEY = b"the key of the store"


class World:
    """Nodes, and the relay between them: a turn's messages arrive when the test says so."""

    def __init__(self) -> None:
        self._later: list[Callable[[], None]] = []
        self.exchange = Exchange(self._later.append)
        self.clock = FakeClock()
        self.nodes: list[Node] = []
        self.heard: list[tuple[str, Envelope]] = []
        """What one that hears everything has heard."""

    async def node(self, prefix: str = "plait", store: str = "") -> "Node":
        node = Node(self, prefix)
        node.cluster.share(store, KEY)
        await node.cluster.run()
        return node

    def listen(self, *channels: str) -> None:
        relay = self.exchange.relay()
        relay.channels.update(channels)
        relay.on_message = lambda channel, data: self.heard.append(
            (channel, decode_envelope(unseal(data, KEY)))
        )

    def run(self) -> None:
        """Deliver until nothing is left to be said."""
        while True:
            for node in self.nodes:
                for rig in node.rigs:
                    rig.turn()
            if not self._later:
                return
            later = self._later[:]
            self._later.clear()
            for call in later:
                call()

    def wait(self, seconds: float, *silent: "Node") -> None:
        """Let time pass, for all but some nodes."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now = min(self.clock.now + 1, end)
            for node in self.nodes:
                if node not in silent:
                    node.cluster.tick()
            self.run()

    def kinds(self, kind: Kind) -> list[tuple[str, Envelope]]:
        """Return what was heard of a kind since the last call; forget all of it."""
        heard, self.heard = self.heard, []
        return [each for each in heard if each[1].kind is kind]


class CheckedRelay(LocalRelay):
    """Counts how often it was said to be of no use."""

    checks = 0

    def check(self) -> None:
        self.checks += 1


class Node:
    """A node and its hub, which keeps what it is told."""

    def __init__(self, world: World, prefix: str) -> None:
        self.id = bytes((len(world.nodes) + 1,)) * 8
        world.nodes.append(self)
        self.relay = CheckedRelay(world.exchange)
        world.exchange.relays.append(self.relay)
        self.counters = Counters()
        self.cluster = Cluster(
            self.relay, self.id, Limits(), world.clock, self.counters, prefix=prefix
        )
        self.cluster.hub = self
        self.rigs: list[Rig] = []
        self.looks: list[str | None] = []
        self.deletions: list[str] = []
        self.notices = 0

    async def open(self, name: str = "room") -> Rig:
        rig = Rig()
        rig.room.name = name
        self.rigs.append(rig)
        await self.cluster.enter(name)
        rig.room.link = self.cluster.attach(rig.room)
        return rig

    def look(self, name: str | None) -> None:
        self.looks.append(name)

    def deleted(self, name: str) -> None:
        self.deletions.append(name)

    def noticed(self) -> None:
        self.notices += 1


def text_in(rig: Rig) -> str:
    return text_of(rig.room.document.encode())


def told(client: int, clock: int) -> AwarenessUpdate:
    return AwarenessUpdate(encode_presence([Entry(client, clock, b"{}")]))


# Who is there


async def test_a_node_says_every_second_that_it_lives_and_how_many_rooms_it_has() -> None:
    world = World()
    world.listen(ALL)
    node = await world.node()
    world.wait(3)
    await node.open()
    world.wait(1)
    beats = world.kinds(Kind.BEAT)
    assert [envelope.seq for _, envelope in beats] == [0, 0, 0, 1]


async def test_nodes_that_live_know_of_one_another() -> None:
    world = World()
    nodes = [await world.node() for _ in range(3)]
    assert [node.cluster.nodes for node in nodes] == [1, 1, 1]
    world.wait(1)
    assert [node.cluster.nodes for node in nodes] == [3, 3, 3]
    world.wait(60)
    assert [node.cluster.nodes for node in nodes] == [3, 3, 3]
    assert all(node.looks == [] for node in nodes)


async def test_a_node_that_is_silent_for_too_long_is_taken_for_dead() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    rig, other = await a.open(), await b.open()
    update = Author(1).type("x")
    client = other.client()
    client.send(told(7, 1))
    client.send(SyncUpdate(update))
    world.run()
    world.wait(1)
    assert rig.room.awareness.owner(7) == b.id
    assert rig.log.rows == []
    world.wait(DEAD_SECONDS, b)
    assert a.cluster.nodes == 2
    world.wait(0.5, b)
    assert a.cluster.nodes == 1
    assert len(rig.room.awareness) == 0
    assert [row.update for row in rig.log.rows] == [update]
    assert a.looks == [None]
    world.wait(10, b)
    assert a.looks == [None], "it dies once"


async def test_a_node_that_was_merely_slow_is_heard_again() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    rig, other = await a.open(), await b.open()
    author = Author(1)
    client = other.client()
    client.send(told(7, 1))
    world.wait(1)
    world.wait(10, b)
    assert a.cluster.nodes == 1
    client.send(SyncUpdate(author.type("x")))
    world.run()
    assert a.cluster.nodes == 2
    assert text_in(rig) == "x"
    client.send(told(7, 9))
    world.run()
    assert rig.room.awareness.owner(7) == b.id


async def test_a_node_that_stood_still_itself_takes_nobody_for_dead_and_greets_all() -> None:
    """What the others said meanwhile has not been read yet, and they took it for dead."""
    world = World()
    a, b = await world.node(), await world.node()
    rig, other = await a.open(), await b.open()
    rig.client().send(told(7, 1))
    other.client().send(told(8, 1))
    world.wait(1)
    world.listen(ROOM)
    world.clock.now += 20
    a.cluster.tick()
    assert a.cluster.nodes == 2
    assert a.looks == []
    assert rig.room.awareness.owner(8) == b.id
    assert a.relay.checks == 0
    world.run()
    assert [envelope.node for _, envelope in world.kinds(Kind.HELLO)] == [a.id]
    world.wait(DEAD_SECONDS + 0.5, b)
    assert a.cluster.nodes == 1, "its silence counts from now on"


async def test_a_node_that_says_good_bye_is_gone_at_once() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    rig, other = await a.open(), await b.open()
    other.client().send(told(7, 1))
    world.wait(1)
    await b.cluster.farewell()
    world.run()
    assert a.cluster.nodes == 1
    assert len(rig.room.awareness) == 0


async def test_a_node_that_said_good_bye_does_not_come_back_by_its_last_beats() -> None:
    """Its rooms and sockets close after that; it would be found silent, with alarm."""
    world = World()
    a, b = await world.node(), await world.node()
    other = await b.open()
    client = other.client()
    client.send(told(7, 1))
    world.wait(1)
    await b.cluster.farewell()
    client.leave()
    world.wait(2)
    assert a.cluster.nodes == 1
    world.wait(10, b)
    assert a.looks == []


async def test_a_good_bye_that_nobody_takes_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(LocalRelay):
        async def flush(self) -> None:
            raise TimeoutError

    world = World()
    cluster = Cluster(Stuck(world.exchange), b"x" * 8, Limits(), world.clock, Counters())
    monkeypatch.setattr(cluster_module, "FAREWELL_SECONDS", 0.01)
    await cluster.farewell()
    assert "good-bye" in caplog.text


# The relay


async def test_a_node_that_does_not_hear_itself_connects_anew() -> None:
    world = World()
    node = await world.node()
    world.wait(30)
    assert node.relay.checks == 0
    node.relay.channels.clear()  # A connection that seems to live, and does not.
    world.wait(3)
    assert node.relay.checks == 0
    world.wait(1)
    assert node.relay.checks == 1


async def test_a_node_that_never_heard_itself_connects_anew() -> None:
    world = World()
    node = await world.node()
    node.relay.channels.clear()
    world.wait(5)
    assert node.relay.checks == 1


async def test_while_the_relay_is_away_nobody_asks_it_to_connect_anew() -> None:
    world = World()
    node = await world.node()
    node.relay.switch(False)
    world.wait(30)
    assert node.relay.checks == 0
    node.relay.switch(True)
    world.wait(30)
    assert node.relay.checks == 0


async def test_what_was_missed_while_the_relay_was_away_is_asked_for_when_it_is_back() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    rig, other = await a.open(), await b.open()
    world.run()
    a.relay.switch(False)
    rig.client().send(SyncUpdate(Author(1).type("x")))
    other.client().send(SyncUpdate(Author(2).type("y")))
    world.run()
    assert (text_in(rig), text_in(other)) == ("x", "y")
    a.relay.switch(True)
    world.wait(1)
    assert text_in(rig) == text_in(other)
    assert sorted(text_in(rig)) == ["x", "y"]


async def test_rooms_say_hello_so_many_a_second_when_the_relay_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_module, "HELLOS_A_TICK", 3)
    world = World()
    node = await world.node()
    names = [f"room {number}" for number in range(7)]
    world.listen(*(f"plait::room:{name}" for name in names))
    for name in names:
        await node.open(name)
    world.run()
    node.relay.switch(False)
    node.relay.switch(True)
    node.cluster.leave(names[1])
    world.run()
    world.heard.clear()
    greeted = []
    for _ in range(4):
        world.wait(1)
        greeted.append([envelope.room for _, envelope in world.kinds(Kind.HELLO)])
    assert greeted == [[names[0], names[2]], names[3:6], names[6:], []]


async def test_rooms_do_not_say_hello_while_the_relay_is_away() -> None:
    world = World()
    node = await world.node()
    world.listen(ROOM)
    await node.open()
    node.relay.switch(False)
    node.relay.switch(True)
    node.relay.switch(False)
    world.run()
    world.heard.clear()
    sent = node.counters.relay_sent
    node.cluster.tick()
    assert node.counters.relay_sent == sent, "nor is it said that the node lives"
    node.relay.switch(True)
    world.wait(1)
    assert len(world.kinds(Kind.HELLO)) == 1


# Rooms


async def test_a_room_that_was_left_is_neither_heard_nor_speaks() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    rig, other = await a.open(), await b.open()
    world.run()
    a.cluster.leave("room")
    assert ROOM not in a.relay.channels
    other.client().send(SyncUpdate(Author(1).type("x")))
    rig.client().send(told(7, 1))
    world.run()
    assert text_in(rig) == ""
    assert len(other.room.awareness) == 0
    a.cluster.leave("room")


async def test_a_room_that_takes_another_s_place_silences_it() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    rig, other = await a.open(), await b.open()
    again = await a.open()
    world.run()
    rig.client().send(told(7, 1))
    again.client().send(told(8, 1))
    world.run()
    assert [entry.client for entry in other.room.awareness.states()] == [8]


async def test_messages_for_rooms_that_are_not_open_are_ignored() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    await a.cluster.enter("room")  # It is being loaded.
    other = await b.open()
    other.client().send(SyncUpdate(Author(1).type("x")))
    world.run()
    rig = await a.open()
    world.run()
    assert text_in(rig) == "x"
    assert a.counters.relay_refused == 0


async def test_rooms_of_other_clusters_on_the_same_redis_are_others() -> None:
    world = World()
    a, b = await world.node("blue"), await world.node("green")
    rig, other = await a.open(), await b.open()
    other.client().send(SyncUpdate(Author(1).type("x")))
    world.wait(2)
    assert text_in(rig) == ""
    assert a.cluster.nodes == 1


async def test_nodes_with_other_stores_have_other_rooms() -> None:
    world = World()
    a, b = await world.node(store="this"), await world.node(store="that")
    rig, other = await a.open(), await b.open()
    other.client().send(SyncUpdate(Author(1).type("x")))
    world.wait(2)
    assert text_in(rig) == ""
    assert a.cluster.nodes == 1


async def test_a_deletion_reaches_the_other_nodes_and_not_the_one_that_tells_it() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    await a.open(), await b.open()
    a.cluster.tell_deleted("room")
    world.run()
    assert (a.deletions, b.deletions) == ([], ["room"])


async def test_a_call_to_look_into_the_store_reaches_the_hub() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    await a.open(), await b.open()
    world.run()
    look = encode_envelope(Envelope(b"other...", Kind.LOOK, "room", 1, 1))
    a.relay.publish(ROOM, seal(look, KEY))
    world.run()
    assert a.looks == b.looks == ["room"]


async def test_what_was_lost_is_counted() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    rig, other = await a.open(), await b.open()
    world.run()
    a.relay.connected = False  # without its being noticed
    other.client().send(SyncUpdate(Author(1).type("x")))
    world.run()
    a.relay.connected = True
    other.client().send(SyncUpdate(Author(2).type("y")))
    world.run()
    assert a.counters.relay_gaps == 1
    assert text_in(rig) == text_in(other)


async def test_what_is_sent_and_received_is_counted_without_one_s_own() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    a.cluster.tick()
    world.run()
    assert (a.counters.relay_sent, a.counters.relay_received) == (1, 0)
    assert (b.counters.relay_sent, b.counters.relay_received) == (0, 1)
    assert a.counters.relay_sent_bytes == b.counters.relay_received_bytes > 10


# What is wrong with others


async def test_garbage_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    node = await world.node()
    await node.open()
    world.run()
    for garbage in (b"", b"x", b"\x01" + b"other..." + b"\xff", b"\x02" * 9):
        node.relay.publish(ROOM, garbage)
    world.run()
    assert node.counters.relay_refused == 4
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 2, "for what is no message, and for another version"
    assert ROOM in errors[0].getMessage()
    assert node.cluster.nodes == 1


async def test_messages_of_another_version_are_ignored(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    node = await world.node()
    await node.open()
    data = encode_envelope(Envelope(b"other...", Kind.DELETED, "room"))
    for _ in range(2):
        node.relay.publish(ROOM, seal(bytes((VERSION + 1,)) + data[1:], KEY))
    world.run()
    assert node.deletions == []
    assert node.counters.relay_refused == 2
    assert caplog.text.count(f"version {VERSION + 1}") == 1


@pytest.mark.parametrize("other", [b"", b"the key of another store"])
async def test_messages_of_who_has_not_got_the_store_are_refused(
    other: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    node = await world.node()
    rig = await node.open()
    typed = encode_updates([("", Author(1).type("x"))])
    made_up = (
        encode_envelope(Envelope(b"other...", Kind.DELETED, "room")),
        encode_envelope(Envelope(b"other...", Kind.UPDATE, "room", 1, 0, typed)),
        encode_envelope(Envelope(b"other...", Kind.NOTICE)),
    )
    for message in made_up:
        node.relay.publish(ROOM, message)
        node.relay.publish(ROOM, seal(message, other))
    world.run()
    assert node.counters.relay_refused == 6
    assert (node.deletions, node.notices) == ([], 0)
    assert text_in(rig) == ""
    assert node.cluster.nodes == 1, "it is not taken for a node"
    assert caplog.text.count("no node of this store") == 1


async def test_a_notice_reaches_the_other_nodes() -> None:
    world = World()
    a, b = await world.node(), await world.node()
    a.cluster.tell_notice()
    world.run()
    assert (a.notices, b.notices) == (0, 1)


async def test_what_a_room_cannot_take_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    a, b = await world.node(), await world.node()
    rig, other = await a.open(), await b.open()
    world.run()
    payload = encode_updates([("", b"\x01\x01\x07")])
    for _ in range(2):
        poison = encode_envelope(Envelope(b.id, Kind.UPDATE, "room", 1, 0, payload))
        b.relay.publish(ROOM, seal(poison, KEY))
    world.run()
    assert a.counters.relay_refused == 2
    assert len(caplog.records) == 1
    other.client().send(SyncUpdate(Author(1).type("x")))
    world.run()
    assert text_in(rig) == "x"


async def test_a_mistake_of_ours_ends_with_the_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    a, b = await world.node(), await world.node()

    def fail(name: str) -> None:
        raise ZeroDivisionError(name)

    monkeypatch.setattr(b, "deleted", fail)
    await a.open(), await b.open()
    a.cluster.tell_deleted("room")
    world.run()
    assert b.counters.relay_refused == 1
    assert "ZeroDivisionError" in caplog.text
