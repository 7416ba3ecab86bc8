// Writers that tell which of their edits the server has acknowledged: those that came back to them.
// node durable.mjs, driven by tests/e2e over standard input; see `answer`.
import WebSocket from 'ws'
import * as decoding from 'lib0/decoding'
import * as Y from 'yjs'
import { answer, eventually, open, pause } from './clients.mjs'

const DEADLINE_SECONDS = 60

const writers = []
let writing = false

const commands = {
  /** Start writers, some in each room, that write as long as the process lives or until `stop`. */
  write: async ({ url, rooms, versions }) => {
    for (const room of rooms) for (const version of versions) writers.push(writer(version, url, room))
    const synced = await eventually(() => writers.every(each => each.provider.synced), DEADLINE_SECONDS)
    writing = synced
    writers.forEach(write)
    return { synced }
  },

  /** Wait until so many edits are acknowledged. */
  acknowledged: async ({ edits }) => ({
    reached: await eventually(
      () => writers.reduce((sum, each) => sum + each.acknowledged, 0) >= edits, DEADLINE_SECONDS
    )
  }),

  /** Write no more, but stay; tell what was written. */
  pause: async () => {
    writing = false
    return outcome()
  },

  /** Stop writing and leave; tell what was acknowledged, and what was written at all. */
  stop: async () => {
    writing = false
    writers.forEach(({ provider }) => provider.destroy())
    return outcome()
  }
}

const outcome = () => writers.map(({ room, doc, acknowledged, ends }) => ({
  room, writer: doc.clientID, acknowledged, written: ends.length
}))

/** A client whose edit number n is the item `[clientID, n]` of an array. */
const writer = (version, url, room) => {
  const self = { room, acknowledged: 0, ends: [] }
  class Tapped extends WebSocket {
    constructor (...args) {
      super(...args)
      this.addEventListener('message', ({ data }) => hear(self, new Uint8Array(data)))
    }
  }
  return Object.assign(self, open(version, url, room, { Socket: Tapped }))
}

const write = async self => {
  const { doc, ends } = self
  const array = doc.getArray('edits')
  while (writing) {
    array.push([[doc.clientID, ends.length]])
    ends.push(Y.getState(doc.store, doc.clientID))
    await pause(ends.length % 20 ? 0 : 20) // bursts
  }
}

/** Count the edits whose structs have come back, without a gap. */
const hear = (self, frame) => {
  const decoder = decoding.createDecoder(frame)
  if (decoding.readVarUint(decoder) !== 0 || decoding.readVarUint(decoder) === 0) return
  const { structs } = Y.decodeUpdate(decoding.readVarUint8Array(decoder))
  for (const struct of structs) {
    if (struct.id.client !== self.doc.clientID || struct instanceof Y.Skip) continue
    const end = struct.id.clock + struct.length
    const before = self.acknowledged ? self.ends[self.acknowledged - 1] : 0
    if (struct.id.clock > before) return // not after a reconnection: the server had some, and asked for the rest
    while (self.ends[self.acknowledged] <= end) self.acknowledged++
  }
}

await answer(commands)
