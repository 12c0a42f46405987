import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { appendFileSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { auditLog, runProgram, startMute, startProgram } from '../support/audited.ts'
import { configFile } from '../support/config-file.ts'
import { ask, begin, type Json, modern, tool } from '../support/modern.ts'
import { folder } from '../support/processes.ts'
import { RawConnection, rawAnswers } from '../support/raw.ts'
import { startTestSidecar, type TestSidecar, until } from '../support/sidecar.ts'
import { openSocket, openSse, upgradeAnswer } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
import { waysIn } from '../support/tool-callers.ts'
import { call, held, initialize, open, openSession, post, released, send } from '../support/wire.ts'

type Headers = Record<string, string>

const tokens = bearerTokens(t, 'alice', 'bob', 'carol')
const auth = { bearer: { tokenFile: tokens.file } }
const alice: Headers = { ...tokens.of('alice') }
const traceId = '0af7651916cd43dd8448eb211c80319c'
const traceparent = `00-${traceId}-b7ad6b7169203331-01`
const fingerprint = /^sha256:[\da-f]{12,}$/

const start = (t: Test, settings: object, more: object = {}): Promise<TestSidecar> =>
  startTestSidecar(t, {
    flags: { ...configFile(t, { auth, ...settings }), topology: 'shared', webSocket: true },
    ...more,
  })

const log = auditLog(join(folder(t), 'audit.log'), (id) => ask(url, modern(id, 'server/discover'), alice))
const recorded = await start(t, {
  audit: { destination: log.file, component: 'the-component' },
  limits: { requestBody: '4KiB', inFlight: 50 },
  authorization: {
    rules: [
      { id: 'alice-may', principals: ['user:alice'], tools: ['*'] },
      { id: 'bob-echoes', principals: ['user:bob'], tools: ['echo'] },
    ],
  },
  rateLimits: [{ name: 'few-lists', per: 'user', tools: ['cwd'], requests: 1, window: '1h' }],
})
const { url, base } = recorded
const port = Number(new URL(url).port)
const byId = (id: string | number) => (line: Json) => line.jsonrpc_id === JSON.stringify(id)

for (const [way, enter] of Object.entries(waysIn)) {
  const transport = way.split(',')[0]?.toLowerCase().replace(' ', '-').replace('http+sse', 'http-sse')
  t.test(`${way}: one line says who, how, what, from where, why, and how it ended`, async (t) => {
    const secret = `classified ${way}`
    const caller = await enter(base, { ...alice, traceparent, 'User-Agent': 'agent/1' })
    const { json } = await caller.callTool('echo', { text: secret })
    t.match(json, { result: {} })
    const line = await log.one(byId(json.id), 'the call')
    t.equal(log.lines().filter(byId(json.id)).length, 1, 'one line')
    t.match(line, {
      metadata: { auditId: /^[\da-f-]{36}$/, extra: { transport } },
      type: 'mcp_tool_call',
      loggedAt: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/,
      component: 'the-component',
      target: { method: 'tools/call', type: 'tool', name: 'echo' },
      source: { type: 'network', value: '127.0.0.1', extra: { user_agent: 'agent/1', request_id: /./ } },
      outcome: 'success',
      subjects: { user: 'alice', user_id: 'bearer:alice', client_name: /test/, client_version: '1' },
      auth: { methods: ['bearer'] },
      decision: { effect: 'allow', policies: ['alice-may'], config: /^sha256:[\da-f]{64}$/ },
      trace_id: traceId,
    })
    t.ok(line.metadata.extra.duration_ms >= 0 && line.metadata.extra.duration_ms < 60_000)
    t.ok(line.metadata.extra.response_size_bytes > 10)
    if (way === 'Streamable HTTP, modern') t.notOk('session' in line, 'no session')
    else t.match(line.session, fingerprint)
    t.notMatch(log.text(), secret, 'no arguments and no results')
    caller.close()
  })

  t.test(`${way}: refusals and failures are told apart, with the rule that refused`, async (t) => {
    const [a, b] = await Promise.all([enter(base, alice), enter(base, { ...tokens.of('bob') })])
    const of = async (ended: { json: Json }, what: string): Promise<Json> => {
      t.ok(ended.json?.id, what)
      return log.one(byId(ended.json.id), what)
    }
    t.match(await of(await b.callTool('pid'), 'denied'), {
      outcome: 'denied',
      result: { code: 'ERR_DENIED', jsonrpc_code: 403 },
      subjects: { user: 'bob', client_name: /test/, client_version: '1' },
      decision: { effect: 'deny' },
    })
    t.match(await of(await a.callTool('fail'), 'a tool error'), { outcome: 'application_error' })
    const unknown = await of(await a.callTool('no-such-tool'), 'an error of the server')
    t.match(unknown, { outcome: 'failure', result: { jsonrpc_code: -32602 } })
    await a.callTool('cwd')
    t.match(await of(await a.callTool('cwd'), 'too many'), {
      outcome: 'rate_limited',
      result: { code: 'ERR_RATE_LIMITED', jsonrpc_code: 429 },
      decision: { effect: 'deny', layer: 'rate-limit', policies: ['few-lists'] },
    })
    for (const each of [a, b]) each.close()
  })
}

t.test('a trace named in the message counts before the header', async (t) => {
  const own = traceparent.replace(traceId, 'f'.repeat(32))
  await ask(url, tool('traced', 'pid', {}, { meta: { traceparent: own } }), { ...alice, traceparent })
  t.match(await log.one(byId('traced'), 'the call'), {
    trace_id: 'f'.repeat(32),
    span_id: 'b7ad6b7169203331',
  })
})

t.test('a call that its client gives up is cancelled', async (t) => {
  const calling = begin(url, tool('given-up', 'hang'), alice)
  await until(async () => (await recorded.metric('mcp_sidecar_calls_in_flight ')) === 1, 'it is in flight')
  calling.leave()
  t.match(await log.one(byId('given-up'), 'the call'), { outcome: 'cancelled', type: 'mcp_tool_call' })
})

t.test('every message has a line: requests of any method, notifications, responses', async (t) => {
  const session = await openSession(url, { headers: alice })
  const rpc = (id: string, method: string, params: object = {}) => ({ jsonrpc: '2.0', id, method, params })
  const types: Record<string, string> = {
    ping: 'mcp_ping',
    'tools/list': 'mcp_tools_list',
    'logging/setLevel': 'mcp_logging',
    'resources/list': 'mcp_resources_list',
    'prompts/list': 'mcp_prompts_list',
    'completion/complete': 'mcp_completion',
    'x/unknown': 'mcp_request',
  }
  for (const [method, type] of Object.entries(types)) {
    const added = await log.added(() => post(url, rpc(`m ${method}`, method, { level: 'info' }), session))
    t.match(added, [{ type, target: { method } }], method)
    t.equal(added.length, 1)
  }
  const noted = await log.added(() => post(url, { jsonrpc: '2.0', method: 'notifications/x' }, session))
  t.match(noted, [{ type: 'mcp_notification', outcome: 'success', target: { method: 'notifications/x' } }])
  const answered = await log.added(() => post(url, { jsonrpc: '2.0', id: 99, result: {} }, session))
  t.match(answered, [{ type: 'mcp_response', subjects: { user: 'alice' } }])
  const discovered = await log.added(() => ask(url, modern('d', 'server/discover'), alice))
  t.match(discovered, [
    { type: 'mcp_request', subjects: { client_name: 'modern-test', client_version: '1' } },
  ])
})

t.test('a CONNECT, which never becomes a request, leaves its line', async (t) => {
  const text = 'CONNECT db.internal:5432 HTTP/1.1\r\nHost: x\r\nUser-Agent: scanner\r\n\r\n'
  const added = await log.added(async () => {
    const connection = new RawConnection(port).write(text)
    await until(() => connection.ended || connection.closed, 'the connection ends')
    connection.close()
  })
  t.match(added, [
    {
      type: 'http_request',
      outcome: 'failure',
      target: { endpoint: 'db.internal:5432', http_method: 'CONNECT' },
      source: { value: '127.0.0.1', extra: { user_agent: 'scanner' } },
      result: { code: 'ERR_HTTP' },
    },
  ])
})

t.test('how a client introduced itself is told to nobody who only knows the session', async (t) => {
  const session = await openSession(url, { headers: alice })
  const own = await log.added(() => post(url, call('own', 'pid'), session))
  t.match(own, [{ subjects: { user: 'alice', client_name: 'test', client_version: '1' } }])
  const stolen = await log.added(() => post(url, call('stolen', 'echo'), { ...session, ...tokens.of('bob') }))
  t.strictSame(stolen[0].subjects, { user: 'bob', user_id: 'bearer:bob' })
  t.match(stolen, [{ result: { code: 'ERR_SESSION_UNKNOWN' } }])
})

t.test('sessions and streams begin and end in it', async (t) => {
  const before = log.lines().length
  const session = await openSession(url, { headers: alice })
  const stream = await open(url, 'GET', { Accept: 'text/event-stream', ...session })
  await send(url, 'DELETE', session)
  stream.destroy()
  const sse = await openSse(base, { headers: alice, version: '2024-11-05' })
  sse.cut()
  const socket = await openSocket(base, { headers: alice, version: '2025-11-25' })
  socket.close()
  const news = (): Json[] => log.lines().slice(before)
  const of = (type: string): Json[] => news().filter((line) => line.type === type)
  await until(() => of('session_end').length === 3, 'three sessions have ended')
  t.same(
    of('session_start').map(({ details }) => details.transport),
    ['streamable-http', 'http-sse', 'websocket'],
  )
  t.same(
    of('session_end')
      .map(({ session }) => session)
      .sort(),
    of('session_start')
      .map(({ session }) => session)
      .sort(),
    'the same sessions',
  )
  t.same(
    of('sse_connection').map(({ target }) => target.endpoint),
    ['/mcp', '/sse', '/ws'],
  )
  t.match(of('session_start'), [{ subjects: { user: 'alice' } }])
  const id = session['Mcp-Session-Id'] as string
  t.notMatch(log.text(), id, 'no session id')
  const hash = createHash('sha256').update(id).digest('hex')
  t.ok(of('session_start')[0].session.startsWith(`sha256:${hash.slice(0, 12)}`), 'but its hash')
})

const json = { 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' }
const raw =
  (...lines: string[]): (() => Promise<unknown>) =>
  () =>
    rawAnswers(port, `${lines.join('\r\n')}\r\n\r\n`)
const early: Record<
  string,
  readonly [act: () => Promise<unknown>, code: string, outcome: string, user?: string]
> = {
  'a foreign Host': [() => post(url, initialize(), { ...alice, Host: 'evil.example' }), 'ERR_HOST', 'denied'],
  'a foreign Origin': [
    () => post(url, initialize(), { ...alice, Origin: 'https://evil.example' }),
    'ERR_ORIGIN',
    'denied',
  ],
  'no credential': [() => post(url, initialize()), 'ERR_AUTH_MISSING', 'denied'],
  'a wrong credential': [
    () => post(url, initialize(), { Authorization: 'Bearer wrong-0123456789-wrong' }),
    'ERR_AUTH_INVALID',
    'denied',
  ],
  'a wrong credential for a WebSocket': [
    () => upgradeAnswer(base, { Authorization: 'Bearer wrong-0123456789-wrong' }),
    'ERR_AUTH_INVALID',
    'denied',
  ],
  'too large a message': [() => post(url, ' '.repeat(5000), alice), 'ERR_TOO_LARGE', 'failure', 'alice'],
  'another content type': [
    () => send(url, 'POST', { ...json, ...alice, 'Content-Type': 'text/plain' }, '{}'),
    'ERR_CONTENT_TYPE',
    'failure',
    'alice',
  ],
  'an Accept header that allows nothing': [
    () => send(url, 'POST', { ...json, ...alice, Accept: 'image/png' }, '{}'),
    'ERR_ACCEPT',
    'failure',
    'alice',
  ],
  'no JSON': [() => post(url, '{', alice), 'ERR_PARSE', 'failure', 'alice'],
  'no JSON-RPC': [() => post(url, '{"a":1}', alice), 'ERR_INVALID_REQUEST', 'failure', 'alice'],
  'a batch': [() => post(url, '[]', alice), 'ERR_BATCH', 'failure', 'alice'],
  'an unknown path': [() => send(`${base}/nothing`, 'GET', alice), 'ERR_NOT_FOUND', 'failure', 'alice'],
  'another method': [() => send(url, 'PUT', alice), 'ERR_METHOD', 'failure', 'alice'],
  'an unknown session': [
    () => send(url, 'GET', { ...alice, Accept: 'text/event-stream', 'Mcp-Session-Id': 'x' }),
    'ERR_SESSION_UNKNOWN',
    'failure',
    'alice',
  ],
  'two Host headers': [
    raw('GET /mcp HTTP/1.1', `Host: 127.0.0.1:${port}`, 'Host: evil.example'),
    'ERR_HTTP',
    'failure',
  ],
  'no HTTP': [raw('HELO there'), 'ERR_HTTP', 'failure'],
  'headers without an end': [
    raw('GET /mcp HTTP/1.1', `Host: 127.0.0.1:${port}`, `X: ${'x'.repeat(20_000)}`),
    'ERR_HEADERS',
    'failure',
  ],
  'an expectation': [
    raw('POST /mcp HTTP/1.1', `Host: 127.0.0.1:${port}`, 'Expect: the-unexpected', 'Content-Length: 2'),
    'ERR_EXPECTATION',
    'failure',
  ],
}

t.test('each refusal before there is a message has one line', async (t) => {
  for (const [what, [act, code, outcome, user]] of Object.entries(early)) {
    const added = await log.added(act)
    t.equal(added.length, 1, `${what}: one line`)
    t.match(
      added[0],
      {
        type: 'http_request',
        outcome,
        result: { code },
        source: { type: 'network', value: '127.0.0.1', extra: { request_id: /./ } },
      },
      what,
    )
    t.equal(added[0].subjects.user, user, `${what}: who`)
    t.equal(added[0].decision?.effect, outcome === 'denied' ? 'deny' : undefined, `${what}: decided`)
  }
})

t.test('so has a wrong password whose sender does not wait to be refused', async (t) => {
  const place = folder(t)
  const guessed = auditLog(join(place, 'audit.log'))
  const line = await runProgram(['hash', 'alice'], 'correct horse battery staple\n')
  writeFileSync(join(place, 'passwords'), line.stdout, { mode: 0o600 })
  const basic = { basic: { passwordFile: join(place, 'passwords') } }
  const { url } = await start(t, { auth: basic, audit: { destination: guessed.file } })
  const { host, port } = new URL(url)
  const credential = Buffer.from('alice:a wrong password').toString('base64')
  const head = [`GET /mcp HTTP/1.1`, `Host: ${host}`, `Authorization: Basic ${credential}`, '', '']
  const connection = new RawConnection(Number(port)).write(head.join('\r\n'))
  await until(() => !connection.socket.connecting && connection.socket.writableLength === 0, 'it was sent')
  connection.close()
  const refused = await guessed.one(({ type }) => type === 'http_request', 'the refusal')
  t.match(refused, { outcome: 'denied', result: { code: 'ERR_AUTH_INVALID' } })
})

t.test('so has a body that is cut off', async (t) => {
  const head = [
    'POST /mcp HTTP/1.1',
    `Host: 127.0.0.1:${port}`,
    `Authorization: ${alice['Authorization']}`,
    'Content-Type: application/json',
    'Accept: */*',
    'X-Forwarded-For: 192.0.2.77',
    'Content-Length: 100',
  ]
  const before = log.lines().length
  const connection = new RawConnection(port).write(`${head.join('\r\n')}\r\n\r\n{`)
  await until(() => !connection.socket.connecting && connection.socket.writableLength === 0, 'it was sent')
  connection.close()
  const isCut = (line: Json): boolean => line.result?.code === 'ERR_HTTP'
  await until(() => log.lines().slice(before).some(isCut), 'the refusal is there')
  t.equal((await log.added(async () => {})).length, 0)
  t.equal(log.lines().slice(before).filter(isCut).length, 1, 'one line')
})

t.test('frames of a WebSocket that are no messages have a line each', async (t) => {
  const socket = await openSocket(base, { headers: alice })
  const added = await log.added(async () => {
    socket.send('{')
    await until(() => socket.messages.length > 0, 'it is refused')
  })
  t.match(added, [{ type: 'http_request', result: { code: 'ERR_PARSE' }, subjects: { user: 'alice' } }])
  t.equal(added.length, 1)
  socket.close()
})

t.test('nothing in it gives a credential away, and only its owner can read it', async (t) => {
  for (const name of ['alice', 'bob']) t.notMatch(log.text(), tokens.token(name))
  t.notMatch(log.text(), 'wrong-0123456789-wrong')
  t.equal(statSync(log.file).mode & 0o777, 0o600)
  const types = log.lines().map(({ type }) => type)
  t.ok(types.includes('process_start'), 'the server process')
  const seqs = log.lines().map(({ seq }) => seq)
  t.same(
    seqs,
    seqs.map((_, i) => i + 1),
    'numbered without a gap',
  )
})

t.test('arguments and results are written when asked for, without secrets, and cut', async (t) => {
  const asked = auditLog(join(folder(t), 'audit.log'))
  const audit = {
    destination: asked.file,
    includeRequestData: true,
    includeResponseData: true,
    redact: ['shoeSize'],
    maxData: '300B',
    excludeEventTypes: ['mcp_ping'],
  }
  const { url } = await start(t, { audit })
  const args = {
    city: 'Paris',
    password: 'pa55',
    nested: { API_KEY: 'k3y', shoe_size: 43 },
    note: 'ghp_0123456789abcdefghij',
  }
  await ask(url, tool('data', 'echo', args), alice)
  const line = await asked.one(byId('data'), 'the call')
  for (const what of ['request', 'response']) {
    t.match(line.data[what], 'Paris', what)
    for (const hidden of ['pa55', 'k3y', '43', 'ghp_'])
      t.notMatch(line.data[what], hidden, `${what} without ${hidden}`)
  }
  t.match(line.args_sha256, /^[\da-f]{64}$/)
  await ask(url, tool('long', 'echo', { text: 'x'.repeat(5000) }), alice)
  const long = await asked.one(byId('long'), 'the long call')
  t.match(long.data, { request_truncated: true, response_truncated: true })
  t.ok(long.data.request.length <= 300 && long.data.response.length <= 300, 'cut')
  const session = await openSession(url, { headers: alice })
  await post(url, { jsonrpc: '2.0', id: 'p', method: 'ping' }, session)
  await post(url, call('after', 'pid'), session)
  await asked.one(byId('after'), 'the next call')
  t.notOk(asked.lines().some(byId('p')), 'types that are left out')
})

t.test('a reload that changes what is recorded loses no line, not of calls under way either', async (t) => {
  const kept = auditLog(join(folder(t), 'audit.log'))
  const settings = (more: object): object => ({ auth, audit: { destination: kept.file, ...more } })
  const { url, sidecar, config, metric } = await start(t, settings({}))
  const session = await openSession(url, { headers: alice })
  /** One call, with what becomes of it in the meantime. */
  const during = async (id: string, act: () => Promise<unknown>): Promise<void> => {
    const { name, arguments: args } = held(id).params
    const calling = ask(url, tool(id, name, args), alice)
    await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 1, 'a call is in flight')
    await act()
    let answered = false
    const answer = calling.finally(() => {
      answered = true
    })
    // On its way here it may overtake the call.
    await until(async () => {
      await post(url, released(id), session)
      return answered
    }, 'the call is answered')
    await answer
  }
  const audit = { ...config.policy.audit, includeRequestData: true } as typeof config.policy.audit
  await during('under-way', () => sidecar.reload({ ...config, policy: { ...config.policy, audit } }))
  t.match(await kept.one(byId('under-way'), 'the call'), { outcome: 'success' })
  await ask(url, tool('later', 'echo', { text: 'hello' }), alice)
  t.match(await kept.one(byId('later'), 'the next call'), { data: { request: /hello/ } })
  t.match(await kept.one(({ type }) => type === 'config_reload', 'the reload'), {
    details: { config: /^sha256:/ },
  })
  const moved = auditLog(join(folder(t), 'other.log'))
  const elsewhere = { ...audit, destination: { file: moved.file } } as typeof audit
  await during('moving', () => sidecar.reload({ ...config, policy: { ...config.policy, audit: elsewhere } }))
  await until(
    () => [...kept.lines(), ...moved.lines()].some(byId('moving')),
    'the call is in the old file or in the new one',
  )
})

// From here on: sidecars in processes of their own.

const audited = (t: Test, audit: object, more: object = {}): readonly string[] => [
  '--config',
  configFile(t, { auth, audit, ...more }).config,
]
const verify = (...args: string[]) => runProgram(['audit', 'verify', ...args])
const calls = async (url: string, count: number): Promise<number[]> => {
  const all: number[] = []
  for (let i = 0; i < count; i++) all.push((await ask(url, tool(i, 'echo', { i }), alice)).status)
  return all
}

t.test('the chain is whole across a rotation and a crash, and tampering is found', async (t) => {
  const log = auditLog(join(folder(t), 'audit.log'))
  const older = `${log.file}.1`
  const flags = audited(t, { destination: log.file })
  const first = await startProgram(t, flags)
  await calls(first.url, 3)
  await until(() => log.lines().length >= 5, 'lines are there')
  renameSync(log.file, older)
  first.kill('SIGHUP')
  await until(() => log.lines().some(({ type }) => type === 'config_reload'), 'a new file was begun')
  await calls(first.url, 3)
  const atRotation = readFileSync(older, 'utf8')
  await log.one(byId(2), 'the last call')
  t.equal(readFileSync(older, 'utf8'), atRotation, 'nothing is written to the old file')

  const busy = Promise.allSettled(
    Array.from({ length: 20 }, (_, i) => ask(first.url, tool(`b${i}`, 'pid'), alice)),
  )
  await until(
    () => log.lines().some(({ jsonrpc_id: id }) => /b\d/.test(id ?? '')),
    'it is in the middle of calls',
  )
  first.kill('SIGKILL')
  await Promise.all([first.exited, busy])
  appendFileSync(log.file, '{"metadata":{"auditId":"half a li')
  const second = await startProgram(t, flags)
  await calls(second.url, 3)
  second.kill('SIGTERM')
  t.equal(await second.exited, 0)
  t.match(
    log.lines().map(({ type }) => type),
    new Set(['chain_resumed', 'sidecar_stop']),
  )
  const types = log.lines().map(({ type }) => type)
  t.ok(types.includes('chain_resumed'), 'what the crash left is named')
  t.equal(types.at(-1), 'sidecar_stop', 'the end is recorded')
  t.ok(
    auditLog(older)
      .lines()
      .some(({ type }) => type === 'sidecar_start'),
    'so is the start',
  )

  const whole = await verify(older, log.file)
  t.match(whole, { code: 0, stdout: /the chain is whole/ })
  const lines = log.text().split('\n').slice(0, -1)
  const last = log.lines().at(-1).seq
  const ofAlice = lines.findIndex((line) => line.includes('"user":"alice"'))
  const changes: Record<string, readonly [(lines: string[]) => string[], ...string[]]> = {
    changed: [(all) => all.with(ofAlice, (all[ofAlice] as string).replace('alice', 'mallo'))],
    'changed where a crash cut it off': [(all) => all.map((line) => line.replace('half a li', 'half a lie'))],
    removed: [(all) => all.toSpliced(3, 1)],
    inserted: [(all) => all.toSpliced(3, 0, all[1] as string)],
    reordered: [(all) => [all[0], all[2], all[1], ...all.slice(3)] as string[]],
    truncated: [(all) => all.slice(0, -1), '--expect-seq', String(last)],
    'begun anew': [(all) => [...all, ...atRotation.split('\n').slice(0, 2)]],
    emptied: [() => [], '--expect-seq', String(last)],
  }
  t.ok(ofAlice >= 0 && lines.some((line) => line.endsWith('half a li')), 'there is what is to be changed')
  await Promise.all(
    Object.entries(changes).map(async ([what, [change, ...options]]) => {
      const file = join(folder(t), 'tampered.log')
      writeFileSync(
        file,
        change([...lines])
          .map((line) => `${line}\n`)
          .join(''),
      )
      const found = await verify(...options, older, file)
      t.equal(found.code, 1, `${what}: ${found.stdout}`)
      t.match(found.stdout, /tampered\.log:\d+: /, `${what}: with its place`)
    }),
  )
  const kept = await verify('--expect-seq', String(last), older, log.file)
  t.equal(kept.code, 0, kept.stdout)
  const missing = await verify(join(folder(t), 'none'))
  t.equal(missing.code, 1)
  t.match(missing.stderr, /^mcp-sidecar: \S+\/none does not exist$/m)
  t.notMatch(missing.stderr, /\n {4}at /, 'no stack trace')
})

const canLimit = spawnSync('prlimit', ['--version']).error === undefined
const noLimit = canLimit ? false : 'prlimit (util-linux) is not installed: no full disk can be simulated'
/** No file of this process can grow beyond so many bytes; the hard limit stays, so that it can be taken back. */
const fileSize = (pid: number, bytes: number | 'unlimited'): void => {
  const { status, stderr } = spawnSync('prlimit', ['--pid', String(pid), `--fsize=${bytes}:unlimited`])
  if (status !== 0) throw new Error(String(stderr))
}

for (const onFailure of ['block', 'continue'] as const) {
  t.test(`on a full disk, ${onFailure}`, { skip: noLimit }, async (t) => {
    const log = auditLog(join(folder(t), 'audit.log'))
    const program = await startProgram(t, audited(t, { destination: log.file, onFailure }))
    const { url, adminUrl, pid } = program
    t.same(await calls(url, 2), [200, 200])
    await until(() => log.lines().length > 2, 'lines are there')
    const metric = async (name: string): Promise<number> => {
      const { body } = await send(`${adminUrl}/metrics`, 'GET')
      return Number(new RegExp(`^${name} (\\d+)`, 'm').exec(body)?.[1])
    }
    const before = statSync(log.file).size
    fileSize(pid, before + 100)
    await ask(url, tool('the one', 'pid'), alice)
    await until(
      async () => (await metric('mcp_sidecar_audit_write_failures_total')) > 0,
      'a write has failed',
    )
    if (onFailure === 'block') {
      const refused = await ask(url, tool('refused', 'pid'), alice)
      t.equal(refused.status, 503)
      t.equal(refused.headers['retry-after'], '5')
      t.match(refused.json, { id: 'refused', error: { data: { reason: 'ERR_AUDIT', retryAfterSeconds: 5 } } })
      t.equal((await post(url, initialize(), alice)).status, 503, 'initialize')
      t.equal(
        (await send(`${new URL(url).origin}/sse`, 'GET', { Accept: 'text/event-stream', ...alice })).status,
        503,
      )
    } else t.same(await calls(url, 3), [200, 200, 200])
    fileSize(pid, 'unlimited')
    await until(
      async () => (await ask(url, tool('again', 'pid'), alice)).status === 200,
      'it is served again',
    )
    await log.one(byId('again'), 'the call after')
    t.match(await log.one(({ type }) => type === 'audit_resumed', 'the gap'), {
      details: { lost: 0, reason: 'EFBIG' },
    })
    await log.one(byId('the one'), 'what could not be written at the time')
    if (onFailure === 'block')
      t.match(await log.one(byId('refused'), 'the refusal'), { result: { code: 'ERR_AUDIT' } })
    program.kill('SIGTERM')
    await program.exited
    const verified = await verify(log.file)
    t.equal(verified.code, 0, verified.stdout)
  })
}

t.test(
  'standard output: whole lines among those of the log; who reads nothing stops the calls',
  async (t) => {
    const program = await startProgram(t, audited(t, { destination: 'stdout' }))
    const { url } = program
    t.same(new Set(await calls(url, 20)), new Set([200]))
    program.pause()
    // So many that a pipe does not hold them.
    const agents = 'x'.repeat(250)
    let status = 200
    await until(
      async () => {
        const all = await Promise.all(
          Array.from({ length: 20 }, (_, i) => ask(url, tool(i, 'pid'), { ...alice, 'User-Agent': agents })),
        )
        status = all.at(-1)?.status ?? 0
        return status === 503
      },
      'calls are refused',
      30_000,
    )
    program.resume()
    await until(
      async () => (await ask(url, tool('again', 'pid'), alice)).status === 200,
      'they are served again',
    )
    await until(() => program.output().includes('"jsonrpc_id":"\\"again\\""'), 'the call is there')
    program.kill('SIGTERM')
    t.equal(await program.exited, 0)
    const lines = program.output().trimEnd().split('\n')
    t.doesNotThrow(() => lines.map((line) => JSON.parse(line)), 'no line inside another')
    const own = lines.filter((line) => line.startsWith('{"metadata"'))
    t.ok(own.length > 40)
    t.ok(own.length < lines.length, 'the log is there, too')
    const verified = await runProgram(['audit', 'verify', '-'], `${own.join('\n')}\n`)
    t.match(verified, { code: 0, stdout: /the chain is whole/ })
  },
)

for (const onFailure of ['block', 'continue'] as const) {
  t.test(`standard output on a full device, ${onFailure}`, async (t) => {
    const { url, adminUrl } = await startMute(t, audited(t, { destination: 'stdout', onFailure }))
    const failures = async (): Promise<boolean> =>
      /^mcp_sidecar_audit_write_failures_total [1-9]/m.test((await send(`${adminUrl}/metrics`, 'GET')).body)
    await ask(url, tool(1, 'pid'), alice)
    await until(failures, 'failed writes are counted')
    const { status, json } = await ask(url, tool(2, 'pid'), alice)
    if (onFailure === 'continue') t.equal(status, 200)
    else t.match([status, json.error?.data.reason], [503, 'ERR_AUDIT'])
  })
}

t.test('what is no file that only we write is refused at the start', async (t) => {
  const place = folder(t)
  const fifo = join(place, 'fifo')
  spawnSync('mkfifo', [fifo])
  const open = join(place, 'open')
  writeFileSync(open, '')
  spawnSync('chmod', ['666', open])
  const foreign = join(place, 'foreign')
  writeFileSync(foreign, 'dear diary\n', { mode: 0o600 })
  const refused: Record<string, RegExp> = {
    '/dev/full': /not a regular file/,
    [fifo]: /not a regular file/,
    [open]: /written by every user/,
    [foreign]: /does not end with an audit event/,
    [place]: /folder/,
  }
  await Promise.all(
    Object.entries(refused).map(async ([destination, why]) => {
      const { code, stderr } = await runProgram([...audited(t, { destination }), '--port', '0', '--', 'cat'])
      t.not(code, 0, destination)
      t.match(stderr, why, destination)
      t.notMatch(stderr, /\n {4}at /, 'no stack trace')
    }),
  )
})
