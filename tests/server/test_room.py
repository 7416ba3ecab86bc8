"""A room: who is sent what, and when."""

import asyncio

import pytest

from plait.persistence import DocumentDeleted, LoggedUpdate, StoreUnavailable
from plait.server.document import Applied, Document
from plait.server.errors import (
    DocumentBroken,
    DocumentFull,
    DocumentGone,
    LimitReached,
    RoomUnavailable,
    UpdateRefused,
)
from plait.server.limits import Limits
from plait.server.wire.messages import (
    AwarenessUpdate,
    Message,
    QueryAwareness,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
)
from plait.server.wire.presence import Entry, decode_presence, encode_presence
from plait.server.wire.update import continued, inspect
from tests.support.authors import Author, text_of
from tests.support.rooms import Client, Rig


def presence(message: Message) -> list[Entry]:
    assert isinstance(message, AwarenessUpdate)
    return decode_presence(message.update, 100)


def told(client: int, clock: int, state: bytes | None = b"{}") -> AwarenessUpdate:
    return AwarenessUpdate(encode_presence([Entry(client, clock, state)]))


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


# Updates that come too early, or should not come at all


def test_an_update_without_what_it_builds_upon_is_kept_and_asked_about() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    author = Author(1)
    first, second = author.type("a"), author.type("b")
    ann.send(SyncUpdate(second))
    rig.turn()
    assert ann.received() == [SyncStep1(b"\x00")]
    assert ben.received() == [] and rig.log.rows == []
    ann.send(SyncStep2(first))
    rig.turn()
    rig.turn()
    assert text_of(rig.room.document.encode()) == "ab"
    assert ben.received() == [SyncUpdate(first), SyncUpdate(second)]
    assert len(rig.log.rows) == 2


def test_what_is_held_is_applied_when_somebody_else_brings_what_was_missing() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    author = Author(1)
    first, second = author.type("a"), author.type("b")
    ann.send(SyncUpdate(second))
    ben.send(SyncUpdate(first))
    rig.turn()
    rig.turn()
    assert text_of(rig.room.document.encode()) == "ab"


def test_a_refused_update_reaches_nobody() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    with pytest.raises(UpdateRefused):
        ann.send(SyncUpdate(b"\x01\x00\xc9\xcd\x08\x1b\x00"))
    rig.turn()
    assert ben.received() == [] and rig.log.rows == []


def test_held_updates_are_bounded() -> None:
    rig = Rig(Limits(pending_bytes_max=10))
    ann = rig.client()
    author = Author(1)
    author.type("a")
    with pytest.raises(LimitReached):
        ann.send(SyncUpdate(author.type("b" * 20)))


class Breaking(Document):
    """A document whose pycrdt fails on one update."""

    poison = b""

    def apply(self, update: bytes):  # type: ignore[no-untyped-def]
        if update == self.poison:
            raise DocumentBroken("pycrdt failed")
        return super().apply(update)


async def test_a_document_that_pycrdt_broke_is_loaded_anew_and_all_type_on() -> None:
    rig = Rig()
    broken = Breaking(rig.limits)
    rig.room.document = broken
    ann, ben = rig.client(), rig.client()
    author = Author(1)
    good, bad = author.type("good"), Author(2).type("bad")
    broken.poison = bad
    ben.send(SyncUpdate(good))
    with pytest.raises(UpdateRefused):
        ann.send(SyncUpdate(bad))
    assert [row.update for row in rig.log.rows] == [good], "what came before is on its way"
    assert not rig.room.ready.is_set()
    fresh = Document(rig.limits)
    fresh.apply(good)
    rig.source.documents[0].set_result(fresh)
    await rig.room.ready.wait()
    assert rig.room.document is fresh and not rig.room.dead
    ben.send(SyncUpdate(author.type(" day")))
    assert text_of(rig.room.document.encode()) == "good day"


async def test_a_document_that_cannot_be_loaded_anew_closes_the_room() -> None:
    rig = Rig()
    broken = Breaking(rig.limits)
    broken.poison = Author(2).type("bad")
    rig.room.document = broken
    ann, ben = rig.client(), rig.client()
    with pytest.raises(UpdateRefused):
        ann.send(SyncUpdate(broken.poison))
    rig.source.documents[0].set_exception(StoreUnavailable("gone"))
    await rig.room.ready.wait()
    assert rig.room.dead
    assert isinstance(ben.socket.closed_with, RoomUnavailable)


class Unencodable(Document):
    """A document whose state can't be encoded."""

    def missing(self, state_vector: bytes) -> bytes:
        raise DocumentBroken("the encoded state is not the document's state")


async def test_what_pycrdt_cannot_encode_is_taken_from_the_log() -> None:
    rig = Rig()
    rig.room.document = Unencodable(rig.limits)
    ann = rig.client()
    ann.send(SyncStep1(b"\x00"))
    assert ann.received() == []
    state_vector, future = rig.source.differences[0]
    assert state_vector == b"\x00"
    future.set_result(b"from the log")
    await asyncio.sleep(0)
    assert ann.received() == [SyncStep2(b"from the log")]


# Slow readers


SLOW = Limits(outbox_bytes_high=200, outbox_bytes_low=50, outbox_drain_seconds=5)


def test_a_member_that_stops_reading_gets_one_diff_when_it_reads_again() -> None:
    rig = Rig(SLOW)
    ann, slow = rig.client(), rig.client()
    author = Author(1)
    for number in range(50):
        ann.send(SyncUpdate(author.type(f"word {number} ")))
        rig.turn()
        ann.received()
    assert slow.socket.outbox.bytes < 300
    messages = slow.read()
    updates = [each.update for each in messages if isinstance(each, SyncUpdate | SyncStep2)]
    assert len(updates) < 15
    reader = Author(2)
    for update in updates:
        reader.hear(update)
    assert str(reader.text) == str(author.text)


def test_a_diff_holds_what_was_applied_but_not_sent_in_the_turn_in_which_one_began_to_lag() -> None:
    rig = Rig(SLOW)
    ann, slow = rig.client(), rig.client()
    author = Author(1)
    ann.send(SyncUpdate(author.type("x" * 300)))
    rig.turn()
    assert slow.socket.outbox.lagging_since is not None
    ann.send(SyncUpdate(author.type("y")))
    rig.turn()
    reader = Author(2)
    for each in slow.read():
        if isinstance(each, SyncUpdate | SyncStep2):
            reader.hear(each.update)
    assert str(reader.text) == "x" * 300 + "y"


def test_a_diff_does_not_acknowledge_what_is_not_committed() -> None:
    rig = Rig(SLOW)
    ann, slow = rig.client(), rig.client()
    other, own = Author(1), Author(2)
    ann.send(SyncUpdate(other.type("x" * 300)))
    rig.turn()
    slow.send(SyncUpdate(own.type("mine")))
    rig.turn()
    seen = [each for each in slow.read() if isinstance(each, SyncUpdate | SyncStep2)]
    assert all(b"mine" not in each.update for each in seen)
    rig.log.commit()
    seen = [each for each in slow.read() if isinstance(each, SyncUpdate | SyncStep2)]
    assert any(b"mine" in each.update for each in seen)


def test_an_acknowledgement_that_did_not_fit_comes_with_the_diff() -> None:
    rig = Rig(SLOW)
    ann, slow = rig.client(), rig.client()
    own = Author(2)
    slow.send(SyncUpdate(own.type("mine")))
    rig.turn()
    ann.send(SyncUpdate(Author(1).type("x" * 300)))
    rig.turn()
    rig.log.commit()
    seen = [each for each in slow.read() if isinstance(each, SyncUpdate | SyncStep2)]
    assert any(b"mine" in each.update for each in seen)


def test_presence_that_was_missed_is_told_when_one_reads_again() -> None:
    rig = Rig(SLOW)
    ann, slow = rig.client(), rig.client()
    ann.send(SyncUpdate(Author(1).type("x" * 300)))
    rig.turn()
    ann.send(told(7, 1))
    rig.turn()
    entries = [presence(each) for each in slow.read() if isinstance(each, AwarenessUpdate)]
    assert entries == [[Entry(7, 1, b"{}")]]


def test_who_does_not_read_for_long_is_closed() -> None:
    rig = Rig(SLOW)
    ann, slow = rig.client(), rig.client()
    ann.send(SyncUpdate(Author(1).type("x" * 300)))
    rig.turn()
    rig.clock.now += 5.1
    rig.room.tick()
    assert isinstance(slow.socket.closed_with, RoomUnavailable)
    assert ann.socket.closed_with is None


# Time


def test_a_silent_member_hears_something_before_it_gives_up() -> None:
    rig = Rig()
    ann = rig.client()
    rig.clock.now += 17
    rig.room.tick()
    assert ann.received() == []
    rig.clock.now += 1
    rig.room.tick()
    (message,) = ann.received()
    assert presence(message) == []


def test_presence_that_is_not_renewed_expires_for_all() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    ann.send(told(7, 1))
    rig.turn()
    ben.received()
    rig.clock.now += 31
    rig.room.tick()
    rig.turn()
    assert presence(ben.received()[0]) == [Entry(7, 2, None)]


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
    assert await committed is True
    again = rig.room.apply(update)
    rig.turn()
    rig.log.commit()
    assert await again is False


async def test_an_update_of_a_program_that_is_not_ready_is_refused() -> None:
    rig = Rig()
    author = Author(1)
    author.type("a")
    with pytest.raises(UpdateRefused, match="builds upon"):
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


# A full document


async def full_room() -> tuple[Rig, Author, Client, Client]:
    """Return a room whose document is nearly full, its author, and two members."""
    rig = Rig(Limits(document_bytes_max=1000))
    author = Author(1)
    await rig.room.apply_logged(LoggedUpdate(1, "room", author.type("x" * 900), "", 0))
    rig.turn()
    return rig, author, rig.client(), rig.client()


async def test_a_full_document_takes_no_more_but_its_author_stays_and_is_told() -> None:
    rig, author, ann, ben = await full_room()
    ann.send(SyncUpdate(author.type("y" * 200)))
    rig.turn()
    (frame,) = iter(ann.socket.outbox.take, None)
    assert frame.startswith(b"\x02\x00") and b"document_mb" in frame
    ann.send(SyncUpdate(author.type("z")))
    rig.turn()
    assert ann.socket.outbox.take() is None, "told once, and asked for nothing"
    assert ben.received() == [] and rig.log.rows == []
    assert ann.socket.closed_with is None and not rig.room.busy


async def test_a_full_document_can_be_read_and_others_edit_what_fits_in() -> None:
    rig, author, ann, ben = await full_room()
    ann.send(SyncUpdate(author.type("y" * 200)))
    ben.send(SyncStep1(b"\x00"))
    (answer,) = ben.received()
    assert isinstance(answer, SyncStep2) and text_of(answer.update) == "x" * 900
    small = Author(2).type("z")
    ben.send(SyncUpdate(small))
    rig.turn()
    assert [row.update for row in rig.log.rows] == [small]


async def test_deleting_makes_room_and_what_was_refused_comes_after_all() -> None:
    rig, author, ann, ben = await full_room()
    ann.send(SyncUpdate(author.type("y" * 200)))
    rig.turn()
    list(iter(ann.socket.outbox.take, None))
    other = Author(2)
    other.hear(rig.room.document.encode())
    ben.send(SyncUpdate(other.delete(0, 500)))
    rig.turn()
    rig.clock.now += rig.limits.measure_seconds
    rig.room.tick()
    question = next(each for each in ann.received() if isinstance(each, SyncStep1))
    ann.send(SyncStep2(author.doc.get_update(question.state_vector)))
    rig.turn()
    rig.log.commit()
    assert text_of(rig.room.document.encode()) == "x" * 400 + "y" * 200
    assert any(isinstance(each, SyncUpdate) for each in ann.received()), "acknowledged"


async def test_a_full_document_takes_deletions_of_the_one_who_was_refused() -> None:
    rig, author, ann, _ = await full_room()
    state = author.doc.get_state()
    other = Author(2)
    other.hear(author.state())
    ann.send(SyncUpdate(other.type("y" * 200)))
    ann.send(SyncUpdate(other.delete(0, 10)))
    rig.turn()
    assert len(rig.log.rows) == 1
    assert rig.room.document.state_vector() == state


async def test_the_size_is_that_of_the_content_and_not_of_the_typing() -> None:
    rig = Rig(Limits(document_bytes_max=1000))
    ann, author = rig.client(), Author(1)
    for _ in range(500):
        ann.send(SyncUpdate(author.type("x")))
        rig.clock.now += 1
    rig.turn()
    assert text_of(rig.room.document.encode()) == "x" * 500
    assert len(rig.room.document.encode()) < 600


async def test_nothing_but_reading_depends_on_a_limit_that_was_lowered() -> None:
    rig, author, ann, _ = await full_room()
    for _ in range(3):
        assert await rig.room.apply_logged(LoggedUpdate(2, "room", author.type("y" * 900), "", 0))
    rig.turn()
    with pytest.raises(DocumentFull):
        rig.room.apply(author.type("z"))
    ann.received()
    ann.send(SyncStep1(b"\x00"))
    (answer,) = ann.received()
    assert isinstance(answer, SyncStep2) and len(text_of(answer.update)) == 900 + 3 * 900


# Other nodes


def test_what_another_node_stores_is_sent_to_the_members_and_not_logged() -> None:
    rig = Rig()
    member = rig.client()
    update = Author(1).type("x")
    applied, shape = rig.room.take_in(update)
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
