"""What pycrdt changes comes back: real Yjs sees BigInts, zeros and subdocuments as they were."""

import json
from typing import Any

from pycrdt import Doc, merge_updates

from plait.server.wire.originals import collect, put_back
from plait.server.wire.update import inspect
from tests.support.node import run_node
from tests.wire.recorded import updates

DOCUMENT = """
import * as Y from 'yjs'
const doc = new Y.Doc()
doc.clientID = 5
const updates = []
doc.on('update', update => updates.push(Buffer.from(update).toString('hex')))
const map = doc.getMap('m')
map.set('big', 1n)
map.set('bigger', 2n ** 62n)
map.set('negative', { deep: [{ deeper: -5n, same: 5 }], zero: -0 })
map.set('zero', -0)
map.set('number', 1)
map.set('gone', 7n)
const list = doc.getArray('a')
for (let i = 0; i < 6; i++) list.push([{ n: BigInt(i) }])
list.push([1, 2, { n: 3n }, 4])
list.insert(2, [{ n: 100n }])
list.delete(8, 1)
map.delete('gone')
map.set('plain', new Y.Doc({ guid: 'plain' }))
const meta = { title: 'é', n: 1n }
map.set('options', new Y.Doc({ guid: 'options', gc: false, autoLoad: true, meta }))
console.log(JSON.stringify(updates))
"""

SHOWN = """
import fs from 'fs'
import * as Y from 'yjs'
const show = (key, value) => {
  if (typeof value === 'bigint') return `bigint ${value}`
  if (Object.is(value, -0)) return 'negative zero'
  if (value instanceof Y.Doc) {
    const { guid, gc, meta, autoLoad, shouldLoad } = value
    return { guid, gc, meta, autoLoad, shouldLoad }
  }
  return value
}
const shown = JSON.parse(fs.readFileSync(0)).map(updates => {
  const doc = new Y.Doc()
  updates.forEach(update => Y.applyUpdate(doc, Buffer.from(update, 'hex')))
  const map = [...doc.getMap('m').entries()].sort()
  return JSON.stringify([map, doc.getArray('a').toArray()], show)
})
console.log(JSON.stringify(shown))
"""


def shown_by_yjs(*cases: list[bytes]) -> list[str]:
    given = json.dumps([[update.hex() for update in case] for case in cases])
    shown: list[str] = json.loads(run_node(SHOWN, stdin=given.encode()))
    return shown


def test_yjs_sees_what_it_wrote() -> None:
    made = [bytes.fromhex(update) for update in json.loads(run_node(DOCUMENT))]
    doc: Doc[Any] = Doc()
    originals = {}
    for update in made:
        if not inspect(update).lossless:
            originals.update(collect(update))
        doc.apply_update(update)
    encoded = doc.get_update()
    diff = doc.get_update(b"\x01\x05\x03")
    original, bare, whole, behind, merged = shown_by_yjs(
        made,
        [encoded],
        [put_back(encoded, originals)],
        [*made[:3], put_back(diff, originals)],
        [put_back(merge_updates(*made), originals)],
    )
    assert "bigint 4611686018427387904" in original and "negative zero" in original
    # Otherwise there would be no need for any of this.
    assert "bigint" not in bare
    assert whole == behind == merged == original


def test_nothing_is_collected_where_nothing_is_lost() -> None:
    for name, update in updates().items():
        assert bool(collect(update)) != inspect(update).lossless, name
        assert put_back(update, collect(update)) == update


def test_values_that_are_not_there_are_passed_over() -> None:
    state = updates()["values: state"]
    assert put_back(state, {(1, 0): b"\x7a" + bytes(8)}) == state
