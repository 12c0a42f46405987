import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { hashPassword } from '../../src/authn/password-hash.ts'
import { startConfigured } from '../support/callers.ts'
import { folder } from '../support/processes.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { openSession, call, post } from '../support/wire.ts'
import { RawConnection } from '../support/raw.ts'
import { startTestSidecar, until } from '../support/sidecar.ts'
import { bearerTokens } from '../support/tokens.ts'

t.test('reload during basic', async (t) => {
  const dir = folder(t)
  const hash = await hashPassword('correct horse')
  writeFileSync(join(dir, 'p'), `alice:${hash}\n`)
  writeFileSync(join(dir, 'p2'), `bob:${hash}\n`)
  const s = await startConfigured(t, `auth: ${JSON.stringify({ basic: { passwordFile: join(dir, 'p') } })}\n`, { flags: {webSocket: true}})
  const basic = (x: string) => ({ Authorization: `Basic ${Buffer.from(x).toString('base64')}` })
  const filler = Array.from({ length: 12 }, (_, i) => post(s.url, {}, basic(`alice:no${i}`)))
  await new Promise((r) => setTimeout(r, 30))
  const opening = openSocket(s.base, { headers: basic('alice:correct horse') }).catch((e) => e)
  const sse = openSse(s.base, { headers: basic('alice:correct horse') }).catch((e) => e)
  await new Promise((r) => setTimeout(r, 30))
  await s.reload(`auth: ${JSON.stringify({ basic: { passwordFile: join(dir, 'p2') } })}\n`)
  console.error('reloaded')
  const socket = await opening
  const stream = await sse
  console.error('WS after reload:', socket instanceof Error ? socket.message : 'OPEN', stream instanceof Error ? stream.message : 'OPEN')
  await Promise.all(filler)
  socket.close?.(); stream.cut?.()
})
t.test('cert/key combos', async (t) => {
  const dir = folder(t)
  const hash = await hashPassword('correct horse')
  writeFileSync(join(dir, 'p'), `gateway:${hash}\n`)
  writeFileSync(join(dir, 'k'), `bob:bob-key-0123456789abcdef\ncarol:carol-key-0123456789abcdef\n`)
  const s = await startConfigured(t, `auth: ${JSON.stringify({ require: 'all', basic: { passwordFile: join(dir, 'p') }, apiKey: { keyFile: join(dir, 'k') } })}\n`)
  const h = (who: string) => ({ Authorization: `Basic ${Buffer.from('gateway:correct horse').toString('base64')}`, 'X-API-Key': `${who}-key-0123456789abcdef` })
  const session = await openSession(s.url, { headers: h('bob') })
  console.error('CAROL in BOBs session', (await post(s.url, call(1, 'echo'), { ...session, ...h('carol') })).status)
})
t.test('smuggling', async (t) => {
  const tokens = bearerTokens(t, 'alice', 'bob')
  const { url, logs } = await startTestSidecar(t, { flags: { ...tokens.flags } })
  const port = Number(new URL(url).port)
  const [a, b] = [tokens.token('alice'), tokens.token('bob')]
  const body = JSON.stringify({ jsonrpc: '2.0', id: 0, method: 'initialize', params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'x', version: '1' } } })
  const tries: Record<string, string> = {
    plain: `Authorization: Bearer ${a}`,
    obsfold: `Authorization: Bearer\r\n ${a}`,
    obsfold2: `X: y\r\n Authorization: Bearer ${a}`,
    dup: `Authorization: Bearer ${a}\r\nAuthorization: Bearer ${b}`,
    dupsame: `Authorization: Bearer ${a}\r\nauthorization: Bearer ${a}`,
    emptyfirst: `Authorization:\r\nAuthorization: Bearer ${a}`,
    comma: `Authorization: Bearer ${a}, Bearer ${b}`,
    comma2: `Authorization: Bearer ${a},`,
    spaceColon: `Authorization : Bearer ${a}`,
    tab: `Authorization: Bearer\t${a}`,
    tabs: `Authorization:\tBearer ${a}\t`,
    twoSpaces: `Authorization: Bearer   ${a}`,
    lower: `aUTHORIZATION: bEARER ${a}`,
    nbsp: `Authorization: Bearer \xa0${a}`,
    nul: `Authorization: Bearer ${a}\0`,
    nul2: `Authorization\0: Bearer ${a}`,
    vt: `Authorization: Bearer \x0b${a}`,
    cr: `X: y\rAuthorization: Bearer ${a}`,
    lf: `X: y\nAuthorization: Bearer ${a}`,
    quoted: `Authorization: Bearer "${a}"`,
    underscore: `Authorization_: Bearer ${a}`,
    proxy: `Proxy-Authorization: Bearer ${a}`,
    xfa: `X-Forwarded-Authorization: Bearer ${a}`,
    empty: `Authorization:`,
    scheme: `Authorization: Bearer`,
    nothing: `X: y`,
    param: `Authorization: Bearer token="${a}"`,
    tetrailer: `Transfer-Encoding: chunked\r\nTrailer: Authorization`,
  }
  for (const [name, line] of Object.entries(tries)) {
    const before = logs.length
    const chunked = name === 'tetrailer'
    const text = `POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n${line}\r\n${chunked ? '' : `Content-Length: ${body.length}\r\n`}Connection: close\r\n\r\n${chunked ? `${body.length.toString(16)}\r\n${body}\r\n0\r\nAuthorization: Bearer ${a}\r\n\r\n` : body}`
    const c = new RawConnection(port).write(Buffer.from(text, 'latin1'))
    await until(() => c.answers.length > 0 || c.ended || c.closed, name)
    console.error(name.padEnd(12), c.answers[0]?.status, c.answers[0]?.json?.error?.data?.reason, c.answers[0]?.headers['www-authenticate'], logs.slice(before).find((l) => l.text.includes('refused'))?.fields['detail'])
    c.close()
  }
})
