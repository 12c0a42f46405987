import { randomBytes, scrypt } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { hashPassword } from '../../src/authn/password-hash.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { callers, startConfigured } from '../support/callers.ts'
import {
  ask,
  headersOf,
  listenTo,
  type Request,
  said,
  serverCommand,
  streamed,
  tool,
} from '../support/modern.ts'
import { folder } from '../support/processes.ts'
import { RawConnection, rawAnswers } from '../support/raw.ts'
import { json, scriptedIssuer } from '../support/scripted-issuer.ts'
import { until } from '../support/sidecar.ts'
import { openSocket, openSse, upgradeAnswer } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
import { accept, call, follow, initialize, openSession, post, type RawResponse } from '../support/wire.ts'

/*
 * Authentication under attack and in motion: odd headers, several requests on one connection, reloads and ends of tokens
 * at the worst moment, issuers that are slow.
 */

// On a busy machine this takes minutes.
t.setTimeout(300_000)

const tokens = bearerTokens(t, 'alice', 'bob')
const token = tokens.token('alice')
const place = folder(t)
const write = (name: string, text: string): string => {
  const file = join(place, name)
  writeFileSync(file, text, { mode: 0o600 })
  return file
}
const yaml = (settings: object): string => `${JSON.stringify(settings)}\n`
const apiKey = 'alice-key-0123456789abcdef'
const keyFile = write('keys', `alice:${apiKey}\n`)
const hash = await hashPassword('a password')
const basic = { Authorization: `Basic ${Buffer.from('alice:a password').toString('base64')}` }

const still = await startConfigured(
  t,
  yaml({ auth: { bearer: { tokenFile: tokens.file }, apiKey: { keyFile } }, listen: { webSocket: true } }),
)
const port = Number(new URL(still.url).port)

const opening = JSON.stringify(initialize())
/** A request of its own connection, each line of whose header is the test's own. */
const lines = (...more: readonly string[]): string =>
  [
    'POST /mcp HTTP/1.1',
    `Host: 127.0.0.1:${port}`,
    'Content-Type: application/json',
    `Accept: ${accept}`,
    `Content-Length: ${opening.length}`,
    ...more,
    '',
    opening,
  ].join('\r\n')

async function statusOf(text: string): Promise<number> {
  const connection = new RawConnection(port).write(Buffer.from(text, 'latin1'))
  try {
    return (await connection.answer()).status
  } finally {
    connection.close()
  }
}

t.test('a credential counts only as one header with one credential in it', async (t) => {
  const cases: readonly (readonly [status: number, ...lines: string[]])[] = [
    [200, `Authorization: Bearer ${token}`],
    [200, `aUTHORIZATION:\tbEARER   ${token} \t`],
    [200, `X-API-Key: ${apiKey}`],
    [401, 'X-Nothing: at all'],
    [401, 'Authorization:'],
    [401, 'Authorization: Bearer'],
    [401, `Authorization: ${token}`],
    [401, `Authorization: Bearer\t${token}`],
    [401, `Authorization: Bearer \xa0${token}`],
    [401, `Authorization: Bearer ${token}\xa0`],
    [401, `Authorization: Bearer "${token}"`],
    [401, `Authorization: Bearer token=${token}`],
    [401, `Authorization: Bearer ${token},`],
    [401, `Authorization: Bearer ${token}, Bearer ${tokens.token('bob')}`],
    [401, `Authorization: Basic x, Bearer ${token}`],
    [401, `Authorization: Bearer ${token}`, `Authorization: Bearer ${token}`],
    [401, 'Authorization:', `authorization: Bearer ${token}`],
    [401, `Authorization: Bearer ${token}`, 'AUTHORIZATION:'],
    [401, `X-API-Key: ${apiKey}`, `x-api-key: ${apiKey}`],
    [401, `X-API-Key: ${apiKey}, ${apiKey}`],
    [401, 'X-API-Key:', `X-API-Key: ${apiKey}`],
    [401, `X_API_Key: ${apiKey}`],
    [401, `Proxy-Authorization: Bearer ${token}`],
    [401, `X-Forwarded-Authorization: Bearer ${token}`],
    [401, `Cookie: Authorization=Bearer ${token}`],
    [400, `Authorization: Bearer ${token}`, 'Content-Length: 3'],
    [400, `Authorization: Bearer ${token}`, 'Transfer-Encoding: chunked'],
    [400, `Authorization: Bearer\r\n ${token}`],
    [400, `X-Folded: y\r\n Authorization: Bearer ${token}`],
    [400, `Authorization : Bearer ${token}`],
    [400, `Authorization: Bearer ${token}\0`],
    [400, `X-Bare: y\rAuthorization: Bearer ${token}`],
    [400, `X-Bare: y\nAuthorization: Bearer ${token}`],
  ]
  for (const [status, ...more] of cases) t.equal(await statusOf(lines(...more)), status, JSON.stringify(more))
  const chunk = `${opening.length.toString(16)}\r\n${opening}\r\n0\r\nAuthorization: Bearer ${token}\r\n\r\n`
  const trailing = lines('Transfer-Encoding: chunked', 'Trailer: Authorization')
    .replace(/Content-Length: \d+\r\n/, '')
    .replace(opening, chunk)
  t.equal(await statusOf(trailing), 401, 'nor after the body')
})

t.test(
  'whatever is put around or into a header, nobody comes in but with the one right spelling',
  async (t) => {
    const odd = fc.constantFrom(
      '',
      ' ',
      '\t',
      ',',
      ';',
      '"',
      '=',
      '\r\n ',
      '\r\n',
      '\0',
      '\xa0',
      'Bearer ',
      'x',
      ':',
    )
    const name = fc.constantFrom(
      'Authorization',
      'authorization',
      'Authorization ',
      'X-Authorization',
      'X-API-Key',
    )
    const scheme = fc.constantFrom('Bearer ', 'bearer ', 'Bearer', 'Basic ', 'Token ', '')
    const secret = fc.constantFrom(token, apiKey, token.slice(0, -1), token.toUpperCase(), 'x'.repeat(30))
    const line = fc.tuple(name, odd, scheme, odd, secret, odd)
    await fc.assert(
      fc.asyncProperty(fc.array(line, { minLength: 1, maxLength: 2 }), async (all) => {
        const written = all.map(([header, a, way, b, value, c]) => `${header}:${a}${way}${b}${value}${c}`)
        const sent = written.join('\r\n').split('\r\n')
        const right = [
          new RegExp(`^authorization:[ \\t]*bearer +[ \\t]*${token}[ \\t]*$`, 'i'),
          new RegExp(`^x-api-key:[ \\t]*${apiKey}[ \\t]*$`, 'i'),
        ]
        // None at all where what follows a header that ended early is no request: the connection is cut then.
        const [answer] = await rawAnswers(port, Buffer.from(lines(...written), 'latin1'))
        const status = answer?.status ?? 400
        const good = right.some((each) => sent.filter((text) => each.test(text)).length === 1)
        return good ? true : status === 401 || status === 400
      }),
      { numRuns: 150 },
    )
    t.equal(await statusOf(lines(`Authorization: Bearer ${token}`)), 200, 'the right one still does')
  },
)

t.test(
  'each request on a connection is judged by its own credential, and answered in its turn',
  async (t) => {
    const pid = (headers: Record<string, string>): Promise<string> =>
      ask(still.url, tool('p', 'pid'), headers).then(({ json: answer }) => String(said(answer)))
    const [alice, bob] = [await pid(tokens.of('alice')), await pid(tokens.of('bob'))]
    const message = tool('p', 'pid')
    const body = JSON.stringify(message)
    const one = (credential: string): string =>
      [
        'POST /mcp HTTP/1.1',
        `Host: 127.0.0.1:${port}`,
        'Content-Type: application/json',
        `Accept: ${accept}`,
        `Content-Length: ${body.length}`,
        ...Object.entries(headersOf(message)).map(([name, value]) => `${name}: ${value}`),
        ...(credential === '' ? [] : [`Authorization: Bearer ${credential}`]),
        '',
        body,
      ].join('\r\n')
    const who = [token, tokens.token('bob'), token, token, tokens.token('bob')]
    const connection = new RawConnection(port).write(who.map(one).join(''))
    const answers = await Promise.all(who.map((_, i) => connection.answer(i)))
    t.same(
      answers.map((each) => String(said(each.json))),
      [alice, bob, alice, alice, bob],
    )
    connection.close()
    for (const wrong of ['', 'wrong-token-0123456789']) {
      const mixed = new RawConnection(port).write(one(token) + one(wrong) + one(token))
      t.equal((await mixed.answer(0)).status, 200)
      t.equal((await mixed.answer(1)).status, 401, 'who came before vouches for nobody')
      await until(() => mixed.closed || mixed.ended || mixed.answers.length === 3, 'what comes of the third')
      t.ok(mixed.answers.slice(2).every(({ status }) => status === 200))
      mixed.close()
    }
  },
)

t.test('an upgrade behind requests that wait ends the connection, and nothing else', async (t) => {
  const upgrade = (path: string, to: string, ...more: readonly string[]): string =>
    [
      `GET ${path} HTTP/1.1`,
      `Host: 127.0.0.1:${port}`,
      'Connection: Upgrade',
      `Upgrade: ${to}`,
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      'Sec-WebSocket-Protocol: mcp',
      ...more,
      '',
      '',
    ].join('\r\n')
  const credential = `Authorization: Bearer ${token}`
  const stranger = lines()
  for (const first of [stranger, lines(credential)]) {
    for (const second of [
      upgrade('/ws', 'websocket'),
      upgrade('/ws', 'websocket', credential),
      upgrade('/mcp', 'h2c', credential),
    ]) {
      const connection = new RawConnection(port).write(first + second)
      await until(() => connection.closed || connection.ended, 'the connection ends')
      t.notMatch(connection.text, 'HTTP/1.1 101')
      t.ok(connection.answers.length <= 1, 'no second answer in the midst of the first')
      connection.close()
    }
  }
  t.equal(await statusOf(lines(credential)), 200, 'it goes on serving')
})

t.test('a WebSocket has no credential but in the headers of its upgrade', async (t) => {
  const there = (
    path: string,
    protocols: string[],
    headers: Record<string, string> = {},
  ): Promise<RawResponse> => upgradeAnswer(still.base, headers, { path, protocols })
  for (const [path, ...protocols] of [
    ['/ws', 'mcp', token],
    ['/ws', 'mcp', `bearer.${token}`],
    ['/ws', 'mcp', 'Authorization', `Bearer.${token}`],
    ['/ws', 'mcp', `base64url.bearer.authorization.k8s.io.${Buffer.from(token).toString('base64url')}`],
    [`/ws?token=${token}`, 'mcp'],
    [`/ws?Authorization=Bearer%20${token}`, 'mcp'],
    [`/ws?X-API-Key=${apiKey}`, 'mcp'],
  ] as const) {
    t.equal((await there(path, protocols)).status, 401, `${path} ${protocols.join()}`)
  }
  const both = await there(`/ws?access_token=${token}`, ['mcp'], tokens.of('alice'))
  t.equal(both.status, 401, 'one in the query spoils the one in the header')
  t.equal((await there('/ws', ['mcp'], tokens.of('alice'))).status, 101)
})

t.test('nobody gets round the limit of failed attempts with forwarding headers', async (t) => {
  const sidecar = await startConfigured(
    t,
    yaml({ auth: { basic: { passwordFile: write('p0', `alice:${hash}\n`) } } }),
    {
      failedAttempts: 3,
    },
  )
  const wrong = { Authorization: 'Basic !' }
  const statuses: number[] = []
  for (let i = 0; i < 6; i++) {
    const address = `192.0.2.${i}`
    const forged = { 'X-Forwarded-For': address, Forwarded: `for=${address}`, 'X-Real-IP': address }
    statuses.push((await post(sidecar.url, initialize(), { ...wrong, ...forged })).status)
  }
  t.same(statuses, [401, 401, 401, 429, 429, 429])
})

/** Sends the headers; the rest of the body comes with the call of what it returns. */
function beginSlowly(url: string, message: object, headers: Record<string, string>) {
  const body = JSON.stringify(message)
  const outgoing = request(url, {
    method: 'POST',
    agent: false,
    headers: {
      'Content-Type': 'application/json',
      Accept: accept,
      'Content-Length': body.length,
      ...headers,
    },
  })
  const answer = new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    outgoing.on('response', resolve)
    outgoing.on('error', reject)
  })
  outgoing.write(body.slice(0, 10))
  return (): typeof answer => {
    outgoing.end(body.slice(10))
    return answer
  }
}
const listening = listenTo('l', { toolsListChanged: true })
const modernHeaders = (message: Request): Record<string, string> => headersOf(message)

/** A hash that takes a second and more to verify: longer than a reload takes, also on a busy machine. */
async function slowHash(password: string): Promise<string> {
  const [N, r, p] = [2 ** 17, 8, 4]
  const salt = randomBytes(16)
  const maxmem = 256 * N * r
  const hash = await new Promise<Buffer>((resolve, reject) => {
    scrypt(password, salt, 32, { N, r, p, maxmem }, (error, key) => (error ? reject(error) : resolve(key)))
  })
  return `scrypt$${N}$${r}$${p}$${salt.toString('base64url')}$${hash.toString('base64url')}`
}

t.test('a credential that a reload withdraws opens nothing afterwards, however it was delayed', async (t) => {
  const auth = { bearer: { tokenFile: write('t1', `alice:${token}\nbob:${tokens.token('bob')}\n`) } }
  const passwords = { basic: { passwordFile: write('p1', `alice:${await slowHash('a password')}\n`) } }
  const others = { basic: { passwordFile: write('p2', `bob:${hash}\n`) } }
  const listen = { webSocket: true }
  const sidecar = await startConfigured(t, yaml({ auth: { ...auth, ...passwords }, listen }), {
    command: serverCommand('modern-server.mjs'),
  })
  const finish = [
    beginSlowly(sidecar.url, listening, { ...modernHeaders(listening), ...tokens.of('alice') }),
    beginSlowly(sidecar.url, initialize(), tokens.of('alice')),
    beginSlowly(sidecar.url, tool(1, 'echo'), { ...modernHeaders(tool(1, 'echo')), ...tokens.of('alice') }),
  ]
  // Until their headers have been judged.
  await ask(sidecar.url, tool('later', 'echo'), tokens.of('bob'))
  const failed = (thrown: Error): string => thrown.message
  const slowly = [
    openSocket(sidecar.base, { headers: basic }).then(() => 'open', failed),
    openSse(sidecar.base, { headers: basic }).then(() => 'open', failed),
    post(sidecar.url, initialize(), basic).then(({ status }) => `${status}`),
  ]
  writeFileSync(join(place, 't1'), `bob:${tokens.token('bob')}\n`)
  await sidecar.reload(yaml({ auth: { ...auth, ...others }, listen }))
  for (const answer of await Promise.all(slowly)) t.match(answer, /401/, 'while the password was verified')
  for (const end of finish) {
    const response = await end()
    t.equal(response.statusCode, 401, 'while the body was on its way')
    t.match(response.headers['www-authenticate'], /Bearer/)
    response.destroy()
  }
  t.equal((await ask(sidecar.url, tool(2, 'echo'), tokens.of('bob'))).status, 200)
})

t.test('a token that ends between authentication and its request opens no stream that lasts', async (t) => {
  const skewed = { ms: 0 }
  const clock = { ...systemClock, epoch: () => systemClock.epoch() + skewed.ms }
  const who = callers(t)
  const sidecar = await startConfigured(t, `${who.auth}\n`, {
    clock,
    command: serverCommand('modern-server.mjs'),
  })
  const end = beginSlowly(sidecar.url, listening, { ...modernHeaders(listening), ...who.of('alice') })
  await ask(sidecar.url, tool('later', 'echo'), who.of('bob'))
  skewed.ms = 4_000_000
  const stream = follow(await end())
  await stream.closed
  t.pass('it ended by itself')
})

t.test('a session outlives the token that opened it, also over a reload', async (t) => {
  const skewed = { ms: 0 }
  const clock = { ...systemClock, epoch: () => systemClock.epoch() + skewed.ms }
  const who = callers(t)
  const sidecar = await startConfigured(t, `${who.auth}\n`, { clock })
  const session = await openSession(sidecar.url, { headers: who.of('alice') })
  skewed.ms = 4_000_000
  t.equal((await post(sidecar.url, call(1, 'echo'), session)).status, 401, 'the old token has ended')
  await sidecar.reload(`${who.auth}\nlog: { level: debug }\n`)
  const next = who.of('alice', { exp: Math.floor(clock.epoch() / 1000) + 600 })
  t.equal(
    (await post(sidecar.url, call(2, 'echo'), { ...session, ...next })).status,
    200,
    'the next one is good',
  )
})

interface Introspecting {
  readonly settings: object
  /** Requests that wait for their answer. */
  readonly held: ((active: boolean) => void)[]
  asked: number
}

async function introspecting(t: Test, more: object = {}): Promise<Introspecting> {
  const issuer = await scriptedIssuer(t)
  const all: Introspecting = {
    asked: 0,
    held: [],
    settings: {
      auth: {
        bearer: { tokenFile: tokens.file },
        fetching: { allowPrivateAddresses: true, allowHttp: true },
        oidc: {
          ...{ issuer: issuer.url, introspectionUrl: `${issuer.url}/introspect`, tokens: 'introspection' },
          ...{
            clientId: 'sidecar',
            clientSecretFile: write('client', 'a client secret'),
            audiences: ['mcp'],
          },
        },
        ...more,
      },
      listen: { webSocket: true },
    },
  }
  issuer.answers['/introspect'] = (response, incoming) => {
    all.asked++
    incoming.resume()
    const exp = Math.floor(Date.now() / 1000) + 600
    all.held.push((active) =>
      json(active ? { active, sub: 'carol', aud: 'mcp', exp } : { active })(response, incoming),
    )
  }
  return all
}
const opaque = (name: string): { readonly Authorization: string } => ({
  Authorization: `Bearer opaque-${name}`,
})

t.test('while an issuer is slow others are served, and each token is asked about once', async (t) => {
  const issuer = await introspecting(t)
  const { url } = await startConfigured(t, yaml(issuer.settings))
  const waiting = Array.from({ length: 40 }, (_, i) => ask(url, tool(i, 'echo'), opaque('one')))
  await until(() => issuer.held.length > 0, 'the issuer is asked')
  t.equal((await ask(url, tool('s', 'echo'), tokens.of('alice'))).status, 200)
  for (const answer of issuer.held.splice(0)) answer(true)
  t.ok((await Promise.all(waiting)).every(({ status }) => status === 200))
  t.equal(issuer.asked, 1)
})

t.test(
  'a burst of guesses is cut off at the limit, though they came before the first had failed',
  async (t) => {
    const issuer = await introspecting(t)
    const { url } = await startConfigured(t, yaml(issuer.settings), { failedAttempts: 5 })
    const guesses = Array.from({ length: 80 }, (_, i) => ask(url, tool(i, 'echo'), opaque(`guess-${i}`)))
    await until(() => issuer.held.length >= 5, 'the issuer is asked')
    const done = Promise.all(guesses)
    let over = false
    void done.then(() => {
      over = true
    })
    await until(() => {
      for (const answer of issuer.held.splice(0)) answer(false)
      return over
    }, 'all are refused')
    const statuses = (await done).map(({ status }) => status)
    t.ok(statuses.every((status) => status === 401 || status === 429))
    t.ok(issuer.asked < 50, `${issuer.asked} of 80 were asked about`)
    t.equal(
      (await ask(url, tool('s', 'echo'), tokens.of('alice'))).status,
      200,
      'a static token costs no such work',
    )
  },
)

t.test('an issuer that never answers costs the time for authentication and no attempt', async (t) => {
  const issuer = await introspecting(t, { timeout: '800ms' })
  const { url } = await startConfigured(t, yaml(issuer.settings), { failedAttempts: 5 })
  const begun = performance.now()
  const all = await Promise.all(
    Array.from({ length: 40 }, (_, i) => ask(url, tool(i, 'echo'), opaque(`${i % 20}`))),
  )
  t.ok(all.every(({ status }) => status === 401))
  t.ok(performance.now() - begun < 20 * 800, 'together, not one after the other')
  t.equal((await ask(url, tool('x', 'echo'), opaque('more'))).status, 401, 'not 429: nobody has failed')
})

t.test(
  'who is being asked about during a reload is judged by the new policy, not refused by neither',
  async (t) => {
    const issuer = await introspecting(t)
    const sidecar = await startConfigured(t, yaml(issuer.settings))
    const waiting = ask(sidecar.url, tool(1, 'echo'), opaque('one'))
    const socket = openSocket(sidecar.base, { headers: opaque('two') })
    await until(() => issuer.held.length === 2, 'the issuer is asked')
    await sidecar.reload(yaml({ ...issuer.settings, log: { level: 'debug' } }))
    let over = false
    const both = Promise.all([waiting, socket]).finally(() => {
      over = true
    })
    await until(() => {
      for (const answer of issuer.held.splice(0)) answer(true)
      return over
    }, 'both are let in').catch(() => {})
    const [answer, open] = await both
    t.equal(answer.status, 200)
    open.close()
  },
)

t.test('with reloads all the time each call is judged by the one policy or the other', async (t) => {
  const who = callers(t)
  const policy = (only: string): string =>
    `${who.auth}\nauthorization: ${JSON.stringify({
      rules: [
        { principals: ['user:alice'], permissions: [{ tools: ['echo', only], actions: ['tools/call'] }] },
      ],
    })}\n`
  const [one, two] = [policy('pid'), policy('cwd')]
  const sidecar = await startConfigured(t, one)
  const session = await openSession(sidecar.url, { headers: who.of('alice') })
  let over = false
  const reloads = (async () => {
    for (let i = 0; i < 30; i++) await sidecar.reload(i % 2 === 0 ? two : one)
    over = true
  })()
  const outcomes: Record<string, Set<unknown>> = {}
  const note = (name: string, { status }: { status: number }): void => {
    outcomes[name] ??= new Set()
    outcomes[name].add(status)
  }
  let ids = 0
  const loop = async (): Promise<void> => {
    while (!over) {
      note('always', await ask(sidecar.url, tool(1, 'echo'), who.of('alice')))
      note('in a session', await post(sidecar.url, call(++ids, 'echo'), session))
      note('never', await ask(sidecar.url, tool(1, 'env'), who.of('alice')))
      note('another', await ask(sidecar.url, tool(1, 'echo'), who.of('mallory')))
      note('stranger', await ask(sidecar.url, tool(1, 'echo'), { Authorization: 'Bearer x.y.z' }))
    }
  }
  await Promise.all([reloads, loop(), loop()])
  t.same([...(outcomes['always'] ?? [])], [200])
  t.same([...(outcomes['in a session'] ?? [])], [200], 'nor does the session end')
  t.notOk(outcomes['never']?.has(200))
  t.notOk(outcomes['another']?.has(200))
  t.same([...(outcomes['stranger'] ?? [])], [401])
})

t.test('a policy that fails while it is evaluated permits nothing', async (t) => {
  const who = callers(t)
  const policies = write(
    'p.cedar',
    [
      'permit(principal, action, resource);',
      'forbid(principal, action == Action::"call_tool", resource)',
      '  when { context has arg_n && context.arg_n + 9223372036854775807 == 0 };',
    ].join('\n'),
  )
  const sidecar = await startConfigured(
    t,
    `${who.auth}\nauthorization: { cedar: { policyFiles: ['${policies}'] } }\n`,
  )
  const session = await openSession(sidecar.url, { headers: who.of('alice') })
  for (const n of [0, -1]) {
    t.equal((await ask(sidecar.url, tool(1, 'echo', { n }), who.of('alice'))).status, 200, `${n}`)
  }
  for (const n of [1, 'text', 1.5, true]) {
    const args = { n }
    const [then, now] = [
      await post(sidecar.url, call(1, 'echo', args), session),
      await ask(sidecar.url, tool(1, 'echo', args), who.of('alice')),
    ]
    t.same([then.status, now.status], [403, 403], JSON.stringify(n))
  }
})

t.test('what was listened to under one policy is not told on under the next', async (t) => {
  const who = callers(t)
  const policy = (resources: string): string =>
    `${who.auth}\nlisten: { webSocket: true }\nauthorization: ${JSON.stringify({
      rules: [
        {
          principals: ['user:alice'],
          permissions: [
            { resources: [resources], actions: ['resources/read'] },
            { tools: ['push'], actions: ['tools/call'] },
          ],
        },
      ],
    })}\n`
  const sidecar = await startConfigured(t, policy('test://*'), {
    command: serverCommand('modern-server.mjs'),
  })
  const wish = listenTo('l', { resourceSubscriptions: ['test://a'] })
  const stream = await streamed(sidecar.url, wish, who.of('alice'))
  const socket = await openSocket(sidecar.base, { headers: who.of('alice') })
  socket.send(wish)
  await until(() => stream.messages.length + socket.messages.length === 2, 'both listen')
  await sidecar.reload(policy('other://*'))
  const updated = { method: 'notifications/resources/updated', params: { uri: 'test://a' } }
  await ask(sidecar.url, tool('p', 'push', updated), who.of('alice'))
  await stream.closed
  await until(() => socket.messages.length === 2, 'the WebSocket has the end, too')
  const told = [...stream.messages, ...socket.messages].filter(({ method }) => method === updated.method)
  t.same(told, [], 'nobody is told')
  t.match(
    [stream.messages.at(-1), socket.messages.at(-1)],
    [{ result: { resultType: 'complete' } }, { result: { resultType: 'complete' } }],
    'both learn that it has ended',
  )
  t.equal((await ask(sidecar.url, wish, who.of('alice'))).status, 403)
  socket.close()
})
