// Real y-websocket clients that are refused, or may only read. Driven by tests/e2e/test_refused_clients.py.
import WebSocket from 'ws'
import { answer, eventually, open } from './clients.mjs'

const clients = []

/** A socket as a browser opens it: with the page's origin. */
const browser = origin => class extends WebSocket {
  constructor (url, protocols) { super(url, protocols, { origin }) }
}

const commands = {
  /** Open a client; with an origin it is a browser. */
  open: async ({ version, url, room, token, origin, maxBackoffTime }) => {
    const client = open(version, url, room, {
      Socket: origin ? browser(origin) : WebSocket,
      params: token ? { token } : {},
      maxBackoffTime
    })
    client.said = []
    client.opened = 0
    client.provider.on('status', ({ status }) => { client.opened += status === 'connected' })
    clients.push(client)
    return { number: clients.length - 1 }
  },
  synced: async ({ number }) => ({ synced: await eventually(() => clients[number].provider.synced, 30) }),
  type: async ({ number, text }) => { clients[number].doc.getText('text').insert(0, text); return {} },
  text: async ({ number }) => ({ text: clients[number].doc.getText('text').toString() }),
  presence: async ({ number, name }) => { clients[number].provider.awareness.setLocalStateField('name', name); return {} },
  seen: async ({ number, name }) => ({
    seen: await eventually(() => [...clients[number].provider.awareness.getStates().values()].some(state => state.name === name), 30)
  }),
  has: async ({ number, text }) => ({ has: await eventually(() => clients[number].doc.getText('text').toString() === text, 30) }),
  warned: async ({ reason }) => ({ warned: await eventually(() => warnings.some(each => each.includes(reason)), 30) }),
  report: async ({ number }) => ({ opened: clients[number].opened, closed: clients[number].closed }),
  close: async ({ number }) => { clients[number].provider.destroy(); return {} }
}

const warnings = []
console.warn = (...words) => warnings.push(words.join(' '))

await answer(commands)
