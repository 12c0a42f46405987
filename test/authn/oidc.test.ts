import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Authenticator } from '../../src/authn/authenticator.ts'
import { oidcAuthenticator } from '../../src/authn/oidc.ts'
import type { OidcMethod } from '../../src/core/policy.ts'
import { Credential } from '../../src/core/secret.ts'
import type { Clock } from '../../src/core/types.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { type IdentityProvider, identityProvider } from '../support/identity-provider.ts'
import { signingKey } from '../support/jwt-keys.ts'
import { authority } from '../support/pki.ts'
import { attempt, checks, recordingLog, whoIs } from '../support/token-requests.ts'

const resource = 'https://mcp.example/mcp'
const wish = { resource, scope: 'mcp:read' }

/** The time of this machine, and more when a test says so. */
class LaterClock implements Clock {
  #ahead = 0
  now = (): number => systemClock.now() + this.#ahead
  epoch = (): number => systemClock.epoch() + this.#ahead
  after = (ms: number, then: () => void): ReturnType<Clock['after']> => systemClock.after(ms, then)
  pass(ms: number): void {
    this.#ahead += ms
  }
}

interface SetUp {
  readonly idp: IdentityProvider
  readonly clock: LaterClock
  readonly log: ReturnType<typeof recordingLog>
  make(own?: Partial<OidcMethod>): Authenticator
}

async function setUp(t: Test): Promise<SetUp> {
  const idp = await identityProvider(t)
  const clock = new LaterClock()
  const log = recordingLog()
  const make = (own: Partial<OidcMethod> = {}): Authenticator => {
    const method: OidcMethod = {
      ...checks,
      ...{ method: 'oidc', issuer: idp.issuer, tokens: 'auto', cacheMs: 30_000, introspectionUrl: undefined },
      clientId: idp.client.id,
      clientSecret: { text: new Credential(idp.client.secret) },
      fetching: idp.fetching,
      ...own,
    }
    const made = oidcAuthenticator(method, { clock, log, resource: () => resource })
    t.teardown(() => made.close?.())
    return made
  }
  return { idp, clock, log, make }
}

t.test('JWT of an OpenID provider, by client credentials and by authorization code with PKCE', async (t) => {
  const { idp, make } = await setUp(t)
  const method = make()
  t.equal(await whoIs(method, await idp.clientCredentials(wish)), `jwt:${idp.issuer}|${idp.client.id}`)
  const { identity } = await attempt(method, await idp.authorizationCode(wish))
  t.match(identity, { id: `jwt:${idp.issuer}|alice`, method: 'oidc', kind: 'user', scopes: ['mcp:read'] })
  t.equal(idp.asked('/.well-known/openid-configuration'), 1)
  t.equal(idp.asked('/jwks'), 1)
  t.equal(idp.asked('/token/introspection'), 0)
  t.match(method, { name: 'oidc', authorizationServers: [idp.issuer], scheme: 'Bearer' })
})

t.test('a token for another resource, or without the scope, is refused', async (t) => {
  const { idp, make } = await setUp(t)
  const foreign = await idp.clientCredentials({ ...wish, resource: 'https://other.example/mcp' })
  t.match(await attempt(make(), foreign), {
    code: 'ERR_AUTH_INVALID',
    detail: /its audience is "https:\/\/other/,
  })
  const scopes = ['mcp:read', 'mcp:write']
  const little = await idp.clientCredentials(wish)
  t.match((await attempt(make({ scopes }), little)).error, { code: 'ERR_SCOPE', data: { scopes } })
})

t.test('opaque tokens are introspected, and the answer believed for a while', async (t) => {
  const { idp, make, clock } = await setUp(t)
  idp.format = 'opaque'
  const method = make()
  const token = await idp.authorizationCode(wish)
  const { identity, works } = await attempt(method, token)
  t.match(
    identity,
    { id: `jwt:${idp.issuer}|alice`, scopes: ['mcp:read'] },
    'the same principal as with a JWT',
  )
  t.equal(works, 1)
  t.ok((await attempt(method, token)).atOnce)
  t.equal(idp.asked('/token/introspection'), 1)
  await idp.revoke(token)
  t.ok((await attempt(method, token)).identity, 'for 30 s')
  clock.pass(30_000)
  t.match(await attempt(method, token), { code: 'ERR_AUTH_INVALID', detail: /not active/ })
  t.match(await whoIs(method, await idp.clientCredentials(wish)), `jwt:${idp.issuer}|${idp.client.id}`)
})

t.test(
  'one request is under way per token, however many wait; the time of one is not that of others',
  async (t) => {
    const { idp, make } = await setUp(t)
    idp.format = 'opaque'
    const method = make()
    const token = await idp.clientCredentials(wish)
    const controller = new AbortController()
    const waiting = [
      attempt(method, token, { signal: controller.signal }),
      ...Array.from({ length: 10 }, () => attempt(method, token)),
    ]
    controller.abort()
    const [late, ...others] = await Promise.all(waiting)
    t.match(late, { code: 'ERR_AUTH_INVALID', detail: /time for authentication was over/ })
    for (const { identity } of others) t.ok(identity)
    t.equal(idp.asked('/token/introspection'), 1)
  },
)

t.test('which tokens are introspected is configured', async (t) => {
  const { idp, make } = await setUp(t)
  const jwt = await idp.clientCredentials(wish)
  t.ok(
    (await attempt(make({ tokens: 'introspection' }), jwt)).code,
    'a JWT this provider does not introspect',
  )
  t.equal(idp.asked('/token/introspection'), 1)
  t.equal(idp.asked('/jwks'), 0)
  idp.format = 'opaque'
  const opaque = await idp.clientCredentials(wish)
  for (const own of [{ tokens: 'jwt' }, { clientId: undefined, clientSecret: undefined }] as const) {
    const { identity, code, notes } = await attempt(make(own), opaque)
    t.match({ identity, code }, { identity: undefined, code: undefined })
    t.same(notes, ['oidc: it is not a JWT, and others are not introspected'])
  }
})

t.test('an introspection URL that is configured needs no discovery', async (t) => {
  const { idp, make } = await setUp(t)
  idp.format = 'opaque'
  const introspectionUrl = `${idp.issuer}/token/introspection`
  const method = make({ tokens: 'introspection', introspectionUrl })
  t.ok((await attempt(method, await idp.clientCredentials(wish))).identity)
  t.equal(idp.asked('/.well-known/openid-configuration'), 0)
})

t.test('a JWT of another issuer is never shown to this one', async (t) => {
  const { idp, make } = await setUp(t)
  const foreign = signingKey('x').token({
    iss: 'https://other.example',
    sub: 'alice',
    aud: resource,
    exp: 9_999_999_999,
  })
  for (const tokens of ['auto', 'jwt', 'introspection'] as const) {
    const { identity, code, notes } = await attempt(make({ tokens }), foreign)
    t.match({ identity, code }, { identity: undefined, code: undefined })
    t.match(notes, [/its issuer is "https:\/\/other\.example"/])
  }
  t.equal(idp.asked('/token/introspection') + idp.asked('/jwks'), 0)
  const forged = signingKey('x').token({ iss: idp.issuer, sub: 'alice', aud: resource, exp: 9_999_999_999 })
  t.match(await attempt(make(), forged), { code: 'ERR_AUTH_INVALID', detail: /no key with kid "x"/ })
})

t.test('keys rotate: a new one is fetched, one that is gone ends its tokens', async (t) => {
  const { idp, make, clock } = await setUp(t)
  const method = make()
  const old = await idp.clientCredentials(wish)
  t.ok((await attempt(method, old)).identity)
  idp.rotate({ keepOld: true })
  const fresh = await idp.clientCredentials(wish)
  t.match(await attempt(method, fresh), { code: 'ERR_AUTH_INVALID' }, 'the keys were fetched a moment ago')
  clock.pass(30_000)
  t.ok((await attempt(method, fresh)).identity)
  t.ok((await attempt(method, old)).identity)
  idp.rotate()
  const newest = await idp.clientCredentials(wish)
  clock.pass(30_000)
  t.ok((await attempt(method, newest)).identity)
  t.match(await attempt(method, old), { code: 'ERR_AUTH_INVALID', detail: /no key with kid/ })
  t.match(await attempt(method, fresh), { code: 'ERR_AUTH_INVALID' })
})

t.test('an outage of the provider', async (t) => {
  const { idp, make, clock, log } = await setUp(t)
  const token = await idp.clientCredentials(wish)
  const [warm, cold] = [make(), make()]
  t.ok((await attempt(warm, token)).identity)
  const another = await idp.clientCredentials(wish)
  idp.format = 'opaque'
  const opaque = await idp.clientCredentials(wish)
  idp.down = true
  clock.pass(20 * 60_000)
  t.ok((await attempt(warm, another)).identity, 'the keys are good meanwhile')
  t.match(await attempt(cold, token), {
    code: 'ERR_AUTH_INVALID',
    detail: /the metadata of .* cannot be had: .*hang up/,
  })
  t.match(await attempt(warm, opaque), { code: 'ERR_AUTH_INVALID', detail: /cannot be asked about it/ })
  t.ok(log.lines.some((line) => /^warn the keys of http.*: its tokens are refused/.test(line)))
  idp.down = false
  clock.pass(5000)
  t.ok((await attempt(cold, token)).identity)
  t.ok(log.lines.some((line) => /^info the keys of http.* can be had again/.test(line)))
})

t.test('over TLS, with the CA that is configured', async (t) => {
  const ca = authority('Test CA')
  const { key, chain: cert } = ca.issue({ cn: 'idp', ips: ['127.0.0.1'], usage: 'server' })
  const idp = await identityProvider(t, { tls: { key, cert } })
  const caFile = join(t.testdir(), 'ca.pem')
  writeFileSync(caFile, ca.certificate)
  const { make } = await setUp(t)
  const token = signingKey('x').token({ iss: idp.issuer })
  const trusting = make({ issuer: idp.issuer, fetching: { ...idp.fetching, caFile } })
  t.match(await attempt(trusting, token), { detail: /no key with kid "x"/ }, 'it got as far as the keys')
  const strict = make({ issuer: idp.issuer, fetching: idp.fetching })
  t.match(await attempt(strict, token), { code: 'ERR_AUTH_INVALID', detail: /certificate/ })
})

t.test('asking ahead', async (t) => {
  const { idp, clock, log } = await setUp(t)
  const method: OidcMethod = {
    ...checks,
    ...{ method: 'oidc', issuer: idp.issuer, tokens: 'auto', cacheMs: 1, introspectionUrl: undefined },
    ...{ clientId: 'x', clientSecret: { text: new Credential('y') }, fetching: idp.fetching },
  }
  const deps = { clock, log, resource: () => resource, prefetch: true }
  const until = async (path: string): Promise<void> => {
    while (idp.asked(path) === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  }
  oidcAuthenticator({ ...method, tokens: 'introspection' }, deps)
  await until('/.well-known/openid-configuration')
  t.equal(idp.asked('/jwks'), 0)
  oidcAuthenticator(method, deps)
  await until('/jwks')
})

t.test('mistakes are told when it is built', async (t) => {
  const { idp, make } = await setUp(t)
  const fetching = { caFile: undefined, timeoutMs: 1000, allowPrivate: false, allowHttp: false }
  const mistakes: [Partial<OidcMethod>, RegExp][] = [
    [{ fetching }, /the issuer http:.*must be https/],
    [{ issuer: 'issuer' }, /the issuer "issuer": it is not a URL/],
    [{ issuer: `${idp.issuer}?a=b` }, /has a query or fragment/],
    [{ introspectionUrl: 'http://10.0.0.1/' }, /the introspection URL http:\/\/10\.0\.0\.1\/: /],
    [{ tokens: 'introspection', clientSecret: undefined }, /needs both a client id and its secret/],
    [{ tokens: 'introspection', clientId: undefined }, /needs both/],
    [{ clientId: undefined }, /needs both/],
    [{ clientSecret: { file: '/nowhere' } }, /the client secret \/nowhere cannot be read/],
    [{ algorithms: ['HS256'] }, /no algorithm for a public key/],
    [{ scopes: ['"'] }, /is no scope/],
  ]
  for (const [own, message] of mistakes) t.throws(() => make(own), { name: 'TokenMethodError', message })
  make({ clientId: 'only-an-audience', clientSecret: undefined })
})
