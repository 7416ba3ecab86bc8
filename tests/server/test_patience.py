"""Who knocks again and again in vain waits for the answer, and nobody else does."""

from plait.server.errors import (
    DecodeError,
    DocumentFull,
    MessageTooBig,
    NotAllowed,
    PlaitError,
    ServerStopping,
    Unauthorized,
)
from plait.server.limits import Limits
from plait.server.patience import Patience, is_offence

LIMITS = Limits(offences_forgiven=3, offence_seconds=2.0, offender_seconds=10.0)


def test_some_offences_are_forgiven_and_one_more_every_few_seconds() -> None:
    patience = Patience(LIMITS)
    for _ in range(3):
        assert patience.wait_seconds("eve", 0) == 0
        patience.offended("eve", 0)
    assert patience.wait_seconds("eve", 0) == 10
    assert patience.wait_seconds("ann", 0) == 0
    assert patience.wait_seconds("eve", 1.9) == 10
    assert patience.wait_seconds("eve", 2) == 0
    patience.offended("eve", 2)
    assert patience.wait_seconds("eve", 2) == 10


def test_a_long_quiet_is_worth_no_more_than_a_short_one() -> None:
    patience = Patience(LIMITS)
    patience.offended("eve", 0)
    for _ in range(3):
        patience.offended("eve", 1_000_000)
    assert patience.wait_seconds("eve", 1_000_000) == 10


def test_what_nobody_has_done_is_on_nobodys_account() -> None:
    patience = Patience(LIMITS)
    for name in (None, ""):
        for _ in range(10):
            patience.offended(name, 0)
        assert patience.wait_seconds(name, 0) == 0


def test_only_so_many_wait_and_so_many_are_remembered() -> None:
    patience = Patience(Limits(offences_forgiven=1, offenders_waiting_max=1, addresses_max=2))
    for name in ("a", "b", "c"):
        patience.offended(name, 0)
    assert [patience.wait_seconds(name, 0) > 0 for name in ("a", "b", "c")] == [False, True, True]
    patience.waiting = 1
    assert patience.wait_seconds("b", 0) == 0


def test_what_counts() -> None:
    errors: list[PlaitError] = [DecodeError(), MessageTooBig(), DocumentFull()]
    assert all(map(is_offence, errors))
    assert not any(map(is_offence, (Unauthorized(), NotAllowed(), ServerStopping(), PlaitError())))
