import { request } from 'node:http'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { hashPassword } from '../../src/authn/password-hash.ts'
import { callers, startConfigured } from '../support/callers.ts'
import { headersOf, listenTo, serverCommand } from '../support/modern.ts'
import { folder } from '../support/processes.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { startTestSidecar, testConfig, until } from '../support/sidecar.ts'
import { bearerTokens } from '../support/tokens.ts'
import { accept, call, collect, openSession, post } from '../support/wire.ts'

t.test('slow body', async (t) => {
  const tokens = bearerTokens(t, 'alice', 'bob')
  const options = { flags: { ...tokens.flags }, command: serverCommand('modern-server.mjs') }
  const { sidecar, url } = await startTestSidecar(t, options)
  const message = listenTo('l', { toolsListChanged: true })
  const body = JSON.stringify(message)
  const outgoing = request(url, { method: 'POST', agent: false, headers: { 'Content-Type': 'application/json', Accept: accept, ...headersOf(message), ...tokens.of('alice'), 'Content-Length': body.length } })
  const answer = new Promise<any>((resolve, reject) => { outgoing.on('response', resolve); outgoing.on('error', reject) })
  outgoing.write(body.slice(0, 10))
  await new Promise((r) => setTimeout(r, 200))
  tokens.write('bob')
  await sidecar.reload(await testConfig(options))
  outgoing.end(body.slice(10))
  const response = await collect(await answer)
  console.error('SLOW BODY', response.status, response.headers['www-authenticate'], response.body)
})
t.test('refresh + reload', async (t) => {
  const all = callers(t)
  const s = await startConfigured(t, `${all.auth}\n`)
  const now = Math.floor(Date.now() / 1000)
  const session = await openSession(s.url, { headers: all.of('alice', { exp: now + 2 }) })
  const fresh = { ...session, ...all.of('alice') }
  await new Promise((r) => setTimeout(r, 2100))
  console.error('REFRESHED before reload', (await post(s.url, call(1, 'echo'), fresh)).status)
  await s.reload(`${all.auth}\nlog: {level: debug}\n`)
  console.error('REFRESHED after reload', (await post(s.url, call(1, 'echo'), fresh)).status)
})
t.test('reload during basic', async (t) => {
  const dir = folder(t)
  const hash = await hashPassword('correct horse')
  writeFileSync(join(dir, 'p'), `alice:${hash}\n`)
  writeFileSync(join(dir, 'p2'), `bob:${hash}\n`)
  const s = await startConfigured(t, `auth: ${JSON.stringify({ basic: { passwordFile: join(dir, 'p') } })}\n`, { flags: {webSocket: true}})
  const basic = (x: string) => ({ Authorization: `Basic ${Buffer.from(x).toString('base64')}` })
  const opening = openSocket(s.base, { headers: basic('alice:correct horse') }).catch((e) => e)
  const sse = openSse(s.base, { headers: basic('alice:correct horse') }).catch((e) => e)
  await new Promise((r) => setTimeout(r, 30))
  await s.reload(`auth: ${JSON.stringify({ basic: { passwordFile: join(dir, 'p2') } })}\n`)
  console.error('reloaded')
  const socket = await opening
  const stream = await sse
  console.error('WS after reload:', socket instanceof Error ? socket.message : 'OPEN', stream instanceof Error ? stream.message : 'OPEN')
  socket.close?.(); stream.cut?.()
  console.error(s.logs.filter((l) => l.text.includes('refused')).map((l) => l.fields['detail']))
})
