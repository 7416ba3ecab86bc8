"""Half an emoji is deleted, or something is put between its halves: pycrdt must end as Yjs does."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pycrdt import Doc, Text, get_state

from plait.server.wire.state_vector import decode_state_vector
from plait.server.wire.surrogates import broken, cuts, pairs, rewrite
from plait.server.wire.update import Id, inspect
from tests.support.node import run_node
from tests.wire.recorded import histories, updates

# "a😀b" is typed; the second half of the emoji is deleted; "xyz" is inserted there; and so on.
HALF_DELETED = [
    bytes.fromhex(made)
    for made in (
        "01010700040101740661f09f98806200",
        "000107010201",
        "01010704c4070207030378797a00",
        "01010707440700015100",
        "0101070884070303656e6400",
    )
]
HALF_DELETED_TEXT = "Qa\ufffdxyzbend"

TEXTS_IN_YJS = """
import fs from 'fs'
import * as Y from 'yjs'
const texts = JSON.parse(fs.readFileSync(0)).map(update => {
  const doc = new Y.Doc()
  Y.applyUpdate(doc, Buffer.from(update, 'hex'))
  if (doc.store.pendingStructs || doc.store.pendingDs) throw new Error('pending')
  return doc.getText('t').toString()
})
console.log(JSON.stringify(texts))
"""


class Careful:
    """A document that is given updates as `surrogates` says."""

    def __init__(self) -> None:
        self.doc: Doc[Any] = Doc()
        self.pairs: set[Id] = set()

    def apply(self, update: bytes) -> None:
        known = decode_state_vector(self.doc.get_state())
        every_pair = self.pairs | pairs(update)
        torn = broken(every_pair, cuts(update, known))
        if torn & self.pairs:
            state = rewrite(self.doc.get_update(), torn)
            self.doc = Doc()
            self.doc.apply_update(state)
        self.doc.apply_update(rewrite(update, torn))
        self.pairs = every_pair - torn

    def text(self) -> str:
        return str(self.doc.get("t", type=Text))


def test_half_a_deleted_emoji() -> None:
    careful = Careful()
    for update in HALF_DELETED:
        careful.apply(update)
    assert careful.text() == HALF_DELETED_TEXT
    encoded = careful.doc.get_update()
    assert get_state(encoded) == careful.doc.get_state()
    assert json.loads(run_node(TEXTS_IN_YJS, stdin=json.dumps([encoded.hex()]).encode())) == [
        HALF_DELETED_TEXT
    ]


def test_random_histories_end_as_in_yjs(rounds: Callable[[int], int]) -> None:
    count = rounds(500)
    encoded = []
    expected = []
    wrong_without_care = 0
    for history in histories("emoji", seed=4, count=count, edits=40):
        careful = Careful()
        bare: Doc[Any] = Doc()
        for made in history["updates"]:
            update = bytes.fromhex(made)
            careful.apply(update)
            bare.apply_update(update)
            known = decode_state_vector(careful.doc.get_state())
            assert all(known[client] >= end for client, _, end in inspect(update).runs)
        assert careful.text() == history["text"]
        encoded.append(careful.doc.get_update().hex())
        expected.append(history["text"])
        reloaded: Doc[Any] = Doc()
        reloaded.apply_update(bare.get_update())
        wrong_without_care += str(reloaded.get("t", type=Text)) != history["text"]
    assert json.loads(run_node(TEXTS_IN_YJS, stdin=json.dumps(encoded).encode())) == expected
    # Otherwise there would be no need for any of this.
    assert wrong_without_care > count / 2


def test_pairs_are_found_where_they_are() -> None:
    assert pairs(HALF_DELETED[0]) == {(7, 1)}
    assert pairs(updates()["typing: state"]) == set()
    # 3 + 2, then 5 emoji of which 2 are joined to the one before.
    client = 3_000_000_001
    assert pairs(updates()["text beyond ASCII 2"]) == {(client, k) for k in (7, 9, 12, 15)}
    assert pairs(updates()["values: state"]) == set()


def test_cuts_are_found_where_they_are() -> None:
    assert cuts(HALF_DELETED[0]) == set()
    assert cuts(HALF_DELETED[1]) == {(7, 2), (7, 3)}
    assert cuts(HALF_DELETED[2]) == {(7, 3)}
    assert cuts(HALF_DELETED[3]) == {(7, 0)}
    assert cuts(HALF_DELETED[0], {7: 2}) == {(7, 2)}
    assert cuts(HALF_DELETED[0], {7: 0, 8: 5}) == set()
    assert cuts(b"\x80\x00" + HALF_DELETED[1][1:]) == {(7, 2), (7, 3)}


def test_rewriting_keeps_all_else() -> None:
    torn = rewrite(HALF_DELETED[0], {(7, 1)})
    assert torn == bytes.fromhex("01010700040101740861efbfbdefbfbd6200")
    assert inspect(torn).runs == inspect(HALF_DELETED[0]).runs
    for name, update in updates().items():
        assert rewrite(update, {(7, 1), (3_000_000_001, 1)}) == update, name
        everything = rewrite(update, pairs(update))
        assert inspect(everything) == inspect(update)._replace(astral=False)


def test_an_update_that_begins_within_a_pair() -> None:
    # We know one character of a client; another update says that it was half an emoji.
    known = bytes.fromhex("0101070004010174016100")
    other = bytes.fromhex("0101070004010174" + "04f09f988000")
    bare: Doc[Any] = Doc()
    for update in (known, other):
        bare.apply_update(update)
    assert decode_state_vector(bare.get_state()) == {7: 1}
    careful = Careful()
    for update in (known, other):
        careful.apply(update)
    assert decode_state_vector(careful.doc.get_state()) == {7: 2}
    assert careful.text() == "a\ufffd"


@pytest.mark.parametrize("name", ["half deleted", "with an emoji inserted"])
def test_yjs_does_the_same(name: str) -> None:
    script = """
    import * as Y from 'yjs'
    const doc = new Y.Doc()
    const text = doc.getText('t')
    text.insert(0, 'a😀b')
    process.argv[1] === 'half deleted' ? text.delete(2, 1) : text.insert(2, '😀')
    const update = Buffer.from(Y.encodeStateAsUpdate(doc)).toString('hex')
    console.log(JSON.stringify([text.toString(), update]))
    """
    text, update = json.loads(run_node(script, name))
    careful = Careful()
    careful.apply(bytes.fromhex(update))
    assert careful.text() == text
    assert "\ufffd" in text
