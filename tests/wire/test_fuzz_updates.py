"""What `inspect` accepts, and what is ready, neither kills pycrdt nor makes it write nonsense."""

from tests.wire.fuzz_updates import fuzz

# pycrdt raises it when a parent is a struct that holds no type. Nothing in the update tells, so the
# document has to: it is thrown away and made anew (`DocumentBroken`).
WRONG_PARENT = (
    "RuntimeError: Cannot apply update: block parent <id> must be deleted or shared ref type"
)

# Two clients in one update, each of which waits for the other; see `ready`.
WAITING = "left waiting"


def test_twenty_thousand_changed_updates() -> None:
    outcomes, examples = fuzz(20_000, seed=20_260_101)
    unexpected = {
        outcome: examples[outcome]
        for outcome in outcomes
        if outcome not in ("applied", "refused", "not ready", WAITING)
        and not outcome.startswith(WRONG_PARENT)
    }
    assert not unexpected
    assert outcomes["applied"] > 5000
