"""A room among nodes: what is too large for the relay comes by way of the store."""

import pytest

from plait.server import link as link_module
from plait.server.changes import Change
from plait.server.wire.envelope import Kind, decode_diff
from plait.server.wire.update import inspect
from tests.support.authors import Author
from tests.support.link import Net, type_at
from tests.support.rooms import told

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
