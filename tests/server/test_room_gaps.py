"""A gap in somebody's edits costs nobody anything but what builds on it; and what the document has
with other content is not acknowledged.
"""

import logging

import pytest

from plait.server.errors import UpdateRefused
from plait.server.limits import Limits
from plait.server.pending import ASKS_MAX
from plait.server.updates import merge
from plait.server.wire.messages import Authenticate, SyncStep1, SyncStep2, SyncUpdate
from tests.support.authors import Author, text_of
from tests.support.rooms import Client, Rig

LOST = bytes.fromhex("01010706840705") + b"\x06second\0"
"""Text of client 7 behind its own clocks 0 to 5, which nobody has."""
LOST_DELETION = bytes.fromhex("000107010006")


def settle(rig: Rig) -> None:
    rig.turn()
    rig.log.commit()
    rig.turn()


def acknowledged(client: Client) -> list[bytes]:
    return [each.update for each in client.received() if isinstance(each, SyncUpdate)]


@pytest.mark.parametrize("lost", [LOST, LOST_DELETION])
def test_own_text_is_stored_shown_and_acknowledged_beside_a_gap(lost: bytes) -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    author = Author(1)
    own = author.type("own text")
    ann.send(SyncStep2(merge([own, lost])))
    rig.turn()
    assert [text_of(update) for update in acknowledged(ben)] == ["own text"]
    assert [type(each) for each in ann.received()] == [SyncStep1], "it is asked for what is missing"
    settle(rig)
    assert [text_of(update) for update in acknowledged(ann)] == ["own text"]
    assert [text_of(row.update) for row in rig.log.rows] == ["own text"]
    # Typing goes on as if nothing was the matter.
    more = author.type(" and more")
    ann.send(SyncUpdate(more))
    settle(rig)
    assert acknowledged(ann) == [more] == acknowledged(ben)


def test_no_storm_comes_of_a_gap_that_never_closes() -> None:
    rig = Rig()
    ann = rig.client()
    author = Author(1)
    asked = 0
    for second in range(1000):
        # A client of Yjs answers with its pending structs each time.
        ann.send(SyncUpdate(author.type("x")))
        for _ in range(2):
            settle(rig)
            for message in ann.received():
                if isinstance(message, SyncStep1):
                    asked += 1
                    ann.send(SyncStep2(merge([author.state(), LOST])))
            if not second:
                ann.send(SyncStep2(merge([author.state(), LOST])))
        if second % 5 == 0:
            rig.clock.now += 5
            rig.room.tick()
    assert 1 < asked <= ASKS_MAX
    assert text_of(rig.room.document.encode()) == "x" * 1000


def test_what_is_pending_comes_in_when_anybody_brings_what_was_missing() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    author = Author(7)
    first, second = author.type("first "), author.type("second")
    ann.send(SyncUpdate(second))
    settle(rig)
    assert rig.log.rows == []
    assert acknowledged(ann) == []
    ben.send(SyncUpdate(first))
    rig.turn()
    settle(rig)
    settle(rig)
    assert text_of(rig.room.document.encode()) == "first second"
    assert second in acknowledged(ann)
    assert [row.update for row in rig.log.rows] == [first, second]


def test_what_one_left_behind_comes_in_as_well() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    author = Author(7)
    first, second = author.type("first "), author.type("second")
    ann.send(SyncUpdate(second))
    ann.leave()
    ben.send(SyncUpdate(first))
    rig.turn()
    settle(rig)
    assert [row.update for row in rig.log.rows] == [first, second]


def test_what_one_sent_that_was_sent_away_for_want_of_rights_does_not() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    author = Author(7)
    first, second = author.type("first "), author.type("second")
    ann.send(SyncUpdate(second))
    ann.member.session.permit(False)
    ann.leave()
    ben.send(SyncUpdate(first))
    rig.turn()
    settle(rig)
    assert [row.update for row in rig.log.rows] == [first]


def test_a_gap_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    ann = rig.client()
    counters = rig.room._counters
    with caplog.at_level(logging.WARNING):
        ann.send(SyncUpdate(LOST))
        for _ in range(100):
            rig.clock.now += 5
            rig.room.tick()
    assert "client 7, clocks 0 to 5" in caplog.records[0].getMessage()
    assert f"asked for them {ASKS_MAX} times" in caplog.records[-1].getMessage()
    assert len(caplog.records) == 2
    assert counters.gap_asks == ASKS_MAX and counters.pending_bytes > len(LOST)
    rig.room.unload()
    assert counters.pending_bytes == 0


def test_what_all_rooms_keep_is_bounded() -> None:
    rig = Rig(Limits(all_pending_bytes_max=10))
    ann = rig.client()
    ann.send(SyncUpdate(LOST))
    counters = rig.room._counters
    assert (counters.pending_bytes, counters.pending_dropped) == (0, 1)


# Two authors with one client id


def test_what_is_shadowed_is_not_acknowledged_and_its_author_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    hello, other = Author(7).type("hello"), Author(7)
    ann.send(SyncUpdate(hello))
    settle(rig)
    assert acknowledged(ann) == [hello]
    ben.received()
    ben.send(SyncUpdate(other.type("world")))
    settle(rig)
    (told,) = ben.received()
    assert isinstance(told, Authenticate) and "client id 7" in told.token
    assert "client id 7 is used by several authors" in caplog.text
    # What comes behind it is stored, as in Yjs, and that alone is acknowledged.
    ben.send(SyncUpdate(other.type("!")))
    settle(rig)
    assert len(acknowledged(ben)) == 1
    assert len(rig.log.rows) == 2


def test_typing_beside_what_became_another_authors_value_closes_nobody() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    ann.send(SyncUpdate(bytes.fromhex("010103002801016d016b017d0100")))  # a value of client 3
    settle(rig)
    ben.received()
    # For another client 3 that was text, and somebody types to the left of it.
    typed = bytes.fromhex("010107004403000161" + "00")
    ben.send(SyncUpdate(typed))
    settle(rig)
    assert ben.socket.closed_with is None
    messages = ben.received()
    assert SyncUpdate(typed) not in messages
    assert any(isinstance(each, Authenticate) for each in messages), "it is told"
    ben.send(SyncUpdate(Author(8).type("goes on")))
    settle(rig)
    assert "goes on" in text_of(rig.room.document.encode())


def test_of_a_state_only_what_is_stored_is_acknowledged() -> None:
    rig = Rig()
    ann, ben = rig.client(), rig.client()
    ann.send(SyncUpdate(Author(7).type("hello")))
    settle(rig)
    ann.received(), ben.received()
    mine = Author(8).type("mine")
    ben.send(SyncStep2(merge([Author(7).type("world"), mine])))
    settle(rig)
    assert [text_of(each) for each in acknowledged(ben)] == ["mine"]
    ben.send(SyncStep2(merge([Author(7).type("world"), mine])))
    settle(rig)
    assert [text_of(each) for each in acknowledged(ben)] == ["mine"], "it has that"


async def test_a_program_is_told_what_was_left_out() -> None:
    rig = Rig()
    update = merge([Author(1).type("own"), LOST])
    committed = rig.room.apply(update)
    settle(rig)
    receipt = await committed
    assert receipt.changed and receipt.left_bytes == len(LOST)
    assert receipt.missing == ((7, 0, 6),)
    again = rig.room.apply(update)
    settle(rig)
    receipt = await again
    assert not receipt.changed and receipt.missing == ((7, 0, 6),) and receipt.shadowed == ()
    other = rig.room.apply(Author(1).type("owl"))
    settle(rig)
    receipt = await other
    assert not receipt.changed and receipt.shadowed == ((1, 0, 3),)
    with pytest.raises(UpdateRefused, match="clocks 0 to 5"):
        rig.room.apply(LOST)
