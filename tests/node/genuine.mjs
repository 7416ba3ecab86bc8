// Real y-websocket clients that write what Yjs lets them write, and no server likes. Driven by tests/e2e/test_genuine_clients.py.
import { answer, eventually, open } from './clients.mjs'

const clients = []
const warnings = []
console.warn = (...words) => warnings.push(words.join(' '))

const text = client => client.doc.getText('text')

const commands = {
  open: async ({ version, url, room, token }) => {
    const client = open(version, url, room, { params: token ? { token } : {} })
    client.opened = 0
    client.provider.on('status', ({ status }) => { client.opened += status === 'connected' })
    clients.push(client)
    return { number: clients.length - 1, synced: await eventually(() => client.provider.synced, 60) }
  },
  /** Show a picture of so many characters, and something nested so deeply. */
  show: async ({ number, name, picture, depth }) => {
    let nested = 1
    for (let i = 0; i < depth; i++) nested = [nested]
    clients[number].provider.awareness.setLocalState({ name, picture: 'x'.repeat(picture), nested })
    return {}
  },
  names: async ({ number, names }) => {
    const shown = () => [...clients[number].provider.awareness.getStates().values()].map(state => state.name).filter(Boolean).sort()
    await eventually(() => JSON.stringify(shown()) === JSON.stringify(names), 60)
    return { names: shown() }
  },
  /** Type so many times so many characters, each time in a transaction of its own. */
  type: async ({ number, times, size }) => {
    for (let i = 0; i < times; i++) text(clients[number]).insert(0, 'x'.repeat(size))
    return {}
  },
  length: async ({ number, length }) => {
    await eventually(() => text(clients[number]).length === length, 60)
    return { length: text(clients[number]).length }
  },
  warned: async ({ reason }) => ({
    warned: await eventually(() => warnings.some(each => each.includes(reason)), 60),
    times: warnings.filter(each => each.includes(reason)).length
  }),
  report: async ({ number }) => ({ opened: clients[number].opened, closed: clients[number].closed }),
  close: async ({ number }) => { clients[number].provider.destroy(); return {} }
}

await answer(commands)
