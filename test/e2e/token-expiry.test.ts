import t from 'tap'
import { configFile } from '../support/config-file.ts'
import { forwardClock } from '../support/forward-clock.ts'
import { signingKey } from '../support/jwt-keys.ts'
import { ask, listenTo, streamed, tool } from '../support/modern.ts'
import { refused } from '../support/refusal.ts'
import { startTestSidecar, until } from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { call, follow, open, openSession, post, send } from '../support/wire.ts'

const issuer = 'https://issuer.example'
const resource = 'https://mcp.example/mcp'
const key = signingKey('k')
const clock = forwardClock()
const jwt = { issuer, jwksFile: 'jwks.json', clockTolerance: '0s' }
const { url, base, logs, metric } = await startTestSidecar(t, {
  flags: configFile(
    t,
    { auth: { resource, jwt }, listen: { webSocket: true } },
    { 'jwks.json': JSON.stringify({ keys: [key.jwk] }) },
  ),
  clock,
})

/** A token of somebody, by the clock of the sidecar. */
function tokenOf(sub: string, seconds: number): Record<string, string> {
  const exp = Math.floor(clock.epoch() / 1000) + seconds
  return { Authorization: `Bearer ${key.token({ iss: issuer, aud: resource, sub, exp })}` }
}

const getStream = (headers: Record<string, string>) =>
  open(url, 'GET', { Accept: 'text/event-stream', ...headers })

/** One of every long way to a client. */
async function longWays(headers: Record<string, string>) {
  const session = await openSession(url, { headers })
  const get = follow(await getStream(session))
  const sse = await openSse(base, { headers, version: '2024-11-05' })
  const socket = await openSocket(base, { headers, version: '2025-06-18' })
  const listening = await streamed(url, listenTo('l', { toolsListChanged: true }), headers)
  await until(() => listening.messages.length > 0, 'the subscription begins')
  return { session, get, sse, socket, listening }
}

t.test('what is open for long ends with the token that opened it, and no earlier', async (t) => {
  const short = await longWays(tokenOf('alice', 120))
  const long = await longWays(tokenOf('alice', 600))
  const open = ({ get, sse, socket, listening }: typeof short): boolean[] => [
    ...[!get.isClosed(), !sse.isClosed(), socket.closed() === undefined, !listening.isClosed()],
  ]
  clock.forward(60_000)
  t.same(open(short), [true, true, true, true], 'not before')
  clock.forward(61_000)
  await until(() => !open(short).includes(true), `all are closed, not ${open(short)}`)
  t.match(short.socket.closed(), { code: 4401 })
  t.same(
    short.listening.messages.filter((each) => 'result' in each || 'error' in each).map(({ id }) => id),
    ['l'],
    'the subscription is told that it has ended',
  )
  t.same(open(long), [true, true, true, true], 'those of a token that lasts go on')
  await post(url, call('n', 'notify', { method: 'notifications/tools/list_changed' }), long.session)
  await until(() => long.get.messages.length > 0, 'a notification')
  for (const each of [long.get, long.sse, long.listening]) each.cut()
  long.socket.close()
})

t.test('a session goes on with a new token of the same subject, and is unknown to every other', async (t) => {
  const old = tokenOf('alice', 60)
  const session = await openSession(url, { headers: old })
  const pid = (await post(url, call(1, 'pid'), session)).body
  const stream = follow(await getStream(session))
  const changed = (what: string) => call(what, 'notify', { method: `notifications/${what}/list_changed` })
  await post(url, changed('tools'), session)
  await until(() => stream.messages.length > 0, 'a notification')
  clock.forward(61_000)
  refused(t, await post(url, call(1, 'pid'), session), 401, 'ERR_AUTH')
  t.match(logs.findLast(({ text }) => text === 'request refused')?.fields['detail'], /^it expired \d+ s ago$/)
  await until(stream.isClosed, 'its stream ends')
  const fresh = { ...session, ...tokenOf('alice', 600) }
  t.equal((await post(url, call(1, 'pid'), fresh)).body, pid, 'the same process')
  await post(url, changed('prompts'), fresh)
  const last = stream.events.at(-1)?.id as string
  const again = follow(await getStream({ ...fresh, 'Last-Event-ID': last }))
  await until(() => again.messages.length > 0, 'what was missed')
  t.match(again.messages, [{ method: 'notifications/prompts/list_changed' }])
  again.cut()
  const foreign = { ...session, ...tokenOf('bob', 600) }
  refused(t, await post(url, call(1, 'pid'), foreign), 404, 'ERR_SESSION_UNKNOWN', 1)
  refused(t, await send(url, 'GET', { ...foreign, Accept: 'text/event-stream' }), 404, 'ERR_SESSION_UNKNOWN')
  refused(t, await send(url, 'DELETE', foreign), 404, 'ERR_SESSION_UNKNOWN')
  t.equal((await send(url, 'DELETE', fresh)).status, 200)
})

t.test(
  'an HTTP+SSE session takes messages with a new token, which does not prolong its stream',
  async (t) => {
    const client = await openSse(base, { headers: tokenOf('alice', 60), version: '2024-11-05' })
    const renewed = tokenOf('alice', 600)
    t.equal((await client.send(call(1, 'pid'), renewed)).status, 202)
    await until(() => client.messages.some(({ id }) => id === 1), 'the answer')
    refused(t, await client.send(call(2, 'pid'), tokenOf('bob', 600)), 404, 'ERR_SESSION_UNKNOWN')
    clock.forward(61_000)
    await until(client.isClosed, 'the stream ends')
    refused(t, await client.send(call(3, 'pid'), renewed), 404, 'ERR_SESSION_UNKNOWN')
  },
)

t.test('a call that began with a good token is answered, though it ends meanwhile', async (t) => {
  const headers = tokenOf('alice', 30)
  const session = await openSession(url, { headers })
  const inSession = post(url, call('s', 'sleep', { ms: 1500 }), session)
  const modern = ask(url, tool('m', 'sleep', { ms: 1500 }), headers)
  await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 2, 'the calls are let in')
  clock.forward(31_000)
  for (const answer of await Promise.all([inSession, modern])) {
    t.equal(answer.status, 200)
    t.match(answer.messages.at(-1), { result: { content: [{ text: 'slept 1500' }] } })
  }
})
