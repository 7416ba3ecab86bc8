"""A histogram of latencies whose size does not depend on how many there are.

Sorting a list of every latency is exact, and takes a gigabyte after some minutes of a busy server.
Here latencies fall into buckets: 128 of the same width for each power of two, so that a bucket is
at most 1/128 of its value wide, and its middle less than half a percent off. That is the
log-linear layout of HdrHistogram.
"""

from collections.abc import Iterable
from itertools import accumulate

STEPS_BITS = 7
"""The power of two of buckets there are for each doubling of the value."""
VALUE_MAX = (1 << 42) - 1
"""In nanoseconds: 73 minutes. What is longer counts as this long."""

_MS = 1e6
"""Nanoseconds of a millisecond."""


class Histogram:
    """Latencies, in whole nanoseconds, and what they look like together."""

    __slots__ = ("_counts", "_total", "count", "max")

    def __init__(self) -> None:
        self._counts = [0] * (_bucket(VALUE_MAX) + 1)
        self._total = 0
        self.count = 0
        """How many there are."""
        self.max = 0
        """The longest, exactly; 0 if there is none."""

    def record(self, values: Iterable[int]) -> None:
        """Add latencies; below zero, which a clock that is no good would give, counts as zero."""
        counts = self._counts
        total = number = longest = 0
        for value in values:
            value = min(max(value, 0), VALUE_MAX)
            # `_bucket` written out: this is done once for each delivery.
            shift = max(value.bit_length() - STEPS_BITS - 1, 0)
            counts[(shift << STEPS_BITS) + (value >> shift)] += 1
            total += value
            number += 1
            if value > longest:
                longest = value
        self._total += total
        self.count += number
        self.max = max(self.max, longest)

    @property
    def mean(self) -> float:
        """The mean, exactly, in nanoseconds; 0 if there is none."""
        return self._total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Return the latency that this share of all does not exceed, in nanoseconds.

        Args:
            percent: from 0 to 100.

        Returns:
            The middle of its bucket, but no more than the maximum; 0 if there is none.
        """
        if not self.count:
            return 0.0
        wanted = max(1.0, self.count * percent / 100)
        for index, so_far in enumerate(accumulate(self._counts)):
            if so_far >= wanted:
                low, width = _bounds(index)
                return min(low + (width - 1) / 2, self.max)
        return float(self.max)

    def below(self, limit: int) -> int:
        """Return how many are below a limit in nanoseconds, give or take one bucket."""
        return sum(self._counts[: _bucket(limit)])

    def summary(self) -> dict[str, float | int]:
        """Return count, mean, percentiles and maximum, in milliseconds, for JSON."""
        named = {"p50_ms": 50, "p90_ms": 90, "p95_ms": 95, "p99_ms": 99, "p999_ms": 99.9}
        return {
            "count": self.count,
            "mean_ms": round(self.mean / _MS, 4),
            **{name: round(self.percentile(share) / _MS, 4) for name, share in named.items()},
            "max_ms": round(self.max / _MS, 4),
        }

    def bars(self, width: int = 40, ink: str = "#") -> list[str]:
        """Return lines that draw the distribution: a bar for each step of 1, 2, 5, 10 … ms.

        Args:
            width: of the longest bar, in characters.
            ink: the character that bars are made of.
        """
        rows = self._rows()
        highest = max((inside for _, inside in rows), default=0)
        lines = []
        for limit, inside in rows:
            bar = ink * round(width * inside / highest)
            share = 100 * inside / self.count
            lines.append(f"{f'< {limit / _MS:g} ms':>12}  {share:5.1f} %  {bar}".rstrip())
        return lines

    def _rows(self) -> list[tuple[int, int]]:
        """Return upper limits and how many are below each and not below the one before; without
        empty rows at both ends.
        """
        rows: list[tuple[int, int]] = []
        done, limit, factors = 0, 1000, (2, 2.5, 2)
        step = 0
        while done < self.count:
            inside = self.below(limit) - done if limit <= VALUE_MAX else self.count - done
            if rows or inside:
                rows.append((limit, inside))
            done += inside
            limit = round(limit * factors[step % 3])
            step += 1
        return rows


def _bucket(value: int) -> int:
    """Return the index of a value's bucket."""
    shift = max(value.bit_length() - STEPS_BITS - 1, 0)
    return (shift << STEPS_BITS) + (value >> shift)


def _bounds(index: int) -> tuple[int, int]:
    """Return the lowest value of a bucket, and how many values it has."""
    shift = max((index >> STEPS_BITS) - 1, 0)
    return (index - (shift << STEPS_BITS)) << shift, 1 << shift
