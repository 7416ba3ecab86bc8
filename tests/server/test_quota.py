"""What one connection may send, and several that share a bucket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait.server.counters import LIMITS
from plait.server.errors import LimitReached
from plait.server.limits import Limits
from plait.server.quota import Bucket, Quota, of_address, of_subject

SMALL = Limits(frames_per_second=10, bytes_per_second=1 << 20, message_bytes_max=4 << 20)


def send(quota: Quota, size: int, now: float) -> None:
    """Send what has to be within the quota, or fail."""
    if quota.spend(size) and (late := quota.refill(now)) is not None:
        raise late.exceeded()


def test_a_burst_passes_and_one_frame_more_does_not() -> None:
    quota = Quota(SMALL, 0.0)
    for _ in range(SMALL.frames_burst):
        send(quota, 1, 0.0)
    with pytest.raises(LimitReached, match=r"10 messages a second \(frames_per_second\)") as caught:
        send(quota, 1, 0.0)
    assert caught.value.limit == "frames_per_second"


def test_bytes_are_counted_too() -> None:
    quota = Quota(SMALL, 0.0)
    send(quota, SMALL.bytes_burst, 0.0)
    with pytest.raises(LimitReached, match=r"1 MiB a second \(mb_per_second\)") as caught:
        send(quota, 1, 0.0)
    assert caught.value.limit == "mb_per_second"


def test_what_exceeds_it_is_owed_and_earned() -> None:
    quota = Quota(SMALL, 0.0)
    assert quota.spend(SMALL.bytes_burst + (2 << 20))
    late = quota.refill(0.0)
    assert late is not None and late.debt_seconds == 2.0
    assert quota.spend(1)
    late = quota.refill(2.0)
    assert late is not None and late.debt_seconds == pytest.approx(1 / (1 << 20))
    send(quota, 1, 2.1)


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


def test_silence_earns_no_more_than_a_second_beside_the_burst() -> None:
    quota = Quota(SMALL, 0.0)
    send(quota, 1, 0.0)
    sent = 0
    with pytest.raises(LimitReached):
        while True:
            send(quota, 1, 1e6)
            sent += 1
    assert SMALL.frames_burst <= sent <= SMALL.frames_burst + SMALL.frames_per_second


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


# Buckets that several share


SHARING = Limits(
    frames_per_second=10,
    bytes_per_second=1 << 10,
    subject_frames_per_second=20,
    subject_bytes_per_second=2 << 10,
    address_frames_per_second=30,
    address_bytes_per_second=3 << 10,
    message_bytes_max=4 << 10,
    awareness_bytes_max=4 << 10,
)


@pytest.mark.parametrize(
    ("buckets", "frames", "octets"),
    [
        (of_subject(SHARING), r"20 messages a second by all.*\(subject_frames_per_second\)", ""),
        (of_address(SHARING), r"30 messages a second by all.*\(address_frames_per_second\)", ""),
        (of_subject(SHARING), "", r"0 MiB a second by all connections.*\(subject_mb_per_second\)"),
        (of_address(SHARING), "", r"0 MiB a second by all connections.*\(address_mb_per_second\)"),
    ],
)
def test_who_exceeds_what_is_shared_is_told_which_limit(
    buckets: tuple[Bucket, ...], frames: str, octets: str
) -> None:
    size = 1 if frames else 1 << 10
    with pytest.raises(LimitReached, match=frames or octets) as caught:
        for _ in range(100):
            quota = Quota(SHARING, 0.0, *buckets)
            for _ in range(10):
                send(quota, size, 0.0)
    assert caught.value.limit in LIMITS


def test_a_largest_message_passes_through_buckets_that_are_fresh() -> None:
    limits = Limits(
        bytes_per_second=1, subject_bytes_per_second=1 << 20, address_bytes_per_second=1 << 20
    )
    quota = Quota(limits, 0.0, *of_subject(limits), *of_address(limits))
    send(quota, limits.message_bytes_max, 0.0)
    send(quota, limits.message_bytes_max, 0.0)


def test_what_others_hold_and_do_not_use_is_less_than_half_of_the_burst() -> None:
    limits = Limits(frames_per_second=1000, subject_frames_per_second=1000)
    shared = of_subject(limits)
    silent = [Quota(limits, 0.0, *shared) for _ in range(1000)]
    for quota in silent:
        send(quota, 1, 0.0)
    loud = Quota(limits, 0.0, *shared)
    for _ in range(limits.frames_burst // 2 - len(silent)):
        send(loud, 1, 0.0)


def test_hardly_any_frame_needs_a_refill() -> None:
    limits = Limits()
    quota = Quota(limits, 0.0, *of_subject(limits), *of_address(limits))
    refills = 0
    for number in range(100_000):  # A thousand a second, which is much for one client.
        if quota.spend(100):
            quota.refill(number / 1000)
            refills += 1
    assert refills < 100


STEPS = st.lists(
    st.tuples(
        st.integers(0, 3),  # who
        st.integers(1, 40),  # how many frames
        st.integers(0, 400),  # how large
        st.sampled_from((0.0, 0.0, 0.01, 0.5, 3.0, 100.0)),  # after how long
    ),
    max_size=60,
)


class Meter:
    """A token bucket as textbooks have it, which looks at the time for every frame."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.level, self.at = burst, 0.0

    def takes(self, amount: float, now: float) -> bool:
        """Whether it holds an amount, which is taken out then."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < amount:
            return False
        self.level -= amount
        return True


@given(STEPS)
def test_no_more_passes_than_burst_and_time_allow(steps: list[tuple[int, int, int, float]]) -> None:
    subject, address = of_subject(SHARING), of_address(SHARING)
    quotas = [Quota(SHARING, 0.0, *subject, *address) for _ in range(3)]
    quotas.append(Quota(SHARING, 0.0, *address))
    passed: list[list[int]] = [[0, 0] for _ in quotas]
    again, now = [0.0] * len(quotas), 0.0
    for who, count, size, pause in steps:
        now += pause
        for _ in range(count):
            if now < again[who]:
                break
            passed[who][0] += 1
            passed[who][1] += size
            if quotas[who].spend(size) and (late := quotas[who].refill(now)) is not None:
                again[who] = now + late.debt_seconds
        # Beyond that, each may owe one frame.
        for kind, rate, burst, owed in (
            (0, SHARING.subject_frames_per_second, SHARING.burst_of(20), 3),
            (1, SHARING.subject_bytes_per_second, SHARING.burst_of_bytes(2 << 10), 3 * 400),
        ):
            assert sum(each[kind] for each in passed[:3]) <= burst + rate * now + owed + 1e-3
        for kind, rate, burst, owed in (
            (0, SHARING.address_frames_per_second, SHARING.burst_of(30), 4),
            (1, SHARING.address_bytes_per_second, SHARING.burst_of_bytes(3 << 10), 4 * 400),
        ):
            assert sum(each[kind] for each in passed) <= burst + rate * now + owed + 1e-3


@given(STEPS, st.booleans())
def test_who_keeps_to_the_rate_passes_also_where_something_unused_is_shared(
    steps: list[tuple[int, int, int, float]], sharing: bool
) -> None:
    shared = (*of_subject(SHARING), *of_address(SHARING)) if sharing else ()
    quota = Quota(SHARING, 0.0, *shared)
    frames = Meter(SHARING.frames_per_second, SHARING.frames_burst - 1e-3)
    octets = Meter(SHARING.bytes_per_second, SHARING.bytes_burst - 1e-3)
    now = 0.0
    for _, count, size, pause in steps:
        now += pause
        for _ in range(count):
            if frames.takes(1, now) and octets.takes(size, now):
                send(quota, size, now)
