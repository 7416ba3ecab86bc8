// Prints random histories of concurrent editing by real Yjs, one JSON object a line:
//     updates  as the clients made them, in an order in which they can be applied
//     states   of each client at the end, when all have everything
//     json     what they all show
//     text     of the root text `t`
//     more     genuine updates that are rarer: merged with gaps, diffs, states with pending structs
// Arguments: kind (`rich`, `odd` or `emoji`), seed, number of histories, edits in each.
import * as Y from 'yjs'

const [kind, seed, count, edits] = process.argv.slice(1).map((arg, i) => i ? Number(arg) : arg)
let state = seed
// mulberry32: the same seed gives the same history everywhere.
const random = () => {
  state = (state + 0x6D2B79F5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}
const below = n => Math.floor(random() * n)
const pick = list => list[below(list.length)]
const hex = bytes => Buffer.from(bytes).toString('hex')

const words = ['a', 'bc', 'hello ', 'é', '✓ ', '😀', '👩‍👩‍👧', 'x😀y', '😀😀', '𝄞', '\n', 'long '.repeat(20)]
const values = [() => 1, () => -7, () => 2 ** 40, () => 0.1, () => true, () => null, () => 'text 😀', () => [1, [2, { three: 3 }]],
  () => ({ a: 1, b: { c: null } }), () => new Uint8Array([1, 2]), () => new Y.Map([['k', 1]]), () => new Y.Array(),
  () => new Y.Text('inner 😀'), () => new Y.XmlElement('p'), () => new Y.XmlText('xml')]

const formats = [{ bold: true }, { bold: null }, { link: { href: 'x' } }]
const embeds = [{ image: 'x.png' }, { n: 1.5 }]
const nodes = [() => new Y.XmlElement('p'), () => new Y.XmlText('x😀')]
if (kind === 'odd') { // what pycrdt would write otherwise, or can't read
  values.push(() => ({ z: 1, y: { b: [{ d: -0, c: 1 }], a: 'é' }, x: null }), () => [{ b: 1, a: 2 }, 3, { d: 4, c: 5 }], () => -0)
  formats.push({ link: { title: '😀'[0], href: 'x' } }, { size: { b: 1e19, a: 0.25 } })
  embeds.push({ id: 1e19, '😀': '😀'[1], a: [1, { c: 2, b: 3 }] }, [1, 'x'], { b: 1, a: 2 })
  nodes.push(() => new Y.XmlHook('hook'))
}

const types = (doc) => {
  const found = [doc.getText('t'), doc.getArray('a'), doc.getMap('m'), doc.getXmlFragment('x')]
  const seen = type => {
    found.push(type)
    type._map.forEach(item => { if (!item.deleted && item.content instanceof Y.ContentType) seen(item.content.type) })
    for (let item = type._start; item; item = item.right) {
      if (!item.deleted && item.content instanceof Y.ContentType) seen(item.content.type)
    }
  }
  found.slice().forEach(type => { found.splice(found.indexOf(type), 1); seen(type) })
  return found
}

const editText = text => {
  const length = text.length
  switch (below(length ? 8 : 1)) {
    case 0: case 1: case 2: text.insert(below(length + 1), pick(words)); break
    case 3: case 4: { const at = below(length); text.delete(at, 1 + below(Math.min(length - at, 6))); break }
    case 5: { const at = below(length); text.format(at, 1 + below(length - at), pick(formats)); break }
    case 6: text.insertEmbed(below(length + 1), pick(embeds)); break
    case 7: text.insert(below(length + 1), pick(words), { em: true })
  }
}
const editList = list => {
  const length = list.length
  if (length && below(3) === 0) { const at = below(length); list.delete(at, 1 + below(length - at)) }
  else if (length > 2 && list instanceof Y.Array && below(6) === 0) list.push([1, 2, 'three'])
  else list.insert(below(length + 1), [pick(values)()])
}
const editXml = xml => {
  const length = xml.length
  if (length && below(3) === 0) xml.delete(below(length), 1)
  else if (xml instanceof Y.XmlElement && below(3) === 0) xml.setAttribute(pick(['k', 'é']), pick(['left', '😀']))
  else xml.insert(below(length + 1), [pick(nodes)()])
}
const editRich = (doc, undo) => {
  if (below(12) === 0) return below(2) ? undo.undo() : undo.redo()
  const type = pick(types(doc))
  if (type instanceof Y.Text) editText(type)
  else if (type instanceof Y.Map) below(4) ? type.set(pick(['k', 'l', '']), pick(values)()) : type.delete('k')
  else if (type instanceof Y.XmlFragment) editXml(type)
  else editList(type)
}
const editEmoji = doc => {
  const text = doc.getText('t')
  const length = text.length
  switch (below(length ? 4 : 1)) {
    case 0: text.insert(below(length + 1), pick(words)); break
    case 1: text.insert(length, pick(['😀', '😀😀😀', 'a😀'])); break
    // Any place, so that half of them fall within an emoji.
    case 2: text.insert(below(length + 1), pick(['', '-', 'xyz'])); break
    case 3: { const at = below(length); text.delete(at, 1 + below(Math.min(length - at, 3))) }
  }
}

for (let h = 0; h < count; h++) {
  const docs = [0, 1, 2].map(i => {
    const doc = new Y.Doc()
    doc.clientID = i === 0 ? 1 + below(100) : 2 ** 31 + below(2 ** 31)
    return doc
  })
  const undo = docs.map(doc => new Y.UndoManager([doc.getText('t'), doc.getMap('m')], { captureTimeout: 0 }))
  const updates = []
  const unread = docs.map(() => [])
  docs.forEach((doc, i) => doc.on('update', (update, origin) => {
    if (origin === 'remote') return
    updates.push(update)
    unread.forEach((list, j) => { if (j !== i) list.push(update) })
  }))
  for (let e = 0; e < edits; e++) {
    const i = below(3)
    if (below(3) === 0) unread[i].splice(0, 1 + below(unread[i].length)).forEach(u => Y.applyUpdate(docs[i], u, 'remote'))
    docs[i].transact(() => {
      for (let k = below(3) === 0 ? 3 : 1; k > 0; k--) kind === 'emoji' ? editEmoji(docs[i]) : editRich(docs[i], undo[i])
    })
  }
  docs.forEach((doc, i) => unread[i].forEach(u => Y.applyUpdate(doc, u, 'remote')))
  const some = updates.filter(() => below(3) > 0)
  const partial = new Y.Doc()
  some.forEach(u => Y.applyUpdate(partial, u))
  const more = [
    Y.encodeStateAsUpdate(docs[0], Y.encodeStateVector(partial)),
    Y.encodeStateAsUpdate(partial),
    some.length ? Y.mergeUpdates(some) : new Uint8Array([0, 0]),
    some.length ? Y.diffUpdate(Y.mergeUpdates(some), Y.encodeStateVector(partial)) : new Uint8Array([0, 0]),
    Y.convertUpdateFormatV2ToV1(Y.encodeStateAsUpdateV2(docs[1]))
  ]
  console.log(JSON.stringify({
    updates: updates.map(hex),
    states: docs.map(doc => hex(Y.encodeStateAsUpdate(doc))),
    json: docs[0].toJSON(),
    text: docs[0].getText('t').toString(),
    texts: docs.map(doc => doc.getText('t').toString()),
    more: more.map(hex)
  }))
  undo.forEach(u => u.destroy())
  docs.forEach(doc => doc.destroy())
}
