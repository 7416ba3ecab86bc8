// Real y-websocket clients whose documents build on what was lost for good. Prints what came of each
// case, one JSON object. Arguments: URL, a prefix for the names of rooms.
import WebSocket from 'ws'
import * as Y from 'yjs'
import { eventually, open } from './clients.mjs'

const [url, prefix] = process.argv.slice(1)

/** An update that builds on an earlier one of its client, which nobody gets. */
const orphaned = change => {
  const author = new Y.Doc()
  author.getText('text').insert(0, 'lost ')
  const known = Y.encodeStateVector(author)
  change(author)
  return Y.encodeStateAsUpdate(author, known)
}
const LOST = {
  text: orphaned(author => author.getText('text').insert(5, 'behind it')),
  // All that is new is the deletion.
  deletion: orphaned(author => author.getText('text').delete(0, 5))
}

/** A socket that counts what its client sends. */
const counting = sent => class extends WebSocket {
  send (data, ...more) { sent.messages++; sent.bytes += data.length; super.send(data, ...more) }
}

const text = client => client.doc.getText('text').toString()
const clients = []
const join = (version, room, options) => { clients.push(open(version, url, room, options)); return clients.at(-1) }

const run = async (version, kind, offline, size) => {
  const room = `${prefix}-${version}-${kind}-${offline}-${size}`
  const reader = join('v3', room)
  const sent = { messages: 0, bytes: 0 }
  const author = join(version, room, { Socket: counting(sent) })
  const own = author.doc.getText('text')
  await eventually(() => author.provider.synced && reader.provider.synced, 30)
  if (offline) author.provider.disconnect()
  Y.applyUpdate(author.doc, LOST[kind])
  if (size > 10_000) own.insert(0, 'x'.repeat(size))
  else for (let at = 0; at < size; at++) own.insert(at, 'x')
  if (offline) author.provider.connect()
  const seen = await eventually(() => text(reader) === 'x'.repeat(size), 60)
  // What is typed from now on arrives as well, and comes back as soon as it is stored.
  own.insert(0, 'more ')
  const more = await eventually(() => text(reader) === text(author), 30)
  const late = join('v3', room)
  const joined = await eventually(() => text(late) === text(author), 30)
  const state = doc => [...Y.decodeStateVector(Y.encodeStateVector(doc))].sort().toString()
  const same = state(late.doc) === state(author.doc) && state(reader.doc) === state(author.doc)
  return { room, seen, more, joined, same, refused: author.closed.filter(([code]) => code >= 4000), ...sent, size }
}

const outcomes = []
for (const version of ['v1', 'v3']) {
  for (const [kind, offline, size] of [['text', false, 300], ['text', true, 5000], ['deletion', true, 200_000]]) {
    outcomes.push(await run(version, kind, offline, size))
  }
}
console.log(JSON.stringify(outcomes))
for (const client of clients) client.provider.destroy()
process.exit(0)
