// Clients of rooms on several nodes, that type all the time, move to another node when theirs
// goes, and know which of their edits were acknowledged: those that came back to them on the
// connection on which they were sent.
// node cluster.mjs, driven by tests/support/cluster.py over standard input; see `answer`.
import WebSocket from 'ws'
import * as decoding from 'lib0/decoding'
import * as Y from 'yjs'
import { answer, content, edit, equal, eventually, open, pause, random } from './clients.mjs'

const DEADLINE_SECONDS = 60
const RENEWAL_SECONDS = 10
const REST_MILLISECONDS = 25

process.setMaxListeners(0) // each provider listens for the end

const clients = []
const rng = random(7)
let typing = false

const commands = {
  /** Open clients: the version of each, the URLs of nodes, of which it uses the first one that is there. */
  open: async ({ room, clients: wanted }) => {
    const opened = wanted.map(({ version, urls }) => client(version, urls, room))
    clients.push(...opened)
    const synced = await eventually(() => opened.every(each => each.provider.synced), DEADLINE_SECONDS)
    if (typing) opened.forEach(type)
    return { synced, first: clients.length - opened.length }
  },

  /** Type, as long as it is not said to stop. */
  type: async () => {
    typing = true
    clients.forEach(type)
    return {}
  },

  /** Wait until clients had so many more of their edits acknowledged; they are made after this is said. */
  acknowledged: async ({ of, edits }) => {
    const before = of.map(i => clients[i].ends.length)
    const more = i => numbers(clients[i]).filter(n => n >= before[of.indexOf(i)]).length
    return { reached: await eventually(() => of.every(i => more(i) >= edits), DEADLINE_SECONDS) }
  },

  /** Wait until some have heard edits of others that are made after this is said. */
  heard: async ({ by, from }) => {
    const before = from.map(i => clients[i].ends.length)
    const heard = await eventually(
      () => by.every(i => from.every((j, at) => newest(clients[i].doc, clients[j].doc.clientID) >= before[at])), DEADLINE_SECONDS
    )
    return { heard }
  },

  /** Tell which edits of each client are acknowledged, how many were written, and what it was closed with. */
  report: async () => clients.map(report),

  /** Wait until some see just some, with what they told last, if nobody types. */
  presence: async ({ among, of }) => ({
    right: await eventually(() => among.every(i => sees(clients[i], of)), DEADLINE_SECONDS)
  }),

  /** Have clients not come back, once their connection ends; what they did not get acknowledged may be lost. */
  doom: async ({ of }) => {
    for (const i of of) {
      clients[i].doomed = true
      clients[i].provider.shouldConnect = false
    }
    return {}
  },

  /** Have clients leave at once, with or without a good-bye, for ever. */
  leave: async ({ of, abruptly = false }) => {
    for (const i of of) {
      clients[i].doomed = true
      clients[i].provider.shouldConnect = false
      if (abruptly) clients[i].provider.ws?.terminate()
      else clients[i].provider.disconnect()
    }
    return {}
  },

  /** Stop typing, and wait until all who are left are equal, see each other, and lack nothing that was acknowledged. */
  settle: async ({ room }) => {
    typing = false
    const left = clients.filter(each => each.room === room && !each.doomed)
    const settled = await eventually(
      () => left.every(({ doc, provider }) => provider.synced && same(doc, left[0].doc)), DEADLINE_SECONDS
    )
    const there = clients.flatMap((each, i) => left.includes(each) ? [i] : [])
    left.forEach(tell)
    const present = await eventually(() => there.every(i => sees(clients[i], there)), DEADLINE_SECONDS)
    return {
      settled,
      present,
      problems: problems(left[0].doc, room),
      edits: left[0].doc.getArray('edits').length,
      contents: [...new Set(left.map(({ doc }) => content(doc)))].length,
      seen: present ? [] : left.map(({ doc, provider }) => [doc.clientID, [...provider.awareness.getStates().keys()]])
    }
  },

  /** Tell whether a state is what the clients have, and what is wrong with the edits in it. */
  compare: async ({ room, state }) => {
    const doc = new Y.Doc()
    Y.applyUpdate(doc, Buffer.from(state, 'base64'))
    const first = clients.find(each => each.room === room && !each.doomed)
    return { equal: first === undefined || equal(doc, first.doc), problems: problems(doc, room) }
  },

  /** Wait until some have so many bytes of text in a root of that name. */
  text: async ({ by, name, length }) => ({
    reached: await eventually(() => by.every(i => clients[i].doc.getText(name).length === length), DEADLINE_SECONDS)
  }),

  /** Wait until some were closed with a code. */
  closed: async ({ of, code }) => {
    const reached = await eventually(() => of.every(i => clients[i].codes.includes(code)), DEADLINE_SECONDS)
    return { reached, codes: of.map(i => clients[i].codes) }
  }
}

const client = (version, urls, room) => {
  const self = { room, urls, at: 0, codes: [], starts: [], ends: [], back: [], told: 0, doomed: false, types: false }
  class Tapped extends WebSocket {
    constructor (...args) {
      super(...args)
      this.addEventListener('message', ({ data }) => hear(self, new Uint8Array(data)))
    }
  }
  Object.assign(self, open(version, urls[0], room, { Socket: Tapped }))
  const { provider } = self
  provider.on('connection-close', event => {
    if (event && provider.wsconnected) self.codes.push(event.code)
    self.at = (self.at + 1) % urls.length
    provider.serverUrl = urls[self.at]
    if (version === 'v1') provider.url = `${urls[self.at]}/${room}`
  })
  provider.on('connection-error', () => {})
  // Yjs forgets who was silent for 30 s. Here nobody is gone before a server says so.
  clearInterval(provider.awareness._checkInterval)
  setInterval(() => provider.awareness.setLocalState(provider.awareness.getLocalState()), RENEWAL_SECONDS * 1000)
  tell(self)
  return self
}

/** Edit number n is the item `[clientID, n]` of an array; between them come others of all kinds. */
const type = async self => {
  if (self.types) return
  self.types = true
  const { doc, starts, ends, provider } = self
  const array = doc.getArray('edits')
  while (typing && !(self.doomed && !provider.wsconnected)) {
    starts.push(Y.getState(doc.store, doc.clientID))
    array.push([[doc.clientID, ends.length]])
    ends.push(Y.getState(doc.store, doc.clientID))
    if (rng.below(4) === 0) edit(doc, rng)
    if (rng.below(4) === 0) tell(self)
    await pause(rng.below(2 * REST_MILLISECONDS))
  }
  self.types = false
}

const tell = self => self.provider.awareness.setLocalState({ cursor: self.doc.clientID, n: ++self.told })

/** Whether a client sees just these; with what they told last, unless they go on typing. */
const sees = (self, of) => {
  const states = self.provider.awareness.getStates()
  return states.size === of.length && of.every(i => {
    const state = states.get(clients[i].doc.clientID)
    return state?.cursor === clients[i].doc.clientID && (typing || state.n === clients[i].told)
  })
}

/** Note which of a client's own structs have come back to it. */
const hear = (self, frame) => {
  const decoder = decoding.createDecoder(frame)
  if (decoding.readVarUint(decoder) !== 0 || decoding.readVarUint(decoder) === 0) return
  const { structs } = Y.decodeUpdate(decoding.readVarUint8Array(decoder))
  for (const struct of structs) {
    if (struct.id.client !== self.doc.clientID || struct instanceof Y.Skip) continue
    const last = self.back.at(-1)
    if (last && last[0] <= struct.id.clock && struct.id.clock <= last[1]) {
      last[1] = Math.max(last[1], struct.id.clock + struct.length)
    } else {
      self.back.push([struct.id.clock, struct.id.clock + struct.length])
    }
  }
}

/** The numbers of a client's edits that were acknowledged. */
const numbers = ({ starts, ends, back }) => ends.flatMap(
  (end, n) => back.some(([from, to]) => from <= starts[n] && end <= to) ? [n] : []
)

const newest = (doc, client) => {
  const array = doc.getArray('edits')
  for (let i = array.length - 1; i >= Math.max(0, array.length - 2000); i--) {
    const [writer, n] = array.get(i)
    if (writer === client) return n
  }
  return -1
}

const problems = (doc, room) => {
  const writers = clients.filter(each => each.room === room)
  const found = new Map(writers.map(each => [each.doc.clientID, []]))
  for (const [writer, n] of doc.getArray('edits').toArray()) found.get(writer).push(n)
  return writers.flatMap(self => {
    const { doc: { clientID }, ends, doomed } = self
    const there = found.get(clientID)
    const acknowledged = numbers(self)
    const wrong = []
    if (there.some((n, at) => n !== at)) wrong.push(`${clientID}: an edit is missing in between, or twice: ${there}`)
    const lost = acknowledged.filter(n => n >= there.length)
    if (lost.length) wrong.push(`${clientID}: ${lost.length} acknowledged edits are lost, ${there.length} are there: ${lost}`)
    if (!doomed && there.length !== ends.length) wrong.push(`${clientID}: ${there.length} of ${ends.length} edits are there`)
    return wrong
  })
}

/** `equal`, but telling at a low price that it is not so yet. */
const same = (one, other) =>
  Buffer.compare(Y.encodeStateVector(one), Y.encodeStateVector(other)) === 0 && equal(one, other)

const report = self => ({
  writer: self.doc.clientID,
  acknowledged: numbers(self).length,
  written: self.ends.length,
  codes: self.codes,
  node: self.at,
  connected: self.provider.wsconnected
})

await answer(commands)
