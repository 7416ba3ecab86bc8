"""A room among nodes: what is said, what is lost, and that all come to the same in the end."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import pytest

from plait.server import link as link_module
from plait.server.changes import Change
from plait.server.document import Document
from plait.server.errors import DecodeError, PlaitError
from plait.server.limits import Limits
from plait.server.link import ASK_SECONDS, AUDIT_SECONDS, BORROWED_SECONDS, DIRECT_MAX, Link
from plait.server.wire.envelope import (
    Envelope,
    Kind,
    decode_diff,
    decode_envelope,
    decode_hello,
    decode_updates,
    encode_envelope,
    encode_updates,
)
from plait.server.wire.messages import AwarenessUpdate, Message, SyncUpdate
from plait.server.wire.presence import Entry, decode_presence, encode_presence
from plait.server.wire.update import inspect
from tests.support.authors import Author, text_of
from tests.support.hostile import nested_types, nested_values
from tests.support.rooms import Client, Rig


class Said(NamedTuple):
    """A message, and for whom; None for all."""

    sender: "Node"
    target: "Node | None"
    envelope: Envelope

    @property
    def kind(self) -> Kind:
        return self.envelope.kind


class Net:
    """Carries what nodes say, and loses what a test wants lost. Unrealistic: nothing is said while
    the nodes are in the middle of a turn.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.log: list[Said] = []
        self.loses: Callable[[Said, Node], bool] = lambda said, to: False
        self._queue: list[Said] = []

    def node(self, limits: Limits | None = None) -> "Node":
        """Return a further node that has opened the room, after all has been delivered."""
        node = Node(self, limits)
        self.run()
        return node

    def add(self, said: Said) -> None:
        self.log.append(said)
        self._queue.append(said)

    def run(self) -> None:
        """Deliver until nothing is left to be said."""
        while True:
            for node in self.nodes:
                node.rig.turn()
            if not self._queue:
                return
            queue, self._queue = self._queue, []
            for said in queue:
                data = encode_envelope(said.envelope)
                for node in self.nodes:
                    if node is said.sender or said.target not in (None, node):
                        continue
                    if not self.loses(said, node):
                        node.link.receive(decode_envelope(data), node.now)

    def lose(self, *kinds: Kind, to: "Node | None" = None) -> None:
        """Lose messages of these kinds; all, without kinds."""
        self.loses = lambda said, node: (
            (not kinds or said.kind in kinds) and (to is None or node is to)
        )

    def heal(self) -> None:
        """Lose nothing any more."""
        self.loses = lambda said, to: False

    def said(self, *kinds: Kind) -> list[Said]:
        """Return what was said since the last call, of some kinds; forget all of it."""
        log, self.log = self.log, []
        return [said for said in log if not kinds or said.kind in kinds]


class Node:
    """A node that has the room open; implements `link.Outlet`."""

    def __init__(self, net: Net, limits: Limits | None) -> None:
        self._net = net
        self.node = bytes((len(net.nodes) + 1,)) * 8
        net.nodes.append(self)
        self.rig = Rig(limits)
        self.touched = False
        self.looks = 0
        self.losses = 0
        self.link = Link(self.rig.room, self, self.rig.limits, self.now)
        self.rig.room.link = self.link
        self.link.hello(fresh=True)

    def __repr__(self) -> str:
        return f"node {self.node[0]}"

    @property
    def now(self) -> float:
        return self.rig.clock.monotonic()

    @property
    def text(self) -> str:
        return text_of(self.rig.room.document.encode())

    def say(self, envelope: Envelope) -> None:
        self._net.add(Said(self, None, envelope))

    def tell(self, node: bytes, envelope: Envelope) -> None:
        (target,) = [each for each in self._net.nodes if each.node == node]
        self._net.add(Said(self, target, envelope))

    def look(self, room: str) -> None:
        assert room == "room"
        self.looks += 1

    def touch(self, link: Link) -> None:
        assert link is self.link
        self.touched = True

    def lost(self, room: str, node: bytes) -> None:
        assert room == "room"
        self.losses += 1

    def wait(self, seconds: float) -> None:
        """Let time pass, second by second; then all is delivered."""
        end = self.rig.clock.now + seconds
        while self.rig.clock.now < end:
            self.rig.clock.now = min(self.rig.clock.now + 1, end)
            if self.touched:
                self.touched = self.link.tick(self.now)
        self._net.run()

    def commit(self) -> None:
        """Store everything, and deliver what follows."""
        self.rig.log.commit()
        self._net.run()

    def commit_first(self) -> None:
        """Store the oldest turn alone, and deliver what follows."""
        self.rig.log.commit_first()
        self._net.run()

    def rows(self) -> list[tuple[str, bytes]]:
        return [(row.who, row.update) for row in self.rig.log.rows]

    def client(self) -> Client:
        return self.rig.client()

    def presence(self) -> dict[int, bytes | None]:
        return {entry.client: entry.state for entry in self.rig.room.awareness.states()}


def told(client: int, clock: int, state: bytes | None = b"{}") -> AwarenessUpdate:
    return AwarenessUpdate(encode_presence([Entry(client, clock, state)]))


def presence(message: Message) -> list[Entry]:
    assert isinstance(message, AwarenessUpdate)
    return decode_presence(message.update, 100)


def type_at(net: Net, node: Node, update: bytes) -> Client:
    """Have a new client of a node send an update."""
    client = node.client()
    client.send(SyncUpdate(update))
    net.run()
    return client


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


# 1. Gaps


def test_who_lost_something_asks_the_node_that_said_it_alone() -> None:
    net = Net()
    a, b, c = net.node(), net.node(), net.node()
    author = Author(1)
    net.lose(Kind.UPDATE, to=b)
    type_at(net, a, author.type("one "))
    net.heal()
    net.said()
    type_at(net, a, author.type("two"))
    *updates, hello, diff = net.said()
    assert [(each.sender, each.target) for each in updates] == [(a, b), (a, c)]
    assert (hello.sender, hello.target, hello.kind) == (b, a, Kind.HELLO)
    assert decode_hello(hello.envelope.payload).wants
    assert (diff.sender, diff.target, diff.kind) == (a, b, Kind.DIFF)
    assert b.text == c.text == "one two"
    assert (a.losses, b.losses, c.losses) == (0, 1, 0)


def test_a_gap_is_noticed_though_what_follows_does_not_build_upon_it() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose(Kind.UPDATE)
    type_at(net, a, Author(1).type("x"))
    net.heal()
    type_at(net, a, Author(2).type("y"))
    assert sorted(b.text) == ["x", "y"]


def test_a_gap_shows_by_presence_as_well() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose(Kind.UPDATE)
    client = type_at(net, a, Author(1).type("x"))
    net.heal()
    client.send(told(1, 1))
    net.run()
    assert b.text == "x"


def test_what_follows_without_a_gap_leads_to_no_question() -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    net.said()
    for letter in "abc":
        type_at(net, a, author.type(letter)).send(told(7, ord(letter)))
        net.run()
    assert {said.kind for said in net.said()} == {Kind.UPDATE, Kind.PRESENCE}
    assert b.losses == 0


def test_after_an_answer_the_count_goes_on() -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    net.lose(Kind.UPDATE)
    type_at(net, a, author.type("a"))
    net.heal()
    type_at(net, a, author.type("b"))
    net.said()
    type_at(net, a, author.type("c"))
    assert [said.kind for said in net.said()] == [Kind.UPDATE]
    assert (b.text, b.losses) == ("abc", 1)


def test_a_message_that_comes_late_leads_to_no_question() -> None:
    net = Net()
    a, b = net.node(), net.node()
    type_at(net, a, Author(1).type("a"))
    late = net.said(Kind.UPDATE)[0].envelope
    type_at(net, a, Author(2).type("b"))
    net.said()
    b.link.receive(late, b.now)
    net.run()
    assert net.said() == []


def test_a_node_is_asked_once_and_again_if_it_does_not_answer() -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    net.lose(Kind.UPDATE)
    type_at(net, a, author.type("a"))
    net.lose(Kind.DIFF)
    for letter in "bcd":
        type_at(net, a, author.type(letter))
    net.said()
    type_at(net, a, author.type("e"))
    assert net.said(Kind.HELLO) == []
    assert b.losses == 1
    b.wait(ASK_SECONDS - 0.5)
    assert net.said(Kind.HELLO) == []
    net.heal()
    b.wait(0.5)
    (hello,) = net.said(Kind.HELLO)
    assert (hello.sender, hello.target) == (b, a)
    assert b.text == "abcde"
    b.wait(10 * ASK_SECONDS)
    assert net.said(Kind.HELLO) == []


def test_what_was_typed_before_others_came_is_not_told_to_be_saved_too_early() -> None:
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("before"))
    b = net.node()
    type_at(net, a, Author(2).type("after"))
    assert len(b.link.borrowed.rows()) == 2
    a.commit()
    a.wait(2)
    assert not b.link.borrowed


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


def test_who_closes_the_room_tells_what_is_saved_so_that_nobody_stores_it_again() -> None:
    net = Net()
    a, b = net.node(), net.node()
    type_at(net, a, Author(1).type("x"))
    a.commit()
    assert b.link.borrowed
    a.link.leave()
    net.run()
    b.wait(BORROWED_SECONDS + 2)
    assert not b.link.borrowed and b.rows() == []


def test_a_room_that_was_replaced_is_silent_though_it_ends_a_turn() -> None:
    net = Net()
    a, _ = net.node(), net.node()
    a.link.close()
    net.said()
    type_at(net, a, Author(1).type("x"))
    a.wait(AUDIT_SECONDS + 2)
    assert net.said() == [] and not a.touched


def test_who_was_not_heard_of_is_found_half_a_minute_later() -> None:
    """Until then the store is the way between them."""
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("a"))
    net.lose(Kind.HELLO)
    b = net.node()
    net.heal()
    type_at(net, a, Author(2).type("b"))
    a.wait(AUDIT_SECONDS + 1)
    assert sorted(b.text) == ["a", "b"]
    assert b.losses == 0


def test_who_does_not_know_where_a_node_s_count_is_asks_and_counts_no_loss() -> None:
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("a"))
    net.lose(Kind.DIFF)
    b = net.node()
    net.heal()
    type_at(net, a, Author(2).type("b"))
    assert sorted(b.text) == ["a", "b"]
    assert b.losses == 0


def test_a_fresh_hello_brings_the_count_along() -> None:
    net = Net()
    a = net.node()
    net.lose(Kind.DIFF)  # so that the hello of b is all that a knows of it
    b = net.node()
    net.heal()
    net.said()
    a.link.hello(wants=False)
    net.run()
    assert [said.kind for said in net.said() if (said.sender, said.target) == (a, b)] == [Kind.DIFF]
    type_at(net, b, Author(1).type("a"))
    assert [said.kind for said in net.said()] == [Kind.UPDATE]
    assert a.text == "a"


def test_a_node_that_opened_the_room_again_is_taken_at_its_new_count() -> None:
    net = Net()
    a, b = net.node(), net.node()
    for _ in range(3):
        type_at(net, a, Author(len(net.log)).type("x"))
    a.link.close()
    for ahead in (5.0, -7.0):  # Clocks of machines that were started anew begin anew.
        a.link = Link(a.rig.room, a, a.rig.limits, a.now + ahead)
        a.rig.room.link = a.link
        a.link.hello(fresh=True)
        net.run()
        net.said()
        type_at(net, a, Author(100 + int(ahead)).type("y"))
        assert [said.kind for said in net.said()] == [Kind.UPDATE]
    assert b.losses == 0


# 2. Hellos


def test_a_room_that_is_opened_learns_what_is_not_in_the_store() -> None:
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("unsaved"))
    net.said()
    b = net.node()
    assert b.text == "unsaved"
    hello, diff = net.said()
    assert (hello.sender, hello.target, hello.kind) == (b, None, Kind.HELLO)
    assert decode_hello(hello.envelope.payload).fresh
    assert (diff.sender, diff.target, diff.kind) == (a, b, Kind.DIFF)


def test_who_has_less_than_who_says_hello_asks_it() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose()
    type_at(net, a, Author(1).type("x"))
    type_at(net, b, Author(2).type("y"))
    net.heal()
    a.link.hello()
    net.run()
    assert a.text == b.text
    assert sorted(a.text) == ["x", "y"]


def test_who_lacks_what_one_who_says_hello_has_of_others_asks_it() -> None:
    """It was lost here, and its node cannot be asked any more."""
    net = Net()
    a, b, c = net.node(), net.node(), net.node()
    net.lose(to=b)
    type_at(net, c, Author(1).type("x"))
    net.loses = lambda said, node: c in (said.sender, node)
    assert (a.text, b.text) == ("x", "")
    net.said()
    a.link.hello(wants=False)
    net.run()
    assert b.text == "x"
    questions = [said for said in net.said(Kind.HELLO) if said.target is not None]
    assert [(said.sender, said.target) for said in questions] == [(b, a)]


def test_a_hello_that_wants_no_answer_gets_one_only_if_something_is_missing() -> None:
    net = Net()
    a, b = net.node(), net.node()
    type_at(net, a, Author(1).type("x"))
    net.said()
    b.link.hello(wants=False)
    net.run()
    assert [said.kind for said in net.said()] == [Kind.HELLO]
    net.lose()
    type_at(net, a, Author(2).type("y"))
    net.heal()
    net.said()
    b.link.hello(wants=False)
    net.run()
    assert net.said(Kind.DIFF) != []
    assert a.text == b.text


# 3. Losses of what was said last


def test_that_something_is_saved_is_told_after_a_second_and_once() -> None:
    net = Net()
    a, _ = net.node(), net.node()
    type_at(net, a, Author(1).type("x"))
    net.said()
    a.wait(1)
    assert net.said() == [], "nothing was committed"
    a.commit()
    assert net.said() == []
    a.wait(1)
    (saved,) = net.said()
    assert saved.kind is Kind.SAVED
    assert saved.envelope.saved == saved.envelope.seq
    a.wait(5)
    assert net.said() == []


def test_that_something_is_saved_is_told_with_the_next_edit() -> None:
    net = Net()
    a, b = net.node(), net.node()
    type_at(net, a, Author(1).type("x"))
    a.commit()
    second = Author(2).type("y")
    type_at(net, a, second)
    assert [update for _, update in b.link.borrowed.rows()] == [second]


def test_the_loss_of_the_last_message_shows_when_it_is_told_to_be_saved() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose(Kind.UPDATE)
    type_at(net, a, Author(1).type("x"))
    net.heal()
    a.commit()
    assert b.text == ""
    a.wait(2)
    assert b.text == "x"
    assert b.losses == 1


def test_a_hello_half_a_minute_after_the_last_edit_heals_what_is_left() -> None:
    net = Net()
    a, b = net.node(), net.node()
    net.lose(Kind.UPDATE, Kind.SAVED)
    type_at(net, a, Author(1).type("x"))
    a.commit()
    net.said()
    a.wait(AUDIT_SECONDS)
    assert [said.kind for said in net.said()] == [Kind.SAVED]
    assert b.text == ""
    a.wait(1)
    hello = net.said()[0]
    assert hello.kind is Kind.HELLO
    assert not decode_hello(hello.envelope.payload).wants
    assert b.text == "x"
    a.wait(10 * AUDIT_SECONDS)
    assert net.said() == [], "once is enough"
    assert not a.touched


def test_who_goes_on_typing_is_audited_half_a_minute_after_the_end() -> None:
    net = Net()
    a, _ = net.node(), net.node()
    author = Author(1)
    for letter in "abc":
        type_at(net, a, author.type(letter))
        a.commit()
        net.said()
        a.wait(AUDIT_SECONDS - 1)
        assert net.said(Kind.HELLO) == []


def test_a_deletion_travels_and_its_loss_is_healed_though_no_state_vector_shows_it() -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    type_at(net, a, author.type("abcdef"))
    a.commit()
    type_at(net, a, author.delete(0, 2))
    assert b.text == "cdef"
    net.lose(Kind.UPDATE)
    type_at(net, a, author.delete(0, 2))
    net.heal()
    assert b.text == "cdef"
    a.commit()
    a.wait(2)
    assert b.text == "ef"


def test_a_deletion_s_loss_is_healed_by_the_hello_half_a_minute_later() -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    type_at(net, a, author.type("abc"))
    net.lose(Kind.UPDATE, Kind.SAVED)
    type_at(net, a, author.delete(0, 2))
    a.commit()
    a.wait(AUDIT_SECONDS + 1)
    assert b.text == "c"


# 4. What other nodes have not stored yet


def test_what_is_built_upon_an_unsaved_edit_is_stored_with_it_by_the_same_node() -> None:
    net = Net()
    a, b = net.node(), net.node()
    ann, ben = Author(1), Author(2)
    first = ann.type("x")
    writer = a.client()
    writer.member.who = "ann"
    writer.send(SyncUpdate(first))
    net.run()
    ben.hear(first)
    second = ben.type("y")
    type_at(net, b, second)
    assert b.rows() == [("ann", first), ("", second)]
    assert not b.link.borrowed
    type_at(net, b, ben.type("z"))
    assert len(b.rows()) == 3


def test_an_edit_that_builds_upon_nothing_unsaved_is_stored_alone() -> None:
    net = Net()
    a, b = net.node(), net.node()
    type_at(net, a, Author(1).type("x"))
    update = Author(2).type("y")
    type_at(net, b, update)
    assert b.rows() == [("", update)]
    assert b.link.borrowed


def test_what_a_node_that_died_had_not_stored_is_stored_by_those_who_have_it() -> None:
    net = Net()
    a, b, c = net.node(), net.node(), net.node()
    update, other = Author(1).type("x"), Author(2).type("y")
    type_at(net, a, update)
    type_at(net, c, other)
    b.link.gone(a.node)
    assert b.rows() == [("", update)]
    assert b.link.borrowed.rows() == [("", other)]


def test_what_a_node_has_stored_is_not_stored_again() -> None:
    net = Net()
    a, b = net.node(), net.node()
    ann, ben = Author(1), Author(2)
    first = ann.type("x")
    type_at(net, a, first)
    a.commit()
    a.wait(2)
    assert not b.link.borrowed
    ben.hear(first)
    second = ben.type("y")
    type_at(net, b, second)
    b.link.gone(a.node)
    assert b.rows() == [("", second)]


def test_while_edits_go_on_the_next_one_tells_what_is_saved() -> None:
    net = Net()
    a, b = net.node(), net.node()
    ann = Author(1)
    for _ in range(5):
        type_at(net, a, ann.type("x"))
        a.commit()
        net.said()
        a.wait(1)
        assert net.said(Kind.SAVED) == []
    assert len(b.link.borrowed.rows()) == 1, "all but the last"
    a.wait(1)
    assert len(net.said(Kind.SAVED)) == 1
    assert not b.link.borrowed


def test_when_too_much_is_unsaved_it_is_stored_here(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net()
    a, b = net.node(), net.node()
    author = Author(1)
    first, second = author.type("x" * 100), author.type("y" * 100)
    monkeypatch.setattr(link_module, "BORROWED_BYTES_MAX", len(first) + len(second) - 1)
    type_at(net, a, first)
    assert b.rows() == []
    type_at(net, a, second)
    assert b.rows() == [("", first), ("", second)]
    assert b.link.borrowed.size == 0


def test_what_a_node_does_not_store_for_long_is_stored_here() -> None:
    """It may have lost the store, and live."""
    net = Net()
    a, b = net.node(), net.node()
    first, second = Author(1).type("x"), Author(2).type("y")
    type_at(net, a, first)
    b.wait(5)
    type_at(net, a, second)
    b.wait(BORROWED_SECONDS - 5)
    assert b.rows() == []
    b.wait(1)
    assert b.rows() == [("", first), ("", second)]
    assert not b.link.borrowed
    b.commit()
    b.wait(AUDIT_SECONDS)
    assert not b.touched


def test_what_an_answer_brought_and_nobody_stores_for_long_is_stored_here() -> None:
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("x"))
    b = net.node()
    b.wait(BORROWED_SECONDS)
    assert b.rows() == []
    b.wait(1)
    assert len(b.rows()) == 1


def test_a_client_that_repeats_an_unsaved_edit_is_acknowledged_when_it_is_stored_here() -> None:
    """An acknowledgement means stored; the node that took the edit first may be dying."""
    net = Net()
    a, b = net.node(), net.node()
    update = Author(1).type("x")
    type_at(net, a, update)
    again = type_at(net, b, update)
    assert b.rows() == [("", update)]
    assert again.received() == []
    b.commit()
    assert again.received() == [SyncUpdate(update)]


async def test_a_request_that_repeats_an_unsaved_edit_waits_until_it_is_stored_here() -> None:
    net = Net()
    a, b = net.node(), net.node()
    update = Author(1).type("x")
    type_at(net, a, update)
    committed = b.rig.room.apply(update)
    net.run()
    assert b.rows() == [("", update)]
    assert not committed.done()
    b.commit()
    assert await committed is False


def test_an_answer_tells_only_what_is_stored_or_will_be_by_the_node_that_answers() -> None:
    net = Net()
    a, b = net.node(), net.node()
    update = Author(1).type("x")
    type_at(net, a, update)
    net.loses = lambda said, to: said.sender is a or to is a  # which dies
    c = net.node()
    assert c.text == "x"
    assert b.rows() == [("", update)], "or it would not be, were c told that all of b's is saved"
    assert c.link.borrowed
    c.link.gone(b.node)
    assert len(c.rows()) == 1
    b.commit()
    b.wait(1)
    assert not c.link.borrowed


def test_who_was_answered_lets_go_when_that_is_told_to_be_saved() -> None:
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("x"))
    b = net.node()
    assert b.link.borrowed
    a.commit()
    assert b.link.borrowed
    a.wait(2)
    assert not b.link.borrowed


def test_an_answer_of_what_is_stored_is_not_kept() -> None:
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("x"))
    a.commit()
    b = net.node()
    assert b.text == "x"
    assert not b.link.borrowed


def test_unsaved_edits_are_rows_for_who_reads_the_store() -> None:
    net = Net()
    a, b = net.node(), net.node()
    update = Author(1).type("x")
    type_at(net, a, update)
    (row,) = b.link.unsaved_rows(5)
    assert (row.document, row.update, row.at_ms) == ("room", update, 5)


# 5. What is too large for the relay


def test_a_large_turn_is_looked_for_in_the_store_after_its_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "TURN_BYTES_MAX", 200)
    net = Net()
    a, b = net.node(), net.node()
    net.said()
    type_at(net, a, Author(1).type("x" * 300))
    a.wait(5)
    assert net.said() == []
    assert (b.looks, b.text) == (0, "")
    a.commit()
    (look,) = net.said()
    assert look.kind is Kind.LOOK
    assert look.envelope.saved == look.envelope.seq
    assert b.looks == 1


def test_an_update_that_is_logged_in_parts_is_looked_for_in_the_store() -> None:
    net = Net()
    a, _ = net.node(), net.node()
    net.said()
    update = Author(1).type("x")
    turn = [Change(update, inspect(update), parts=[update])]
    a.rig.room.saving.store(turn)
    a.link.turn(turn)
    net.run()
    assert net.said() == []
    a.commit()
    assert [said.kind for said in net.said()] == [Kind.LOOK]


def test_small_turns_after_a_large_one_are_not_told_to_be_saved_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "TURN_BYTES_MAX", 200)
    net = Net()
    a, b = net.node(), net.node()
    type_at(net, a, Author(1).type("x" * 300))
    small = Author(2).type("y")
    type_at(net, a, small)
    a.wait(3)
    assert [update for _, update in b.link.borrowed.rows()] == [small]
    net.said()
    a.commit()
    a.wait(1)
    assert [said.kind for said in net.said()] == [Kind.LOOK, Kind.SAVED]
    assert not b.link.borrowed
    assert b.losses == 0


def test_a_lost_call_to_look_shows_like_any_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "TURN_BYTES_MAX", 200)
    net = Net()
    a, b = net.node(), net.node()
    type_at(net, a, Author(1).type("x" * 300))
    net.lose(Kind.LOOK)
    a.commit()
    net.heal()
    type_at(net, a, Author(2).type("y"))
    assert b.losses == 1
    assert b.text == a.text


def test_who_lacks_much_is_sent_to_the_store_once_all_of_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "DIFF_BYTES_MAX", 100)
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("x" * 300))
    a.client().send(told(7, 1))
    net.run()
    net.said()
    b = net.node()
    a.wait(1)
    assert net.said(Kind.DIFF) == []
    assert b.looks == 0
    a.commit()
    (said,) = net.said(Kind.DIFF)
    assert decode_diff(said.envelope.payload).stored
    assert (b.looks, b.text) == (1, "")
    assert b.presence() == {7: b"{}"}


def test_who_lacks_much_that_is_stored_is_sent_to_the_store_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "DIFF_BYTES_MAX", 100)
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("x" * 300))
    a.commit()
    assert net.node().looks == 1


def test_who_lacks_much_is_answered_though_others_go_on_typing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a busy room there is always something that is not committed yet."""
    monkeypatch.setattr(link_module, "DIFF_BYTES_MAX", 100)
    net = Net()
    a = net.node()
    type_at(net, a, Author(1).type("x" * 300))
    b = net.node()
    assert b.looks == 0
    saving = a.rig.room.saving
    type_at(net, a, Author(2).type("y"))
    a.commit_first()
    assert saving.unsaved
    assert b.looks == 1


def test_nobody_is_told_by_an_answer_of_a_large_turn_that_is_not_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would count as stored, and what is built upon it could be lost with its node."""
    monkeypatch.setattr(link_module, "TURN_BYTES_MAX", 200)
    net = Net()
    a = net.node()
    update = Author(1).type("x" * 300)
    type_at(net, a, update)
    b = net.node()
    assert b.link.borrowed.rows() == [("", update)]
    a.commit()
    a.wait(2)
    assert not b.link.borrowed


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
