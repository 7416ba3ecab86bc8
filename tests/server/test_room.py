"""A room: who is sent what, and when."""

import pytest

from plait.persistence import DocumentDeleted, LoggedUpdate
from plait.server.document import Applied
from plait.server.errors import DocumentGone, UpdateRefused
from plait.server.wire.messages import QueryAwareness, SyncStep1, SyncStep2, SyncUpdate
from plait.server.wire.presence import Entry
from plait.server.wire.update import continued, inspect
from tests.support.authors import Author, text_of
from tests.support.rooms import Client, Rig, presence, told

# Coming and going


def test_a_new_member_is_asked_for_what_it_has_and_told_who_is_here() -> None:
    rig = Rig()
    first = Client(rig)
    assert first.received() == [SyncStep1(b"\x00")]
    first.send(told(7, 1))
    second = Client(rig)
    question, who = second.received()
    assert question == SyncStep1(b"\x00")
    assert presence(who) == [Entry(7, 1, b"{}")]


def test_a_member_is_sent_what_it_misses_even_if_that_is_nothing() -> None:
    rig = Rig()
    member = rig.client()
    member.send(SyncStep1(b"\x00"))
    assert member.received() == [SyncStep2(b"\x00\x00")]


def test_presence_goes_to_everybody_its_sender_included() -> None:
    """y-websocket takes the connection for dead unless it hears its own renewals."""
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    ann.send(told(7, 1))
    rig.turn()
    for member in (ann, ben):
        (message,) = member.received()
        assert presence(message) == [Entry(7, 1, b"{}")]


def test_presence_of_a_turn_is_told_at_once_and_only_the_newest() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    for clock in range(1, 4):
        ann.send(told(7, clock))
        ben.send(told(8, clock))
    ann.send(told(7, 4, None))
    rig.turn()
    for member in (ann, ben):
        (message,) = member.received()
        assert presence(message) == [Entry(7, 4, None), Entry(8, 3, b"{}")]
    assert ben.received() == []


def test_who_leaves_takes_its_presence_along() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    ann.send(told(7, 1))
    rig.turn()
    ben.received()
    ann.leave()
    rig.turn()
    (message,) = ben.received()
    assert presence(message) == [Entry(7, 2, None)]


def test_who_asks_is_told_who_is_here() -> None:
    rig = Rig()
    ann = rig.client()
    ann.send(QueryAwareness())
    (message,) = ann.received()
    assert presence(message) == []


# The way of an update


def test_an_update_reaches_the_others_at_the_end_of_the_turn() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    update = Author(1).type("hello")
    ann.send(SyncUpdate(update))
    assert ben.received() == []
    rig.turn()
    assert ben.received() == [SyncUpdate(update)]


def test_its_author_gets_it_back_only_when_it_is_committed() -> None:
    rig = Rig()
    ann = rig.client()
    update = Author(1).type("hello")
    ann.send(SyncUpdate(update))
    rig.turn()
    assert ann.received() == []
    rig.log.commit()
    assert ann.received() == [SyncUpdate(update)]


def test_the_clients_own_bytes_are_stored() -> None:
    rig = Rig()
    ann = rig.client()
    update = Author(1).type("hello")
    ann.send(SyncUpdate(update))
    rig.turn()
    (row,) = rig.log.rows
    assert (row.document, row.update, row.at_ms) == ("room", update, 1_000_000)


def test_the_updates_of_a_turn_are_one_frame_and_one_transaction() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    author = Author(1)
    words = [author.type(word) for word in ("a", "b", "c")]
    for word in words:
        ann.send(SyncUpdate(word))
    rig.turn()
    (message,) = ben.received()
    assert isinstance(message, SyncUpdate)
    assert text_of(message.update) == "abc"
    first, stretch = rig.log.rows
    assert text_of(first.update) == "a"
    assert stretch.update == continued(words[1], words[2])


def test_two_authors_of_a_turn_hear_of_each_other_only() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    one, two = Author(1).type("one"), Author(2).type("two")
    ann.send(SyncUpdate(one))
    ben.send(SyncUpdate(two))
    rig.turn()
    assert ann.received() == [SyncUpdate(two)]
    assert ben.received() == [SyncUpdate(one)]
    rig.log.commit()
    assert ann.received() == [SyncUpdate(one)]


def test_what_is_known_is_acknowledged_but_neither_forwarded_nor_stored() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    update = Author(1).type("hello")
    ann.send(SyncUpdate(update))
    rig.turn()
    rig.log.commit()
    ann.received(), ben.received()
    ann.send(SyncUpdate(update))
    rig.turn()
    assert len(rig.log.rows) == 1
    assert ben.received() == ann.received() == []
    rig.log.commit()
    assert ann.received() == [SyncUpdate(update)]
    assert ben.received() == []


def test_a_repeated_update_is_not_acknowledged_before_the_first_is_committed() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    update = Author(1).type("hello")
    ann.send(SyncUpdate(update))
    rig.turn()
    ben.received()
    ben.send(SyncUpdate(update))
    rig.turn()
    assert ben.received() == []
    rig.log.commit()
    assert ben.received() == [SyncUpdate(update)]


def test_who_left_before_the_commit_is_not_missed() -> None:
    rig = Rig()
    ann = rig.client()
    ann.send(SyncUpdate(Author(1).type("hello")))
    ann.leave()
    rig.turn()
    rig.log.commit()
    assert len(rig.log.rows) == 1
    assert ann.received() == []


# Updates from elsewhere


async def test_an_update_of_a_program_reaches_the_members_and_is_done_when_committed() -> None:
    rig = Rig()
    ann = rig.client()
    update = Author(1).type("hello")
    committed = rig.room.apply(update, "script")
    rig.turn()
    assert ann.received() == [SyncUpdate(update)]
    assert [row.who for row in rig.log.rows] == ["script"]
    assert not committed.done()
    rig.log.commit()
    assert (await committed).changed
    again = rig.room.apply(update)
    rig.turn()
    rig.log.commit()
    assert not (await again).changed


async def test_an_update_of_a_program_that_is_not_ready_is_refused() -> None:
    rig = Rig()
    author = Author(1)
    author.type("a")
    with pytest.raises(UpdateRefused, match="client 1, clocks 0 to 0"):
        rig.room.apply(author.type("b"))


async def test_what_another_writer_stored_is_forwarded_but_not_stored_again() -> None:
    rig = Rig()
    ann = rig.client()
    update = Author(1).type("hello")
    assert await rig.room.apply_logged(LoggedUpdate(1, "room", update, "", 0))
    rig.turn()
    assert ann.received() == [SyncUpdate(update)]
    assert rig.log.rows == []


# The store fails


async def test_a_deleted_document_sends_its_members_away() -> None:
    rig = Rig()
    ann = rig.client()
    ann.send(SyncUpdate(Author(1).type("hello")))
    waiting = rig.room.apply(Author(2).type("hello"))
    rig.turn()
    rig.log.fail(DocumentDeleted.of("room"))
    assert isinstance(ann.socket.closed_with, DocumentGone)
    with pytest.raises(DocumentDeleted):
        await waiting
    assert not rig.room.busy
    assert rig.room.dead, "who comes now asks the store"


# Other nodes


def test_what_another_node_stores_is_sent_to_the_members_and_not_logged() -> None:
    rig = Rig()
    member = rig.client()
    update = Author(1).type("x")
    applied, shape, *_ = rig.room.take_in(update)
    assert (applied, shape.runs) == (Applied.CHANGED, inspect(update).runs)
    assert rig.room.take_in(update)[0] is Applied.KNOWN
    rig.turn()
    assert member.received() == [SyncUpdate(update)]
    assert rig.log.rows == []


def test_what_another_node_stores_is_not_taken_in_before_what_it_builds_upon() -> None:
    rig = Rig()
    author = Author(1)
    author.type("x")
    assert rig.room.take_in(author.type("y"))[0] is Applied.PENDING
    with pytest.raises(UpdateRefused):
        rig.room.take_in(b"\xff\xff")


def test_a_difference_for_another_node_may_be_too_much() -> None:
    rig = Rig()
    update = Author(1).type("x" * 100)
    rig.room.take_in(update)
    missing = rig.room.difference(b"\x00", 1000)
    assert missing is not None
    assert text_of(missing) == "x" * 100
    assert rig.room.difference(b"\x00", len(missing)) == missing
    assert rig.room.difference(b"\x00", len(missing) - 1) is None
    rig.room.intake.applying = True
    assert rig.room.difference(b"\x00", 1000) is None


def test_a_document_that_is_loaded_anew_or_deleted_is_of_no_use_to_other_nodes() -> None:
    rig = Rig()
    assert rig.room.usable
    rig.room.ready.clear()
    assert not rig.room.usable
    rig.room.ready.set()
    rig.room.dead = True
    assert not rig.room.usable
