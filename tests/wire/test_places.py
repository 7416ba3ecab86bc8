"""Sets of places."""

import random

import pytest

from plait.server.wire.places import Places, decode, encode


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


@pytest.mark.parametrize("seed", range(5))
def test_sets_are_the_same_when_they_are_read_again(seed: int) -> None:
    rng = random.Random(seed)
    sets = [Places(), Places(), Places()]
    for places in sets[1:]:
        for _ in range(rng.randrange(1, 200)):
            first = rng.randrange(1 << 31)
            places.add([(rng.choice((1, 300, 1 << 52)), first, first + rng.randrange(1, 1000))])
    read = decode(encode(sets), 3)
    assert [each.bounds for each in read] == [each.bounds for each in sets]


def test_damaged_sets_are_noticed() -> None:
    places = Places([(1, 2, 3), (4, 5, 600)])
    data = encode([places])
    for end in range(len(data)):
        with pytest.raises(ValueError, match="places are damaged"):
            decode(data[:end], 1)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 0x10
        try:
            (read,) = decode(bytes(changed), 1)
        except ValueError:
            continue
        assert read.bounds == places.bounds, "not every bit matters to zlib"
