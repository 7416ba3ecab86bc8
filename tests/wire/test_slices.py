"""Slices give the same document as the whole, in pycrdt and in real Yjs, and never wait."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pycrdt import Doc

from plait.server.wire.slices import slice_state
from plait.server.wire.state_vector import decode_state_vector
from plait.server.wire.update import inspect, ready
from tests.support.node import run_node
from tests.wire.recorded import histories, updates

IN_YJS = """
import fs from 'fs'
import * as Y from 'yjs'
const load = updates => {
  const doc = new Y.Doc()
  doc.getText('t'); doc.getArray('a'); doc.getMap('m'); doc.getXmlFragment('x')
  // In one transaction, for Yjs tidies formats at the end of each, see slices.py.
  doc.transact(() => updates.forEach(update => {
    Y.applyUpdate(doc, Buffer.from(update, 'hex'))
    if (doc.store.pendingStructs || doc.store.pendingDs) throw new Error('pending')
  }))
  return doc
}
// pycrdt keeps no order of keys.
const show = doc => JSON.stringify([doc.toJSON(), doc.getText('t').toDelta()], (key, value) =>
  value && typeof value === 'object' && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value).sort())
    : value)
const differences = JSON.parse(fs.readFileSync(0)).filter(({ state, slices, encoded }) => {
  const whole = load([state])
  const parts = load(slices)
  return show(load([encoded])) !== show(whole) || show(parts) !== show(whole) ||
    Buffer.compare(Y.encodeStateAsUpdate(parts), Y.encodeStateAsUpdate(whole))
})
console.log(JSON.stringify(differences))
"""


def apply_slices(state: bytes, slices: list[bytes]) -> Doc[Any]:
    """Apply one after another, and check after each that it was whole and is known."""
    doc: Doc[Any] = Doc()
    expected: dict[int, int] = {}
    for each in slices:
        shape = inspect(each)
        assert ready(shape, expected)
        doc.apply_update(each)
        expected.update({client: end for client, _, end in shape.runs})
        assert decode_state_vector(doc.get_state()) == expected
    whole: Doc[Any] = Doc()
    whole.apply_update(state)
    assert decode_state_vector(whole.get_state()) == expected
    return doc


def test_slices_of_random_histories_are_the_whole(rounds: Callable[[int], int]) -> None:
    cases = []
    for history in histories("rich", seed=3, count=rounds(40), edits=60):
        state = bytes.fromhex(history["states"][0])
        for slice_bytes in (1, 60, 400):
            slices = slice_state(state, slice_bytes)
            assert len(slices) > 1
            doc = apply_slices(state, slices)
            cases.append(
                {
                    "state": state.hex(),
                    "slices": [each.hex() for each in slices],
                    "encoded": doc.get_update().hex(),
                }
            )
    assert json.loads(run_node(IN_YJS, stdin=json.dumps(cases).encode())) == []


def test_a_slice_has_about_the_size_that_is_asked_for() -> None:
    doc: Doc[Any] = Doc()
    state = b"\x01\x80\x50\x07\x00" + b"\x04\x01\x01t\x01x" * (80 << 7) + b"\x00"
    inspect(state)
    doc.apply_update(state)
    for slice_bytes in (1000, 10_000):
        slices = slice_state(state, slice_bytes)
        assert all(slice_bytes <= len(each) < slice_bytes + 30 for each in slices[:-1])
        apply_slices(state, slices)


def test_a_small_state_is_one_slice() -> None:
    for state in updates().values():
        assert slice_state(state) == [state]


def test_deletes_are_cut_too() -> None:
    ranges = [(clock, 1) for clock in range(0, 2000, 2)]
    text = b"\x01\x01\x07\x00\x04\x01\x01t" + b"\xd0\x0f" + b"x" * 2000
    deletes = b"\x01\x07\xe8\x07" + b"".join(
        bytes((clock & 127 | 128, clock >> 7, 1)) for clock, _ in ranges
    )
    state = text + deletes
    slices = slice_state(state, 800)
    assert len(slices) == 11
    doc = apply_slices(state, slices)
    whole: Doc[Any] = Doc()
    whole.apply_update(state)
    assert doc.get_update() == whole.get_update()


def test_a_diff_is_cut_as_well() -> None:
    diff = updates()["three clients: diff"]
    slices = slice_state(diff, 1)
    doc: Doc[Any] = Doc()
    doc.apply_update(updates()["base: state"])
    for each in slices:
        assert ready(inspect(each), decode_state_vector(doc.get_state()))
        doc.apply_update(each)
    state = decode_state_vector(doc.get_state())
    assert all(state[client] == end for client, _, end in inspect(diff).runs)


def test_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match="Structs of client 3000000001 are missing"):
        slice_state(updates()["merged with gaps"], 1)


def test_structs_that_wait_for_each_other_are_refused() -> None:
    waiting = b"\x02\x01\x09\x00\x84\x07\x00\x01a\x01\x07\x00\x84\x09\x00\x01b\x00"
    assert inspect(waiting).needs == {7: 1, 9: 1}
    with pytest.raises(ValueError, match="need each other"):
        slice_state(waiting, 1)
