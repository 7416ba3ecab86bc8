"""A room among nodes: who is told of an edit, and who can make nothing of what it is told."""

import asyncio

import pytest

from plait.server import link as link_module
from plait.server.document import Document
from plait.server.errors import DecodeError, PlaitError
from plait.server.limits import Limits
from plait.server.link import ASK_SECONDS, AUDIT_SECONDS, DIRECT_MAX
from plait.server.wire.envelope import Envelope, Kind, decode_updates, encode_updates
from plait.server.wire.messages import AwarenessUpdate, SyncUpdate
from plait.server.wire.presence import Entry, encode_presence
from tests.support.authors import Author
from tests.support.hostile import nested_types, nested_values
from tests.support.link import Net, type_at
from tests.support.rooms import told

# Edits


def test_an_edit_reaches_the_clients_of_other_nodes() -> None:
    net = Net()
    a, b = net.node(), net.node()
    reader = b.client()
    update = Author(1).type("hello")
    type_at(net, a, update)
    assert reader.received() == [SyncUpdate(update)]
    assert b.text == "hello"


def test_only_the_node_whose_client_made_it_stores_an_edit_and_tells_of_it() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.said()
    update = Author(1).type("hello")
    client = a.client()
    client.member.who = "ann"
    client.send(SyncUpdate(update))
    net.run()
    (said,) = net.said()
    assert (said.sender, said.target, said.kind) == (a, b, Kind.UPDATE)
    assert decode_updates(said.envelope.payload) == [("ann", update)]
    assert a.rows() == [("ann", update)]
    assert b.rows() == []


def test_a_turn_is_told_in_one_message() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.said()
    ann, ben = a.client(), a.client()
    one, two = Author(1), Author(2)
    for letter in "abc":
        ann.send(SyncUpdate(one.type(letter)))
        ben.send(SyncUpdate(two.type(letter)))
    net.run()
    (said,) = net.said()
    updates = [update for _, update in decode_updates(said.envelope.payload)]
    assert len(updates) == 4, "of each author the first, and what was typed behind that"
    assert b.text == "abcabc"


def test_what_nobody_has_to_be_told_is_not_told() -> None:
    """Repeated updates, and rows that another writer stored."""
    net = Net()
    a, _ = net.node(), net.node()
    update = Author(1).type("hello")
    type_at(net, a, update)
    net.said()
    type_at(net, a, update)
    assert net.said() == []


# 1. Who is told


def test_nobody_is_told_if_nobody_else_has_the_room() -> None:
    net = Net()
    a = net.node()
    net.said()
    type_at(net, a, Author(1).type("a"))
    a.wait(5)
    assert net.said() == []


def test_more_nodes_are_told_by_the_channel_of_the_room() -> None:
    net = Net()
    a, *others = (net.node() for _ in range(2 + DIRECT_MAX))
    net.said()
    type_at(net, a, Author(1).type("a"))
    assert [(each.target, each.kind) for each in net.said()] == [(None, Kind.UPDATE)]
    assert [node.text for node in others] == ["a"] * len(others)


def test_who_closed_the_room_is_told_no_more_and_shows_no_presence() -> None:
    net = Net()
    a, b = net.node(), net.node()
    client = b.client()
    client.send(AwarenessUpdate(encode_presence([Entry(7, 1, b"{}")])))
    net.run()
    assert len(a.rig.room.awareness) == 1
    b.link.leave()
    net.run()
    assert len(a.rig.room.awareness) == 0
    net.said()
    type_at(net, a, Author(1).type("a"))
    assert net.said() == []


def test_a_room_that_was_replaced_is_silent_though_it_ends_a_turn() -> None:
    net = Net()
    a, _ = net.node(), net.node()
    a.link.close()
    net.said()
    type_at(net, a, Author(1).type("x"))
    a.wait(AUDIT_SECONDS + 2)
    assert net.said() == [] and not a.touched


# Documents that are being rebuilt


async def test_a_document_that_is_loaded_anew_hears_nothing_and_says_hello_after() -> None:
    net = Net()
    a, b = net.node(), net.node()
    b.rig.room.rebuild()
    type_at(net, a, Author(1).type("x"))
    a.client().send(told(7, 1))
    net.run()
    assert b.presence() == {}
    net.said()
    b.rig.source.documents[-1].set_result(Document(Limits()))
    await asyncio.sleep(0)
    net.run()
    hello = net.said()[0]
    assert (hello.sender, hello.target, hello.kind) == (b, None, Kind.HELLO)
    assert b.text == "x"
    assert b.presence() == {7: b"{}"}


async def test_a_document_that_is_loaded_anew_keeps_what_is_unsaved_for_who_loads_it() -> None:
    net = Net()
    a, b = net.node(), net.node()
    update = Author(1).type("x")
    type_at(net, a, update)
    b.rig.room.rebuild()
    assert [row.update for row in b.link.unsaved_rows(0)] == [update]


def test_the_room_of_a_deleted_document_hears_nothing() -> None:
    net = Net()
    a, b = net.node(), net.node()
    b.rig.room.dead = True
    net.said()
    type_at(net, a, Author(1).type("x"))
    assert b.text == ""
    assert [said.sender for said in net.said()] == [a]


# The end


def test_a_link_that_is_closed_says_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "TURN_BYTES_MAX", 1)
    net = Net()
    a, _ = net.node(), net.node()
    cursor = type_at(net, a, Author(1).type("x"))
    net.said()
    a.link.close()
    cursor.send(told(7, 1))
    a.commit()
    cursor.leave()
    net.run()
    assert net.said() == []


# What is wrong with others


@pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.PRESENCE, Kind.HELLO, Kind.DIFF, Kind.CORRECT])
def test_a_payload_that_cannot_be_read_is_an_error_and_harms_nobody(kind: Kind) -> None:
    net = Net()
    a, b = net.node(), net.node()
    member = b.client()
    before = b.rig.room.document.encode()
    for payload in (b"", b"\xff", b"\x01\x02\x03", b"\x05\xff\xff\xff\xff\xff\xff"):
        envelope = Envelope(a.node, kind, "room", a.link.seq + 1, a.link.seq, payload)
        with pytest.raises(DecodeError):
            b.link.receive(envelope, b.now)
    net.run()
    assert member.socket.closed_with is None
    assert b.rig.room.document.encode() == before
    type_at(net, a, Author(1).type("x"))
    b.wait(ASK_SECONDS)
    assert b.text == "x"


@pytest.mark.parametrize("poison", [nested_values(30_000), nested_types(3_000), b"\x01\x01\x07"])
def test_a_poison_update_of_another_node_is_refused(poison: bytes) -> None:
    net = Net()
    limits = Limits(nested_types_max=2_000)
    a, b = net.node(limits), net.node(limits)
    member = b.client()
    payload = encode_updates([("", poison)])
    with pytest.raises(PlaitError):
        b.link.receive(Envelope(a.node, Kind.UPDATE, "room", a.link.seq, 0, payload), b.now)
    net.run()
    assert member.received() == []
    assert b.rows() == []
    assert not b.link.borrowed
    type_at(net, b, Author(1).type("x"))
    assert b.text == a.text == "x"
