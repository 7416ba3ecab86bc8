"""What `inspect` accepts, and what is ready, neither kills pycrdt nor makes it write nonsense."""

from collections.abc import Callable

from tests.wire.fuzz_updates import fuzz

# Two clients in one update, each of which waits for the other; see `ready`.
WAITING = "left waiting"


def test_thousands_of_changed_updates(rounds: Callable[[int], int]) -> None:
    count = rounds(20_000)
    outcomes, examples = fuzz(count, seed=20_260_101)
    unexpected = {
        outcome: examples[outcome]
        for outcome in outcomes
        if outcome not in ("applied", "refused", "not ready", WAITING)
    }
    assert not unexpected
    assert outcomes["applied"] > count / 4
