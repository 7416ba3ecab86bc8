// A y-websocket client that keeps its token fresh, and tells what it may do. For pages and for Node.
import * as decoding from 'lib0/decoding'
import * as encoding from 'lib0/encoding'
import { WebsocketProvider } from 'y-websocket'

const AUTH = 2 // the type of messages about tokens
const TOKEN = 0 // from us: a token; from Plait: why something is denied
const UNAUTHORIZED = 4401
const RENEW_AT = 0.8 // of the time that a token is valid
const AGAIN_MS = 10_000 // after how long another token is worth a try

/**
 * Connect to a document.
 *
 * `getToken` returns `{ url, token, seconds }`, or throws if the user has no right any more.
 * `onAccess(access)` is told 'read-write' or 'readonly', `onDenied(reason)` why something was refused.
 * What else is given is for y-websocket.
 */
export const connect = async (room, doc, getToken, { onAccess = () => {}, onDenied = console.warn, ...options } = {}) => {
  let timer, tried = -Infinity, ended = false
  const first = await getToken()

  // As a subprotocol the token is in no URL, so in no proxy's log. `plait` says that we know the close codes.
  const protocols = token => ['plait', 'plait-token.' + token]
  const provider = new WebsocketProvider(first.url, room, doc, { ...options, protocols: protocols(first.token) })

  provider.messageHandlers[AUTH] = (_encoder, decoder) => {
    const kind = decoding.readVarUint(decoder)
    const text = decoding.readVarString(decoder)
    if (kind === TOKEN) onDenied(text)
    else onAccess(text)
  }

  const expectEnd = seconds => {
    clearTimeout(timer)
    timer = setTimeout(() => renew().catch(error => onDenied(String(error))), seconds * RENEW_AT * 1000)
  }

  /** Get a new token, and give it to the open connection, or to the next one. */
  const renew = async () => {
    const { token, seconds } = await getToken()
    if (ended) return
    provider.protocols = protocols(token)
    expectEnd(seconds)
    if (provider.wsconnected) {
      const encoder = encoding.createEncoder()
      encoding.writeVarUint(encoder, AUTH)
      encoding.writeVarUint(encoder, TOKEN)
      encoding.writeVarString(encoder, token)
      provider.ws.send(encoding.toUint8Array(encoder))
    }
  }

  // From 4400 to 4499 the same attempt would be answered the same way; older y-websockets try all the same.
  provider.on('connection-close', async event => {
    if (!event || event.code < 4400 || event.code > 4499) return
    provider.shouldConnect = false
    const again = event.code === UNAUTHORIZED && Date.now() - tried > AGAIN_MS
    if (!again) return onDenied(event.reason)
    tried = Date.now()
    try {
      await renew()
      if (!ended) provider.connect()
    } catch (error) {
      onDenied(String(error))
    }
  })

  const destroy = provider.destroy.bind(provider)
  provider.destroy = () => { ended = true; clearTimeout(timer); destroy() }
  expectEnd(first.seconds)
  return { provider, renew }
}
