"""Look for updates that `inspect` lets pass and that harm pycrdt nevertheless.

    python tests/wire/fuzz_updates.py 1000000 7        a million cases, from seed 7

Cases are genuine updates with bytes changed, or with structs changed so that they still parse. Each
one that is accepted and ready goes into a document as a server would put it there; that is done in
a child, which says beforehand what it is about to do, so that a crash or a hang tells its cause.
Unlike a server, which drops a document that has raised, the fuzzer uses small documents only.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pycrdt import Doc, get_state, merge_updates

from plait.server.errors import UpdateRefused
from plait.server.wire import keys, parents, stand_ins, surrogates
from plait.server.wire.lib0 import write_var_uint
from plait.server.wire.places import Places
from plait.server.wire.state_vector import decode_state_vector
from plait.server.wire.structs import Struct, read_deletes, read_structs, sections, write_deletes
from plait.server.wire.update import HAS_KEY, HAS_ORIGIN, HAS_RIGHT_ORIGIN, Id, inspect, ready

AnyDoc = Doc[Any]

VECTORS = Path(__file__).parent / "vectors" / "updates.json"
NUMBERS = (0, 1, 2, 3, 5, 127, 128, (1 << 31) - 2, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 52)
MARK = b"mark of stand-in"
DEADLINE_SECONDS = 20
BATCH = 20_000


def corpus() -> tuple[list[bytes], list[bytes]]:
    """Return genuine updates to change, and states to apply them to."""
    updates = []
    states = [b"\x00\x00"]
    for vector in json.loads(VECTORS.read_text()):
        update = bytes.fromhex(vector["hex"])
        if len(update) < 400:
            updates.append(update)
            if vector["name"].endswith(": state"):
                states.append(update)
    return updates, states


def cases(seed: int, count: int) -> Iterator[tuple[bytes, bytes]]:
    """Return a number of (state, changed update); the same seed gives the same."""
    rng = random.Random(seed)
    updates, states = corpus()
    for _ in range(count):
        update = rng.choice(updates)
        # Each list of updates ends with their state, which is what they fit best.
        following = updates[updates.index(update) :]
        fitting = next((other for other in following if other in states), states[0])
        state = rng.choice((states[0], fitting, fitting, rng.choice(states)))
        yield (
            state,
            change_structs(rng, update) if rng.random() < 0.7 else change_bytes(rng, update),
        )


def change_bytes(rng: random.Random, update: bytes) -> bytes:
    """Return an update with some of its bytes changed, blindly."""
    data = bytearray(update)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place = rng.randrange(len(data))
        what = rng.randrange(6)
        if what == 0:
            data[place] = rng.randrange(256)
        elif what == 1:
            data[place] ^= 1 << rng.randrange(8)
        elif what == 2:
            data[place : place + 1] = write_var_uint(rng.choice(NUMBERS))
        elif what == 3 and len(data) > 1:
            del data[place : place + rng.randrange(1, 4)]
        elif what == 4:
            data[place:place] = data[rng.randrange(len(data)) :][: rng.randrange(1, 12)]
        else:
            data[place : place + 1] = bytes((max(data[place] - 1, 0), rng.randrange(256)))
        data = data or bytearray(b"\x00")
    return bytes(data)


def change_structs(rng: random.Random, update: bytes) -> bytes:
    """Return an update with other references, flags, order, repetitions or deletions."""
    found, position = sections(update)
    structs = list(read_structs(update))
    deletes = read_deletes(update, position)
    clients = sorted({section.client for section in found} | set(deletes)) or [1]
    clocks = [struct.clock for struct in structs] + [0, 1, 2, 7]

    def reference() -> tuple[int, int]:
        number = rng.choice(NUMBERS) if rng.random() < 0.05 else rng.choice(clocks)
        return rng.choice(clients), max(number + rng.choice((-1, 0, 0, 0, 1)), 0)

    parts = [write_var_uint(len(found))]
    for section in found:
        chosen = [struct for struct in structs if struct.client == section.client]
        if rng.random() < 0.2:
            rng.shuffle(chosen)
        if rng.random() < 0.2:
            chosen.append(rng.choice(structs))
        if rng.random() < 0.2:
            del chosen[rng.randrange(len(chosen)) :]
        clock = section.clock + (rng.randrange(5) - 2 if rng.random() < 0.2 else 0)
        parts += write_var_uint(len(chosen)), write_var_uint(section.client)
        parts.append(write_var_uint(max(clock, 0)))
        for struct in chosen:
            changed = rng.random() < 1.5 / (len(structs) + 1)
            parts.append(
                write_struct(rng, update, struct, reference())
                if changed
                else update[struct.start : struct.end]
            )
    while rng.random() < 0.3:
        client, clock = reference()
        deletes.setdefault(client, []).append((clock, rng.choice((1, 1, 2, 3, 8))))
    if deletes and rng.random() < 0.2:
        del deletes[rng.choice(list(deletes))]
    return b"".join(parts) + write_deletes(deletes)


def write_struct(
    rng: random.Random, update: bytes, struct: Struct, target: tuple[int, int]
) -> bytes:
    """Return the bytes of a struct, some of its parts being others."""
    if struct.kind in (0, 10):
        return bytes((rng.choice((0, 0, 1, 10)),)) + update[struct.content : struct.end]
    origin, right_origin, parent = struct.origin, struct.right_origin, struct.parent
    root, key = struct.root, struct.key
    what = rng.randrange(6)
    if what == 0:
        origin = target if rng.random() < 0.8 else None
    elif what == 1:
        right_origin = target if rng.random() < 0.8 else None
    elif what == 2:
        origin = right_origin = root = None
        parent = target
    elif what == 3:
        key = rng.choice((None, b"k", b""))
    elif what == 4:
        origin = right_origin = parent = None
        root = rng.choice((b"t", b"a", b"m", b"x"))
    content = update[struct.content : struct.end]
    kind = struct.kind
    if what == 5:
        kind, content = rng.choice(
            (
                (1, b"\x02"),
                (4, b"\x04\xf0\x9f\x98\x80"),
                (7, b"\x00"),
                (8, b"\x01\x7d\x01"),
                (5, b"\x011"),
            )
            + (
                (7, b"\x01"),
                (7, b"\x02"),
                (7, b"\x04"),
                (6, b"\x01b\x04true"),
                (9, b"\x01g\x76\x00"),
            )
        )
    info = kind | HAS_KEY * (key is not None)
    data = b""
    if origin is not None:
        info |= HAS_ORIGIN
        data += write_var_uint(origin[0]) + write_var_uint(origin[1])
    if right_origin is not None:
        info |= HAS_RIGHT_ORIGIN
        data += write_var_uint(right_origin[0]) + write_var_uint(right_origin[1])
    if origin is None and right_origin is None:
        if parent is not None:
            data += b"\x00" + write_var_uint(parent[0]) + write_var_uint(parent[1])
        else:
            data += b"\x01" + write_var_uint(len(root or b"")) + (root or b"")
        if key is not None:
            data += write_var_uint(len(key)) + key
    return bytes((info,)) + data + content


def attempt(state: bytes, update: bytes) -> str:
    """Do with an update what a server does, and return what came of it."""
    try:
        shape = inspect(update)
    except UpdateRefused:
        return "refused"
    keyed = Places()
    places: list[Id] = []
    state = parents.without(stand_ins.hide(state, MARK), inspect(state).parents)
    steps = keys.one_by_one_in_steps(state, keyed, places)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        state, runs = end.value
    keyed.add(runs)
    doc: AnyDoc = Doc()
    doc.apply_update(state)
    known = decode_state_vector(doc.get_state())
    if not ready(shape, known):
        return "not ready"
    # What it repeats may be a lie.
    places += [each for each in shape.types if each[1] >= known.get(each[0], 0)]
    within = {each.parent for each in read_structs(update) if each.parent}
    update = parents.without(stand_ins.hide(update, MARK), within.difference(places))
    try:
        update, _ = keys.one_by_one(update, keyed)
    except UpdateRefused:
        return "refused"
    try:
        doc, update = without_torn_pairs(doc, state, update)
        doc.apply_update(update)
        encoded = doc.get_update()
        vector = doc.get_state()
        doc.get_update(vector)
        merge_updates(state, update)
        other: AnyDoc = Doc()
        other.apply_update(encoded)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        message = re.sub(r"<\d+#\d+>", "<id>", str(error))
        return f"{type(error).__name__}: {message[:100]}"
    known = decode_state_vector(vector)
    for again in (get_state(encoded), other.get_state()):
        if decode_state_vector(again) != known:
            return "encoded wrongly"
    if any(known.get(client, 0) < end for client, _, end in shape.runs):
        return "left waiting"
    return "applied"


def without_torn_pairs(doc: AnyDoc, state: bytes, update: bytes) -> tuple[AnyDoc, bytes]:
    """Return a document and an update in which pairs that the update cuts are U+FFFD already."""
    pairs = surrogates.pairs(state)
    known = decode_state_vector(doc.get_state())
    broken = surrogates.broken(pairs | surrogates.pairs(update), surrogates.cuts(update, known))
    if broken & pairs:
        rewritten = surrogates.rewrite(doc.get_update(), broken)
        doc = Doc()
        doc.apply_update(rewritten)
    return doc, surrogates.rewrite(update, broken)


def run_child(seed: int, count: int, journal: str) -> None:
    """Attempt a batch, and print what came of it as JSON: counts, and an example for each."""
    results: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    with open(journal, "wb", buffering=0) as file:
        for state, update in cases(seed, count):
            file.seek(0)
            file.write(f"{state.hex()} {update.hex()}\n".encode())
            result = attempt(state, update)
            results[result] += 1
            shortest = examples.get(result)
            if shortest is None or len(update) * 2 < len(shortest[1]):
                examples[result] = [state.hex(), update.hex()]
    json.dump({"results": results, "examples": examples}, sys.stdout)


def fuzz(count: int, seed: int) -> tuple[Counter[str], dict[str, list[str]]]:
    """Attempt cases in children; return how often what happened, and an example of each."""
    results: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    with tempfile.NamedTemporaryFile() as journal:
        for start in range(0, count, BATCH):
            size = min(BATCH, count - start)
            arguments = [str(size), str(seed + start), "--child", journal.name]
            try:
                child = subprocess.run(
                    [sys.executable, __file__, *arguments],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    timeout=DEADLINE_SECONDS + size / 2000,
                )
                report = json.loads(child.stdout) if child.returncode == 0 else None
                failure = f"exit {child.returncode}"
            except subprocess.TimeoutExpired:
                report = None
                failure = "hung"
            if report is None:
                line = Path(journal.name).read_text().splitlines()[0]
                report = {"results": {failure: 1}, "examples": {failure: line.split()}}
            results.update(report["results"])
            for result, example in report["examples"].items():
                if result not in examples or len(example[1]) < len(examples[result][1]):
                    examples[result] = example
    return results, examples


if __name__ == "__main__":
    if "--child" in sys.argv:
        run_child(int(sys.argv[2]), int(sys.argv[1]), sys.argv[4])
    else:
        totals, shown = fuzz(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
        for outcome, number in totals.most_common():
            print(f"{number:9} {outcome}\n          {' '.join(shown[outcome])}")
