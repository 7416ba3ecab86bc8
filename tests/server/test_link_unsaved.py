"""A room among nodes: who stores an edit, and who does when the one that should have cannot."""

import pytest

from plait.server import link as link_module
from plait.server.link import AUDIT_SECONDS, BORROWED_SECONDS
from plait.server.wire.envelope import Kind
from plait.server.wire.messages import SyncUpdate
from tests.support.authors import Author
from tests.support.link import Net, type_at

# 4. What other nodes have not stored yet


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
    assert not (await committed).changed


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
