"""What the readers of the wire say of mutated bytes, a line each:

    python -m tests.support.verdicts 1000 7        of a thousand inputs, from seed 7

Run as Python and compiled, they have to say the same (`tests/e2e/test_compiled.py`).
"""

import itertools
import random
import sys
from collections.abc import Callable

from plait.server import COMPILED
from plait.server.errors import PlaitError
from plait.server.wire.presence import decode_presence
from plait.server.wire.state_vector import decode_state_vector
from plait.server.wire.structs import read_structs, sections
from plait.server.wire.update import continued, inspect
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support.fuzzing import mutated_frames
from tests.wire import fuzz_updates


def structs(update: bytes) -> object:
    """Return what an update has in it."""
    inspect(update)
    return sections(update), list(read_structs(update))


READERS: tuple[Callable[[bytes], object], ...] = (
    inspect,
    structs,
    YWEBSOCKET.decode,
    YWEBSOCKET.plain_update,
    lambda data: decode_presence(data, 100),
    decode_state_vector,
)


def verdict(reader: Callable[[bytes], object], data: bytes) -> str:
    """Return what a reader says of some bytes, for comparing."""
    try:
        return repr(reader(data)).partition(" object at ")[0]
    except PlaitError as error:
        return f"{type(error).__name__}: {error}"


def main(count: int, seed: int) -> None:
    """Print which program this is, and the verdicts."""
    print("compiled" if COMPILED else "Python")
    rng = random.Random(seed)
    genuine = [update for updates in fuzz_updates.corpus() for update in updates]
    before = b""
    for frame in itertools.islice(mutated_frames(rng), count):
        update = fuzz_updates.change_bytes(rng, rng.choice(genuine))
        for data in (frame, update):
            print(*(verdict(reader, data) for reader in READERS), sep="\t")
        print(continued(before, update), continued(update, update))
        before = update


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
