"""What is in nothing: it is garbage for everybody, in whatever order updates come."""

import json
from dataclasses import replace
from itertools import permutations

import pytest

from plait.server.cutting import LARGE_BYTES, cut
from plait.server.document import Applied, Document
from plait.server.folding import fold_rows, fold_snapshot, read
from plait.server.limits import Limits
from plait.server.updates import merge
from plait.server.wire.parents import without
from plait.server.wire.places import Places
from plait.server.wire.structs import read_structs
from plait.server.wire.update import GC, inspect
from tests.server.test_folding import stored
from tests.support.authors import text_of
from tests.support.node import run_node

LIMITS = Limits()

# Client 5 formats the text `text` and writes a word, and deletes the format.
FORMAT = bytes.fromhex("010205000601 0474657874 04626f6c640474727565 84050003616263 00")
DELETE = bytes.fromhex("00 0105010001")
# Client 6 writes into the format, which only Yjs lets pass; client 7 makes a map in it, in which
# there is a text, in which it writes.
INSIDE = bytes.fromhex("0101060004 00050003 78797a 00")
NESTED = bytes.fromhex("01030700 0700050001 2700070001 6b02 040007010171 00")
UPDATES = FORMAT, DELETE, INSIDE, NESTED

READ_BY_YJS = """
import * as Y from 'yjs'
import { readFileSync } from 'node:fs'
const shown = JSON.parse(readFileSync(0, 'utf8')).map(updates => {
  const doc = new Y.Doc()
  for (const update of updates) Y.applyUpdate(doc, Buffer.from(update, 'hex'))
  return [doc.getText('text').toDelta(), Y.encodeStateVector(doc).length]
})
console.log(JSON.stringify(shown))
"""


@pytest.mark.parametrize("order", [*permutations(UPDATES)])
def test_a_log_can_be_loaded_whatever_the_order_of_its_rows(order: tuple[bytes, ...]) -> None:
    """Two nodes may log a deletion and what was written meanwhile in any order: pycrdt alone failed
    on every order in which the deletion was last, and the document could never be opened again.
    """
    document, waiting = read(stored([*order]), LIMITS)
    assert not waiting
    assert document.clocks() == {5: 4, 6: 3, 7: 3}
    assert text_of(document.encode()) == "abc"


def test_yjs_shows_the_same() -> None:
    sent = []
    for order in permutations(UPDATES[1:]):
        document = Document(LIMITS)
        told = [document.apply(update)[2] for update in (FORMAT, *order)]
        sent += [[each.hex() for each in (FORMAT, *order)], [each.hex() for each in told]]
    shown = json.loads(run_node(READ_BY_YJS, stdin=json.dumps(sent).encode()))
    assert shown == [[[{"insert": "abc"}], 7]] * 12


def test_what_others_are_told_can_be_merged() -> None:
    """Found by fuzzing: a room merges what it broadcasts in a turn, and a replica that was sent
    the deletion with what builds upon it failed.
    """
    document = Document(LIMITS)
    told = [document.apply(update)[2] for update in UPDATES]
    assert [each.kind for each in read_structs(told[2])] == [GC]
    assert [each.kind for each in read_structs(told[3])] == [GC] * 3
    replica = Document(LIMITS)
    assert replica.apply(merge(told))[0] is Applied.CHANGED
    assert replica.clocks() == document.clocks()
    assert text_of(replica.encode()) == text_of(document.encode())


def test_old_rows_can_be_folded() -> None:
    rows = [FORMAT, DELETE, INSIDE, NESTED]
    segment = fold_rows(stored(rows).updates)
    document, _ = read(stored([segment.update]), LIMITS)
    assert text_of(document.encode()) == "abc"


def test_what_is_in_a_type_of_which_nothing_is_left_is_garbage() -> None:
    """A genuine case: somebody who was away has written into a paragraph that is gone."""
    paragraph = bytes.fromhex("01020700 0701017803 0170 0700070006 00")
    gone = bytes.fromhex("00 0107010002")
    late = bytes.fromhex("01020800 0400070103 616263 84080201 64 00")
    live, _ = read(stored([paragraph, gone]), LIMITS)
    snapshot = fold_snapshot(stored([paragraph, gone]), LIMITS, 0)
    assert snapshot is not None
    loaded, _ = read(stored([], snapshot), LIMITS)
    for document in (live, loaded):
        applied, _, told, *_ = document.apply(late)
        assert applied is Applied.CHANGED
        assert document.clocks() == {7: 2, 8: 4}
    assert [each.kind for each in read_structs(told)][0] == GC
    assert loaded.apply(live.encode())[0] is Applied.KNOWN
    assert loaded.equals(live)


def test_what_is_in_a_loaded_type_stays() -> None:
    paragraph = bytes.fromhex("01020700 0701017803 0170 0700070006 00")
    words = bytes.fromhex("0101080004 00070103 616263 00")
    snapshot = fold_snapshot(stored([paragraph]), LIMITS, 0)
    assert snapshot is not None and snapshot.types == 2
    for each in (snapshot, replace(snapshot, places=None)):
        document, _ = read(stored([], each), LIMITS)
        assert document.apply(words)[2] is words


def test_a_known_place_can_not_be_made_a_type_afterwards() -> None:
    """An update repeats a place that is known, and says that it was a type."""
    document = Document(LIMITS)
    document.apply(FORMAT)
    lie = bytes.fromhex("0103 0500 070104746578740184050003616263 0400050001 7a 00")
    _, _, told, *_ = document.apply(lie)
    assert [(each.clock, each.kind) for each in read_structs(told)] == [(4, GC)]
    assert text_of(document.encode()) == "abc"


def test_only_what_is_in_the_strangers_is_taken_out() -> None:
    inside = merge([INSIDE, NESTED])
    assert without(inside, []) is inside
    assert without(inside, [(5, 1)]) is inside
    assert {each.kind for each in read_structs(without(inside, [(5, 0)]))} == {GC}
    assert inspect(inside).parents == ((5, 0),)
    assert inspect(inside).types == ((7, 0), (7, 1))
    assert inspect(without(inside, [(5, 0)])).runs == inspect(inside).runs


def test_a_large_update_is_cut_without_them() -> None:
    words = b"x" * LARGE_BYTES
    size = len(words)
    long = bytes((size & 127 | 128, size >> 7 & 127 | 128, size >> 14))
    large = bytes.fromhex("01020600 0400050001 79 840600") + long + words + b"\x00"
    known = {5: 4}
    found = cut(large, known, LIMITS, [(5, 0)])
    assert found.unknown is not None
    assert found.shape.parents == ()
    assert [each.kind for part, _ in found.parts for each in read_structs(part)][0] == GC
    assert cut(large, known, LIMITS).unknown is None
    document = Document(LIMITS)
    document.apply(FORMAT)
    assert document.strangers(cut(large, known, LIMITS).shape) == [(5, 0)]
    assert isinstance(document.places_of_types, Places)
    for part, shape in found.parts:
        document.apply_part(part, shape)
    assert document.clocks() == {5: 4, 6: size + 1}
