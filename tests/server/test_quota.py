"""What one connection may send."""

import pytest

from plait.server.errors import CloseCode, LimitReached
from plait.server.limits import Limits
from plait.server.quota import Quota

SMALL = Limits(frames_per_second=10, bytes_per_second=1 << 20, message_bytes_max=4 << 20)


def send(quota: Quota, size: int, now: float) -> None:
    if quota.spend(size):
        quota.refill(now)


def test_a_burst_passes_and_one_frame_more_does_not() -> None:
    quota = Quota(SMALL, 0.0)
    for _ in range(SMALL.frames_burst):
        send(quota, 1, 0.0)
    with pytest.raises(LimitReached, match=r"10 messages a second \(frames_per_second\)") as caught:
        send(quota, 1, 0.0)
    assert caught.value.limit == "frames_per_second"
    assert (caught.value.close_code, caught.value.status) == (CloseCode.LIMIT_REACHED, 429)


def test_bytes_are_counted_too() -> None:
    quota = Quota(SMALL, 0.0)
    send(quota, SMALL.bytes_burst, 0.0)
    with pytest.raises(LimitReached, match=r"1 MiB a second \(mb_per_second\)") as caught:
        send(quota, 1, 0.0)
    assert caught.value.limit == "mb_per_second"


def test_the_rate_may_be_kept_up_for_ever() -> None:
    quota, now = Quota(SMALL, 0.0), 0.0
    for _ in range(10_000):
        now += 0.1
        send(quota, 100_000, now)


def test_above_the_rate_it_ends_when_the_burst_is_used_up() -> None:
    quota, now, sent = Quota(SMALL, 0.0), 0.0, 0
    with pytest.raises(LimitReached):
        while True:
            now += 0.05
            send(quota, 1, now)
            sent += 1
    assert sent == pytest.approx(2 * SMALL.frames_burst, abs=2)


def test_silence_earns_no_more_than_a_second_burst() -> None:
    quota = Quota(SMALL, 0.0)
    sent = 0
    with pytest.raises(LimitReached):
        while True:
            send(quota, 1, 1e6)
            sent += 1
    assert sent <= 2 * SMALL.frames_burst + 1


def test_a_largest_message_always_passes_and_once_more_after_a_reconnection() -> None:
    limits = Limits(bytes_per_second=1)
    for now in (0.0, 0.1):
        quota = Quota(limits, now)
        send(quota, limits.message_bytes_max, now)
        send(quota, limits.message_bytes_max, now)


def test_zero_means_no_limit() -> None:
    quota = Quota(Limits(frames_per_second=0, bytes_per_second=0), 0.0)
    for _ in range(1000):
        send(quota, 1 << 40, 0.0)
