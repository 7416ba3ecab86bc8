"""What `inspect` accepts, and what is ready, neither kills pycrdt nor makes it write nonsense."""

from tests.wire.fuzz_updates import fuzz

# Two clients in one update, each of which waits for the other; see `ready`.
WAITING = "left waiting"


def test_twenty_thousand_changed_updates() -> None:
    outcomes, examples = fuzz(20_000, seed=20_260_101)
    unexpected = {
        outcome: examples[outcome]
        for outcome in outcomes
        if outcome not in ("applied", "refused", "not ready", WAITING)
    }
    assert not unexpected
    assert outcomes["applied"] > 5000
