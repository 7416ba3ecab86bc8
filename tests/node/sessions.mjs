// Random sessions of real clients, in which updates are lost, client ids are used twice and values are odd, beside a document
// of Yjs alone that is given the same updates in the same order: what a server holds and hands out has to be the same.
// node sessions.mjs, driven by tests/e2e over standard input; see `answer`.
import { once } from 'node:events'
import WebSocket from 'ws'
import * as Y from 'yjs'
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import { differences, structsOf, units } from './compare.mjs'
import { answer, edit, eventually, open, pause, random } from './clients.mjs'
import { oddEdit, pieces } from './odd.mjs'

const DEADLINE_SECONDS = 30
const STEPS = 40
/** How often a client may be asked for what it has: a few times for each thing that is missing somewhere. */
const ASKS = 10

/** By room, what a session has come to. */
const references = new Map()

const commands = {
  /** Run a session; return what is wrong, and how often what happened in it. */
  session: async place => {
    const session = new Session(place)
    try {
      await session.run()
    } catch (error) {
      session.wrong(error.stack)
    }
    session.end()
    return { problems: session.problems, happened: session.happened }
  },

  /** Compare what is handed out of a room with what is right; return what is wrong, and the bytes' ETag. */
  compare: async ({ room, api, ws }) => {
    const { reference, problems } = { reference: references.get(room), problems: [] }
    const { etag, state } = await exported(api, room)
    if (!state) return { problems: [`no export: ${etag}`] }
    problems.push(...compare(state, reference).map(each => `export: ${each}`))
    const client = new Client(ws, room, 'v3', 99)
    await client.connect().catch(error => problems.push(error.message))
    problems.push(...differences(client.doc, loaded(Y.encodeStateAsUpdate(reference))).map(each => `joiner: ${each}`))
    client.end()
    return { problems, etag, bytes: Buffer.from(state).toString('base64') }
  }
}

class Session {
  constructor ({ api, ws, room, seed }) {
    Object.assign(this, { api, ws, room })
    this.rng = random(seed)
    this.reference = new Y.Doc()
    references.set(room, this.reference)
    this.problems = []
    this.happened = { updates: 0, lost: 0, aside: 0, shared: 0, waiting: 0, offline: 0 }
    /** Whether two clients have the same id. */
    this.shared = this.rng.below(3) === 0
    this.absent = pieces(this.rng)
    this.joined = 0
  }

  async run () {
    const { rng } = this
    const count = 3 + rng.below(3)
    for (let i = 0; i < count; i++) await this.join(this.shared && i === 1 ? this.clients[0].id : 100 + i)
    for (let i = 0; i < STEPS && !this.problems.length; i++) await this.step()
    await this.settle()
    this.happened.waiting += this.clients.some(({ doc }) => doc.store.pendingStructs || doc.store.pendingDs)
    for (const client of this.honest) {
      this.compare(`client ${client.id}`, differences(client.doc, this.reference, { wellFormed: true }))
    }
    for (const version of ['v1', 'v3']) {
      const late = await this.join(200 + this.joined, version)
      await this.settle()
      this.compare(`late ${version}`, differences(late.doc, loaded(Y.encodeStateAsUpdate(this.reference))))
    }
    const { etag, state } = await exported(this.api, this.room)
    this.compare('export', state ? compare(state, this.reference) : [etag])
    await this.checkAcknowledgements()
  }

  clients = []

  /** Those that have an id of their own. */
  get honest () { return this.clients.filter(({ twin }) => !twin) }

  async join (id, version = this.rng.of(['v1', 'v3'])) {
    const twin = this.clients.find(each => each.id === id)
    const client = new Client(this.ws, this.room, version, id)
    client.twin = twin !== undefined
    client.letter = String.fromCharCode(65 + this.joined++)
    if (twin) twin.twin = true
    this.clients.push(client)
    if (twin || this.rng.below(4)) await client.connect()
    return client
  }

  async step () {
    const { rng, clients } = this
    const what = rng.below(20)
    const client = rng.of(clients)
    if (what < 2 && client.online) {
      this.happened.offline++
      await client.disconnect()
    } else if (what < 4 && !client.online) {
      await client.connect()
    } else if (what < 6) {
      // From another tab, or from the disk: not sent before the server asks.
      this.happened.aside++
      for (const piece of this.absent) if (rng.below(3) === 0) client.aside(piece)
    } else {
      // At the same time: nobody of them has heard of what the others type.
      const editing = clients.filter(each => each === client || rng.below(4) === 0)
      for (const each of editing) this.edit(each)
    }
    await this.release()
  }

  edit (client) {
    const { rng } = this
    for (let n = rng.below(3); n >= 0; n--) {
      const lost = client.online && rng.below(12) === 0
      this.happened.lost += lost
      client.losing = lost
      const written = update => { for (const [id, unit] of units(structsOfUpdate(update))) client.written.set(id, unit) }
      client.doc.on('update', written)
      client.doc.transact(() => {
        if (client.twin) client.doc.getText('text').insert(rng.below(client.doc.getText('text').length + 1), client.letter.repeat(1 + rng.below(4)))
        else if (rng.below(2)) oddEdit(client.doc, rng)
        else edit(client.doc, rng)
      })
      client.doc.off('update', written)
      client.losing = false
    }
  }

  /** Let the server have what was typed, one frame after another, and everybody hear of it. */
  async release () {
    for (let waits = true; waits;) {
      waits = false
      for (const client of this.clients.filter(each => each.online)) {
        for (let frame; (frame = client.queue.shift());) {
          waits = true
          this.happened.updates++
          Y.applyUpdate(this.reference, frame.update)
          client.socket.pass(frame.data)
          await client.barrier()
          const { asks } = client.socket
          if (asks > ASKS + 3 * (this.happened.lost + this.happened.aside)) throw new Error(`client ${client.id} was asked ${asks} times`)
        }
      }
      for (const client of this.clients.filter(each => each.online)) {
        await client.barrier()
        waits ||= client.queue.length > 0
      }
    }
    for (const client of this.clients) {
      this.happened.shared += client.keepId(this.rng)
      const final = client.closed.filter(([code]) => ![1000, 1005, 1006].includes(code))
      if (final.length) this.wrong(`client ${client.id} was closed: ${JSON.stringify(final)}`)
    }
  }

  /** Have everybody here, and all that anybody has at the server. */
  async settle () {
    for (const client of this.clients) {
      if (client.online && client.secretive) await client.disconnect()
      if (!client.online) await client.connect()
    }
    await this.release()
  }

  /** An acknowledgement is for what is in the document as its author wrote it; and it comes. */
  async checkAcknowledgements () {
    for (const client of this.honest) {
      const before = client.acknowledged.size
      client.doc.on('update', update => { for (const [id, unit] of units(structsOfUpdate(update))) client.written.set(id, unit) })
      client.doc.getText('text').insert(0, 'end')
      await this.release()
      if (!await eventually(() => client.acknowledged.size >= before + 3, DEADLINE_SECONDS)) this.wrong(`client ${client.id}: no acknowledgement`)
    }
    const right = units(structsOf(this.reference))
    for (const client of this.clients) {
      for (const id of client.acknowledged) {
        const unit = right.get(id)
        // A half of a character that was cut is U+FFFD.
        const written = client.written.get(id).replace(/"\\ud[89a-f][0-9a-f]{2}"|"[\ud800-\udfff]"/, '"\ufffd"')
        if (unit !== '' && unit !== client.written.get(id) && unit !== written) this.wrong(`${id} is acknowledged to ${client.letter}, and is ${unit}`)
      }
    }
  }

  compare (what, found) { this.problems.push(...found.map(each => `${what}: ${each}`)) }

  wrong (what) { this.problems.push(what) }

  end () { this.clients.forEach(client => client.end()) }
}

class Client {
  queue = []
  /** Ids of what it has written, and what that was. */
  written = new Map()
  acknowledged = new Set()
  /** Whether the next updates get lost. */
  losing = false
  /** Whether it has something that the server can't know of. */
  secretive = false
  online = false

  constructor (ws, room, version, id) {
    const doc = new Y.Doc()
    doc.clientID = this.id = id
    const client = this
    class Socket extends Gate {
      constructor (...where) { super(client, ...where) }
    }
    Object.assign(this, open(version, ws, room, { Socket, doc, maxBackoffTime: 30_000 }))
    this.provider.disconnect()
  }

  async connect () {
    this.provider.connect()
    if (!await eventually(() => this.provider.synced && this.socket?.asks > 0, DEADLINE_SECONDS)) throw new Error(`client ${this.id} is not synced`)
    this.online = true
    this.secretive = false
  }

  async disconnect () {
    const { socket } = this
    this.online = false
    this.queue = []
    this.provider.disconnect()
    if (!await eventually(() => socket.readyState === WebSocket.CLOSED, DEADLINE_SECONDS)) throw new Error('a socket does not close')
  }

  aside (update) {
    Y.applyUpdate(this.doc, update, this.provider)
    this.secretive = true
  }

  /** Wait until the server has answered all that it was sent. */
  async barrier () {
    const { socket } = this
    if (socket.readyState !== WebSocket.OPEN) throw new Error(`client ${this.id} was closed: ${JSON.stringify(this.closed)}`)
    socket.pass(frameOf(0, Y.encodeStateVector(this.doc)))
    const late = setTimeout(() => socket.emit('answered', false), DEADLINE_SECONDS * 1000)
    const [inTime] = await once(socket, 'answered')
    clearTimeout(late)
    if (!inTime) throw new Error(`client ${this.id} gets no answer`)
    if (socket.readyState !== WebSocket.OPEN) throw new Error(`client ${this.id} was closed: ${JSON.stringify(this.closed)}`)
  }

  /** Yjs takes another id if somebody else has the same: one that the seed decides. */
  keepId (rng) {
    if (this.doc.clientID === this.id) return 0
    this.doc.clientID = this.id = 1000 + rng.below(1e6)
    // y-websocket can't connect again otherwise.
    this.provider.awareness.clientID = this.id
    this.provider.awareness.setLocalState({})
    return 1
  }

  end () { this.provider.destroy() }
}

/** A socket that sends updates when it is told to. */
class Gate extends WebSocket {
  questions = 0
  answers = 0
  asks = 0

  constructor (client, url, protocols = []) {
    super(url, protocols)
    this.client = client
    client.socket = this
    this.on('message', data => this.heard(new Uint8Array(data)))
    this.on('close', () => this.emit('answered', true))
  }

  send (data) {
    const update = updateIn(data)
    if (update === null) this.pass(data)
    else if (this.client.losing) this.client.secretive = true
    else this.client.queue.push({ data, update })
  }

  pass (data) {
    if (data[0] === 0 && data[1] === 0) this.questions++
    super.send(data)
  }

  heard (data) {
    if (data[0] !== 0) return
    if (data[1] === 0) this.asks++
    if (data[1] === 1 && ++this.answers === this.questions) setImmediate(() => this.emit('answered', true))
    const update = updateIn(data)
    if (update === null) return
    const { written, acknowledged } = this.client
    for (const [id, unit] of units(structsOfUpdate(update))) if (written.get(id) === unit && unit !== '') acknowledged.add(id)
  }
}

const updateIn = data => {
  if (data[0] !== 0 || (data[1] !== 1 && data[1] !== 2)) return null
  return decoding.readVarUint8Array(decoding.createDecoder(new Uint8Array(data).subarray(2)))
}

const frameOf = (kind, bytes) => encoding.encode(encoder => {
  encoding.writeVarUint(encoder, 0)
  encoding.writeVarUint(encoder, kind)
  encoding.writeVarUint8Array(encoder, bytes)
})

const structsOfUpdate = update => Y.decodeUpdate(update).structs

const loaded = update => {
  const doc = new Y.Doc()
  doc.clientID = 98
  // As a client's: their types clean up formats that are of no use.
  doc.getText('text')
  Y.applyUpdate(doc, update)
  return doc
}

const compare = (state, reference) => differences(loaded(state), loaded(Y.encodeStateAsUpdate(reference)))

const exported = async (api, room) => {
  for (let tries = 0; ; tries++) {
    const response = await fetch(`${api}/api/docs/${encodeURIComponent(room)}/state`)
    if (response.ok) return { etag: response.headers.get('etag'), state: new Uint8Array(await response.arrayBuffer()) }
    if (response.status !== 503 || tries > 100) return { etag: `${response.status} ${await response.text()}` }
    await pause(100)
  }
}

// Yjs tells of a client id that is used twice, and so does the server; standard output is for answers.
console.log = console.warn = () => {}

await answer(commands)
