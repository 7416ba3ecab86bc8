"""A connection: frames in, frames out, and errors as close codes."""

import pytest

from plait.server.connection import Connection
from plait.server.counters import Counters
from plait.server.errors import CloseCode, LimitReached, PlaitError, RoomUnavailable
from plait.server.limits import Limits
from plait.server.wire.messages import SyncStep1
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support.authors import Author
from tests.support.rooms import Rig


def connect(rig: Rig) -> Connection:
    connection = Connection(rig.limits, lambda: None, rig.clock.monotonic)
    connection.join(rig.room, YWEBSOCKET)
    return connection


def test_a_frame_becomes_a_message_to_the_room() -> None:
    rig = Rig()
    connection = connect(rig)
    connection.receive(YWEBSOCKET.sync_update(Author(1).type("hello")))
    rig.turn()
    assert len(rig.log.rows) == 1


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", CloseCode.MALFORMED),
        (b"\x09", CloseCode.MALFORMED),
        (b"\x00\x02\x05abc", CloseCode.MALFORMED),
        (YWEBSOCKET.sync_update(b"not an update"), CloseCode.UPDATE_REFUSED),
        (YWEBSOCKET.sync_step1(b"\xff"), CloseCode.MALFORMED),
        (YWEBSOCKET.awareness(b"\x01\x01\x01\x03{x}"), CloseCode.MALFORMED),
    ],
)
def test_a_bad_frame_closes_its_sender_and_nobody_else(frame: bytes, code: CloseCode) -> None:
    rig = Rig()
    bad, good = connect(rig), connect(rig)
    bad.receive(frame)
    assert bad.closing is not None and bad.closing.code == code and bad.closing.reason
    assert good.closing is None
    assert len(rig.room.members) == 1


def test_a_failure_of_ours_closes_with_1011_and_tells_no_secrets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("an internal detail")

    rig = Rig()
    connection = connect(rig)
    monkeypatch.setattr(rig.room, "receive", fail)
    connection.receive(YWEBSOCKET.sync_step1(b"\x00"))
    assert connection.closing is not None
    assert connection.closing.code == CloseCode.INTERNAL_ERROR
    assert "detail" not in connection.closing.reason
    assert "an internal detail" in caplog.text


def test_the_first_reason_for_closing_decides() -> None:
    connection = connect(Rig())
    connection.close(RoomUnavailable("first"))
    connection.close(PlaitError("second"))
    assert connection.closing is not None and connection.closing.reason == "first"


def test_a_reason_fits_into_a_close_frame_and_stays_utf8() -> None:
    connection = connect(Rig())
    connection.close(PlaitError("é" * 100))
    assert connection.closing is not None
    assert connection.closing.reason == "é" * 61


def test_a_closed_connection_takes_no_frames() -> None:
    rig = Rig()
    connection = connect(rig)
    connection.close(PlaitError("enough"))
    connection.receive(YWEBSOCKET.sync_update(Author(1).type("hello")))
    rig.turn()
    assert rig.log.rows == []


def test_one_socket_can_be_in_several_rooms() -> None:
    one, two = Rig(), Rig()
    connection = Connection(
        Limits(), lambda: None, one.clock.monotonic, address_of=lambda frame: chr(frame[-1])
    )
    connection.join(one.room, YWEBSOCKET, address="a")
    connection.join(two.room, YWEBSOCKET, address="b")
    connection.receive(YWEBSOCKET.sync_step1(b"a"))
    assert connection.closing is not None, "'a' is no state vector, but it was room a's"
    assert not one.room.members and not two.room.members


def test_who_sends_more_than_its_quota_has_to_wait_and_nobody_else() -> None:
    rig = Rig(Limits(frames_per_second=10))
    loud, quiet = connect(rig), connect(rig)
    ann, ben = Author(7), Author(8)
    for author in (ann, ben):
        quiet.receive(YWEBSOCKET.sync_update(author.type("hello")))
    for _ in range(rig.limits.frames_burst):
        loud.receive(YWEBSOCKET.sync_step1(b"\x00"))
    assert not loud.waiting
    assert not loud.receive(YWEBSOCKET.sync_update(ann.type(" there"))) and loud.waiting
    assert rig.room.document.clocks() == {7: 11, 8: 5}, "what came is taken in all the same"
    assert quiet.receive(YWEBSOCKET.sync_update(ben.type("!"))) and not quiet.waiting
    rig.clock.now += 1
    assert not loud.waiting and loud.closing is None
    assert loud.receive(YWEBSOCKET.sync_update(ann.type("!")))
    for _ in range(100):
        loud.spend(1)
    assert loud.waiting, "pings count as well"


def test_what_a_connection_does_is_counted_once() -> None:
    rig, counters = Rig(), Counters()
    left, closed = (
        Connection(rig.limits, lambda: None, rig.clock.monotonic, counters=counters)
        for _ in range(2)
    )
    left.receive(b"\x00\x00\x01\x00")
    left.lost()
    left.lost()
    closed.close(LimitReached("enough", limit="presence"))
    closed.close(PlaitError("again"))
    closed.lost()
    assert (counters.opened, counters.frames_received, counters.bytes_received) == (2, 1, 4)
    assert counters.closed == {"4400": 1, "4429": 1}, "the first spoke to a room it is not in"
    assert counters.limits["presence"] == 1


def test_a_message_to_no_room_is_refused() -> None:
    connection = Connection(Limits(), lambda: None, lambda: 0.0)
    connection.receive(YWEBSOCKET.sync_step1(b"\x00"))
    assert connection.closing is not None and connection.closing.code == CloseCode.MALFORMED


def test_taking_frames_brings_a_lagging_member_up_to_date() -> None:
    rig = Rig(Limits(outbox_bytes_high=200, outbox_bytes_low=50))
    connection, other = connect(rig), rig.client()
    author = Author(1)
    for _ in range(20):
        other.send(YWEBSOCKET.decode(YWEBSOCKET.sync_update(author.type("words "))))
        rig.turn()
    reader = Author(2)
    while (frame := connection.take()) is not None:
        message = YWEBSOCKET.decode(frame)
        if not isinstance(message, SyncStep1):
            reader.hear(message.update)  # type: ignore[union-attr]
    assert str(reader.text) == str(author.text)


async def test_it_waits_for_rooms_that_load_their_document_anew() -> None:
    rig = Rig()
    connection = connect(rig)
    rig.room.ready.clear()
    waiting = connection.ready()
    with pytest.raises(TimeoutError):
        import asyncio

        async with asyncio.timeout(0):
            await waiting
    rig.room.ready.set()
    await connection.ready()
