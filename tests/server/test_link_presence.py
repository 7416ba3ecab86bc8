"""A room among nodes: who is present at which of them."""

from plait.server.limits import Limits
from plait.server.wire.envelope import Kind, decode_diff
from plait.server.wire.presence import Entry, decode_presence
from tests.support.link import Net
from tests.support.rooms import presence, told

# 6. Presence


def test_presence_is_told_to_the_clients_of_other_nodes_and_belongs_to_the_node() -> None:
    net = Net()
    a, b = net.node(), net.node()
    watcher = b.client()
    cursor = a.client()
    cursor.send(told(7, 1))
    net.run()
    assert presence(watcher.received()[0]) == [Entry(7, 1, b"{}")]
    assert b.rig.room.awareness.owner(7) == a.node
    cursor.leave()
    net.run()
    assert presence(watcher.received()[0]) == [Entry(7, 2, None)]


def test_presence_of_a_turn_is_told_in_one_message_and_not_told_again() -> None:
    net = Net()
    a, _ = net.node(), net.node()
    net.said()
    first, second = a.client(), a.client()
    first.send(told(7, 1))
    first.send(told(7, 2))
    second.send(told(8, 1))
    net.run()
    (said,) = net.said()
    assert said.kind is Kind.PRESENCE
    entries = decode_presence(said.envelope.payload, 10)
    assert entries == [Entry(7, 2, b"{}"), Entry(8, 1, b"{}")]


def test_one_who_comes_learns_who_is_present_at_each_node() -> None:
    net = Net()
    a, b = net.node(), net.node()
    for node, client in ((a, 7), (b, 8)):
        node.client().send(told(client, 1))
    net.run()
    net.said()
    c = net.node()
    assert c.presence() == {7: b"{}", 8: b"{}"}
    answers = {
        said.sender: decode_presence(decode_diff(said.envelope.payload).presence, 9)
        for said in net.said(Kind.DIFF)
    }
    assert answers == {a: [Entry(7, 1, b"{}")], b: [Entry(8, 1, b"{}")]}


def test_one_who_says_hello_tells_who_is_present_there() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose()
    b.client().send(told(8, 1))
    net.run()
    net.heal()
    b.link.hello()
    net.run()
    assert a.presence() == {8: b"{}"}


def test_the_presence_of_a_node_that_is_gone_goes() -> None:
    net = Net()
    a, b, c = net.node(), net.node(), net.node()
    for node, client in ((a, 7), (c, 8), (b, 9)):
        node.client().send(told(client, 1))
    net.run()
    watcher = b.client()
    net.said()
    b.link.gone(a.node)
    net.run()
    assert presence(watcher.received()[0]) == [Entry(7, 2, None)]
    assert set(b.presence()) == {8, 9}
    assert net.said() == [], "the others notice themselves"


def test_an_answer_holds_all_of_a_node_s_presence() -> None:
    """So what is not in it has gone."""
    net = Net()
    a, b = net.node(), net.node()
    first, second = a.client(), a.client()
    first.send(told(7, 1))
    second.send(told(8, 1))
    b.client().send(told(9, 1))
    net.run()
    net.lose()
    first.leave()
    net.run()
    net.heal()
    assert set(b.presence()) == {7, 8, 9}
    watcher = b.client()
    b.link.hello()
    net.run()
    assert set(b.presence()) == {8, 9}
    assert presence(watcher.received()[0]) == [Entry(7, 2, None)]


def test_a_client_that_others_hold_for_gone_is_told_so_and_announces_itself_anew() -> None:
    net = Net()
    a, b = net.node(), net.node()
    cursor, other = a.client(), a.client()
    cursor.send(told(7, 5))
    net.run()
    cursor.received(), other.received()
    b.link.gone(a.node)  # It was merely slow.
    a.link.hello()
    net.run()
    messages = cursor.received()
    assert messages
    assert all(presence(message) == [Entry(7, 6, None)] for message in messages)
    assert other.received() == []
    assert b.presence() == {}
    cursor.send(told(7, 7))
    net.run()
    assert b.presence() == {7: b"{}"}


def test_a_node_that_was_held_for_dead_is_asked_when_it_is_heard_again() -> None:
    """All its clients announce themselves anew then, not only the one that moved."""
    net = Net()
    a, b = net.node(), net.node()
    moving, still = a.client(), a.client()
    moving.send(told(7, 1))
    still.send(told(8, 1))
    net.run()
    b.link.gone(a.node)
    net.run()
    still.received()
    net.said()
    moving.send(told(7, 3))
    net.run()
    (hello,) = net.said(Kind.HELLO)
    assert (hello.sender, hello.target) == (b, a)
    assert [Entry(8, 2, None)] in [presence(message) for message in still.received()]


def test_a_client_that_moves_to_another_node_stays_present() -> None:
    net = Net()
    a, b, c = net.node(), net.node(), net.node()
    before, after = a.client(), b.client()
    before.send(told(7, 1))
    net.run()
    after.send(told(7, 2))
    net.run()
    before.leave()
    net.run()
    for node in (a, b, c):
        assert node.presence() == {7: b"{}"}
        node.link.gone(a.node)
        assert node.presence() == {7: b"{}"}


def test_presence_of_a_whole_node_may_be_more_than_one_connection_may_tell() -> None:
    net = Net()
    limits = Limits(awareness_states_max=2)
    a, b = net.node(limits), net.node(limits)
    for client in range(5):
        a.client().send(told(client, 1))
    net.run()
    assert len(b.presence()) == 5
