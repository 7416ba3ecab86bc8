"""A node among others: who lives, who does not, and what is said when the relay comes back."""

import pytest

from plait.server import cluster as cluster_module
from plait.server.cluster import DEAD_SECONDS, Cluster
from plait.server.counters import Counters
from plait.server.limits import Limits
from plait.server.relay import LocalRelay
from plait.server.wire.envelope import Kind
from plait.server.wire.messages import SyncUpdate
from tests.support.authors import Author
from tests.support.local_cluster import ROOM, World, text_in
from tests.support.rooms import told

ALL = "plait::nodes"


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
