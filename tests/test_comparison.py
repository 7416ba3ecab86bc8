"""What `scripts/compare` puts on two servers, and what it tells of them."""

from dataclasses import replace

from plait.server.scenarios import PRESETS
from scripts.benchmarks.comparison import half, told


def test_each_of_two_servers_gets_half_of_the_rooms_or_of_the_edits_in_one() -> None:
    tenk, crowd = PRESETS["tenk"], PRESETS["crowd"]
    assert half(tenk) == replace(tenk, rooms=tenk.rooms // 2)
    assert half(crowd) == replace(crowd, rate=crowd.rate / 2)


def test_the_ratio_is_that_of_pairs_not_of_medians() -> None:
    pairs = [(10.0, 20.0), (40.0, 40.0), (60.0, 50.0)]
    assert told(pairs) == (
        "40.0 µs a delivery here, 40.0 there; of 3 pairs the ratio is 1.000 (0.500 to 1.200)"
    )
