import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { Authenticator } from '../../src/authn/authenticator.ts'
import { jwtAuthenticator } from '../../src/authn/jwt.ts'
import { SidecarError } from '../../src/core/errors.ts'
import type { JwtMethod } from '../../src/core/policy.ts'
import { Credential } from '../../src/core/secret.ts'
import { hmac, jwtOf, signingKey } from '../support/jwt-keys.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { html, json, redirect, scriptedIssuer, silence } from '../support/scripted-issuer.ts'
import { attempt, checks, recordingLog, whoIs } from '../support/token-requests.ts'

const issuer = 'https://issuer.example'
const resource = 'https://mcp.example/mcp'
const key = signingKey('one')
const other = signingKey('two')
const rsa = signingKey('rsa', 'RS256')
const jwks = JSON.stringify({ keys: [key.jwk, rsa.jwk] })

interface SetUp {
  readonly clock: ManualClock
  readonly log: ReturnType<typeof recordingLog>
  readonly method: Authenticator
  /** Claims of a good token, with some changed. */
  claims(changed?: object): Record<string, unknown>
}

function setUp(own: Partial<JwtMethod> = {}): SetUp {
  const clock = new ManualClock()
  const log = recordingLog()
  const options: JwtMethod = { ...checks, method: 'jwt', issuer, keys: { text: jwks }, ...own }
  return {
    clock,
    log,
    method: jwtAuthenticator(options, { clock, log, resource: () => resource }),
    claims: (changed = {}) => ({
      ...{ iss: issuer, sub: 'alice', aud: resource, exp: clock.epoch() / 1000 + 3600 },
      ...changed,
    }),
  }
}

t.test('a token that a key of the issuer has signed names its caller', async (t) => {
  const { method, claims } = setUp()
  for (const token of [key.token(claims()), rsa.token(claims())]) {
    const { identity, works, atOnce } = await attempt(method, token)
    t.match(identity, { id: `jwt:${issuer}|alice`, method: 'jwt', kind: 'user', subject: 'alice' })
    t.equal(works, 1)
    t.notOk(atOnce)
    const again = await attempt(method, token)
    t.equal(again.identity, identity)
    t.ok(again.atOnce, 'a known token costs no promise')
    t.equal(again.works, 0)
  }
  t.match(method, {
    name: 'jwt',
    headers: ['authorization'],
    scheme: 'Bearer',
    authorizationServers: [issuer],
  })
})

t.test('without a token, or with one of somebody else, it is not asked', async (t) => {
  const { method, claims } = setUp()
  const none = await attempt(method, undefined)
  t.match(none, { identity: undefined, code: undefined, notes: [], works: 0 })
  const [header = '', payload = '', signature = ''] = key.token(claims()).split('.')
  const foreign: [string, RegExp][] = [
    ['an-opaque-token', /jwt: it is not a JWT/],
    ['a.b.c', /not a JWT/],
    [`${header}.${payload}`, /not a JWT/],
    [`${header}.${payload}.${signature}.x.y`, /not a JWT/],
    [`${Buffer.from('[]').toString('base64url')}.${payload}.${signature}`, /not a JWT/],
    [`${header}.${Buffer.from('{"iss":"\xff"}', 'latin1').toString('base64url')}.${signature}`, /not a JWT/],
    ['two tokens', /not one token/],
    ['"quoted"', /not one token/],
    [
      key.token(claims({ iss: 'https://other.example' })),
      /its issuer is "https:\/\/other.example", not https:\/\/issuer/,
    ],
    [key.token(claims({ iss: undefined })), /its issuer is undefined/],
  ]
  for (const [token, note] of foreign) {
    const { identity, code, notes, works } = await attempt(method, token)
    t.match({ identity, code, works }, { identity: undefined, code: undefined, works: 0 })
    t.match(notes.join(), note)
  }
})

t.test('bad tokens are refused, and the log says why', async (t) => {
  const { method, claims, clock } = setUp()
  const now = clock.epoch() / 1000
  const none = (alg: string): string => jwtOf({ alg, typ: 'at+jwt' }, claims(), () => '')
  const cases: Record<string, [string, RegExp]> = {
    expired: [key.token(claims({ exp: now - 31 })), /it expired 31 s ago/],
    'not yet valid': [key.token(claims({ nbf: now + 31 })), /not valid yet/],
    'wrong audience': [key.token(claims({ aud: 'https://other.example' })), /its audience is/],
    'wrong key': [other.token(claims()), /no key with kid "two" for "ES256"/],
    'wrong key under a known kid': [
      other.token(claims(), { kid: 'one' }),
      /its signature is not that of any key/,
    ],
    'alg none': [none('none'), /its algorithm is "none", not one of RS256/],
    'alg NoNe': [none('NoNe'), /its algorithm is "NoNe"/],
    'no alg': [jwtOf({}, claims(), () => ''), /its algorithm is undefined/],
    'no signature': [key.token(claims()).replace(/[^.]*$/, ''), /signature/],
    'HS256 with the RSA public key': [
      jwtOf({ alg: 'HS256', kid: 'rsa', typ: 'at+jwt' }, claims(), hmac(rsa.pem)),
      /its algorithm is "HS256"/,
    ],
    'RS256 for an EC key': [key.token(claims(), { alg: 'RS256' }), /no key with kid "one" for "RS256"/],
    jku: [key.token(claims(), { jku: 'https://evil.example/jwks' }), /where its key is \(jku\)/],
    x5u: [key.token(claims(), { x5u: 'https://evil.example/cert' }), /\(x5u\)/],
    jwk: [other.token(claims(), { jwk: other.jwk }), /\(jwk\)/],
    x5c: [other.token(claims(), { x5c: ['AAAA'], kid: 'one' }), /signature is not that of any key/],
    crit: [key.token(claims(), { crit: ['b64'], b64: true }), /critical extensions/],
    'kid of another type': [key.token(claims(), { kid: 5 }), /kid is not a text/],
    dpop: [key.token(claims(), { typ: 'dpop+jwt' }), /its typ is "dpop\+jwt"/],
    logout: [key.token(claims(), { typ: 'logout+jwt' }), /its typ is "logout\+jwt"/],
    'a typ that is no text': [key.token(claims(), { typ: null }), /its typ is null/],
    'no exp': [key.token(claims({ exp: undefined })), /no exp/],
    nobody: [key.token(claims({ sub: '' })), /names nobody/],
    '100 KiB': [key.token(claims({ pad: 'x'.repeat(100 * 1024) })), /more than 8192 characters/],
    '8193 characters': ['x'.repeat(8193), /more than 8192/],
  }
  for (const [name, [token, expected]] of Object.entries(cases)) {
    const { identity, code, detail, error } = await attempt(method, token)
    t.equal(identity, undefined, name)
    t.equal(code, 'ERR_AUTH_INVALID', name)
    t.match(detail, expected, name)
    t.equal(error?.message, 'Authentication is required.', 'all alike for the client')
    t.notMatch(detail, token.slice(-40), 'and the log has no token')
  }
  for (const typ of ['at+jwt', 'AT+JWT', 'application/at+jwt', 'JWT', 'jwt', undefined]) {
    t.equal(await whoIs(method, key.token(claims(), { typ })), `jwt:${issuer}|alice`, String(typ))
  }
})

t.test('a token is refused unseen when the limit of failures says so', async (t) => {
  const { method, claims } = setUp()
  const beforeWork = (): void => {
    throw new SidecarError('ERR_RATE_LIMITED')
  }
  t.equal((await attempt(method, key.token(claims()), { beforeWork })).code, 'ERR_RATE_LIMITED')
})

t.test('no character of a token can be another', async (t) => {
  const { method, claims } = setUp()
  for (const token of [key.token(claims()), rsa.token(claims())]) {
    t.equal(await whoIs(method, token), `jwt:${issuer}|alice`)
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.+/=~ "'
    const at = fc.nat(token.length - 1)
    await fc.assert(
      fc.asyncProperty(at, fc.constantFrom(...alphabet), fc.constantFrom(0, 1), async (at, c, keep) => {
        fc.pre(keep === 1 || token[at] !== c)
        // At either end white space is no part of the token.
        fc.pre(c !== ' ' || (at > 0 && at < token.length - 1))
        const changed = token.slice(0, at) + c + token.slice(at + 1 - keep)
        return (await attempt(method, changed)).identity === undefined
      }),
      { numRuns: 300 },
    )
    const last = token.slice(0, -1)
    for (const c of alphabet.slice(0, 64)) {
      const changed = last + c
      if (changed !== token) t.equal((await attempt(method, changed)).identity, undefined, `ends in ${c}`)
      t.equal((await attempt(method, token + c)).identity, undefined)
    }
  }
})

t.test('a verified token is remembered until it ends', async (t) => {
  const { method, claims, clock } = setUp()
  const token = key.token(claims({ exp: clock.epoch() / 1000 + 60 }))
  await attempt(method, token)
  clock.pass(89_999)
  t.ok((await attempt(method, token)).atOnce)
  clock.pass(1)
  t.match(await attempt(method, token), { code: 'ERR_AUTH_INVALID', detail: 'it expired 30 s ago' })
})

t.test('a shared secret is good for HMAC and nothing else', async (t) => {
  const secret = 'a shared secret of more than 32 bytes'
  const file = join(t.testdir(), 'secret')
  writeFileSync(file, `${secret}\n`)
  const { method, claims } = setUp({ keys: { secret: { file } } })
  const token = jwtOf({ alg: 'HS256' }, claims(), hmac(secret))
  t.equal(await whoIs(method, token), `jwt:${issuer}|alice`)
  t.match(await whoIs(method, jwtOf({ alg: 'HS256' }, claims(), hmac(`${secret}\n`))), /signature is not/)
  t.match(
    await whoIs(method, jwtOf({ alg: 'HS384' }, claims(), hmac(secret, 'sha384'))),
    /its algorithm is "HS384"/,
  )
  t.match(await whoIs(method, key.token(claims())), /its algorithm is "ES256", not one of HS256/)
  t.match(
    await whoIs(
      method,
      jwtOf({ alg: 'none' }, claims(), () => ''),
    ),
    /its algorithm is "none"/,
  )
})

t.test('mistakes are told when it is built', async (t) => {
  const secret = { text: new Credential('short') }
  const fetching = { caFile: undefined, timeoutMs: 1000, allowPrivate: false, allowHttp: false }
  const mistakes: [Partial<JwtMethod>, RegExp][] = [
    [{ keys: { secret } }, /the secret for HS256 has 5 bytes/],
    [{ keys: { secret: { text: new Credential('') } } }, /the secret for JWT is empty/],
    [{ keys: { secret: { file: '/nowhere' } } }, /the secret for JWT \/nowhere cannot be read/],
    [{ keys: { file: '/nowhere' } }, /the key file \/nowhere cannot be read/],
    [{ keys: { text: 'nonsense' } }, /neither a JWKS/],
    [{ algorithms: ['HS256'] }, /"HS256" is no algorithm for a public key/],
    [{ algorithms: ['none'] }, /"none" is no algorithm/],
    [
      { keys: { secret: { text: new Credential('x'.repeat(64)) } }, algorithms: ['HS256', 'RS256'] },
      /"RS256" is no algorithm/,
    ],
    [{ keys: { url: 'http://issuer.example/jwks', fetching } }, /the URL of the keys http:.*must be https/],
    [{ keys: { url: 'https://10.0.0.1/jwks', fetching } }, /not a public address/],
    [{ scopes: ['a b'] }, /"a b" is no scope/],
    [{ audiences: [''] }, /an audience is empty/],
    [{ subjectClaim: '' }, /subject claim is empty/],
    [{ issuer: '' }, /the issuer is empty/],
  ]
  for (const [own, message] of mistakes) t.throws(() => setUp(own), { name: 'TokenMethodError', message })
  const readText = (file: string): string => (file === 'keys' ? jwks : '')
  const deps = { clock: new ManualClock(), log: recordingLog(), resource: () => resource, readText }
  jwtAuthenticator({ ...checks, method: 'jwt', issuer, keys: { file: 'keys' } }, deps)
})

t.test('two issuers with the same subject are two principals', async (t) => {
  const [one, two] = [setUp(), setUp({ issuer: 'https://two.example' })]
  const iss = 'https://two.example'
  t.equal(await whoIs(one.method, key.token(one.claims())), 'jwt:https://issuer.example|alice')
  t.equal(await whoIs(two.method, key.token(two.claims({ iss }))), 'jwt:https://two.example|alice')
  const any = setUp({ issuer: undefined })
  t.equal(await whoIs(any.method, key.token(any.claims())), 'jwt:https://issuer.example|alice')
  t.equal(await whoIs(any.method, key.token(any.claims({ iss }))), 'jwt:https://two.example|alice')
  t.same(any.method.authorizationServers, [])
})

t.test('sessions outlive the token that opened them, but not another configuration', async (t) => {
  const { method, claims, clock } = setUp()
  const first = (await attempt(method, key.token(claims()))).identity
  const renewed = (await attempt(method, rsa.token(claims({ jti: '2' })))).identity
  if (first === undefined || renewed === undefined) throw new Error('refused')
  t.equal(first.proof, renewed.proof)
  t.ok(method.vouchesFor(first))
  t.ok(setUp().method.vouchesFor(first), 'the same configuration, read again')
  t.notOk(setUp({ keys: { text: JSON.stringify({ keys: [key.jwk] }) } }).method.vouchesFor(first))
  t.notOk(setUp({ issuer: 'https://two.example' }).method.vouchesFor(first))
  t.notOk(setUp({ audiences: ['x'] }).method.vouchesFor(first))
  t.notOk(method.vouchesFor({ ...first, method: 'oidc' }))
  clock.pass(3600_000)
  t.ok(method.vouchesFor(first), 'its caller comes back with the next token')
})

t.test('a token without kid is tried with each key that could be its own', async (t) => {
  const keys = { text: JSON.stringify({ keys: [other.jwk, key.jwk] }) }
  const { method, claims } = setUp({ keys })
  t.equal(await whoIs(method, key.token(claims(), { kid: undefined })), `jwt:${issuer}|alice`)
  t.match(
    await whoIs(method, signingKey('three').token(claims(), { kid: undefined })),
    /signature is not that of any key/,
  )
})

t.test('keys from a URL', async (t) => {
  const remote = async (t: Test) => {
    const server = await scriptedIssuer(t)
    const url = `${server.url}/jwks`
    const set = setUp({ keys: { url, fetching: server.fetching } })
    const publish = (...keys: object[]): void => {
      server.answers['/jwks'] = json({ keys })
    }
    publish(key.jwk)
    return { ...set, server, url, publish }
  }

  t.test('are fetched with the first token, once for all that come at the same time', async (t) => {
    const { method, claims, server } = await remote(t)
    t.same(server.asked, [])
    const ids = await Promise.all([1, 2, 3].map((jti) => whoIs(method, key.token(claims({ jti })))))
    t.same(ids, Array(3).fill(`jwt:${issuer}|alice`))
    t.same(server.asked, ['GET /jwks'])
  })

  t.test('rotate: a new kid leads to one fetch', async (t) => {
    const { method, claims, server, publish, clock } = await remote(t)
    await whoIs(method, key.token(claims()))
    publish(key.jwk, other.jwk)
    clock.pass(30_000)
    t.equal(await whoIs(method, other.token(claims())), `jwt:${issuer}|alice`)
    t.equal(server.asked.length, 2)
  })

  t.test('a flood of random kids leads to at most one fetch per cool-down', async (t) => {
    const { method, claims, server, clock } = await remote(t)
    await whoIs(method, key.token(claims()))
    for (const _ of [1, 2, 3]) {
      clock.pass(30_000)
      const flood = Array.from({ length: 50 }, (_, i) =>
        whoIs(method, other.token(claims(), { kid: `k${i}` })),
      )
      for (const outcome of await Promise.all(flood)) t.match(outcome, /there is no key with kid "k\d+"/)
      const later = Array.from({ length: 50 }, (_, i) =>
        whoIs(method, other.token(claims(), { kid: `l${i}` })),
      )
      await Promise.all(later)
    }
    t.equal(server.asked.length, 4)
  })

  t.test('a key that is gone ends its tokens, remembered ones included, within 5 minutes', async (t) => {
    const { method, claims, publish, clock } = await remote(t)
    const token = key.token(claims())
    await whoIs(method, token)
    publish(other.jwk)
    clock.pass(5 * 60_000)
    await attempt(method, token)
    await eventually(async () => /no key with kid "one"/.test((await whoIs(method, token)) ?? ''))
    publish()
    clock.pass(5 * 60_000)
    await whoIs(method, other.token(claims()))
    await eventually(async () => /no key/.test((await whoIs(method, other.token(claims()))) ?? ''))
    t.pass('none of them is good any more')
  })

  t.test('a key that was removed while nobody came is not believed by who comes next', async (t) => {
    const { method, claims, publish, clock } = await remote(t)
    const exp = clock.epoch() / 1000 + 48 * 3600
    const [seen, unseen] = [key.token(claims({ exp })), key.token(claims({ exp, jti: 2 }))]
    t.equal(await whoIs(method, seen), `jwt:${issuer}|alice`)
    publish(other.jwk)
    clock.pass(10 * 3600_000)
    for (const id of await Promise.all([whoIs(method, seen), whoIs(method, unseen)]))
      t.match(id, /no key with kid "one"/)
  })

  t.test('the endpoint may be down for 24 hours', async (t) => {
    const { method, claims, server, clock, log } = await remote(t)
    const long = { exp: clock.epoch() / 1000 + 48 * 3600 }
    await whoIs(method, key.token(claims(long)))
    server.answers['/jwks'] = html
    clock.pass(23 * 3600_000)
    t.equal(await whoIs(method, key.token(claims({ ...long, jti: 2 }))), `jwt:${issuer}|alice`)
    await eventually(async () => log.lines.length > 0)
    t.match(log.lines, [/the last ones are used meanwhile .*answered with HTML or XML/])
    clock.pass(3600_000)
    t.match(
      await whoIs(method, key.token(claims({ ...long, jti: 3 }))),
      /the keys of .* cannot be had: .*HTML/,
    )
    t.match(
      await whoIs(method, key.token(claims(long))),
      /cannot be had/,
      'nor is a remembered one good then',
    )
  })

  t.test('an endpoint that is down, slow, redirects, answers HTML or too much', async (t) => {
    const { server, url } = await remote(t)
    const cases: [(typeof server.answers)[string], RegExp][] = [
      [json({}, 503), /status 503/],
      [redirect('/other'), /a redirect \(302\), and none is followed/],
      [html, /HTML or XML/],
      [(response) => void response.end(' '.repeat(1024 * 1024 + 1)), /more than 1048576 bytes/],
      [json({ keys: 'none' }), /no list of keys/],
      [(response) => void response.destroy(), /hang up/],
      [silence, /did not answer in full within 5000 ms/],
    ]
    for (const [answer, expected] of cases) {
      server.answers['/jwks'] = answer
      const { method, claims, clock, log } = setUp({ keys: { url, fetching: server.fetching } })
      const before = server.asked.length
      const outcome = attempt(method, key.token(claims()))
      if (answer === silence) {
        await eventually(async () => server.asked.length > before)
        clock.pass(5000)
      }
      const { code, detail, error } = await outcome
      t.equal(code, 'ERR_AUTH_INVALID')
      t.match(detail, expected)
      t.match(log.lines, [expected])
      t.equal(error?.message, 'Authentication is required.')
    }
    t.notOk(server.asked.includes('GET /other'))
  })

  t.test('waiting for them ends with the time for authentication', async (t) => {
    const { method, claims, server } = await remote(t)
    server.answers['/jwks'] = silence
    const controller = new AbortController()
    const outcome = attempt(method, key.token(claims()), { signal: controller.signal })
    await eventually(async () => server.asked.length > 0)
    controller.abort()
    t.match(await outcome, { code: 'ERR_AUTH_INVALID', detail: /time for authentication was over/ })
    method.close?.()
  })

  t.test(
    'are asked for ahead where that is wanted, and their absence keeps nothing from starting',
    async (t) => {
      const { server, url } = await remote(t)
      const keys = { url, fetching: server.fetching }
      const clock = new ManualClock()
      const deps = { clock, log: recordingLog(), resource: () => resource, prefetch: true }
      jwtAuthenticator({ ...checks, method: 'jwt', issuer, keys }, deps)
      await eventually(async () => server.asked.length > 0)
      server.answers['/jwks'] = (response) => void response.destroy()
      jwtAuthenticator({ ...checks, method: 'jwt', issuer, keys }, deps)
      await eventually(async () => deps.log.lines.length > 0)
      t.match(deps.log.lines, [/its tokens are refused/])
    },
  )
})

/** Polls: what it waits for happens over a socket. */
async function eventually(check: () => Promise<boolean>): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (await check()) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error('it did not happen within 5 s')
}
