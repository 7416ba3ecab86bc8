// An application that lets its users into documents of Plait, with Express.
//
//     npm install
//     export PLAIT_TOKEN_SECRET=$(plait token secret)
//     plait serve &
//     node express_app.mjs
//
// Open http://localhost:8001 as ann (password: ann), who may edit, and in another browser as bob, who may read.
// Here users are a table and log in with HTTP Basic; put your own in their place.
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import express from 'express'
import jwt from 'jsonwebtoken'

const { PLAIT_URL = 'ws://localhost:8000/ws', PORT = '8001' } = process.env
const [TOKEN_SECRET] = (process.env.PLAIT_TOKEN_SECRET ?? '').split(' ')
const TOKEN_SECONDS = 600

const USERS = new Map([['ann', 'ann'], ['bob', 'bob']])
const RIGHTS = new Map([['minutes', new Map([['ann', 'write'], ['bob', 'read']])]])

const app = express()
app.disable('x-powered-by')

const file = name => fileURLToPath(new URL(name, import.meta.url))

/** Let through who is logged in. */
const user = (request, response, next) => {
  const [, given = ''] = (request.headers.authorization ?? '').split('Basic ')
  const [name, password = ''] = Buffer.from(given, 'base64').toString().split(':')
  const known = USERS.get(name)
  const same = known && known.length === password.length && timingSafeEqual(Buffer.from(known), Buffer.from(password))
  if (!same) return response.set('WWW-Authenticate', 'Basic').sendStatus(401)
  request.user = name
  next()
}

/** A token for the document, signed with the secret that Plait has too. */
app.post('/token', user, (request, response) => {
  const document = String(request.query.document)
  const access = RIGHTS.get(document)?.get(request.user)
  if (!access) return response.status(403).json({ detail: 'you have no right to this document' })
  const claims = {
    sub: request.user,
    name: request.user[0].toUpperCase() + request.user.slice(1),
    // In grants an asterisk stands for anything, so one in a name is escaped.
    grants: [{ docs: document.replace(/[\\*]/g, '\\$&'), access }],
    iat: Date.now() / 1000,
    exp: Date.now() / 1000 + TOKEN_SECONDS,
    jti: randomBytes(8).toString('hex')
  }
  const token = jwt.sign(claims, TOKEN_SECRET, { algorithm: 'HS256' })
  response.set('Cache-Control', 'no-store').json({ url: PLAIT_URL, token, seconds: TOKEN_SECONDS })
})

app.get('/', user, (_request, response) => response.sendFile(file('page.html')))
app.get('/plait-client.js', (_request, response) => response.sendFile(file('plait-client.js')))

if (!TOKEN_SECRET) {
  console.error('set PLAIT_TOKEN_SECRET to what Plait has; `plait token secret` makes one')
  process.exit(1)
}
app.listen(Number(PORT), 'localhost')
