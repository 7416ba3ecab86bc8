"""Who may connect."""

import pytest

from plait.server.admission import Admission, source_of
from plait.server.errors import CloseCode, LimitReached, ServerFull
from plait.server.limits import Limits

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


def test_nothing_is_remembered_of_who_has_left() -> None:
    admission = Admission(Limits())
    for number in range(100):
        admission.enter(f"192.0.2.{number}").release()
    assert not admission._by_source


def test_zero_means_no_limit() -> None:
    admission = Admission(Limits(connections_max=0, connections_per_address=0))
    for _ in range(2000):
        admission.enter(ONE)
    assert admission.open == 2000


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
