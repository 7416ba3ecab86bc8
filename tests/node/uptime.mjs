// Editors behind a load balancer, that type while nodes are restarted, and how long each was without a server.
// node uptime.mjs, driven by scripts/benchmarks/uptime.py and a test over standard input; see `answer`.
import { createSecureContext } from 'node:tls'
import WebSocket from 'ws'
import { answer, equal, eventually, open, pause, random } from './clients.mjs'

const DEADLINE_SECONDS = 80
const ADDRESS_EDITORS = 500 // from one address: the balancer's limit is 1,000

process.setMaxListeners(0) // each provider listens for the end

const editors = []
const rng = random(15)
let typing = false

const contexts = new Map()

/** One for all: making it takes longer than a handshake does. */
const trusting = ca => {
  if (!contexts.has(ca)) contexts.set(ca, createSecureContext({ ca }))
  return contexts.get(ca)
}

const commands = {
  /** Open editors of rooms, as they are by default: `editors` in all, the first in the first room, and so on. */
  open: async ({ version, url, ca, rooms, editors: count }) => {
    for (let n = 0; n < count; n++) editors.push(editor(version, url, ca, `uptime-${n % rooms}`, editors.length))
    return { synced: await eventually(() => editors.every(({ provider }) => provider.synced), DEADLINE_SECONDS) }
  },

  /** Type, each once in so many seconds in the mean, until `settle`. */
  type: async ({ seconds }) => {
    typing = true
    editors.forEach(each => type(each, seconds * 1000))
    return {}
  },

  /** Forget how long editors were away until now. */
  mark: async () => {
    for (const each of editors) each.away = each.away.filter(({ back }) => back === undefined)
    return {}
  },

  /** Wait until all editors are there. */
  there: async () => ({
    synced: await eventually(() => editors.every(({ provider }) => provider.synced), DEADLINE_SECONDS)
  }),

  /** Tell each absence that has ended: seconds from losing the server to being synced with one, and what these were. */
  report: async () => editors.flatMap(({ away }) => away.filter(({ back }) => back !== undefined).map(
    ({ lost, tried, opened, back, failed, code }) => ({
      at: lost / 1000,
      away: (back - lost) / 1000,
      pause: (tried - lost) / 1000,
      handshake: (opened - tried) / 1000,
      sync: (back - opened) / 1000,
      failed,
      code
    })
  )),

  /** Stop typing; wait until editors are equal, and those who come new to their rooms as well; count edits. */
  settle: async ({ version, url, ca, rooms }) => {
    typing = false
    const fresh = Array.from({ length: rooms }, (_, n) => editor(version, url, ca, `uptime-${n}`, 0))
    const all = [...editors, ...fresh]
    const first = new Map(fresh.map(each => [each.room, each]))
    const same = () => all.every(
      ({ doc, provider, room }) => provider.synced && equal(doc, first.get(room).doc)
    )
    const settled = await eventually(same, DEADLINE_SECONDS)
    const written = editors.reduce((sum, { written }) => sum + written, 0)
    const kept = fresh.reduce((sum, { doc }) => sum + new Set(doc.getArray('edits').toArray().map(String)).size, 0)
    return { settled, written, kept }
  }
}

const editor = (version, url, ca, room, number) => {
  const self = { room, away: [], written: 0 }
  const now = () => performance.now()
  const absence = () => {
    const last = self.away.at(-1)
    return last && last.back === undefined ? last : undefined
  }
  const lose = code => {
    if (!absence() && self.provider?.synced) self.away.push({ lost: now(), failed: 0, code })
  }
  class Watched extends WebSocket {
    constructor (address, protocols) {
      super(address, protocols, { ca, secureContext: trusting(ca), localAddress: `127.0.0.${2 + Math.floor(number / ADDRESS_EDITORS)}` })
      const last = absence()
      if (last) last.tried ??= now()
      this.addEventListener('open', () => {
        const last = absence()
        if (last) last.opened = now()
      })
      this.addEventListener('close', ({ code }) => {
        const last = absence()
        if (last?.tried) last.failed++
        else lose(code)
      })
    }

    /** What the WebSocket itself calls when the server's close frame has come. */
    close (code, reason) {
      lose(code)
      super.close(code, reason)
    }
  }
  Object.assign(self, open(version, url, room, { Socket: Watched, maxBackoffTime: 2500 }))
  self.provider.on('sync', synced => {
    const last = absence()
    if (synced && last) last.back = now()
  })
  self.provider.on('connection-error', () => {})
  return self
}

/** Edit number n of an editor is the item `[clientID, n]` of an array. */
const type = async (self, rest) => {
  const array = self.doc.getArray('edits')
  await pause(rng.below(2 * rest))
  while (typing) {
    array.push([[self.doc.clientID, self.written++]])
    await pause(rng.below(2 * rest))
  }
}

await answer(commands)
