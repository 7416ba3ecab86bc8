"""A room: members that do not read, or are silent for long."""

from plait.server.errors import RoomUnavailable
from plait.server.limits import Limits
from plait.server.wire.messages import AwarenessUpdate, SyncStep2, SyncUpdate
from plait.server.wire.presence import Entry
from tests.support.authors import Author
from tests.support.rooms import Rig, presence, told

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
