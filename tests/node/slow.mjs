// A y-websocket client for which ten seconds pass in each: it gives up after three. Driven by tests/server/test_slow_lines.py.
const SPEED = 10
const now = Date.now
const every = globalThis.setInterval
Date.now = () => now() * SPEED
globalThis.setInterval = (call, pause, ...more) => every(call, pause / SPEED, ...more)

// Imported when time has been changed.
const Y = await import('yjs')
const { answer, open } = await import('./clients.mjs')

const clients = []

/** Wait by the true time. */
const eventually = async condition => {
  const deadline = now() + 120_000
  while (!condition()) {
    if (now() > deadline) return false
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  return true
}

const commands = {
  open: async ({ version, url, room }) => {
    const client = open(version, url, room)
    client.doc.getText('text')
    client.closings = 0
    client.provider.on('connection-close', () => { client.closings += 1 })
    clients.push(client)
    return { number: clients.length - 1 }
  },
  begun: async ({ number }) => ({
    begun: await eventually(() => clients[number].doc.getText('text').length > 0 || clients[number].doc.store.pendingStructs !== null)
  }),
  synced: async ({ number }) => {
    const client = clients[number]
    return { synced: await eventually(() => client.provider.synced), closings: client.closings }
  },
  /** Whether a client ends with what one has that got a state in one update. */
  equals: async ({ number, state }) => {
    const { doc } = clients[number]
    const other = new Y.Doc()
    other.getText('text')
    Y.applyUpdate(other, new Uint8Array(Buffer.from(state, 'hex')), 'server')
    const told = each => Buffer.from(Y.encodeStateAsUpdate(each)).toString('hex') + JSON.stringify(each.getText('text').toDelta())
    return { equal: await eventually(() => told(doc) === told(other)) }
  },
  close: async ({ number }) => { clients[number].provider.destroy(); return {} }
}

await answer(commands)
