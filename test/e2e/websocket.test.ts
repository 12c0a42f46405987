import { once } from 'node:events'
import t from 'tap'
import { WebSocket } from 'ws'
import { forwardClock } from '../support/forward-clock.ts'
import { RawConnection } from '../support/raw.ts'
import { isRefusal, refused } from '../support/refusal.ts'
import { startTestSidecar, until } from '../support/sidecar.ts'
import { awaited, openSocket, type SocketClient, upgradeAnswer } from '../support/streams.ts'
import { call, initialize, openSession, post, send } from '../support/wire.ts'

const { base, url, metric } = await startTestSidecar(t, {
  config: {
    listen: { webSocket: true },
    limits: { requestBodyBytes: 200_000, sessions: 20 },
    server: { warmSpares: 0 },
  },
})
const port = Number(new URL(base).port)
const shared = await openSocket(base, { version: '2025-06-18' })

const token = (value: unknown) => ({ progressToken: value })
// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
const textOf = (answer: any): any => {
  const text = answer.result.content[0].text
  return /^[[{]/.test(text) ? JSON.parse(text) : text
}
const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}
const closing = async (client: SocketClient) => {
  await until(() => client.closed() !== undefined, 'the socket is closed')
  return client.closed()
}
const handshake = (headers: readonly string[], path = '/ws', method = 'GET'): string =>
  [`${method} ${path} HTTP/1.1`, `Host: 127.0.0.1:${port}`, ...headers, '', ''].join('\r\n')
const upgrade = ['Connection: Upgrade', 'Upgrade: websocket']
const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='
const version = 'Sec-WebSocket-Version: 13'
const protocol = 'Sec-WebSocket-Protocol: mcp'

t.test('the subprotocol mcp is chosen, among others too', async (t) => {
  t.equal(shared.socket.protocol, 'mcp')
  const client = await openSocket(base, { protocols: ['chat', 'mcp', 'x'] })
  t.equal(client.socket.protocol, 'mcp')
  client.close()
  t.equal((await closing(client))?.code, 1000)
})

t.test('without the subprotocol the upgrade is refused', async (t) => {
  refused(t, await upgradeAnswer(base, {}, { protocols: [] }), 400, 'ERR_HTTP')
  refused(t, await upgradeAnswer(base, {}, { protocols: ['MCP', 'mcp2'] }), 400, 'ERR_HTTP')
})

t.test('only /ws is for upgrades, and only upgrades are for /ws', async (t) => {
  for (const path of ['/mcp', '/', '/ws/', '/sse']) {
    refused(t, await upgradeAnswer(base, {}, { path }), 404, 'ERR_NOT_FOUND')
  }
  for (const method of ['GET', 'POST']) {
    refused(t, await send(`${base}/ws`, method, { 'Content-Type': 'application/json' }), 404, 'ERR_NOT_FOUND')
  }
})

t.test('a malformed handshake is refused like everything else, as JSON', async (t) => {
  const bad: Record<string, readonly string[]> = {
    'no key': [...upgrade, version, protocol],
    'a bad key': [...upgrade, version, protocol, 'Sec-WebSocket-Key: short'],
    'no version': [...upgrade, key, protocol],
    'an old version': [...upgrade, key, protocol, 'Sec-WebSocket-Version: 12'],
    'an empty subprotocol': [...upgrade, key, version, protocol, 'Sec-WebSocket-Protocol: ,'],
    'another protocol': ['Connection: Upgrade', 'Upgrade: chat', key, version, protocol],
  }
  for (const [name, headers] of Object.entries(bad)) {
    const connection = new RawConnection(port).write(handshake(headers))
    const answer = await connection.answer()
    t.ok(answer.status >= 400 && answer.status < 500, `${name}: ${answer.status}`)
    t.equal(answer.headers['content-type'], 'application/json', name)
    t.match(answer.json, { jsonrpc: '2.0', error: { data: { source: 'mcp-sidecar' } } }, name)
    connection.close()
  }
  const connection = new RawConnection(port).write(
    handshake([...upgrade, key, version, protocol], '/ws', 'POST'),
  )
  const answer = await connection.answer()
  t.match(answer.json, { error: { data: { source: 'mcp-sidecar' } } }, 'a POST')
  connection.close()
})

t.test('a refused upgrade does not keep the connection, even of a client that never closes', async (t) => {
  const connection = new RawConnection(port).write(handshake([...upgrade, key, version]))
  t.equal((await connection.answer()).status, 400)
  await until(() => connection.ended, 'the sidecar has ended its side')
  t.ok(await connection.refusesMore(), 'and closed the other')
  connection.close()
})

t.test('messages are answered with their own ids, of whatever type', async (t) => {
  for (const id of [0, -5, 'a', '1', 1]) {
    const answer = await shared.request(call(id, 'echo', { text: `é ${id}` }))
    t.same(answer, { jsonrpc: '2.0', id, result: { content: [{ type: 'text', text: `é ${id}` }] } })
  }
})

t.test('progress, in order, precedes the result', async (t) => {
  shared.messages.length = 0
  await shared.request(call('p', 'progress', { count: 200 }, token('t')))
  t.equal(shared.messages.length, 201)
  t.same(
    shared.messages.slice(0, 200).map(({ params }) => [params.progressToken, params.progress]),
    Array.from({ length: 200 }, (_, i) => ['t', i + 1]),
  )
})

t.test('a question of the server and its answer, and what the server says by itself', async (t) => {
  shared.messages.length = 0
  shared.send(call('q', 'ask', { method: 'roots/list' }))
  await until(() => shared.messages.length === 1, 'the question')
  const { id } = shared.messages[0]
  shared.send({ jsonrpc: '2.0', id, result: { roots: [] } })
  t.match(textOf(await awaited(() => shared.messages, 'q')), { id, result: { roots: [] } })
  await shared.request(call('n', 'notify-later', { method: 'notifications/tools/list_changed', ms: 1 }))
  await until(() => shared.messages.at(-1).method === 'notifications/tools/list_changed', 'the notification')
})

t.test('a cancelled call is not answered, and the server is told', async (t) => {
  shared.send(call('c', 'hang'))
  shared.send({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'c' } })
  t.equal(textOf(await shared.request(call('d', 'cancelled'))).length, 1)
  t.notOk(shared.messages.some(({ id }) => id === 'c'))
})

t.test('large messages pass both ways, in fragments too', async (t) => {
  const text = 'ö'.repeat(80_000)
  t.ok(textOf(await shared.request(call('l', 'echo', { text }))) === text)
  t.equal(textOf(await shared.request(call('b', 'blob', { bytes: 1_000_000 }))).length, 1_000_000)
  const whole = JSON.stringify(call('f', 'echo', { text: 'fragmented' }))
  shared.socket.send(whole.slice(0, 20), { fin: false })
  shared.socket.send(whole.slice(20, 40), { fin: false })
  shared.socket.send(whole.slice(40), { fin: true })
  t.equal(textOf(await awaited(() => shared.messages, 'f')), 'fragmented')
  t.equal(shared.socket.extensions, '', 'no compression')
})

t.test('a frame that is no JSON-RPC message is refused, and the session lives on', async (t) => {
  const bad: Record<string, string> = {
    '{"jsonrpc":': 'ERR_PARSE',
    '': 'ERR_PARSE',
    nonsense: 'ERR_PARSE',
    null: 'ERR_INVALID_REQUEST',
    '{}': 'ERR_INVALID_REQUEST',
    '{"jsonrpc":"1.0","id":1,"method":"ping"}': 'ERR_INVALID_REQUEST',
    '[]': 'ERR_BATCH',
    '[{"jsonrpc":"2.0","id":1,"method":"ping"}]': 'ERR_BATCH',
    '{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}': 'ERR_PARSE',
  }
  for (const [frame, reason] of Object.entries(bad)) {
    shared.messages.length = 0
    shared.send(frame)
    await until(() => shared.messages.length > 0, `an answer to ${frame}`)
    isRefusal(t, shared.messages[0], reason)
  }
  t.match(await shared.request(call('alive', 'echo', { text: 'x' })), { result: {} })
})

t.test('a binary frame closes with 1003', async (t) => {
  const client = await openSocket(base, { version: '2025-06-18' })
  client.socket.send(Buffer.from(JSON.stringify(call(1, 'echo'))), { binary: true })
  t.same(await closing(client), { code: 1003, reason: 'ERR_CONTENT_TYPE' })
  t.equal(client.messages.filter(({ id }) => id === 1).length, 0)
})

t.test('what follows a frame that closed the socket is not carried out', async (t) => {
  const client = await openSocket(base, { version: '2025-06-18' })
  const pid = Number(textOf(await client.request(call(0, 'pid'))))
  client.socket.send(Buffer.from('x'), { binary: true })
  client.send(call(1, 'echo', { text: 'after' }))
  await closing(client)
  t.notOk(client.messages.some(({ id }) => id === 1))
  await until(() => isGone(pid), 'the process is gone')
})

t.test('a message over the limit closes with 1009, in fragments too', async (t) => {
  const client = await openSocket(base, { version: '2025-06-18' })
  client.send(call(1, 'echo', { text: 'x'.repeat(250_000) }))
  t.equal((await closing(client))?.code, 1009)
  const fragments = await openSocket(base, { version: '2025-06-18' })
  for (let i = 0; i < 30; i++) fragments.socket.send('x'.repeat(10_000), { fin: false })
  t.equal((await closing(fragments))?.code, 1009)
})

t.test('text that is not UTF-8 closes with 1007, a frame that is not masked with 1002', async (t) => {
  const client = await openSocket(base)
  client.socket.send(Buffer.from([0xff, 0xfe, 0x22]), { binary: false })
  t.equal((await closing(client))?.code, 1007)
  const unmasked = await openSocket(base)
  unmasked.socket.send('{}', { mask: false })
  t.equal((await closing(unmasked))?.code, 1002)
})

t.test('a ping is answered', async (t) => {
  const pong = new Promise<Buffer>((resolve) => shared.socket.once('pong', resolve))
  shared.socket.ping('are you there')
  t.equal((await pong).toString(), 'are you there')
})

t.test('a quiet client is pinged, and cut off when it does not answer', async (t) => {
  const clock = forwardClock()
  const { base, config } = await startTestSidecar(t, { clock, config: { listen: { webSocket: true } } })
  const alive = await openSocket(base)
  const dead = new WebSocket(`${base.replace('http', 'ws')}/ws`, 'mcp', { autoPong: false })
  const pings = { alive: 0, dead: 0 }
  alive.socket.on('ping', () => pings.alive++)
  dead.on('ping', () => pings.dead++)
  let code: number | undefined
  dead.on('close', (with_: number) => {
    code = with_
  })
  await once(dead, 'open')
  for (let round = 1; round <= 3; round++) {
    clock.forward(config.listen.keepAliveMs)
    await until(() => pings.alive === round && (code !== undefined || pings.dead === round), `ping ${round}`)
    // The sidecar has read the pong when it answers what was sent after it.
    const answered = once(alive.socket, 'pong')
    alive.socket.ping()
    await answered
    if (round === 1) t.equal(code, undefined, 'not at once')
  }
  t.same(pings, { alive: 3, dead: 1 })
  t.equal(code, 1006, 'cut off')
  t.equal(alive.closed(), undefined, 'who answers stays')
  alive.close()
})

t.test('closing the socket cancels what is in flight and ends the session', async (t) => {
  const sessions = await metric('mcp_sidecar_sessions ')
  for (const end of ['close', 'terminate'] as const) {
    const client = await openSocket(base, { version: '2025-06-18' })
    const pid = Number(textOf(await client.request(call(1, 'pid'))))
    client.send(call(2, 'hang'))
    client.send(call(3, 'ask', { method: 'roots/list' }))
    await until(() => client.messages.some(({ method }) => method === 'roots/list'), 'the question')
    client.socket[end]()
    await until(() => isGone(pid), `the process is gone after ${end}`)
  }
  await until(async () => (await metric('mcp_sidecar_sessions ')) === sessions, 'the sessions are gone')
  t.equal(await metric('mcp_sidecar_calls_in_flight'), 0)
})

t.test('a server that crashes fails the calls, then closes the socket with 1011', async (t) => {
  const client = await openSocket(base, { version: '2025-06-18' })
  client.send(call('h', 'hang'))
  client.send(call('c', 'crash'))
  t.same(await closing(client), { code: 1011, reason: 'ERR_UPSTREAM_EXIT' })
  for (const id of ['h', 'c']) {
    isRefusal(
      t,
      client.messages.find((message) => message.id === id),
      'ERR_UPSTREAM_EXIT',
      id,
    )
  }
})

t.test('a request before initialize, and a second initialize, are refused', async (t) => {
  const client = await openSocket(base)
  isRefusal(t, await client.request(call('early', 'echo')), 'ERR_SESSION_MISSING', 'early')
  t.match(await client.request(initialize('2025-06-18')), { id: 0, result: {} })
  isRefusal(t, await client.request(initialize('2025-06-18', {}, 'again')), 'ERR_INVALID_REQUEST', 'again')
  t.match(await client.request(call('late', 'echo', { text: 'x' })), { result: {} })
  client.close()
})

t.test('initialize and what follows it may be sent without waiting', async (t) => {
  const client = await openSocket(base)
  client.send(initialize('2025-06-18'))
  client.send({ jsonrpc: '2.0', method: 'notifications/initialized' })
  t.match(await awaited(() => client.messages, 0), { result: {} })
  t.match(await client.request(call(1, 'echo', { text: 'x' })), { result: {} })
  client.close()
})

t.test('a request whose id is in flight is refused', async (t) => {
  shared.messages.length = 0
  shared.send(call(1, 'sleep', { ms: 50 }))
  shared.send(call(1, 'echo'))
  await until(() => shared.messages.length === 2, 'both')
  isRefusal(t, shared.messages[0], 'ERR_INVALID_REQUEST', 1)
  t.equal(textOf(shared.messages[1]), 'slept 50')
})

t.test('a batch of 2025-03-26 is served', async (t) => {
  const client = await openSocket(base, { version: '2025-03-26' })
  client.send([call('a', 'echo', { text: '1' }), call('b', 'echo', { text: '2' })])
  t.equal(textOf(await awaited(() => client.messages.flat(), 'a')), '1')
  t.equal(textOf(await awaited(() => client.messages.flat(), 'b')), '2')
  client.close()
})

t.test('sockets beyond the number of sessions are closed with 1013, and places come back', async (t) => {
  const clients: SocketClient[] = []
  const open = async () => metric('mcp_sidecar_sessions ')
  await until(async () => (await open()) === 1, 'earlier sessions are gone')
  for (let i = 1; i < 20; i++) clients.push(await openSocket(base))
  const late = await openSocket(base)
  t.same(await closing(late), { code: 1013, reason: 'ERR_OVERLOADED' })
  for (const client of clients) client.socket.terminate()
  await until(async () => (await open()) === 1, 'places are free')
  const next = await openSocket(base, { version: '2025-06-18' })
  t.match(await next.request(call(1, 'echo', { text: 'x' })), { result: {} })
  next.close()
})

t.test('other transports are served beside it', async (t) => {
  const session = await openSession(url)
  t.match((await post(url, call(1, 'echo', { text: 'x' }), session)).json, { result: {} })
  await send(url, 'DELETE', session)
})

t.test('it is off unless it is switched on', async (t) => {
  const off = await startTestSidecar(t)
  refused(t, await upgradeAnswer(off.base, {}), 404, 'ERR_NOT_FOUND')
  t.equal((await post(off.url, initialize())).status, 200)
})

t.test('a shutdown closes with 1001', async (t) => {
  const { base, sidecar } = await startTestSidecar(t, { config: { listen: { webSocket: true } } })
  const client = await openSocket(base, { version: '2025-06-18' })
  await sidecar.stop()
  t.same(await closing(client), { code: 1001, reason: 'ERR_DRAINING' })
})

t.teardown(() => shared.close())

t.test('a slow start is waited for, however many pings go unanswered meanwhile', async (t) => {
  const { base } = await startTestSidecar(t, {
    server: ['--init-delay=2500'],
    flags: { webSocket: true },
    config: { listen: { keepAliveMs: 1000 }, server: { warmSpares: 0, era: 'legacy' } },
  })
  const socket = await openSocket(base)
  t.match(await socket.request(initialize('2025-11-25')), { result: { protocolVersion: '2025-11-25' } })
  t.equal(socket.closed(), undefined)
  socket.close()
})
