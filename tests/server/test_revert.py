"""An earlier content comes back exactly, in real Yjs, whatever happened since."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from pycrdt import Array, Doc, Map, Text

from plait.server.appearance import appearance
from plait.server.document import Applied, Document
from plait.server.errors import DocumentBroken
from plait.server.limits import Limits
from plait.server.revert import reverting_update
from plait.server.updates import EMPTY_UPDATE
from tests.support.authors import Author, text_of
from tests.support.node import run_node

LIMITS = Limits()
HISTORIES = Path(__file__).parent.parent / "wire" / "histories.mjs"
EXAMINE = Path(__file__).parent / "revert.mjs"

LOSSY = """
import * as Y from 'yjs'
const doc = new Y.Doc()
const updates = []
doc.on('update', update => updates.push(Buffer.from(update).toString('hex')))
const list = doc.getArray('a'), map = doc.getMap('m')
list.insert(0, [[1n], [1], -0, { deep: [2n ** 60n, "x"] }, "plait:1", 0])
map.set('big', 7n)
map.set('doc', new Y.Doc({ guid: 'inner', meta: { title: 't' }, autoLoad: true }))
list.insert(1, [new Y.Doc({ guid: 'other', meta: 5 })])
list.delete(0, 4)
map.set('big', 7)
map.delete('doc')
list.insert(1, [[9n], -0])
console.log(JSON.stringify(updates))
"""


def document_of(updates: list[str]) -> Document:
    document = Document(LIMITS)
    for update in updates:
        document.apply(bytes.fromhex(update))
    return document


def case(updates: list[str], kept: int) -> dict[str, object]:
    """What revert.mjs needs to know of taking a history back to its first updates."""
    present = document_of(updates).encode()
    old = document_of(updates[:kept]).encode()
    reverting = reverting_update(present, old, LIMITS)
    return {
        "updates": updates,
        "kept": kept,
        "reverting": reverting.hex(),
        "present": present.hex(),
    }


@pytest.mark.parametrize("kind", ["rich", "emoji"])
@pytest.mark.parametrize("seed", [11, 12])
def test_histories_of_real_clients_are_taken_back_exactly(
    kind: str, seed: int, rounds: Callable[[int], int]
) -> None:
    pick = random.Random(seed)
    lines = run_node(HISTORIES, kind, str(seed), str(rounds(60)), "40").splitlines()
    histories = [json.loads(line)["updates"] for line in lines]
    cases = [case(updates, pick.randrange(len(updates) + 1)) for updates in histories]
    wrong = json.loads(run_node(EXAMINE, stdin=json.dumps(cases).encode()))
    assert not wrong, f"{kind}, seed {seed}: " + json.dumps([cases[each] for each in wrong])


def test_values_that_pycrdt_writes_with_loss_come_back_as_they_were() -> None:
    updates = json.loads(run_node(LOSSY))
    cases = [case(updates, kept) for kept in range(len(updates) + 1)]
    assert json.loads(run_node(EXAMINE, stdin=json.dumps(cases).encode())) == []


def test_what_is_typed_meanwhile_stays() -> None:
    ann = Author(1)
    ann.type("one two")
    old = ann.state()
    ann.delete(0, 4)
    reverting = reverting_update(ann.state(), old, LIMITS)
    ann.type(" three")
    ann.hear(reverting)
    assert text_of(ann.state()) == "one two three"


def test_nothing_to_do_is_an_empty_update() -> None:
    ann = Author(1)
    ann.type("one")
    old = ann.state()
    ann.type("x")
    ann.delete(3, 4)
    assert reverting_update(ann.state(), old, LIMITS) == EMPTY_UPDATE
    assert reverting_update(EMPTY_UPDATE, EMPTY_UPDATE, LIMITS) == EMPTY_UPDATE


def test_an_empty_document_gets_the_old_state_itself() -> None:
    ann = Author(1)
    ann.type("one")
    assert text_of(reverting_update(EMPTY_UPDATE, ann.state(), LIMITS)) == "one"


def test_back_to_nothing() -> None:
    ann = Author(1)
    ann.type("one")
    ann.hear(reverting_update(ann.state(), EMPTY_UPDATE, LIMITS))
    assert text_of(ann.state()) == ""


def test_another_documents_content_replaces_the_present_one() -> None:
    ann, bob = Author(1), Author(2)
    ann.type("the old one")
    bob.type("an unrelated one")
    bob.hear(reverting_update(bob.state(), ann.state(), LIMITS))
    assert text_of(bob.state()) == "the old one"


def test_a_document_that_lost_what_the_old_state_has_gets_it_back() -> None:
    ann = Author(1)
    first = ann.type("one ")
    ann.type("two ")
    ann.delete(0, 1)
    old = ann.state()
    lost = Author(2)
    lost.hear(first)
    lost.type("other")
    lost.hear(reverting_update(lost.state(), old, LIMITS))
    assert text_of(lost.state()) == "ne two "


def test_the_outcome_is_an_update_that_a_room_takes() -> None:
    ann = Author(1)
    ann.map["cells"] = Map({"a": Array([1, Text("inner")])})
    ann.take()
    old = ann.state()
    del ann.map["cells"]
    document = Document(LIMITS)
    document.apply(ann.state())
    applied, shape, *_ = document.apply(reverting_update(ann.state(), old, LIMITS))
    assert applied is Applied.CHANGED
    assert len(shape.runs) == 1, "all that is new is of one new client"
    assert appearance(document.encode()) == appearance(old)


def test_what_is_nested_too_deeply_to_compare_is_refused() -> None:
    doc: Doc[Array[object]] = Doc()
    inner = doc.get("a", type=Array)
    for _ in range(2000):
        nested: Array[object] = Array()
        inner.append(nested)
        inner = nested
    with pytest.raises(DocumentBroken, match="nested"):
        reverting_update(EMPTY_UPDATE, doc.get_update(), LIMITS)
