"""What a target of the fuzzer is."""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

Change = Callable[[random.Random, bytes], bytes]


class Finding(AssertionError):
    """Raised when an input shows a bug. Anything else that a target raises is a bug as well."""


class Target(NamedTuple):
    """One function that takes what strangers send."""

    run: Callable[[bytes], str]
    """Does with an input what a server does, and returns what became of it, for statistics."""
    seeds: Callable[[], Sequence[bytes]]
    """Genuine inputs to begin with."""
    change: Change | None = None
    """Changes an input so that it keeps its structure; half of the changes are made with it."""
    bytes_max: int = 1024
    """Longer inputs are not tried."""


def expect(condition: object, what: str) -> None:
    """Raise a finding unless something is so."""
    if not condition:
        raise Finding(what)
