// Tells whether updates take real Yjs documents back: reads cases from standard input, each of
//     updates  as the clients made them, hexadecimal
//     kept     how many of them lead to the old content
//     reverting  the update to examine
//     present  the whole state that Plait would send to a client that joins
// and prints the numbers of the cases in which a document does not show the old content.
import * as Y from 'yjs'
import fs from 'fs'

const bytes = hex => new Uint8Array(Buffer.from(hex, 'hex'))
const bare = value => value instanceof Y.AbstractType ? show(value) : value instanceof Y.Doc ? { guid: value.guid, ...value.meta } : value
const sorted = entries => [...entries].map(([key, value]) => [key, bare(value)]).sort((a, b) => a[0] < b[0] ? -1 : 1)
const show = type => {
  if (type instanceof Y.Text) {
    const attributes = type instanceof Y.XmlText ? sorted(Object.entries(type.getAttributes())) : []
    return { delta: type.toDelta().map(op => [bare(op.insert), sorted(Object.entries(op.attributes ?? {}))]), attributes }
  }
  if (type instanceof Y.XmlElement) return { name: type.nodeName, attributes: sorted(Object.entries(type.getAttributes())), children: type.toArray().map(show) }
  if (type instanceof Y.XmlFragment) return type.toArray().map(show)
  if (type instanceof Y.Map) return sorted(type.entries())
  return type.toArray().map(bare)
}
const plain = (_, value) => {
  if (typeof value === 'bigint') return `bigint ${value}`
  if (Object.is(value, -0)) return 'negative zero'
  return value && value.constructor === Object ? Object.fromEntries(Object.entries(value).sort()) : value
}
const shown = doc => JSON.stringify([show(doc.getText('t')), show(doc.getArray('a')), show(doc.getMap('m')), show(doc.getXmlFragment('x'))], plain)
const opened = updates => {
  const doc = new Y.Doc()
  updates.forEach(update => Y.applyUpdate(doc, bytes(update)))
  return doc
}

const wrong = []
JSON.parse(fs.readFileSync(0)).forEach(({ updates, kept, reverting, present }, number) => {
  const old = shown(opened(updates.slice(0, kept)))
  const lived = opened([...updates, reverting])
  const joined = opened([present, reverting])
  const early = opened([reverting, present])
  const twice = opened([present, reverting, reverting])
  if ([lived, joined, early, twice].some(doc => shown(doc) !== old)) wrong.push(number)
})
console.log(JSON.stringify(wrong))
