"""Sets of places."""

import random

import pytest

from plait.server.wire.places import Places


@pytest.mark.parametrize("seed", range(20))
def test_places_are_what_was_added(seed: int) -> None:
    rng = random.Random(seed)
    places = Places()
    expected: set[tuple[int, int]] = set()
    for _ in range(rng.randrange(1, 20)):
        client, first = rng.randrange(2), rng.randrange(60)
        end = first + rng.randrange(1, 8)
        places.add([(client, first, end)])
        places.add_each([(client, end + 3)])
        expected |= {(client, clock) for clock in range(first, end)} | {(client, end + 3)}
        every = [(client, clock) for client in range(3) for clock in range(80)]
        assert {place for place in every if place in places} == expected
        for bounds in places.bounds.values():
            assert [*bounds] == sorted(set(bounds)), "ranges that touch are one"
    assert None not in places


def test_the_highest_clocks_have_a_place() -> None:
    end = (1 << 31) - 1
    places = Places([(1 << 53, end - 1, end)])
    assert (1 << 53, end - 1) in places
    assert (1 << 53, end) not in places
