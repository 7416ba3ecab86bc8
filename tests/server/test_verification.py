"""A store that is well raises no alarm: whatever real clients wrote, whenever it was compacted."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from plait.persistence import LoggedUpdate, Snapshot, Stored
from plait.server.appearance import appearance
from plait.server.folding import fold_rows, fold_snapshot, read
from plait.server.limits import Limits
from plait.server.verification import Evidence, problems
from tests.support.node import run_node

LIMITS = Limits()
HISTORIES = Path(__file__).parent.parent / "wire" / "histories.mjs"


def compacted(updates: list[bytes], pick: random.Random) -> tuple[Evidence, bytes]:
    """Log updates with snapshots now and then; return what there is then, and the whole state."""
    rows: list[LoggedUpdate] = []
    snapshot: Snapshot | None = None

    def stored() -> Stored:
        upto = snapshot.upto if snapshot else 0
        return Stored("x", snapshot, tuple(row for row in rows if row.seq > upto))

    for seq, update in enumerate(updates, start=1):
        rows.append(LoggedUpdate(seq, "x", update, "", 0))
        if pick.random() < 0.15:
            snapshot = fold_snapshot(stored(), LIMITS, 0) or snapshot
    document, waiting = read(Stored("x", None, tuple(rows)), LIMITS)
    assert not waiting
    log = list(rows)
    covered = [row for row in rows if snapshot and row.seq <= snapshot.upto]
    if len(covered) > 4 and pick.random() < 0.5:
        segment = fold_rows(covered[1:-1])
        folded = LoggedUpdate(segment.last, "x", segment.update, "", 0)
        log = [rows[0], folded, *rows[len(covered) - 1 :]]
    return Evidence("x", tuple(log), stored()), document.encode()


# Documents whose emoji had been cut in half got a snapshot that held them whole, and so was another
# document when pycrdt loaded it.
@pytest.mark.parametrize("kind", ["rich", "emoji"])
@pytest.mark.parametrize("reordered", [False, True])
def test_no_history_of_real_clients_raises_an_alarm(
    kind: str, reordered: bool, rounds: Callable[[int], int]
) -> None:
    pick = random.Random(1)
    for number, line in enumerate(
        run_node(HISTORIES, kind, "32", str(rounds(110)), "40").splitlines()
    ):
        updates = [bytes.fromhex(update) for update in json.loads(line)["updates"]]
        for at in range(len(updates) - 1):
            if reordered and pick.random() < 0.3:  # as nodes that share a store may append them
                updates[at], updates[at + 1] = updates[at + 1], updates[at]
        evidence, state = compacted(updates, pick)
        assert problems([evidence], LIMITS) == [], f"history {number}"
        assert evidence.stored is not None
        loaded, _ = read(evidence.stored, LIMITS)
        assert appearance(loaded.encode()) == appearance(state), f"history {number}"
