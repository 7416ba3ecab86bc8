"""Plain numbers."""

from plait.server.counters import LIMITS, Counters, Histogram, kind_of
from plait.server.errors import DocumentFull, LimitReached, ServerFull, UpdateRefused


def test_a_duration_is_counted_in_the_first_range_that_holds_it() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.0, 0.1, 0.2, 1.0, 5.0):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 1]
    assert histogram.sum == 6.3


def test_an_error_is_counted_by_its_kind_its_code_and_its_limit() -> None:
    counters = Counters()
    counters.refuse(ServerFull("", limit="connections_max"))
    counters.close(LimitReached("", limit="frames_per_second"))
    counters.close(UpdateRefused(""))
    assert counters.refused == {"server_full": 1}
    assert counters.closed == {"4429": 1, "4422": 1}
    assert counters.updates_refused == 1
    hit = {limit for limit, hits in counters.limits.items() if hits}
    assert hit == {"connections_max", "frames_per_second"}


def test_every_limit_is_there_from_the_beginning() -> None:
    assert set(Counters().limits) == set(LIMITS)


def test_a_kind_of_error_has_a_name() -> None:
    assert kind_of(DocumentFull) == "document_full"
