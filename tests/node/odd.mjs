// Edits that are rare, and that Yjs lets a client make; and what people wrote who are not there.
import * as Y from 'yjs'

const deep = (depth, value = 1) => { for (let i = 0; i < depth; i++) value = i % 2 ? [value] : { in: value }; return value }

/** Values that JSON can hold, keys in an order of their own; what an embed or a mark may be. */
const json = rng => rng.of([
  { b: 1, a: 2, c: { z: [1, { y: 1, x: 2 }], k: null }, d: 4 },
  { link: { title: '🚀'[0] } },
  { id: 1e19, big: 1.7976931348623157e308, small: 5e-324, zero: 0 },
  { [`k${rng.below(50)}`]: rng.below(9), 2: 'two', 1: 'one', '': 'empty' },
  { 'ünï🚀': '\u0000\u2028\ufeff', a: '"\\', '\ud800': 1 },
  deep(100 + rng.below(60)),
  deep(10 + rng.below(10), { b: 9223372036854775807, a: -9223372036854775808 }),
  [], {}, '', 'text', true, 18446744073709551616, -1e21, [[[]]], ['\udc00']
])

/** Values of Yjs' own encoding. */
const value = rng => rng.of([
  json, json,
  () => rng.of([undefined, null, NaN, Infinity, -0, 0.1, 2 ** 31, -(2 ** 31), 2 ** 53, 1e300]),
  () => rng.of([0n, -1n, 2n ** 63n - 1n, -(2n ** 63n), BigInt(rng.below(1e9)) ** 2n]),
  () => new Uint8Array(rng.below(40)).map(() => rng.below(256)),
  () => ({ z: new Uint8Array([1]), b: [1n, undefined, -0, { y: NaN, x: 1n }], a: { c: 1, b: 2 } }),
  () => deep(300 + rng.below(100), { b: 1n, a: 2 })
])(rng)

/** Those of them that may be in a list. */
const item = rng => { const found = value(rng); return found === undefined || typeof found === 'bigint' ? [found] : found }

const KEYS = ['x', '', 'constructor', 'ключ', 'a b', '🚀', 'z'.repeat(300)]

const ODD = [
  ({ map, rng }) => map.set(rng.of(KEYS), value(rng)),
  ({ map, rng }) => map.set(rng.of(KEYS), value(rng)),
  ({ map, rng }) => map.delete(rng.of(KEYS)),
  ({ map, rng }) => map.set('deep', nested(rng)),
  ({ map, rng }) => map.get('deep')?.set?.(rng.of(KEYS), value(rng)),
  ({ map, rng }) => map.set('doc', new Y.Doc({ guid: `guid ${rng.below(9)}`, meta: { b: 1, a: [2] }, autoLoad: rng.below(2) === 0 })),
  ({ array, rng }) => array.insert(rng.below(array.length + 1), [item(rng), item(rng), item(rng)]),
  ({ array, rng }) => array.insert(rng.below(array.length + 1), [new Uint8Array([rng.below(9)])]),
  ({ array, rng }) => array.length > 2 && array.delete(rng.below(array.length - 1), 2),
  ({ text, rng }) => text.insertEmbed(rng.below(text.length + 1), object(rng), rng.below(2) ? { mark: json(rng) } : {}),
  ({ text, rng }) => text.insert(rng.below(text.length + 1), 'marked', { link: json(rng), style: { b: 1, a: 2 } }),
  ({ text, rng }) => text.insertEmbed(rng.below(text.length + 1), nested(rng)),
  ({ text, rng }) => text.setAttribute('side', value(rng)),
  ({ text, rng }) => text.applyDelta([{ retain: rng.below(text.length + 1) }, { insert: 'δ', attributes: { d: object(rng) } }]),
  ({ xml, rng }) => xml.insert(rng.below(xml.length + 1), [element(rng)]),
  ({ xml, rng }) => xml.firstChild?.setAttribute?.(rng.of(['b', 'a', 'kind']), rng.of([value(rng), [{ columnName: 'kind', value: ['a', 'b'] }]])),
  ({ xml, rng }) => xml.firstChild?.insert?.(0, [hook(rng)])
]

const object = rng => { const found = json(rng); return found !== null && typeof found === 'object' ? found : { value: found } }

const nested = rng => {
  const map = new Y.Map()
  map.set('b', value(rng))
  map.set('a', Y.Array.from([item(rng), item(rng)]))
  return map
}

const element = rng => {
  const made = new Y.XmlElement(rng.of(['p', 'x-y', 'ü']))
  made.setAttribute('b', value(rng))
  made.setAttribute('a', 'text')
  const text = new Y.XmlText('inner')
  text.insert(2, 'marked', { m: json(rng) })
  made.insert(0, [text])
  return made
}

const hook = rng => {
  const made = new Y.XmlHook('hook')
  made.set('key', value(rng))
  return made
}

/** Make one of these edits. */
export const oddEdit = (doc, rng) => {
  const { text, map, array, xml } = {
    text: doc.getText('text'), map: doc.getMap('map'), array: doc.getArray('array'), xml: doc.getXmlFragment('xml')
  }
  rng.of(ODD)({ text, map, array, xml, rng })
}

/** The updates, one an edit, of two people who edited without a server. */
export const pieces = rng => {
  const docs = [new Y.Doc(), new Y.Doc()]
  docs.forEach((doc, i) => { doc.clientID = 50 + i })
  const made = []
  docs.forEach(doc => doc.on('update', (update, origin) => { if (origin !== 'heard') made.push(update) }))
  for (let i = 0; i < 12; i++) {
    const doc = rng.of(docs)
    const text = doc.getText('text')
    const what = rng.below(4)
    if (what === 0 && text.length) text.delete(rng.below(text.length), 1)
    else if (what === 1) doc.getMap('map').set(rng.of(['absent', 'x']), rng.below(99))
    else text.insert(rng.below(text.length + 1), 'gone '.slice(rng.below(4)))
    for (const other of docs) if (other !== doc && rng.below(3)) made.forEach(update => Y.applyUpdate(other, update, 'heard'))
  }
  return made
}
