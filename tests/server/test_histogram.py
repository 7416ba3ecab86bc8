"""A histogram tells what a sorted list of all latencies would, within half a percent."""

import random

import pytest

from plait.server.histogram import VALUE_MAX, Histogram


def histogram(*values: int) -> Histogram:
    filled = Histogram()
    filled.record(values)
    return filled


def test_nothing_is_zero() -> None:
    empty = Histogram()
    assert (empty.count, empty.mean, empty.max, empty.percentile(99)) == (0, 0.0, 0, 0.0)
    assert empty.bars() == []
    assert empty.summary()["count"] == 0


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 257, 1_000_000, VALUE_MAX])
def test_one_value_is_every_percentile(value: int) -> None:
    filled = histogram(value)
    for percent in (0, 50, 99.9, 100):
        assert filled.percentile(percent) == pytest.approx(value, rel=0.005)
    assert filled.max == filled.mean == value


def test_small_values_are_exact() -> None:
    filled = histogram(*range(256))
    assert [filled.percentile(100 * (n + 1) / 256) for n in range(256)] == list(range(256))


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_those_of_a_sorted_list(seed: int) -> None:
    rng = random.Random(seed)
    values = [int(rng.lognormvariate(14, 2)) for _ in range(20_000)]
    filled = Histogram()
    for start in range(0, len(values), 700):
        filled.record(values[start : start + 700])
    values.sort()
    for percent in (0.1, 1, 10, 50, 90, 99, 99.9, 100):
        exact = values[max(0, round(len(values) * percent / 100) - 1)]
        assert filled.percentile(percent) == pytest.approx(exact, rel=0.008)
    assert filled.count == len(values)
    assert filled.mean == pytest.approx(sum(values) / len(values))
    assert filled.max == values[-1]


def test_no_percentile_is_above_the_maximum() -> None:
    filled = histogram(*[1_000_000] * 9, 1_000_100)
    assert filled.percentile(99.99) == 1_000_100


def test_what_can_not_be_is_taken_for_the_nearest_that_can() -> None:
    assert histogram(-5).max == 0
    assert histogram(VALUE_MAX * 8).max == VALUE_MAX


def test_bars_show_where_latencies_are() -> None:
    lines = histogram(*[300_000] * 3, *[7_000_000]).bars(width=30)
    assert lines == [
        "    < 0.5 ms   75.0 %  " + "#" * 30,
        "      < 1 ms    0.0 %",
        "      < 2 ms    0.0 %",
        "      < 5 ms    0.0 %",
        "     < 10 ms   25.0 %  " + "#" * 10,
    ]


def test_the_longest_has_a_bar_too() -> None:
    assert histogram(VALUE_MAX).bars()[-1].endswith("#" * 40)
