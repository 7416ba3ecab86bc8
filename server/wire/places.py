"""Places of a document, each (client, clock), many of which are neighbours."""

import sys
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from plait.server.wire.lib0 import read_var_uint, write_var_uint
from plait.server.wire.update import Id

_NONE = array("I")

_VERSION = b"\x02"
"""Begins what is encoded. Version 1 began with its zlib header."""


class Places:
    """A set of places that only grows; 8 bytes for each range."""

    def __init__(self, runs: Iterable[tuple[int, int, int]] = ()) -> None:
        self.bounds: dict[int, array[int]] = {}
        """For each client, where a range begins, where it ends, where the next one begins..."""
        self.add(runs)

    def add(self, runs: Iterable[tuple[int, int, int]]) -> None:
        """Add ranges: (client, first clock, end clock)."""
        for client, first, end in runs:
            bounds = self.bounds.get(client)
            if bounds is None:
                bounds = self.bounds[client] = array("I")
            left, right = bisect_left(bounds, first), bisect_right(bounds, end)
            joined = [first] * (left % 2 == 0) + [end] * (right % 2 == 0)
            bounds[left:right] = array("I", joined)

    def add_each(self, places: Iterable[Id]) -> None:
        """Add single places."""
        self.add((client, clock, clock + 1) for client, clock in places)

    def __contains__(self, place: Id | None) -> bool:
        if place is None:
            return False
        client, clock = place
        return bisect_right(self.bounds.get(client, _NONE), clock) % 2 == 1


def encode(sets: Sequence[Places]) -> bytes:
    """Return several sets as bytes, for a snapshot: the version, and for each set the var_uint
    number of clients, and for each of them var_uint client, var_uint number of bounds, and the
    difference of each bound to the one before it in 4 bytes, little-endian; all of that as zlib
    packs it.
    """
    parts: list[bytes] = []
    for places in sets:
        parts.append(write_var_uint(len(places.bounds)))
        for client, bounds in places.bounds.items():
            parts += write_var_uint(client), write_var_uint(len(bounds))
            steps = array("I", (after - before for before, after in pairwise((0, *bounds))))
            parts.append(_little_endian(steps).tobytes())
    return _VERSION + zlib.compress(b"".join(parts), 1)


def is_current(data: bytes) -> bool:
    """Whether sets were encoded by this version.

    What goes with them is not to be relied upon otherwise: snapshots with sets of version 1 do not
    know of objects of several keys that they are lossy.
    """
    return data.startswith(_VERSION)


def decode(data: bytes, count: int) -> list[Places]:
    """Return so many sets that were encoded.

    Raises:
        ValueError: it is damaged.
    """
    try:
        data = zlib.decompress(data[len(_VERSION) :])
    except zlib.error as error:  # It has a checksum.
        raise ValueError(f"places are damaged: {error}") from None
    sets: list[Places] = []
    position = 0
    for _ in range(count):
        places = Places()
        clients, position = read_var_uint(data, position)
        for _ in range(clients):
            client, position = read_var_uint(data, position)
            size, position = read_var_uint(data, position)
            end = position + 4 * size
            steps = _little_endian(array("I", data[position:end]))
            places.bounds[client] = array("I", accumulate(steps))
            position = end
        sets.append(places)
    return sets


def _little_endian(steps: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        steps.byteswap()
    return steps
