// What a document is, down to each clock, in texts that differ if documents do: types of values, keys in their order.
import * as Y from 'yjs'

/** A value as JavaScript would write it, with the keys of objects in their order. */
export const literal = value => {
  switch (typeof value) {
    case 'bigint': return `${value}n`
    case 'string': return JSON.stringify(value)
    case 'number': return Object.is(value, -0) ? '-0' : String(value)
    case 'object': break
    default: return String(value)
  }
  if (value === null) return 'null'
  if (value instanceof Uint8Array) return `<${[...value]}>`
  if (Array.isArray(value)) return `[${value.map(literal).join()}]`
  return `{${Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}:${literal(each)}`).join()}}`
}

/** What each clock of these structs stands for, by client and clock; nothing for what is deleted. */
export const units = structs => {
  const found = new Map()
  for (const struct of structs) {
    const { id: { client, clock }, length } = struct
    if (struct instanceof Y.Skip) continue
    const deleted = !(struct instanceof Y.Item) || struct.deleted || struct.content instanceof Y.ContentDeleted
    const parts = deleted ? [] : partsOf(struct.content)
    for (let i = 0; i < length; i++) {
      const origin = i ? `${client}.${clock + i - 1}` : name(struct.origin)
      found.set(`${client}.${clock + i}`, deleted ? '' : `${origin} ${name(struct.rightOrigin)} ${parts[i]}`)
    }
  }
  return found
}

/** All structs of a document; without those that wait for others. */
export const structsOf = doc => [...doc.store.clients.values()].flat()

const name = id => id ? `${id.client}.${id.clock}` : '-'

const partsOf = content => {
  const kind = content.constructor.name
  switch (kind) {
    case 'ContentString': return content.str.split('').map(unit => `${kind} ${literal(unit)}`)
    case 'ContentAny':
    case 'ContentJSON': return content.arr.map(value => `${kind} ${literal(value)}`)
    case 'ContentBinary': return [`${kind} ${literal(content.content)}`]
    case 'ContentEmbed': return [`${kind} ${literal(content.embed)}`]
    case 'ContentFormat': return [`${kind} ${literal(content.key)} ${literal(content.value)}`]
    case 'ContentDoc': return [`${kind} ${content.doc.guid} ${literal(content.opts)}`]
    case 'ContentType': {
      const { constructor, nodeName, hookName } = content.type
      return [`${kind} ${constructor.name} ${nodeName ?? hookName ?? ''}`]
    }
    default: throw new Error(`what is ${kind}?`)
  }
}

/** What the shared types of a document hold, in their order; keys of maps are sorted, since they have none. */
export const typed = doc => [doc.getText('text'), doc.getMap('map'), doc.getArray('array'), doc.getXmlFragment('xml')].map(shared)

const shared = value => {
  if (value instanceof Y.Doc) return `Doc ${value.guid}`
  if (!(value instanceof Y.AbstractType)) return literal(value)
  const kind = value.constructor.name
  if (value instanceof Y.Text) return `${kind}(${runs(value)}${entries(value)})`
  if (value instanceof Y.Map) return `${kind}(${entries(value)})`
  return `${kind}(${value.nodeName ?? ''} ${value.toArray().map(shared).join()}${entries(value)})`
}

const entries = type => [...type._map]
  .filter(([, item]) => !item.deleted)
  .map(([key, item]) => `${JSON.stringify(key)}:${shared(item.content.getContent()[item.length - 1])}`)
  .sort()
  .join()

// Yjs may cut a run of equal format where somebody else's document has one run.
const runs = text => {
  const merged = []
  for (const { insert, attributes = {} } of text.toDelta()) {
    const format = Object.keys(attributes).sort().map(key => `${JSON.stringify(key)}:${literal(attributes[key])}`).join()
    const last = merged.at(-1)
    if (typeof insert === 'string' && last && last.format === format && last.text !== undefined) last.text += insert
    else merged.push(typeof insert === 'string' ? { text: insert, format } : { value: shared(insert), format })
  }
  return JSON.stringify(merged)
}

/** How two documents differ: in what they show, their state vectors, their delete sets, and each clock. */
export const differences = (one, other, { wellFormed = false } = {}) => {
  const same = wellFormed ? text => text.replace(/\\+ud[89a-f][0-9a-f]{2}/g, '\ufffd') : text => text
  const found = []
  const compare = (what, mine, theirs) => {
    if (mine !== theirs) found.push(`${what}: ${excerpt(mine, theirs)} instead of ${excerpt(theirs, mine)}`)
  }
  const [mine, theirs] = [typed(one), typed(other)]
  mine.forEach((each, i) => compare(['text', 'map', 'array', 'xml'][i], same(each), same(theirs[i])))
  compare('state vector', clocks(one), clocks(other))
  compare('delete set', deletes(one), deletes(other))
  const [have, want] = [units(structsOf(one)), units(structsOf(other))]
  for (const [id, unit] of want) {
    if (same(have.get(id) ?? 'missing') !== same(unit)) found.push(`at ${id}: ${have.get(id)} instead of ${unit}`)
    if (found.length > 9) break
  }
  return found
}

const excerpt = (text, other) => {
  let at = 0
  while (at < text.length && text[at] === other[at]) at++
  return text.slice(Math.max(0, at - 60), at + 100)
}

const clocks = doc => JSON.stringify([...Y.decodeStateVector(Y.encodeStateVector(doc))].sort())

const deletes = doc => JSON.stringify(
  [...Y.createDeleteSetFromStructStore(doc.store).clients].map(([client, ranges]) => [client, ranges.map(({ clock, len }) => [clock, len])]).sort()
)
