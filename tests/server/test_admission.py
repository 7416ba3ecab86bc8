"""Who may connect."""

import pytest

from plait.server.admission import Admission, source_of
from plait.server.errors import CloseCode, LimitReached, ServerFull
from plait.server.limits import Limits
from plait.server.quota import Quota

ONE, OTHER = "192.0.2.1", "192.0.2.2"


def test_an_address_may_hold_so_many_connections_and_others_do_not_notice() -> None:
    admission = Admission(Limits(connections_per_address=2))
    tickets = [admission.enter(ONE) for _ in range(2)]
    with pytest.raises(LimitReached, match="connections_per_address") as caught:
        admission.enter(ONE)
    assert (caught.value.status, caught.value.limit) == (429, "connections_per_address")
    admission.enter(OTHER)
    tickets[0].release()
    admission.enter(ONE)


def test_a_server_may_have_so_many_in_all() -> None:
    admission = Admission(Limits(connections_max=2))
    with admission.enter(ONE), admission.enter("127.0.0.1"):
        with pytest.raises(ServerFull, match="connections_max") as caught:
            admission.enter(OTHER)
        assert (caught.value.status, caught.value.limit) == (503, "connections_max")
        assert caught.value.close_code == CloseCode.TRY_AGAIN_LATER
    assert admission.open == 0
    admission.enter(OTHER)


def test_a_refused_connection_is_not_counted() -> None:
    admission = Admission(Limits(connections_per_address=1))
    with admission.enter(ONE):
        for _ in range(3):
            with pytest.raises(LimitReached):
                admission.enter(ONE)
        assert admission.open == 1
    assert admission.open == 0


def test_a_ticket_is_released_once() -> None:
    admission = Admission(Limits())
    with admission.enter(ONE), admission.enter(ONE) as ticket:
        ticket.release()
        ticket.release()
        assert admission.open == 1
    assert admission.open == 0


def test_a_subject_may_hold_so_many_connections_wherever_it_is() -> None:
    admission = Admission(Limits(connections_per_subject=2))
    tickets = [admission.enter(ONE, "ann"), admission.enter(OTHER, "ann")]
    with pytest.raises(LimitReached, match="connections_per_subject") as caught:
        admission.enter(ONE, "ann")
    assert (caught.value.status, caught.value.limit) == (429, "connections_per_subject")
    admission.enter(ONE, "ben").release()
    for _ in range(3):
        admission.enter(ONE, "")
    tickets[0].release()
    admission.enter("127.0.0.1", "ann")
    assert admission.open == 5


def test_who_is_refused_as_a_subject_is_not_counted_as_an_address() -> None:
    admission = Admission(Limits(connections_per_subject=1, connections_per_address=2))
    with admission.enter(ONE, "ann"):
        for _ in range(3):
            with pytest.raises(LimitReached, match="connections_per_subject"):
                admission.enter(ONE, "ann")
        admission.enter(ONE, "ben")


def test_nothing_is_remembered_of_who_has_left_and_sent_nothing() -> None:
    admission = Admission(Limits())
    for number in range(100):
        admission.enter(f"192.0.2.{number}", f"subject {number}").release()
    assert not admission._addresses._held and not admission._addresses._gone
    assert not admission._subjects._held and not admission._subjects._gone


def test_zero_means_no_limit() -> None:
    limits = Limits(
        connections_max=0,
        connections_per_address=0,
        connections_per_subject=0,
        handshakes_per_second=0,
    )
    admission = Admission(limits)
    for _ in range(2000):
        admission.knock(ONE, 0.0)
        admission.enter(ONE, "ann")
    assert admission.open == 2000


# Handshakes


def test_a_burst_of_handshakes_passes_and_then_as_many_as_the_rate_says() -> None:
    admission = Admission(Limits(handshakes_per_second=2))
    for _ in range(20):
        admission.knock(ONE, 0.0)
    for _ in range(2):
        with pytest.raises(LimitReached, match="handshakes_per_second") as caught:
            admission.knock(ONE, 0.4)
    assert (caught.value.status, caught.value.limit) == (429, "handshakes_per_second")
    admission.knock(OTHER, 0.4)
    admission.knock(ONE, 0.5)
    with pytest.raises(LimitReached):
        admission.knock(ONE, 0.9)
    for second in range(2, 1000):
        admission.knock(ONE, float(second))
        admission.knock(ONE, float(second))


def test_addresses_of_one_network_knock_together_and_this_machine_does_not_count() -> None:
    admission = Admission(Limits(handshakes_per_second=1))
    for number in range(10):
        admission.knock(f"2001:db8::{number + 1:x}", 0.0)
    with pytest.raises(LimitReached):
        admission.knock("2001:db8::ffff", 0.0)
    for address in ("127.0.0.1", "::1", None, ""):
        for _ in range(100):
            admission.knock(address, 0.0)


def test_the_address_that_knocked_longest_ago_is_forgotten_first() -> None:
    admission = Admission(Limits(handshakes_per_second=1, addresses_max=100))
    for _ in range(10):
        admission.knock(ONE, 0.0)
    for number in range(1000):
        if number % 50 == 0:
            with pytest.raises(LimitReached):
                admission.knock(ONE, 0.0)
        admission.knock(f"198.51.{number // 250}.{number % 250}", 0.0)
    assert len(admission._knocks) == 100


# What connections share


def sent(quota: Quota, now: float) -> int:
    """Send messages until the next ones have to wait; return how many passed before that."""
    passed = 0
    while not quota.spend(1) or quota.refill(now) is None:
        passed += 1
    return passed


def test_connections_of_a_subject_share_what_they_may_send_and_so_do_those_of_an_address() -> None:
    limits = Limits(
        frames_per_second=10, subject_frames_per_second=15, address_frames_per_second=25
    )
    admission = Admission(limits)

    def connect(address: str, subject: str) -> Quota:
        return Quota(limits, 0.0, *admission.enter(address, subject).shared)

    # The message of each with which it was too much is handled as well, and owed.
    assert [sent(connect(ONE, "ann"), 0.0) for _ in range(2)] == [100, 49]
    assert [sent(connect(ONE, "ben"), 0.0) for _ in range(2)] == [99, 0]
    assert sent(connect(OTHER, "ann"), 0.0) == 0
    assert sent(connect(OTHER, "cem"), 0.0) == 100
    assert sent(connect("127.0.0.1", ""), 0.0) == 100


def test_who_connects_anew_gets_no_new_burst() -> None:
    limits = Limits(frames_per_second=10, subject_frames_per_second=10)
    admission = Admission(limits)
    # Ten are earned in a second, less the two that were too much.
    for now, expected in ((0.0, 100), (0.0, 0), (1.0, 8), (100.0, 100)):
        with admission.enter(ONE, "ann") as ticket:
            assert sent(Quota(limits, now, *ticket.shared), now) == expected


def test_of_those_who_left_so_many_are_remembered() -> None:
    limits = Limits(addresses_max=10)
    admission = Admission(limits)
    for number in range(100):
        with admission.enter(ONE, f"subject {number}") as ticket:
            quota = Quota(limits, 0.0, *ticket.shared)
            assert quota.spend(1)
            quota.refill(0.0)
    assert len(admission._subjects._gone) == 10
    assert len(admission._addresses._gone) == 1


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", None),
        ("127.8.8.8", None),
        ("::1", None),
        ("::ffff:127.0.0.1", None),
        ("", None),
        (None, None),
        ("testclient", "unknown"),
    ],
)
def test_what_an_address_is_counted_under(address: str | None, source: str | None) -> None:
    assert source_of(address) == source
