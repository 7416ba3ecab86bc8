"""Typing takes a short cut through connection, room and document; what comes out has to be the same
as without it.
"""

import asyncio
import random
from collections.abc import Callable

import pytest

from plait.server.connection import Connection
from plait.server.document import Applied, Document
from plait.server.errors import DocumentBroken
from plait.server.limits import Limits
from plait.server.outbox import Outbox
from plait.server.room import Room
from plait.server.wire.messages import SyncStep1, SyncStep2, SyncUpdate
from plait.server.wire.update import inspect, typed
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support.authors import Author, text_of
from tests.support.deadlines import eventually
from tests.support.frames import update as frame_of
from tests.support.rooms import Rig


class Socket(Outbox):
    """An outbox that sends at once, as a direct socket's does while it is read."""

    __slots__ = ("sent",)

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits, lambda: None)
        self.sent: list[bytes] = []
        self.fast = self._written

    def push(self, frame: bytes, now: float) -> bool:
        self.sent.append(frame)
        return True

    def _written(self, data: bytes) -> None:
        self.sent.append(data[2 if data[1] < 126 else 4 :])  # without the header of a short frame


class Typist:
    """A connection to a room, frame by frame."""

    def __init__(self, rig: Rig) -> None:
        self.box = Socket(rig.limits)
        self.connection = Connection(rig.limits, lambda: None, rig.clock.monotonic, outbox=self.box)
        self.connection.join(rig.room, YWEBSOCKET)


def history(seed: int) -> list[tuple[int, bytes]]:
    """Return frames, each with who sends it: typing, and everything else that occurs."""
    chance = random.Random(seed)
    authors = [Author(number + 1) for number in range(3)]
    updates: list[bytes] = []
    frames: list[tuple[int, bytes]] = []
    for _ in range(60):
        who = chance.randrange(3)
        author = authors[who]
        text = str(author.text)
        # pycrdt counts bytes; between those of one character it writes what no document can hold.
        at = len(text[: chance.randint(0, len(text))].encode())
        match chance.randrange(8):
            case 0 if text.isascii() and at + 2 <= len(text):
                del author.text[at : at + 2]
            case 1:
                author.text.insert(at, chance.choice(["é", "日本", "ab"]))
            case 2 if updates:  # again, or one of somebody else's
                frames.append((who, YWEBSOCKET.sync_update(chance.choice(updates))))
                continue
            case 3:
                for update in updates:
                    author.hear(update)
                continue
            case 4:
                author.map["key"] = chance.random()
            case 5:
                author.text += "long " * 40
            case _:
                author.text.insert(at, chance.choice("abc xyz"))
        update = author.take()
        updates.append(update)
        frames.append((who, YWEBSOCKET.sync_update(update)))
    if chance.random() < 0.5:  # what builds upon something comes before it
        place = chance.randrange(len(frames) - 1)
        frames[place], frames[place + 1] = frames[place + 1], frames[place]
    return frames


def play(
    frames: list[tuple[int, bytes]], seed: int
) -> tuple[list[list[bytes]], list[bytes], bytes]:
    """Return what each of four was sent, what was logged, and the state."""
    chance, rig = random.Random(seed), Rig()
    typists = [Typist(rig) for _ in range(4)]
    for who, frame in frames:
        typists[who].connection.receive(frame)
        if chance.random() < 0.6:
            rig.turn()
        if chance.random() < 0.2:
            rig.log.commit()
    rig.turn()
    rig.log.commit()
    assert not any(each.connection.closing for each in typists)
    state = rig.room.document.encode()
    return [each.box.sent for each in typists], [row.update for row in rig.log.rows], state


@pytest.mark.parametrize("seed", range(60))
def test_the_short_cut_leads_to_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = history(seed)
    taken = []
    receive = Room.receive_plain

    def counted(*args: object) -> bool:
        taken.append(receive(*args))  # type: ignore[arg-type]
        return taken[-1]

    monkeypatch.setattr(Room, "receive_plain", counted)
    sent, rows, state = play(frames, seed)
    assert True in taken and False in taken, "both ways are tried"
    monkeypatch.setattr(Room, "receive_plain", lambda *_: False)
    assert play(frames, seed) == (sent, rows, state)


def test_what_was_typed_is_there_before_the_turn_ends() -> None:
    rig = Rig()
    ann, author = Typist(rig), Author(1)
    for word in ("one ", "two ", "three "):
        ann.connection.receive(YWEBSOCKET.sync_update(author.type(word)))
    joiner = rig.client()
    joiner.send(SyncStep1(b"\x00"))
    answers = [each for each in joiner.received() if isinstance(each, SyncStep2)]
    assert text_of(answers[0].update) == "one two three "
    rig.turn()
    assert text_of(rig.room.document.encode()) == "one two three "


def test_acknowledgements_of_one_commit_come_together() -> None:
    rig = Rig()
    ann, author = Typist(rig), Author(1)
    for word in ("one ", "two ", "three "):
        ann.connection.receive(YWEBSOCKET.sync_update(author.type(word)))
        rig.turn()
    ann.box.sent.clear()
    rig.log.commit()
    (frame,) = ann.box.sent
    message = YWEBSOCKET.decode(frame)
    assert isinstance(message, SyncUpdate)
    assert text_of(message.update) == "one two three "


def test_only_typing_is_typed() -> None:
    author = Author(1)
    first, second = author.type("hello"), author.type(" world")
    assert typed(first) is None, "it is the first of its text: there is nothing before it"
    assert typed(second) == inspect(second)
    for other in (author.delete(0, 2), b"", b"\x01\x01", second + b"\x00", second[:-1]):
        assert typed(other) is None


def test_typing_that_does_not_follow_on_is_left_alone() -> None:
    author, document = Author(1), Document(Limits())
    first, second, third = author.type("a"), author.type("b"), author.type("c")
    assert document.apply_typed(second) is None
    document.apply(first)
    assert document.apply_typed(third) is None
    assert document.apply_typed(second) == inspect(second)
    assert document.apply_typed(second) is None
    assert document.apply(second)[0] is Applied.KNOWN
    assert document.clocks() == {1: 2}
    assert text_of(document.encode()) == "ab"


class _Panicking:
    """A transaction that fails at its end."""

    def commit(self) -> None:
        raise RuntimeError("panic")

    def drop(self) -> None:
        pass


def loaded_anew(rig: Rig) -> Document:
    """Return a document with what was logged."""
    document = Document(rig.limits)
    for row in rig.log.rows:
        document.apply(row.update)
    return document


async def test_what_was_typed_in_a_turn_that_pycrdt_cannot_end_is_tried_again_alone() -> None:
    """It was logged and forwarded at once, though it might be what pycrdt had failed on."""
    rig = Rig()
    ann, ben, author = Typist(rig), Typist(rig), Author(1)
    first, second = (YWEBSOCKET.sync_update(author.type(word)) for word in ("one ", "two "))
    ann.connection.receive(first)
    rig.turn()
    rig.log.commit()
    ann.connection.receive(second)
    rig.room.document._typing = _Panicking()  # type: ignore[assignment]
    rig.turn()
    assert not rig.room.ready.is_set()
    assert second not in ben.box.sent and len(rig.log.rows) == 1
    rig.source.documents[0].set_result(loaded_anew(rig))
    await rig.room.ready.wait()
    rig.turn()
    rig.log.commit()
    assert second in ben.box.sent and second in ann.box.sent
    assert len(rig.log.rows) == 2
    assert text_of(rig.room.document.encode()) == "one two "
    assert ann.connection.closing is None and ben.connection.closing is None


async def test_what_pycrdt_fails_on_at_the_end_of_a_turn_reaches_neither_others_nor_the_log() -> (
    None
):
    rig = Rig()
    ann, eve, ben = Typist(rig), Typist(rig), Typist(rig)
    good, bad = Author(1), Author(2)
    for typist, author in ((ann, good), (eve, bad)):
        typist.connection.receive(YWEBSOCKET.sync_update(author.type("start ")))
        rig.turn()
    fine, poison = good.type("fine"), bad.type("poison")
    ann.connection.receive(YWEBSOCKET.sync_update(fine))
    eve.connection.receive(YWEBSOCKET.sync_update(poison))
    rig.room.document._typing = _Panicking()  # type: ignore[assignment]
    rig.turn()
    for number in range(3):  # It fails on the poison, in whichever order it is given the two.
        if len(rig.source.documents) == number:
            break
        document = loaded_anew(rig)
        apply = document._to_pycrdt

        def failing(
            update: bytes, *, watch: bool = False, apply: Callable[..., bool] = apply
        ) -> bool:
            if update == poison:
                raise DocumentBroken("panic")
            return apply(update, watch=watch)

        document._to_pycrdt = failing  # type: ignore[method-assign]
        rig.source.documents[number].set_result(document)
        await rig.room.ready.wait()
        await asyncio.sleep(0)
        rig.turn()
    assert YWEBSOCKET.denied("the update can't be applied to this document") in eve.box.sent
    assert eve.connection.closing is None
    assert ann.connection.closing is None and ben.connection.closing is None
    assert poison not in [row.update for row in rig.log.rows]
    assert YWEBSOCKET.sync_update(poison) not in ben.box.sent
    assert YWEBSOCKET.sync_update(fine) in ben.box.sent


async def test_what_another_node_relayed_in_such_a_turn_reaches_members_all_the_same() -> None:
    rig = Rig()
    ben, author = Typist(rig), Author(1)
    before, theirs = author.type("before "), author.type("theirs")
    rig.room.take_in(before)
    rig.turn()
    ben.box.sent.clear()
    rig.room.take_in(theirs)
    rig.room.document._typing = _Panicking()  # type: ignore[assignment]
    rig.turn()
    assert not rig.room.ready.is_set()
    document = loaded_anew(rig)
    document.apply(before)
    document.apply(theirs)  # which its node has stored meanwhile
    rig.source.documents[0].set_result(document)
    await rig.room.ready.wait()
    (sent,) = (frame for frame in ben.box.sent if frame.startswith(b"\x00\x01"))
    assert b"theirs" in sent
    assert rig.log.rows == []


def test_a_document_that_breaks_in_the_middle_of_typing_is_broken() -> None:
    author, document = Author(1), Document(Limits())
    document.apply(author.type("a"))

    class Failing:
        def create_transaction(self) -> _Panicking:
            return _Panicking()

        def apply_update(self, transaction: object, update: bytes) -> None:
            raise RuntimeError("panic")

    document._doc = Failing()  # type: ignore[assignment]
    with pytest.raises(DocumentBroken):
        document.apply_typed(author.type("b"))


@pytest.mark.parametrize("remote", [False, True], ids=["broken", "moved to another process"])
async def test_what_is_typed_while_the_document_is_loaded_anew_is_in_the_next_one(
    remote: bool,
) -> None:
    """It was applied to the old document, stored and acknowledged, and nobody who came later saw it
    until the room was unloaded.
    """
    rig = Rig()
    ann, ben = Typist(rig), Typist(rig)
    author, other = Author(1), Author(2)
    ann.connection.receive(frame_of(author.type("one")))
    rig.turn()
    rig.log.commit()
    rig.room.rebuild(remote=remote)
    loaded = Document(rig.limits)
    for row in rig.log.rows:
        loaded.apply(row.update)
    for typist, update in ((ann, author.type(" two")), (ben, other.type("!"))):
        more = typist.connection.receive(frame_of(update))
        assert not more and typist.connection.waiting, "its socket is not to be read"
    rig.turn()
    assert len(rig.log.rows) == 1, "nothing is stored that may not be in the document"
    rig.source.documents[0].set_result(loaded)
    await eventually(lambda: not ann.connection.waiting)
    rig.turn()
    rig.log.commit()
    assert sorted(text_of(rig.room.document.encode())) == sorted("one two!")
    assert len(rig.log.rows) == 3
    for typist in (ann, ben):
        assert typist.connection.closing is None
        (membership,) = typist.connection._memberships.values()
        assert membership[1].unacknowledged == 0


async def test_a_large_update_waits_for_the_document_that_is_loaded_anew() -> None:
    """More than may be held of an update that is not ready; it would be refused for ever."""
    rig = Rig(Limits(pending_bytes_max=1000))
    ann = Typist(rig)
    rig.room.rebuild()
    ann.connection.receive(frame_of(Author(1).type("x" * 100_000)))
    assert ann.connection.closing is None and ann.connection.waiting
    assert rig.room.intake.busy
    rig.source.documents[0].set_result(Document(rig.limits))
    await eventually(lambda: rig.source.cuts)
