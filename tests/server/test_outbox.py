"""Back pressure for one socket."""

from plait.server.limits import Limits
from plait.server.outbox import Outbox

LIMITS = Limits(outbox_bytes_high=100, outbox_bytes_low=20, outbox_drain_seconds=5)


def outbox() -> Outbox:
    return Outbox(LIMITS, lambda: None)


def test_frames_come_out_in_order_and_are_counted() -> None:
    box = outbox()
    assert box.push(b"one", 0) and box.push(b"three", 0)
    assert box.bytes == 8
    assert [box.take(), box.take(), box.take()] == [b"one", b"three", None]
    assert box.bytes == 0


def test_it_wakes_whoever_sends() -> None:
    woken: list[bool] = []
    box = Outbox(LIMITS, lambda: woken.append(True))
    box.push(b"x", 0)
    assert woken == [True]


def test_above_the_mark_it_takes_nothing_more() -> None:
    box = outbox()
    assert box.push(b"x" * 101, 7)
    assert box.lagging_since == 7
    assert not box.push(b"y", 8)
    assert box.bytes == 101


def test_it_takes_frames_again_once_it_has_drained() -> None:
    box = outbox()
    box.push(b"x" * 60, 0)
    box.push(b"x" * 60, 0)
    box.take()
    assert not box.drained(), "60 bytes are still above the low mark"
    box.take()
    assert box.drained()
    assert not box.drained(), "it tells once"
    assert box.push(b"y", 0)


def test_presence_stops_at_half_of_the_mark() -> None:
    box = outbox()
    assert box.push_presence(b"p", 0)
    box.push(b"x" * 60, 0)
    assert not box.push_presence(b"p", 0)
    assert box.push(b"x", 0)


def test_a_reader_that_does_not_catch_up_is_overdue() -> None:
    box = outbox()
    assert not box.overdue(1000)
    box.push(b"x" * 101, 10)
    assert not box.overdue(15)
    assert box.overdue(15.1)
