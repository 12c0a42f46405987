import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { configFile } from '../support/config-file.ts'
import { forwardClock } from '../support/forward-clock.ts'
import { hmac, jwtOf } from '../support/jwt-keys.ts'
import { ask, begin, modern, tool } from '../support/modern.ts'
import { startRedis } from '../support/redis.ts'
import { startTestSidecar, type TestSidecar, until } from '../support/sidecar.ts'
import { awaited, openSocket } from '../support/streams.ts'
import { type Caller, type Ended, waysIn } from '../support/tool-callers.ts'
import { call, initialize, open, openSession, post, type RawResponse, send } from '../support/wire.ts'

type Headers = Record<string, string>

const folder = t.testdir()
const names = ['alice', 'bob', 'carol', 'dave', 'erin', 'mallory']
const secretOf = (name: string): string => `${name}-secret-0123456789abcdef`
const file = (name: string, text: string): string => {
  const path = join(folder, name)
  writeFileSync(path, text, { mode: 0o600 })
  return path
}
const lines = names.map((name) => `${name}:${secretOf(name)}\n`).join('')
const tokenFile = file('tokens', lines)
const keyFile = file('keys', lines.replaceAll('secret', 'key'))
const jwtSecret = 'a secret of at least thirty-two bytes!'
const auth = {
  bearer: { tokenFile },
  apiKey: { keyFile },
  jwt: {
    issuer: 'https://cluster.example',
    secretFile: file('jwt', jwtSecret),
    audiences: ['sidecar'],
  },
}

const by = (name: string): Headers => ({ Authorization: `Bearer ${secretOf(name)}` })
const byKey = (name: string): Headers => ({ 'X-API-Key': secretOf(name).replace('secret', 'key') })
const from = (address: string): Headers => ({ 'X-Forwarded-For': address })
/** The token of a Kubernetes service account. */
const account = (namespace: string, name: string): Headers => {
  const claims = {
    iss: 'https://cluster.example',
    aud: 'sidecar',
    sub: `system:serviceaccount:${namespace}:${name}`,
    exp: Math.floor(Date.now() / 1000) + 600,
    'kubernetes.io': { namespace, serviceaccount: { name, uid: 'u-1' } },
  }
  return { Authorization: `Bearer ${jwtOf({ alg: 'HS256', typ: 'JWT' }, claims, hmac(jwtSecret))}` }
}

const limit = (name: string, per: string, requests: number, more: object = {}): object => ({
  ...{ name, per, requests, window: '1h', tools: [`${name}-*`] },
  ...more,
})

const start = (t: Test, settings: object, more: object = {}): Promise<TestSidecar> =>
  startTestSidecar(t, {
    flags: {
      ...configFile(t, { listen: { trustedProxies: ['127.0.0.1'] }, ...settings }),
      topology: 'shared',
      webSocket: true,
    },
    ...more,
  })

function serves(t: Test, ended: Ended, what = 'it is served'): void {
  t.ok(served(ended), what, { answer: ended })
}

/** The tool is none of the server's, so that each way in can have its own; that it was asked is enough. */
const served = ({ json }: Ended): boolean => json?.error?.code === -32602 || json?.result !== undefined

function refusedFor(t: Test, ended: Ended, atMost: number): void {
  const { json, status, retryAfter } = ended
  t.match(
    json,
    { jsonrpc: '2.0', error: { code: 429, data: { reason: 'ERR_RATE_LIMITED', source: 'mcp-sidecar' } } },
    'refused',
  )
  const seconds = json.error.data.retryAfterSeconds
  t.ok(Number.isInteger(seconds) && seconds >= 1 && seconds <= atMost, `a wait of ${seconds} s`)
  if (status === undefined) return
  t.equal(status, 429)
  t.equal(retryAfter, String(seconds), 'Retry-After says the same')
}

const suffixOf = (way: string): string => way.replaceAll(/\W+/g, '-')
const limited = await start(t, {
  auth,
  // One of each dimension for each way in, so that none has been used up by another.
  rateLimits: Object.keys(waysIn).flatMap((way) =>
    ['user', 'principal', 'ip', 'tool', 'namespace'].map((per) => limit(`${per}-${suffixOf(way)}`, per, 2)),
  ),
})

/** Which callers share a count of two, and who has another; each call is on a way in of its own. */
const dimensions: Record<string, { readonly same: [Headers, Headers]; readonly other: Headers }> = {
  user: { same: [by('alice'), byKey('alice')], other: by('bob') },
  principal: { same: [by('alice'), by('alice')], other: byKey('alice') },
  ip: {
    same: [
      { ...by('alice'), ...from('2001:db8::1') },
      { ...by('bob'), ...from('2001:db8::ffff:2') },
    ],
    other: { ...by('bob'), ...from('2001:db8:0:1::1') },
  },
  tool: { same: [by('alice'), byKey('bob')], other: by('carol') },
  namespace: { same: [account('team-a', 'ci'), account('team-a', 'cd')], other: account('team-b', 'ci') },
}

for (const [way, enter] of Object.entries(waysIn)) {
  const suffix = suffixOf(way)
  for (const [dimension, { same, other }] of Object.entries(dimensions)) {
    t.test(`${way}: the ${dimension} has one count, whoever else it is`, async (t) => {
      const open = (headers: Headers): Promise<Caller> => enter(limited.base, headers)
      const [first, second, third] = await Promise.all([open(same[0]), open(same[1]), open(other)])
      const name = `${dimension}-${suffix}-1`
      serves(t, await first.callTool(name), 'the first')
      serves(t, await second.callTool(name), 'the second')
      refusedFor(t, await first.callTool(name), 3600)
      refusedFor(t, await second.callTool(name), 3600)
      const spared = await third.callTool(dimension === 'tool' ? `tool-${suffix}-2` : name)
      serves(t, spared, 'another has a count of its own')
      for (const each of [first, second, third]) each.close()
    })
  }
}

t.test('short and long windows are all enforced, and a refusal names the longest wait', async (t) => {
  const clock = forwardClock()
  const rateLimits = [
    limit('short', 'principal', 3, { tools: ['windows'], window: '1m' }),
    limit('long', 'principal', 5, { tools: ['windows'] }),
  ]
  const { base } = await start(t, { auth, rateLimits }, { clock })
  const caller = await (waysIn['Streamable HTTP, modern'] as (typeof waysIn)[string])(base, by('dave'))
  const first = await Promise.all(Array.from({ length: 4 }, () => caller.callTool('windows')))
  t.equal(first.filter(served).length, 3, 'three in a minute')
  const over = first.find((each) => !served(each)) as Ended
  refusedFor(t, over, 60)
  clock.forward(60_000)
  let passed = 3
  let last = over
  await until(async () => {
    last = await caller.callTool('windows')
    if (served(last)) passed++
    return !served(last)
  }, 'the long window is full, too')
  t.equal(passed, 5, 'five in an hour')
  refusedFor(t, last, 3600)
  t.ok(last.json.error.data.retryAfterSeconds > 3000, 'what is left of the hour, not of the minute')
})

t.test('who is refused for another reason spends nothing', async (t) => {
  const settings = {
    auth,
    authorization: { rules: [{ id: 'alice-alone', principals: ['user:alice'], tools: ['*'] }] },
    rateLimits: [limit('tool', 'tool', 2), limit('address', 'ip', 4, { tools: undefined, window: '2h' })],
  }
  const { url, base } = await start(t, settings)
  for (let i = 0; i < 5; i++) {
    const denied = await ask(url, tool(i, 'tool-x'), by('mallory'))
    t.equal(denied.status, 403, 'mallory may not')
    const unknown = await ask(url, tool(i, 'tool-x'), { Authorization: `Bearer ${'x'.repeat(32)}` })
    t.equal(unknown.status, 401, 'a stranger is not asked what he wants')
    t.equal((await post(url, '{', by('alice'))).status, 400, 'no message')
    t.equal(
      (await ask(url, tool(i, 'tool-x'), { ...by('alice'), 'Mcp-Name': 'y' })).status,
      400,
      'a mismatch',
    )
    t.equal(
      (await ask(url, tool(i, 'tool-x'), { ...by('alice'), Origin: 'https://evil.example' })).status,
      403,
    )
  }
  const caller = await (waysIn['Streamable HTTP, modern'] as (typeof waysIn)[string])(base, by('alice'))
  serves(t, await caller.callTool('tool-x'))
  serves(t, await caller.callTool('tool-x'))
  refusedFor(t, await caller.callTool('tool-x'), 3600)
  serves(t, await caller.callTool('tool-y'))
  serves(t, await caller.callTool('tool-y'), 'a refusal by one limit was not charged to the other')
  const over = await caller.callTool('tool-z')
  refusedFor(t, over, 7200)
  t.ok(over.json.error.data.retryAfterSeconds > 3600, 'the limit of the address')
})

t.test('in memory, each replica counts for itself', async (t) => {
  const settings = { auth, rateLimits: [limit('tool', 'tool', 1)] }
  const replicas = await Promise.all([start(t, settings), start(t, settings)])
  for (const { url } of replicas) {
    t.equal((await ask(url, tool(1, 'tool-x'), by('alice'))).status, 200)
    t.equal((await ask(url, tool(2, 'tool-x'), by('bob'))).status, 429)
  }
})

t.test('requests in flight are limited for each principal and in all', async (t) => {
  const settings = { auth, limits: { inFlight: 3, inFlightPerPrincipal: 2 } }
  const { url, base, metric } = await start(t, settings)
  const inFlight = (count: number): Promise<void> =>
    until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === count, `${count} in flight`)
  const overloaded = (t: Test, { json, status, retryAfter }: Ended): void => {
    t.match(json, { error: { data: { reason: 'ERR_OVERLOADED', retryAfterSeconds: 1 } } })
    if (status === undefined) return
    t.equal(status, 503)
    t.equal(retryAfter, '1')
  }
  for (const [way, enter] of Object.entries(waysIn)) {
    await t.test(way, async (t) => {
      const [alice, bob, carol] = (await Promise.all(
        ['alice', 'bob', 'carol'].map((name) => enter(base, by(name))),
      )) as [Caller, Caller, Caller]
      const hanging = [1, 2].map((id) => begin(url, tool(id, 'hang'), by('alice')))
      await inFlight(2)
      overloaded(t, await alice.callTool('pid'))
      serves(t, await bob.callTool('pid'), 'others have their own')
      const third = begin(url, tool(3, 'hang'), by('bob'))
      await inFlight(3)
      overloaded(t, await carol.callTool('pid'))
      hanging[0]?.leave()
      await inFlight(2)
      serves(t, await carol.callTool('pid'), 'there is room again')
      hanging[1]?.leave()
      third.leave()
      await inFlight(0)
      for (const each of [alice, bob, carol]) each.close()
    })
  }
})

t.test('sessions are limited for each principal; unused ones make way, busy ones do not', async (t) => {
  const settings = { auth, limits: { sessionsPerPrincipal: 2 } }
  const { url, base, metric } = await start(t, settings)
  const sockets = await Promise.all(
    [1, 2].map(() => openSocket(base, { headers: by('alice'), version: '2025-11-25' })),
  )
  const refused = await post(url, initialize(), by('alice'))
  t.equal(refused.status, 503, 'Streamable HTTP')
  t.equal(refused.headers['retry-after'], '5')
  t.match(refused.json, { id: 0, error: { data: { reason: 'ERR_OVERLOADED', retryAfterSeconds: 5 } } })
  const stream = await send(`${base}/sse`, 'GET', { Accept: 'text/event-stream', ...by('alice') })
  t.equal(stream.status, 503, 'HTTP+SSE')
  const third = await openSocket(base, { headers: by('alice') })
  await until(() => third.closed() !== undefined, 'the third WebSocket is closed')
  t.same(third.closed(), { code: 1013, reason: 'ERR_OVERLOADED' })
  t.equal((await post(url, initialize(), byKey('alice'))).status, 200, 'another principal')
  sockets[0]?.close()
  await until(async () => (await metric('mcp_sidecar_sessions ')) === 2, 'one has ended')
  const session = await openSession(url, { headers: by('alice') })
  const next = await openSession(url, { headers: by('alice') })
  t.equal((await post(url, call(1, 'pid'), session)).status, 404, 'the unused one made way')
  t.equal((await post(url, call(2, 'pid'), next)).status, 200)
})

t.test('one caller does not take every process of a server from the others', async (t) => {
  const { url } = await startTestSidecar(t, {
    flags: configFile(t, { auth, limits: { processesPerPrincipal: 2 }, server: { warmSpares: 0 } }),
  })
  const openOne = (): Promise<Headers> => openSession(url, { headers: by('alice') })
  const unused = await openOne()
  const second = await openOne()
  const third = await openOne()
  t.equal((await post(url, call(1, 'pid'), unused)).status, 404, 'the unused one made way')
  const hanging = [second, third].map((each) => open(url, 'GET', { ...each, Accept: 'text/event-stream' }))
  const streams = await Promise.all(hanging)
  const refused = await post(url, initialize(), by('alice'))
  t.equal(refused.status, 503, 'none is unused')
  t.match(refused.json, { error: { data: { reason: 'ERR_OVERLOADED' } } })
  t.equal((await post(url, initialize(), by('bob'))).status, 200, 'another principal')
  for (const stream of streams) stream.destroy()
})

t.test('a slow tool and a slow method have longer, others do not', async (t) => {
  const settings = {
    auth,
    limits: { requestTimeout: '300ms' },
    timeouts: [
      { tools: ['sl*p'], timeout: '1m' },
      { methods: ['resources/*'], timeout: '1m' },
    ],
  }
  const { base, url } = await start(t, settings, { server: ['--subscribe-delay=700'] })
  for (const [way, enter] of Object.entries(waysIn)) {
    await t.test(way, async (t) => {
      const caller = await enter(base, by('alice'))
      const [slow, hung] = await Promise.all([caller.callTool('sleep', { ms: 700 }), caller.callTool('hang')])
      t.match(slow.json, { result: { content: [{ text: 'slept 700' }] } })
      t.match(hung.json, { error: { data: { reason: 'ERR_TIMEOUT' } } })
      caller.close()
    })
  }
  const session = await openSession(url, { headers: by('alice') })
  const subscribe = { jsonrpc: '2.0', id: 1, method: 'resources/subscribe', params: { uri: 'x:y' } }
  t.match((await post(url, subscribe, session)).messages, [{ id: 1, result: {} }], 'by the method')
})

t.test('a tool may have less time than others, with and without progress', async (t) => {
  const settings = {
    auth,
    timeouts: [
      { tools: ['hang'], timeout: '100ms' },
      { tools: ['progress'], timeout: '1500ms', maxTimeout: '2s' },
    ],
  }
  const { url } = await start(t, settings)
  const session = await openSession(url, { headers: by('alice') })
  const [hung, slow, endless] = await Promise.all([
    post(url, call(1, 'hang'), session),
    post(url, call(2, 'sleep', { ms: 500 }), session),
    post(url, call(3, 'progress', { count: 1000, ms: 30 }, { progressToken: 'p' }), session),
  ])
  t.match(hung.messages, [{ id: 1, error: { data: { reason: 'ERR_TIMEOUT' } } }])
  t.match(slow.messages, [{ id: 2, result: {} }], 'the default is longer')
  t.match(endless.messages.at(-1), { id: 3, error: { data: { reason: 'ERR_TIMEOUT' } } })
  t.ok(endless.messages.length > 1, 'progress bought time, up to the most there is')
})

const redisIsThere = spawnSync('redis-server', ['--version']).error === undefined
const skip = redisIsThere ? false : "redis-server is not installed (Debian's package redis-server)"

t.test('with Redis', { skip }, async (t) => {
  const redis = await startRedis(t)
  const store = (whenAway: string, url = redis.url, more: object = {}): object => ({
    // A slow answer is none of an outage: it is away when its connection is lost.
    redis: { url, prefix: 'e2e', whenAway, timeout: '10s', ...more },
  })
  const rateLimits = [limit('tool', 'tool', 3), limit('each', 'principal', 50, { tools: undefined })]
  const [a, b, strict] = await Promise.all([
    start(t, { auth, rateLimits, rateLimitStore: store('local') }),
    start(t, { auth, rateLimits, rateLimitStore: store('local') }),
    start(t, { auth, rateLimits, rateLimitStore: store('refuse') }),
  ])
  const replicas = [a, b, strict]
  const statuses = async (name: string, ...among: TestSidecar[]): Promise<number[]> => {
    const all: number[] = []
    for (const { url } of among) all.push((await ask(url, tool(1, name), by('alice'))).status)
    return all
  }

  await t.test('all replicas share a limit, from the first request on, over every transport', async (t) => {
    t.same(await statuses('tool-shared', a, b, strict, a, b, strict), [200, 200, 200, 429, 429, 429])
    for (const [way, enter] of Object.entries(waysIn)) {
      const suffix = suffixOf(way)
      const callers = await Promise.all(replicas.map(({ base }) => enter(base, by('bob'))))
      for (const each of callers) serves(t, await each.callTool(`tool-${suffix}-1`), way)
      for (const each of callers) refusedFor(t, await each.callTool(`tool-${suffix}-1`), 3600)
      for (const each of callers) each.close()
    }
  })

  await t.test(
    'while Redis is away, one counts by itself and the other refuses; then they share again',
    async (t) => {
      t.same(await statuses('tool-outage', a, b, strict, a), [200, 200, 200, 429])
      await redis.kill()
      await until(
        () => replicas.every(({ logs }) => logs.some(({ text }) => text.startsWith('Redis is away'))),
        'all have noticed',
      )
      for (const { metric } of replicas) t.equal(await metric('mcp_sidecar_rate_limit_store_up'), 0)
      t.same(
        await statuses('tool-outage', a, a, a, a),
        [200, 200, 200, 429],
        'counted here: never without a limit',
      )
      for (const [way, enter] of Object.entries(waysIn)) {
        if (!way.endsWith('modern')) continue
        const refused = await (await enter(strict.base, by('carol'))).callTool('tool-outage')
        t.match(refused.json, { error: { data: { reason: 'ERR_OVERLOADED', retryAfterSeconds: 1 } } }, way)
        t.equal(refused.status ?? 503, 503)
      }
      t.equal((await post(strict.url, initialize(), by('carol'))).status, 503, 'a request of any kind')
      await redis.restart()
      await until(async () => {
        const up = await Promise.all(replicas.map(({ metric }) => metric('mcp_sidecar_rate_limit_store_up')))
        return up.every((value) => value === 1)
      }, 'all are back')
      t.same(await statuses('tool-back', strict, b, a, b, a, strict), [200, 200, 200, 429, 429, 429])
    },
  )

  await t.test(
    'a password that is replaced while the sidecar runs is used for the next connection',
    async (t) => {
      const guarded = await startRedis(t, { password: 'the-first' })
      const passwordFile = file('redis-password', 'the-first\n')
      const settings = { auth, rateLimits, rateLimitStore: store('refuse', guarded.url, { passwordFile }) }
      const { url, logs } = await start(t, settings)
      t.equal((await ask(url, tool(1, 'tool-x'), by('alice'))).status, 200)
      writeFileSync(passwordFile, 'the-second\n')
      const admin = connect(guarded.port, '127.0.0.1')
      t.teardown(() => admin.destroy())
      admin.write('AUTH the-first\r\nCONFIG SET requirepass the-second\r\nCLIENT KILL TYPE normal\r\n')
      await until(() => logs.some(({ text }) => text.startsWith('Redis is away')), 'the connection is lost')
      await until(() => logs.some(({ text }) => text.startsWith('Redis is back')), 'Redis is back')
      t.equal((await ask(url, tool(2, 'tool-x'), by('alice'))).status, 200)
      t.notMatch(JSON.stringify(logs), 'the-second')
    },
  )

  await t.test('while Redis is slow, what follows a call does not overtake it', async (t) => {
    const proxy = await delayingProxy(t, redis.port)
    const slow = await start(t, {
      auth,
      rateLimits,
      rateLimitStore: store('refuse', `redis://127.0.0.1:${proxy.port}`),
    })
    proxy.delay(300)
    const { base, url } = slow
    const cancel = (requestId: string) => ({
      jsonrpc: '2.0',
      method: 'notifications/cancelled',
      params: { requestId },
    })
    const isIdle = async (): Promise<boolean> => (await slow.metric('mcp_sidecar_calls_in_flight ')) === 0

    await t.test('a cancellation on one WebSocket', async (t) => {
      const socket = await openSocket(base, { headers: by('alice'), version: '2025-11-25' })
      const before = proxy.requests
      socket.send(call('h', 'hang'))
      socket.send(cancel('h'))
      socket.send(call('p', 'pid'))
      await awaited(() => socket.messages, 'p')
      t.ok(proxy.requests > before, 'Redis was asked')
      await until(isIdle, 'the call was cancelled')
      t.notOk(
        socket.messages.some(({ id }) => id === 'h'),
        'and not answered',
      )
      socket.close()
    })

    await t.test('answers come in the order of the calls', async (t) => {
      const socket = await openSocket(base, { headers: by('alice'), version: '2025-11-25' })
      const ids = Array.from({ length: 5 }, (_, i) => `c${i}`)
      proxy.delay(50)
      for (const id of ids) socket.send(call(id, 'echo', { text: id }))
      await awaited(() => socket.messages, 'c4')
      t.same(
        socket.messages.map(({ id }) => id).filter((id) => ids.includes(id)),
        ids,
      )
      proxy.delay(300)
      socket.close()
    })

    await t.test('a cancellation by a POST of its own', async (t) => {
      const session = await openSession(url, { headers: by('alice') })
      const before = proxy.requests
      const calling = post(url, call('h', 'hang'), session)
      await until(() => proxy.requests > before, 'Redis is being asked')
      t.equal((await post(url, cancel('h'), session)).status, 202)
      let answer: RawResponse | undefined
      void calling.then((ended) => {
        answer = ended
      })
      await until(() => answer !== undefined, 'the call has ended')
      t.same(answer?.messages, [], 'without an answer')
      const { messages } = await post(url, call('c', 'cancelled'), session)
      t.match(messages[0]?.result.content[0].text, 'requestId', 'the server was told')
    })

    await t.test('a client that leaves', async (t) => {
      const before = proxy.requests
      const calling = begin(url, tool('h', 'hang'), by('alice'))
      await until(() => proxy.requests > before, 'Redis is being asked')
      calling.leave()
      await calling.answer
      t.equal((await ask(url, modern(2, 'server/discover'), by('alice'))).status, 200)
      await until(isIdle, 'nothing is left of its call')
    })
  })
})

/** Between a sidecar and Redis: hands everything on, and answers late. */
async function delayingProxy(
  t: Test,
  target: number,
): Promise<{ readonly port: number; readonly requests: number; delay(ms: number): void }> {
  let ms = 0
  let requests = 0
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const upstream = connect(target, '127.0.0.1')
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        client.destroy()
        upstream.destroy()
      })
    }
    client.on('data', (data) => {
      requests++
      upstream.write(data)
    })
    upstream.on('data', (data) => setTimeout(() => client.write(data), ms))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return {
    port: (server.address() as AddressInfo).port,
    get requests() {
      return requests
    },
    delay: (next) => {
      ms = next
    },
  }
}
