// Clients of one room that edit at random, lose their connections, and have to end equal.
// node converge.mjs, driven by tests/e2e over standard input; see `answer`.
import { answer, content, edit, equal, eventually, open, pause, random } from './clients.mjs'

const DEADLINE_SECONDS = 60

const clients = []
let rng
let place

const commands = {
  /** Open a client for each version that is named. */
  open: async ({ url, room, versions, seed = 1 }) => {
    rng = random(seed)
    place = { url, room }
    for (const version of versions) clients.push(open(version, url, room))
    return { synced: await eventually(() => clients.every(each => each.provider.synced), DEADLINE_SECONDS) }
  },

  /**
   * Edit, with rests of so many milliseconds at most; some clients drop out meanwhile, and some of
   * these are still away at the end.
   */
  edit: async ({ edits, drops = true, rest = 5 }) => {
    for (let i = 0; i < edits; i++) {
      const client = rng.of(clients)
      client.doc.transact(() => { for (let n = rng.below(3); n >= 0; n--) edit(client.doc, rng) })
      if (drops && rng.below(40) === 0) drop(rng.of(clients))
      if (rng.below(20) === 0) rng.of(clients).provider.connect()
      await pause(rng.below(rest))
    }
    return { edits }
  },

  /** The first client carries out single edits of its text: [place, deleted length, inserted text]. */
  type: async ({ steps }) => {
    const text = clients[0].doc.getText('text')
    for (const [at, length, inserted] of steps) {
      if (length) text.delete(at, length)
      if (inserted) text.insert(at, inserted)
    }
    return { text: text.toString() }
  },

  /** Connect all, and wait until they are equal and see each other. */
  settle: async () => {
    clients.forEach(({ provider }) => provider.connect())
    const first = clients[0].doc
    const settled = await eventually(
      () => clients.every(({ doc, provider }) => provider.synced && equal(doc, first)),
      DEADLINE_SECONDS
    )
    clients.forEach(({ provider, doc }) => provider.awareness.setLocalState({ cursor: doc.clientID }))
    const present = await eventually(
      () => clients.every(({ provider }) => sees(provider.awareness)), DEADLINE_SECONDS
    )
    return { settled, present, ...report() }
  },

  /** Open one more client, which has nothing, and wait until it has everything. */
  late: async ({ version }) => {
    const late = open(version, place.url, place.room)
    const settled = await eventually(
      () => late.provider.synced && equal(late.doc, clients[0].doc), DEADLINE_SECONDS
    )
    clients.push(late)
    return { settled, ...report() }
  }
}

const drop = client => {
  switch (rng.below(3)) {
    case 0: // without a good-bye; comes back by itself
      client.provider.ws?.terminate()
      break
    default: // until it is told to come back
      client.provider.disconnect()
  }
}

const sees = awareness => {
  const seen = [...awareness.getStates().values()].map(state => state.cursor)
  const there = clients.map(({ doc }) => doc.clientID)
  return JSON.stringify(seen.sort()) === JSON.stringify(there.sort())
}

const report = () => ({
  contents: [...new Set(clients.map(({ doc }) => content(doc)))],
  codes: [...new Set(clients.flatMap(({ closed }) => closed.map(([code]) => code)))].sort()
})

await answer(commands)
