"""What pycrdt changes or can't read comes back: real Yjs sees values, with their keys in order, as
they were.
"""

import json
from typing import Any

from pycrdt import Doc, merge_updates

from plait.server.wire.stand_ins import MARK_BYTES, hide, new_mark, original, show
from plait.server.wire.structs import read_structs
from plait.server.wire.update import inspect
from tests.support.node import run_node
from tests.wire.recorded import updates

MARK = new_mark()

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
map.set('ordered', { b: 1, a: 2, c: { z: [{ y: 1, x: 2 }], d: null }, e: undefined })
list.insert(0, [1, { b: 1, a: 2 }, 'x', { d: 1, c: 2, b: 3, a: 4 }, { e: 5, d: 4 }])
list.delete(3, 1)
const text = doc.getText('t')
text.insert(0, 'a long line', { link: { title: '\\u{1f680}'[0], href: 'x' } })
text.format(2, 3, { ['\\u{1f680}'[0]]: { b: 1, a: 'é"\\\\\\n' } })
text.insertEmbed(1, { id: 1e19, n: 5e-324, b: -0, a: [] })
let deep = 1
for (let i = 0; i < 500; i++) deep = i % 2 ? [deep] : { deep }
text.insertEmbed(1, deep, { deep })
const element = new Y.XmlElement('p')
doc.getXmlFragment('x').insert(0, [element, new Y.XmlHook('hook é')])
element.setAttribute('style', { b: '\\u{1f680}'[0], a: [1, 2] })
doc.getXmlFragment('x').get(1).set('k', { b: 1, a: 2 })
const beta = new Y.Item(Y.createID(5, Y.getState(doc.store, 5)), null, null, null, null,
  doc.getArray('j'), null, new Y.ContentJSON([{ b: 1, a: 2 }, undefined, 'three', 4]))
doc.transact(transaction => beta.integrate(transaction, 0))
doc.getArray('j').insert(2, [{ b: 1, a: 2 }])
doc.getArray('j').delete(0)
console.log(JSON.stringify(updates))
"""

SHOWN = """
import fs from 'fs'
import * as Y from 'yjs'
const show = (key, value) => {
  if (typeof value === 'bigint') return `bigint ${value}`
  if (Object.is(value, -0)) return 'negative zero'
  if (value === undefined) return 'undefined'
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
  const xml = doc.getXmlFragment('x').toArray().map(node => node instanceof Y.XmlHook
    ? [node.hookName, [...node.entries()].sort()]
    : [node.nodeName, Object.entries(node.getAttributes()).sort()])
  const lists = [doc.getArray('a').toArray(), doc.getArray('j').toArray()]
  return JSON.stringify([map, lists, doc.getText('t').toDelta(), xml], show)
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
    for update in made:
        doc.apply_update(hide(update, MARK))
    encoded = doc.get_update()
    diff = doc.get_update(b"\x01\x05\x03")
    merged = merge_updates(*(hide(update, MARK) for update in made))
    original, whole, behind, together = shown_by_yjs(
        made, [show(encoded, MARK)], [*made[:3], show(diff, MARK)], [show(merged, MARK)]
    )
    assert "bigint 4611686018427387904" in original and "negative zero" in original
    assert '{"id":10000000000000000000,' in original and r'{"title":"\ud83d"' in original
    assert '[{"b":1,"a":2},"undefined","three",4]' not in original
    assert '["undefined",{"b":1,"a":2},"three",4]' in original
    assert whole == behind == together == original
    for update in (show(encoded, MARK), show(diff, MARK), show(merged, MARK)):
        assert MARK not in update


def test_it_is_needed() -> None:
    """What pycrdt would do without, so that we learn when it no longer does."""
    made = [bytes.fromhex(update) for update in json.loads(run_node(DOCUMENT))]
    ordered = next(update for update in made if b"ordered" in update)
    assert len({_alone(ordered) for _ in range(20)}) > 1
    bigint = made[0]
    assert _alone(bigint) != bigint
    unreadable = [update for update in made if not _can_be_read(update)]
    assert any(b'"id":1' in update for update in unreadable)
    assert any(b"\\ud83d" in update for update in unreadable)


def _alone(update: bytes) -> bytes:
    return merge_updates(update, b"\x00\x00")


def _can_be_read(update: bytes) -> bool:
    try:
        _alone(update)
    except ValueError:
        return False
    return True


def test_stand_ins_are_there_where_something_would_be_lost() -> None:
    for name, update in updates().items():
        hidden = hide(update, MARK)
        assert (hidden is update) == inspect(update).lossless, name
        assert inspect(hidden).lossless and inspect(hidden).runs == inspect(update).runs, name
        shown = show(hidden, MARK)
        # Several values of ContentJSON become several structs.
        assert shown == update or name in ("orders and odd JSON 6", "orders and odd JSON: state")
        assert hide(shown, MARK) == hidden


def test_several_values_of_a_beta_come_back_one_by_one() -> None:
    update = updates()["orders and odd JSON 6"]
    shown = show(hide(update, MARK), MARK)
    found = [(each.kind, each.clock, each.length, each.origin) for each in read_structs(shown)]
    client = 3000000001
    assert found == [
        (2, 10, 1, None),
        (2, 11, 1, (client, 10)),
        (2, 12, 1, (client, 11)),
        (2, 13, 1, (client, 12)),
    ]


def test_only_what_has_the_mark_is_a_stand_in() -> None:
    assert len(MARK) == MARK_BYTES and new_mark() != MARK
    assert original(MARK + b"v\x7e", MARK) == ("value", b"\x7e")
    assert original(new_mark() + b"v\x7e", MARK) is None
    state = updates()["values: state"]
    assert show(state, MARK) is state
