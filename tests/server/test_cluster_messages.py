"""A node among others: what is told to which room, and what is refused."""

import logging

import pytest

from plait.server.wire.envelope import (
    VERSION,
    Envelope,
    Kind,
    encode_envelope,
    encode_updates,
    seal,
)
from plait.server.wire.messages import SyncUpdate
from tests.support.authors import Author
from tests.support.local_cluster import KEY, ROOM, World, text_in
from tests.support.rooms import told

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
