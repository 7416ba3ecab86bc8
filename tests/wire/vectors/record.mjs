// Writes the vectors beside this file: bytes that lib0, y-protocols and Yjs make, and what they mean.
// Run from tests/node, where the packages are:
//     node --input-type=module --eval "$(cat ../wire/vectors/record.mjs)"
// The same packages write the same bytes again, so a change of the vectors is a change of the peers.
import fs from 'fs'
import * as Y from 'yjs'
import * as encoding from 'lib0/encoding'
import * as awareness from 'y-protocols/awareness'
import * as sync from 'y-protocols/sync'
import * as auth from 'y-protocols/auth'

const hex = bytes => Buffer.from(bytes).toString('hex')
const write = (name, vectors) =>
  fs.writeFileSync(`../wire/vectors/${name}.json`,
    '[\n' + vectors.map(vector => JSON.stringify(vector)).join(',\n') + '\n]\n')
const encode = f => {
  const encoder = encoding.createEncoder()
  f(encoder)
  return encoding.toUint8Array(encoder)
}

// lib0.json ---------------------------------------------------------------------------------------

const numbers = [0, 1, 127, 128, 16383, 16384, 2097151, 2097152, 268435455, 268435456, 2 ** 31 - 1,
  2 ** 32 - 1, 2 ** 35 - 1, 2 ** 35, 2 ** 42, 2 ** 49 - 1, 2 ** 49, Number.MAX_SAFE_INTEGER]
const strings = ['', 'a', 'naïve ✓', '😀', 'x'.repeat(200), '\u0000']
const buffers = ['', '00', 'ff', '80'.repeat(130)]
write('lib0', [
  ...numbers.map(value => ({ type: 'var_uint', value, hex: hex(encode(e => encoding.writeVarUint(e, value))) })),
  ...strings.map(value => ({ type: 'var_string', value, hex: hex(encode(e => encoding.writeVarString(e, value))) })),
  ...buffers.map(value => ({
    type: 'var_bytes', value, hex: hex(encode(e => encoding.writeVarUint8Array(e, Buffer.from(value, 'hex'))))
  }))
])

// ywebsocket.json: the layout of y-websocket.js, written with y-protocols ---------------------------

const sample = new Y.Doc()
sample.clientID = 3000000001
sample.getText('t').insert(0, 'hello')
const long = new Y.Doc()
long.clientID = 5
long.getText('t').insert(0, 'long '.repeat(100))
const presence = clients => {
  const doc = new Y.Doc()
  const who = new awareness.Awareness(doc)
  clients.forEach(([client, clock, state]) => {
    if (state !== null) who.states.set(client, state)
    who.meta.set(client, { clock, lastUpdated: 0 })
  })
  const update = awareness.encodeAwarenessUpdate(who, clients.map(([client]) => client))
  who.destroy()
  return update
}
const people = presence([[3000000001, 7, { user: { name: 'Zoë 😀', color: '#ff0000' }, cursor: null }]])
const frame = (name, message, payload, f) => ({ name, message, payload: hex(payload), hex: hex(encode(f)) })
write('ywebsocket', [
  frame('step 1 of an empty document', 'SyncStep1', [0], e => {
    encoding.writeVarUint(e, 0); sync.writeSyncStep1(e, new Y.Doc())
  }),
  frame('step 1', 'SyncStep1', Y.encodeStateVector(sample), e => {
    encoding.writeVarUint(e, 0); sync.writeSyncStep1(e, sample)
  }),
  frame('step 2', 'SyncStep2', Y.encodeStateAsUpdate(sample), e => {
    encoding.writeVarUint(e, 0); sync.writeSyncStep2(e, sample)
  }),
  frame('step 2 without anything', 'SyncStep2', [0, 0], e => {
    encoding.writeVarUint(e, 0); sync.writeSyncStep2(e, new Y.Doc())
  }),
  frame('update', 'SyncUpdate', Y.encodeStateAsUpdate(sample), e => {
    encoding.writeVarUint(e, 0); sync.writeUpdate(e, Y.encodeStateAsUpdate(sample))
  }),
  frame('long update', 'SyncUpdate', Y.encodeStateAsUpdate(long), e => {
    encoding.writeVarUint(e, 0); sync.writeUpdate(e, Y.encodeStateAsUpdate(long))
  }),
  frame('presence', 'AwarenessUpdate', people, e => {
    encoding.writeVarUint(e, 1); encoding.writeVarUint8Array(e, people)
  }),
  frame('presence of nobody', 'AwarenessUpdate', [0], e => {
    encoding.writeVarUint(e, 1); encoding.writeVarUint8Array(e, presence([]))
  }),
  frame('query', 'QueryAwareness', [], e => encoding.writeVarUint(e, 3)),
  frame('denied', null, [], e => {
    encoding.writeVarUint(e, 2); auth.writePermissionDenied(e, 'not for you: naïve')
  })
])

// presence.json -----------------------------------------------------------------------------------

write('presence', [
  ['nobody', []],
  ['one', [[3000000001, 7, { user: { name: 'Zoë 😀' } }]]],
  ['one that has left', [[3000000001, 8, null]]],
  ['several', [[1, 0, {}], [2 ** 53 - 1, 4294967295, { a: [1, 2.5, true, null, 'x'] }], [5, 1, null]]],
  ['odd states', [[1, 0, 'text'], [2, 1, 5], [3, 2, []], [4, 3, { half: '\ud83d' }]]]
].map(([name, clients]) => ({
  name,
  entries: clients.map(([client, clock, state]) => [client, clock, state === null ? null : JSON.stringify(state)]),
  hex: hex(presence(clients))
})))

// updates.json: an update for each kind of content, and what Yjs finds in it -------------------------

const ID = id => id && [id.client, id.clock]
const describe = (name, update) => {
  const { structs, ds } = Y.decodeUpdate(update)
  return {
    name,
    hex: hex(update),
    structs: structs.map(s => ({
      client: s.id.client,
      clock: s.id.clock,
      length: s.length,
      kind: s instanceof Y.Item ? s.content.getRef() : s instanceof Y.GC ? 0 : 10,
      origin: ID(s.origin) ?? null,
      right_origin: ID(s.rightOrigin) ?? null,
      parent: s.parent instanceof Y.ID ? ID(s.parent) : null,
      root: typeof s.parent === 'string' ? s.parent : null,
      key: s.parentSub ?? null
    })),
    deletes: [...ds.clients].map(([client, ranges]) => [client, ranges.map(r => [r.clock, r.len])])
  }
}

const updates = []
const record = (name, edits, options = {}) => {
  const doc = new Y.Doc(options)
  doc.clientID = 3000000001
  const made = []
  doc.on('update', update => made.push(update))
  edits(doc)
  made.forEach((update, i) => updates.push(describe(made.length > 1 ? `${name} ${i + 1}` : name, update)))
  updates.push(describe(`${name}: state`, Y.encodeStateAsUpdate(doc)))
  return { doc, made }
}
const fork = (doc, client) => {
  const other = new Y.Doc()
  other.clientID = client
  Y.applyUpdate(other, Y.encodeStateAsUpdate(doc))
  return other
}

record('typing', doc => {
  const text = doc.getText('t')
  text.insert(0, 'ab'); text.insert(2, 'c'); text.insert(1, 'xyz'); text.insert(0, 'long '.repeat(40))
})
record('text beyond ASCII', doc => {
  const text = doc.getText('Ω')
  text.insert(0, 'naïve ✓'); text.insert(3, '😀👩‍👩‍👧'); text.insert(0, '\u{10000}\uffff')
})
record('deleting', doc => {
  const text = doc.getText('t')
  text.insert(0, 'abcdefgh'); text.delete(2, 1); text.delete(4, 2); text.delete(0, 5)
})
record('deleting without garbage collection', doc => {
  const text = doc.getText('t')
  text.insert(0, 'abcdefgh'); text.delete(2, 1); text.delete(4, 2)
}, { gc: false })
record('formatting', doc => {
  const text = doc.getText('t')
  text.insert(0, 'abcdefgh', { bold: true }); text.format(2, 3, { link: { href: 'https://example.org' }, size: 1.5 })
  text.format(0, 8, { bold: null }); text.insertEmbed(3, { image: 'x.png', width: 100, deep: [[[]]] }); text.delete(1, 4)
})
record('values', doc => {
  const list = doc.getArray('a')
  list.push([1, -1, 0, 64, -64, 2 ** 31 - 1, -(2 ** 31), 2 ** 40, 1.5, 0.1, 1e300, NaN, Infinity])
  list.push([true, false, null, { none: undefined }, '', 'é😀', {}, [], { a: [{ b: [1] }], '': 2 }])
  list.insert(3, [new Uint8Array([1, 2, 3]), new Uint8Array()])
  list.delete(1, 12)
})
record('lossy values', doc => {
  doc.getArray('a').push([{ big: 1n }, 2, [{ deep: -(2n ** 63n) }], -0])
  doc.getMap('m').set('k', 2n ** 62n)
})
record('map', doc => {
  const map = doc.getMap('m')
  map.set('k', 1); map.set('k', 'two'); map.set('', { x: 1 }); map.set('é', null); map.delete('k')
})
record('nested types', doc => {
  const map = new Y.Map()
  doc.getMap('m').set('map', map)
  const list = new Y.Array()
  map.set('list', list)
  const text = new Y.Text('in a text')
  list.push([1, text, new Y.Array()])
  text.insertEmbed(2, new Y.Map([['in an embed', 1]]))
  list.delete(1, 1)
  doc.getMap('m').delete('map')
})
record('xml', doc => {
  const fragment = doc.getXmlFragment('x')
  const paragraph = new Y.XmlElement('paragraph')
  fragment.insert(0, [paragraph, new Y.XmlText('after')])
  paragraph.setAttribute('align', 'left')
  paragraph.setAttribute('level', 2)
  const text = new Y.XmlText('bold')
  paragraph.insert(0, [text])
  text.format(0, 2, { bold: {} })
  text.setAttribute('lang', 'en')
  paragraph.insert(1, [new Y.XmlElement('brk'), new Y.XmlFragment()])
  fragment.delete(1, 1)
  paragraph.removeAttribute('align')
})
record('subdocuments', doc => {
  const map = doc.getMap('m')
  map.set('plain', new Y.Doc({ guid: 'guid-1' }))
  map.set('options', new Y.Doc({ guid: 'guid-2', gc: false, autoLoad: true, meta: { title: 'é', n: 1n } }))
  map.delete('plain')
})
// Not through a document: Yjs has not written ContentJSON since its betas, but it still reads it.
record('orders and odd JSON', doc => {
  const text = doc.getText('t')
  text.insert(0, 'x', { link: { title: '\u{1f680}'[0], href: 'y' } })
  text.insertEmbed(0, { id: 1e19, b: 1, a: -0.5 })
  doc.getMap('m').set('o', { b: 1, a: { d: [{ z: 1, y: 2 }], c: 2 } })
  doc.getArray('a').push([1, { b: 1, a: 2 }, { c: 3 }, [{ b: 1, a: 2 }]])
  doc.getXmlFragment('x').insert(0, [new Y.XmlHook('kind')])
  const beta = []
  beta[0] = new Y.Item(Y.createID(3000000001, Y.getState(doc.store, 3000000001)), null, null, null, null,
    doc.getArray('j'), null, new Y.ContentJSON([{ b: 1, a: 2 }, undefined, 'three', 4]))
  doc.transact(transaction => beta[0].integrate(transaction, 0))
})
record('undo', doc => {
  const text = doc.getText('t')
  const undo = new Y.UndoManager(text, { captureTimeout: 0 })
  text.insert(0, 'one two three'); text.delete(4, 4); text.format(0, 3, { bold: true })
  undo.undo(); undo.undo(); undo.redo(); undo.undo()
})

const { doc: base } = record('base', doc => doc.getText('t').insert(0, 'shared'))
const [low, high] = [fork(base, 1), fork(base, 2 ** 53 - 1)]
low.getText('t').insert(3, 'LOW'); low.getMap('m').set('k', 'low'); low.getText('t').delete(0, 2)
high.getText('t').insert(3, 'HIGH'); high.getMap('m').set('k', 'high'); high.getText('t').delete(3, 3)
Y.applyUpdate(low, Y.encodeStateAsUpdate(high)); Y.applyUpdate(high, Y.encodeStateAsUpdate(low))
high.getText('t').insert(5, 'after both')
updates.push(describe('three clients: state', Y.encodeStateAsUpdate(high)))
updates.push(describe('three clients: diff', Y.encodeStateAsUpdate(high, Y.encodeStateVector(base))))
updates.push(describe('only deletions', Y.encodeStateAsUpdate(high, Y.encodeStateVector(high))))
updates.push(describe('nothing', Y.encodeStateAsUpdate(new Y.Doc())))

const { made } = record('gaps', doc => { for (let i = 0; i < 6; i++) doc.getArray('a').insert(0, [i, i]) })
updates.push(describe('merged with gaps', Y.mergeUpdates([made[0], made[2], made[5]])))
updates.push(describe('merged with a gap at the start', Y.mergeUpdates([made[4], made[1]])))
updates.push(describe('diff of gaps', Y.diffUpdate(Y.mergeUpdates([made[0], made[2], made[5]]), new Uint8Array([1, 129, 188, 193, 150, 11, 1]))))
const behind = new Y.Doc()
Y.applyUpdate(behind, made[0]); Y.applyUpdate(behind, made[3])
updates.push(describe('state with pending structs', Y.encodeStateAsUpdate(behind)))

write('updates', updates)
