// Documents that are applied in one update and in portions, in real Yjs. Driven by tests/wire/test_portions.py.
import * as Y from 'yjs'
import { answer, edit, random } from './clients.mjs'

const bytes = hex => new Uint8Array(Buffer.from(hex, 'hex'))
const hex = update => Buffer.from(update).toString('hex')

/** A document as an editor has it: roots are what they are from the beginning. */
const fresh = () => {
  const doc = new Y.Doc()
  doc.getText('text'); doc.getMap('map'); doc.getArray('array'); doc.getXmlFragment('xml')
  return doc
}

let writers = []

const commands = {
  /** Let several authors edit, and tell the state; with formats, or nothing but text. */
  write: async ({ seed, authors, edits, plain }) => {
    const rng = random(seed)
    writers = Array.from({ length: authors }, (_, number) => { const doc = fresh(); doc.clientID = number + 1; return doc })
    for (let i = 0; i < edits; i++) {
      const doc = rng.of(writers)
      const text = doc.getText('text')
      if (!plain) edit(doc, rng)
      else if (text.length > 20 && rng.below(4) === 0) text.delete(rng.below(text.length - 5), 5)
      else text.insert(rng.below(text.length + 1), 'some text '.repeat(1 + rng.below(9)))
      if (rng.below(8) === 0) Y.applyUpdate(rng.of(writers), Y.encodeStateAsUpdate(doc))
    }
    const all = fresh()
    for (const doc of writers) Y.applyUpdate(all, Y.encodeStateAsUpdate(doc))
    // The tidying of formats is an edit of whoever does it; here nobody else shall see one.
    const state = Y.encodeStateAsUpdate(all)
    return { state: hex(state), vector: hex(Y.encodeStateVector(all)) }
  },
  /** What an author has alone, and what it lacks of a state. */
  lacks: async ({ author, state }) => {
    const doc = writers[author]
    return { has: hex(Y.encodeStateAsUpdate(doc)), vector: hex(Y.encodeStateVector(doc)), missing: hex(Y.diffUpdate(bytes(state), Y.encodeStateVector(doc))) }
  },
  /** Apply updates after one that is there, and tell what came of it, and what was seen before the last. */
  apply: async ({ has, updates }) => {
    const doc = fresh()
    doc.clientID = 4711
    if (has) Y.applyUpdate(doc, bytes(has))
    let seen = 0
    let transactions = 0
    doc.on('afterTransaction', transaction => { transactions += transaction.changed.size > 0 })
    const vectors = []
    for (const update of updates) {
      Y.applyUpdate(doc, bytes(update), 'server')
      vectors.push(hex(Y.encodeStateVector(doc)))
      seen = transactions
    }
    return {
      state: hex(Y.encodeStateAsUpdate(doc)),
      delta: JSON.stringify(doc.getText('text').toDelta()),
      xml: doc.getXmlFragment('xml').toString(),
      pending: doc.store.pendingStructs !== null || doc.store.pendingDs !== null,
      transactions: seen,
      vectors
    }
  }
}

await answer(commands)
