"""An update is cut as Yjs would: what is ready is what Yjs integrates, the rest what it keeps."""

import json
from random import Random

import pytest

from plait.server.updates import merge
from plait.server.wire.readiness import Missing, in_words, split, without_clients
from plait.server.wire.state_vector import decode_state_vector
from plait.server.wire.update import inspect
from tests.support.authors import Author, text_of
from tests.support.node import run_node
from tests.wire.recorded import histories

LOST = bytes.fromhex("01010706840705") + b"\x06second\0"
"""Text of client 7 behind its own clocks 0 to 5, which nobody has."""

IN_YJS = """
import fs from 'fs'
import * as Y from 'yjs'
const hex = bytes => Buffer.from(bytes).toString('hex')
const load = updates => {
  const doc = new Y.Doc()
  doc.getText('t'); doc.getArray('a'); doc.getMap('m'); doc.getXmlFragment('x')
  doc.transact(() => updates.forEach(each => Y.applyUpdate(doc, Buffer.from(each, 'hex'))))
  return doc
}
const vector = doc => hex(Y.encodeStateVector(doc))
const pending = doc => Boolean(doc.store.pendingStructs || doc.store.pendingDs)
console.log(JSON.stringify(JSON.parse(fs.readFileSync(0)).map(({ before, update, ready }) => {
  const whole = load([...before, update])
  const part = load([...before, ready])
  return [vector(whole) === vector(part), !pending(part), pending(whole),
    JSON.stringify(whole.toJSON()) === JSON.stringify(part.toJSON())]
})))
"""


def known_to(updates: list[bytes]) -> dict[int, int]:
    clocks: dict[int, int] = {}
    for update in updates:
        for client, _, end in inspect(update).runs:
            clocks[client] = max(end, clocks.get(client, 0))
    return clocks


def test_what_is_ready_is_what_yjs_integrates() -> None:
    cases = []
    random = Random(7)
    cut = 0
    for history in histories("rich", 11, 25, 40):
        updates = [bytes.fromhex(each) for each in history["updates"]]
        at = random.randrange(5, len(updates) - 5)
        before = updates[:at]
        # Some of what follows is lost, and the rest comes as one update with gaps.
        kept = [each for each in updates[at:] if random.random() < 0.8]
        if not kept:
            continue
        update = merge(kept)
        ready, rest, missing = split(update, known_to(before))
        assert bool(rest) is bool(missing), "what genuine clients write waits for something"
        cut += bool(ready and rest)
        for part in filter(None, (ready, rest)):
            inspect(part)
        cases.append(
            {
                "before": [each.hex() for each in before],
                "update": update.hex(),
                "ready": (ready or b"\0\0").hex(),
                "rest": bool(rest),
            }
        )
    assert cut > 5
    outcomes = json.loads(run_node(IN_YJS, stdin=json.dumps(cases).encode()))
    for case, (same_clocks, whole, left, same_content) in zip(cases, outcomes, strict=True):
        assert (same_clocks, whole, left, same_content) == (True, True, case["rest"], True)


def test_the_parts_are_together_the_whole() -> None:
    ann, ben = Author(1), Author(2)
    first = ann.type("one ")
    ben.hear(first)
    second, third = ann.type("two "), ben.type("ben")
    update = merge([second, third])
    ready, rest, missing = split(update, {})
    assert (ready, missing) == (b"", (Missing(1, 0, 4),))
    assert split(rest, {1: 4}) == (rest, b"", ())
    assert text_of(merge([first, rest])) == text_of(merge([first, update]))


def test_own_text_is_ready_beside_what_builds_on_lost_structs() -> None:
    own = Author(9).type("own")
    ready, rest, missing = split(merge([own, LOST]), {})
    assert text_of(ready) == "own"
    assert (rest, missing) == (LOST, (Missing(7, 0, 6),))


def test_deletions_are_cut_at_what_is_there() -> None:
    # Clocks 0 to 4 and 6 to 8 of client 3.
    update = bytes.fromhex("00010302") + bytes((0, 4, 6, 3))
    assert split(update, {3: 9}) == (update, b"", ())
    ready, rest, missing = split(update, {3: 7})
    assert ready == bytes.fromhex("00010302") + bytes((0, 4, 6, 1))
    assert rest == bytes.fromhex("00010301") + bytes((7, 2))
    assert missing == (Missing(3, 7, 8),)
    assert split(update, {}).ready == b""


def test_what_is_missing_is_what_does_not_come_with_the_rest() -> None:
    ann, ben, cat = Author(1), Author(2), Author(3)
    first = ann.type("a")
    ben.hear(first)
    second = ben.type("b")
    cat.hear(first)
    cat.hear(second)
    third = cat.type("c")
    assert split(merge([second, third]), {}).missing == (Missing(1, 0, 1),)


def test_structs_that_wait_for_one_another_wait_for_ever() -> None:
    # A text of client 1 behind one of client 2, which is behind the former.
    circle = bytes.fromhex("020101008402000161010200840100016200")
    assert split(circle, {}) == (b"", circle, ())


def test_clients_are_left_out() -> None:
    update = merge([Author(1).type("x"), Author(2).type("y")])
    assert [run[0] for run in inspect(without_clients(update, {1})).runs] == [2]
    assert without_clients(update, {1, 2}) == b""


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ((), "structs wait for one another"),
        ((Missing(7, 0, 6),), "structs are missing (client 7, clocks 0 to 5)"),
        (
            tuple(Missing(client, 0, 1) for client in range(7)),
            "structs are missing (client 0, clocks 0 to 0; client 1, clocks 0 to 0; "
            "client 2, clocks 0 to 0; client 3, clocks 0 to 0; client 4, clocks 0 to 0; "
            "and 2 more)",
        ),
    ],
)
def test_gaps_are_named(missing: tuple[Missing, ...], words: str) -> None:
    assert in_words(missing) == words


def test_state_vectors_tell_the_same() -> None:
    ann = Author(1)
    ann.type("abc")
    update = ann.state()
    assert split(update, decode_state_vector(ann.doc.get_state())) == (update, b"", ())
