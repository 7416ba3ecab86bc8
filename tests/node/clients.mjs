// Real y-websocket clients, the edits that they make, and what it means that two documents are equal.
import { createInterface } from 'node:readline'
import WebSocket from 'ws'
import * as Y from 'yjs'
import { WebsocketProvider as Version3 } from 'y-websocket'
import { WebsocketProvider as Version1 } from 'y-websocket1'

const PROVIDERS = { v3: Version3, v1: Version1 }

/** A client with a document of its own. What the server closes it with is collected in `closed`. */
export const open = (version, url, room, { Socket = WebSocket, params = {}, maxBackoffTime = 300, doc = new Y.Doc() } = {}) => {
  const provider = new PROVIDERS[version](url, room, doc, {
    WebSocketPolyfill: Socket,
    disableBc: true,
    params,
    maxBackoffTime
  })
  const closed = []
  provider.on('connection-close', event => { if (event) closed.push([event.code, event.reason]) })
  return { doc, provider, closed }
}

/** Wait for a condition; after the deadline return false. */
export const eventually = async (condition, seconds) => {
  const deadline = Date.now() + seconds * 1000
  while (!condition()) {
    if (Date.now() > deadline) return false
    await pause(20)
  }
  return true
}

export const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds))

/** mulberry32: the same seed gives the same edits, though not the same moments. */
export const random = seed => {
  const next = () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  return { next, below: n => Math.floor(next() * n), of: list => list[Math.floor(next() * list.length)] }
}

// Edits

const WORDS = ['a', 'word ', 'ñ', '日本', '\n', '👍', '👩‍👩‍👧', 'x😀y']

const EDITS = [
  ({ text, rng }) => text.insert(rng.below(text.length + 1), rng.of(WORDS)),
  ({ text, rng }) => text.insert(rng.below(text.length + 1), rng.of(WORDS), { bold: true }),
  ({ text, rng }) => cut(text, rng), // of an emoji, that is half of it
  ({ text, rng }) => emphasize(text, rng),
  ({ text, rng }) => text.insertEmbed(rng.below(text.length + 1), { image: rng.below(9) }),
  ({ map, rng }) => map.set('key' + rng.below(12), rng.of([rng.below(1e6), 'text', null, { nested: [1, { deep: true }] }, new Uint8Array([1, 2, 3]), 10n ** 15n])),
  ({ map, rng }) => map.delete('key' + rng.below(12)),
  ({ array, rng }) => array.insert(rng.below(array.length + 1), [rng.below(99), 'text', -0.5, true]),
  ({ array, rng }) => array.length && array.delete(rng.below(array.length), 1),
  ({ array, rng }) => array.insert(rng.below(array.length + 1), [nested(rng)]),
  ({ array, rng }) => { const within = rng.of(array.toArray()); if (within instanceof Y.Map) within.get('text').insert(0, rng.of(WORDS)) },
  ({ xml, rng }) => xml.insert(rng.below(xml.length + 1), [paragraph(rng)]),
  ({ xml, rng }) => xml.length && xml.get(rng.below(xml.length)).setAttribute('level', String(rng.below(9))),
  ({ xml, rng }) => xml.length > 6 && xml.delete(rng.below(xml.length), 1)
]

const cut = (text, rng) => {
  if (text.length > 8) text.delete(rng.below(text.length - 4), 1 + rng.below(3))
}

// Whole characters only: documents of Yjs 13.6 do not converge, among themselves, once a format has
// begun or ended inside a surrogate pair.
const emphasize = (text, rng) => {
  const starts = []
  let at = 0
  for (const { insert } of text.toDelta()) {
    for (const character of typeof insert === 'string' ? insert : ' ') {
      starts.push(at)
      at += character.length
    }
  }
  if (starts.length < 6) return
  const from = rng.below(starts.length - 4)
  text.format(starts[from], starts[from + 4] - starts[from], rng.of([{ bold: true }, { bold: null }, { link: 'x' }]))
}

const nested = rng => {
  const map = new Y.Map()
  map.set('text', new Y.Text(rng.of(WORDS)))
  map.set('list', Y.Array.from([1, 2, rng.below(9)]))
  return map
}

const paragraph = rng => {
  const element = new Y.XmlElement('p')
  element.setAttribute('id', String(rng.below(1e6)))
  element.insert(0, [new Y.XmlText(rng.of(WORDS)), new Y.XmlElement('br')])
  return element
}

/** Make one random edit. */
export const edit = (doc, rng) => {
  rng.of(EDITS)({ ...roots(doc), rng })
}

const roots = doc => ({
  text: doc.getText('text'),
  map: doc.getMap('map'),
  array: doc.getArray('array'),
  xml: doc.getXmlFragment('xml')
})

// Equality

/** What a document says, in a form in which equal content is an equal string. */
export const content = doc => {
  const { text, map, array, xml } = roots(doc)
  return JSON.stringify([runs(text.toDelta()), map.toJSON(), array.toJSON(), xml.toString()].map(ordered))
}

/** Whether two documents hold the same content, the same structs and the same deletions. */
export const equal = (one, other) =>
  content(one) === content(other) && Y.equalSnapshots(Y.snapshot(one), Y.snapshot(other))

const ordered = value => {
  if (typeof value === 'bigint') return `${value}n`
  if (value instanceof Uint8Array) return [...value]
  if (Array.isArray(value)) return value.map(ordered)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.keys(value).sort().map(key => [key, ordered(value[key])]))
}

// Yjs may split a run of equal format where somebody else's document has one run.
const runs = delta => {
  const merged = []
  for (const { insert, attributes } of delta) {
    const format = JSON.stringify(ordered(attributes ?? {}))
    const last = merged.at(-1)
    if (last && last.format === format && typeof last.insert === 'string' && typeof insert === 'string') {
      last.insert += insert
    } else {
      merged.push({ insert, format })
    }
  }
  return merged
}

// Being driven

/** Answer each command, a line of JSON on standard input, with a line of JSON; end with the input. */
export const answer = async commands => {
  for await (const line of createInterface({ input: process.stdin })) {
    const { command, ...options } = JSON.parse(line)
    tell(await commands[command](options))
  }
  process.exit(0)
}

export const tell = value => process.stdout.write(JSON.stringify(value ?? {}) + '\n')
