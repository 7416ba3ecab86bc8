"""Places of a document, each (client, clock), many of which are neighbours."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable

from plait.server.wire.update import Id

_NONE = array("I")


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
