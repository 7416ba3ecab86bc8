"""When a receiver is told."""

from plait.persistence import DocumentInfo, Event
from plait.server.webhook_pace import (
    AT_ONCE,
    GIVE_UP_MS,
    PAUSE_MS_MAX,
    RETRY_MS_MAX,
    Pace,
    quiet_at,
    retry_at,
)

NOW = 1_790_000_000_000
HOUR = 3_600_000


def info(modified_ms: int, deleted_ms: int | None = None) -> DocumentInfo:
    return DocumentInfo("a", 0, modified_ms, 1, 1, 0, 1, 1, deleted_ms)


def test_a_change_is_told_when_the_document_was_left_alone() -> None:
    event = Event("a", "changed", NOW - 5_000)
    assert quiet_at(event, info(NOW - 1_000), NOW, 2_000, 30_000) == NOW + 1_000
    assert quiet_at(event, info(NOW - 3_000), NOW, 2_000, 30_000) <= NOW
    # It goes on, but not for ever.
    event = Event("a", "changed", NOW - 29_500)
    assert quiet_at(event, info(NOW), NOW, 2_000, 30_000) == NOW + 500
    assert quiet_at(event, info(NOW), NOW + 500, 2_000, 30_000) <= NOW + 500
    assert quiet_at(Event("a", "changed", NOW), info(NOW), NOW, 0, 30_000) <= NOW


def test_a_deleted_document_is_not_waited_for() -> None:
    event = Event("a", "changed", NOW)
    assert quiet_at(event, info(NOW, deleted_ms=NOW), NOW, 2_000, 30_000) <= NOW


def test_a_clock_that_is_ahead_is_not_waited_for() -> None:
    assert quiet_at(Event("a", "changed", NOW + HOUR), info(NOW), NOW, 2_000, 30_000) <= NOW
    ahead = info(NOW + HOUR)
    assert quiet_at(Event("a", "changed", NOW), ahead, NOW, 2_000, 30_000) == NOW + 30_000


def test_what_fails_is_tried_again_ever_more_seldom_and_given_up_after_three_days() -> None:
    event = Event("a", "deleted", NOW)
    times = [NOW]
    while (due := retry_at(event, times[-1], 0, 0.5)) is not None:
        times.append(due)
    waits = [(b - a) // 1000 for a, b in zip(times, times[1:], strict=False)]
    assert waits[:9] == [5, 5, 10, 20, 40, 80, 160, 300, 300]
    assert set(waits[8:]) == {RETRY_MS_MAX // 1000}
    assert GIVE_UP_MS < times[-1] - NOW < GIVE_UP_MS + RETRY_MS_MAX * 1.25
    # Nodes do not come back in step.
    assert retry_at(event, NOW, 0, 0.0) == NOW + 3_750
    assert retry_at(event, NOW, 0, 1.0) == NOW + 6_250


def test_one_document_that_fails_is_its_own_affair() -> None:
    pace = Pace(lambda: 0.5)
    for _ in range(100):
        assert not pace.failed("a", NOW, away=False)
    assert pace.places(NOW) == AT_ONCE


def test_a_receiver_that_fails_for_everybody_is_left_alone() -> None:
    pace = Pace(lambda: 0.5)
    became = [pace.failed(f"{number}", NOW, away=False) for number in range(AT_ONCE + 3)]
    assert became == [False] * (AT_ONCE - 1) + [True, False, False, False]
    assert pace.places(NOW) == 0 and pace.resume_at == NOW + 1_000, "those in flight count once"
    pauses = []
    now = NOW
    for number in range(10):
        now = pace.resume_at
        assert pace.places(now) == 1
        pace.failed(f"{number}", now, away=False)
        pauses.append((pace.resume_at - now) // 1000)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    assert pauses[-1] * 1000 == PAUSE_MS_MAX
    assert pace.succeeded()
    assert pace.places(now) == AT_ONCE and not pace.away
    assert not pace.succeeded()


def test_a_receiver_that_can_not_be_reached_is_left_alone_at_once() -> None:
    pace = Pace(lambda: 0.5)
    assert pace.failed("a", NOW, away=True)
    assert pace.places(NOW) == 0 and pace.places(NOW + 1_000) == 1


def test_a_receiver_that_asks_for_time_gets_it_within_bounds() -> None:
    pace = Pace(lambda: 0.5)
    pace.failed("a", NOW, away=True, wait_ms=120_000)
    assert pace.resume_at == NOW + 120_000
    pace = Pace(lambda: 0.5)
    pace.failed("a", NOW, away=True, wait_ms=10 * HOUR)
    assert pace.resume_at == NOW + RETRY_MS_MAX
