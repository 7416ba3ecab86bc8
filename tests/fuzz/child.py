"""Runs one target under libFuzzer, which sees what parts of the server each input reaches.

    python -m tests.fuzz.child TARGET OPTIONS-OF-LIBFUZZER CORPUS

It is a process of its own: pycrdt may crash it, and libFuzzer ends it when it has found something.
"""

import random
import sys
from collections import Counter

import atheris  # type: ignore[import-untyped]

with atheris.instrument_imports(include=["plait.server", "plait.persistence"]):
    from plait.server.memory import raise_stack_limit
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name = sys.argv.pop(1)
    target = TARGETS[name]
    outcomes: Counter[str] = Counter()
    raise_stack_limit()

    def test(data: bytes) -> None:
        outcomes[target.run(data)] += 1

    def change(data: bytes, bytes_max: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if target.change is None or rng.random() < 0.5:
            changed: bytes = atheris.Mutate(data, bytes_max)
            return changed
        return target.change(rng, data)[:bytes_max]

    options = {"custom_mutator": change} if target.change is not None else {}
    atheris.Setup(sys.argv, test, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
