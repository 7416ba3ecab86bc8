"""A room: updates that come too early, should not come at all, or find the document full."""

import asyncio

import pytest

from plait.persistence import LoggedUpdate, StoreUnavailable
from plait.server.document import Document
from plait.server.errors import (
    DocumentBroken,
    DocumentFull,
    RoomUnavailable,
    UpdateRefused,
)
from plait.server.limits import Limits
from plait.server.wire.messages import SyncStep1, SyncStep2, SyncUpdate
from tests.support.authors import Author, text_of
from tests.support.rooms import Client, Rig

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


def denied(client: Client) -> list[str]:
    """Return what a client is told that is not done."""
    frames = []
    while (frame := client.socket.outbox.take()) is not None:
        frames.append(frame)
    return [frame[3:].decode() for frame in frames if frame.startswith(b"\x02\x00")]


def deep(tag: int, content: bytes) -> bytes:
    """Return an update with one struct in a root type."""
    return b"\x01\x01\x07\x00" + bytes((tag,)) + b"\x01\x01t" + content + b"\x00"


async def test_what_a_document_can_t_hold_is_not_done_and_its_author_stays() -> None:
    rig = Rig(Limits(nested_types_max=0, any_depth_max=3))
    ann, ben = rig.client(), rig.client()
    for update, reason in (
        (deep(8, b"\x01" + b"\x75\x01" * 4 + b"\x7e"), "Values are nested deeper than 3 levels."),
        (deep(5, b"\x08[[[[]]]]"), "An embed or a format is nested deeper than 3 levels."),
        (deep(7, b"\x01"), "a document may have 0 shared types; split it up"),
    ):
        client = rig.client()
        for _ in range(3):
            client.send(SyncUpdate(update))
        assert denied(client) == [reason]
    ann.send(SyncUpdate(Author(5).type("goes on")))
    rig.turn()
    assert len(ben.received()) == 1 and len(rig.log.rows) == 1
    for _ in range(5):
        rig.clock.now += 60
        rig.room.tick()
    assert not any(isinstance(each, SyncStep1) for each in client.received()), "it would repeat it"


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
    ann.send(SyncUpdate(bad))
    assert denied(ann) == ["the update can't be applied to this document"]
    assert [row.update for row in rig.log.rows] == [good], "what came before is on its way"
    assert not rig.room.ready.is_set()
    fresh = Document(rig.limits)
    fresh.apply(good)
    rig.source.documents[0].set_result(fresh)
    await rig.room.ready.wait()
    assert rig.room.document is fresh and not rig.room.dead
    ben.send(SyncUpdate(author.type(" day")))
    assert text_of(rig.room.document.encode()) == "good day"
    rig.room.document = broken
    with pytest.raises(UpdateRefused):
        ann.send(SyncUpdate(bad))  # Once is forgiven, twice is malice.


async def test_a_document_that_cannot_be_loaded_anew_closes_the_room() -> None:
    rig = Rig()
    broken = Breaking(rig.limits)
    broken.poison = Author(2).type("bad")
    rig.room.document = broken
    ann, ben = rig.client(), rig.client()
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
