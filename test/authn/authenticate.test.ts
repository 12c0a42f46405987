import fc from 'fast-check'
import t from 'tap'
import { authenticate } from '../../src/authn/authenticate.ts'
import { type Authenticator, Unavailable } from '../../src/authn/authenticator.ts'
import { buildBasic } from '../../src/authn/basic.ts'
import type { BearerChallenge } from '../../src/authn/challenge.ts'
import { Failures } from '../../src/authn/failures.ts'
import { type AuthGate, createGate } from '../../src/authn/gate.ts'
import { hashPassword } from '../../src/authn/password-hash.ts'
import { buildStatic } from '../../src/authn/static-secrets.ts'
import { rpcErrorText, SidecarError } from '../../src/core/errors.ts'
import { anonymous, type Identity, type Principal, type Trusted } from '../../src/core/types.ts'
import { type Answer, answering, identity, trusted } from '../support/attempts.ts'
import { ManualClock } from '../support/modern-calls.ts'

type Layers = readonly (readonly ['any' | 'all', ...Authenticator[]])[]

const bearerChallenge: BearerChallenge = (error, scopes) =>
  `Bearer resource_metadata="https://x"${error === undefined ? '' : `, error="${error}"`}${scopes.length === 0 ? '' : `, scope="${scopes.join(' ')}"`}`

function gateOf(...layers: Layers): AuthGate {
  return createGate({
    layers: layers.map(([require, ...authenticators], i) => ({ name: `L${i}`, require, authenticators })),
    timeoutMs: 5000,
    failures: { attempts: 3, windowMs: 60_000 },
  })
}

interface Outcome {
  readonly principal: Principal | undefined
  readonly error: SidecarError | undefined
}

interface Door {
  readonly clock: ManualClock
  gate: AuthGate
  /** Runs the layer once, to its end. */
  knock(request: Trusted): Promise<Outcome>
}

function door(...layers: Layers): Door {
  const clock = new ManualClock()
  const layer = authenticate<Trusted>({
    gate: () => made.gate,
    failures: new Failures(clock),
    clock,
    bearerChallenge,
  })
  const made: Door = {
    clock,
    gate: gateOf(...layers),
    async knock(request) {
      let principal: Principal | undefined
      try {
        await layer(request, (identified) => {
          t.equal(principal, undefined, 'passed once')
          principal = identified.principal
        })
        return { principal, error: undefined }
      } catch (thrown) {
        return { principal, error: SidecarError.from(thrown) }
      }
    },
  }
  return made
}

/** What the client sees of a refusal. */
const seen = ({ error }: Outcome): string =>
  error === undefined
    ? 'passed'
    : JSON.stringify([error.httpStatus(false), error.headers, rpcErrorText(error, '1', 'r')])
const code = ({ error, principal }: Outcome): string | undefined => error?.code ?? principal?.id
const challenge = ({ error }: Outcome): string | undefined => error?.headers['WWW-Authenticate']

const secret = (name: string): string => `${name}-0123456789abcdef`
const bearer = buildStatic({ method: 'bearer', header: undefined }, `alice:${secret('token')}`, 'tokens')
const apiKey = buildStatic({ method: 'apiKey', header: 'x-api-key' }, `robot:${secret('key')}`, 'keys')
const userLine = `carol:${await hashPassword('s3cret')}`
const basic = (): Authenticator => buildBasic(userLine, 'users', { clock: new ManualClock() })

const token = { Authorization: `Bearer ${secret('token')}` }
const wrongToken = { Authorization: `Bearer ${secret('wrong')}` }
const key = { 'X-API-Key': secret('key') }
const wrongKey = { 'X-API-Key': secret('wrong') }
const password = (text: string): Record<string, string> => ({ Authorization: `Basic ${btoa(text)}` })

t.test('without layers everyone is the one anonymous principal', async (t) => {
  const { principal } = await door().knock(trusted(token, { query: 'access_token=x' }))
  t.equal(principal, anonymous)
  t.throws(() => Object.assign(anonymous, { id: 'root' }), TypeError)
})

t.test('whoever is known passes, under the name of the credential', async (t) => {
  const { knock } = door(['any', bearer, apiKey, basic()])
  t.equal(code(await knock(trusted(token))), 'bearer:alice')
  t.equal(code(await knock(trusted(key))), 'apiKey:robot')
  t.equal(code(await knock(trusted(password('carol:s3cret')))), 'basic:carol')
  t.equal(code(await knock(trusted({ ...token, ...wrongKey }))), 'bearer:alice', 'the first decides')
})

t.test('without anything to wait for the layer is synchronous, and hands on what came in', async (t) => {
  const clock = new ManualClock()
  const gate = gateOf(['any', bearer], ['all', apiKey])
  const layer = authenticate<Trusted>({
    gate: () => gate,
    failures: new Failures(clock),
    clock,
    bearerChallenge,
  })
  const request = trusted({ ...token, ...key })
  let passed: Trusted | undefined
  t.equal(
    layer(request, (identified) => {
      passed = identified
    }),
    undefined,
  )
  t.equal(passed, request)
  t.equal(clock.waiting, 0)
})

t.test('what happens beyond the layer is no affair of authentication', async (t) => {
  const clock = new ManualClock()
  const gate = gateOf(['any', bearer, answering('later', Promise.resolve(identity('later')))])
  const layer = authenticate<Trusted>({
    gate: () => gate,
    failures: new Failures(clock),
    clock,
    bearerChallenge,
  })
  const thrown = new SidecarError('ERR_AUTH_INVALID', { detail: 'from beyond' })
  const next = (): never => {
    throw thrown
  }
  t.throws(() => layer(trusted(token), next), thrown)
  await t.rejects(async () => layer(trusted({ 'X-Later': '1' }), next), thrown)
})

t.test('who brings no credential is challenged with every scheme there is, without an error', async (t) => {
  const scoped = answering('jwt', undefined, {
    headers: ['authorization'],
    scheme: 'Bearer',
    scopes: ['mcp'],
  })
  const { knock } = door(['any', bearer, scoped, apiKey, basic()])
  for (const headers of [
    {},
    { Authorization: 'Digest x' },
    { Authorization: secret('token') },
    { Authorization: '' },
  ]) {
    const outcome = await knock(trusted(headers))
    t.equal(code(outcome), 'ERR_AUTH_MISSING')
    t.equal(outcome.error?.detail, 'L0: no credential for bearer or jwt or apiKey or basic')
    t.equal(
      challenge(outcome),
      'Bearer resource_metadata="https://x", scope="mcp", Basic realm="mcp", charset="UTF-8"',
    )
  }
  const only = await door(['any', apiKey]).knock(trusted({}))
  t.equal(code(only), 'ERR_AUTH_MISSING')
  t.equal(challenge(only), undefined, 'there is no scheme for keys')
})

t.test('every credential that does not hold looks the same, and the log says which it was', async (t) => {
  const refusing = answering('cert', new SidecarError('ERR_AUTH_INVALID', { detail: 'cert: revoked' }))
  const leaking = answering(
    'leaky',
    new SidecarError('ERR_AUTH_INVALID', {
      detail: 'leaky: an old key',
      headers: { 'X-Why': 'old key' },
      data: { why: 'old key' },
    }),
  )
  const cases: Record<string, [Trusted, RegExp]> = {
    'an unknown key': [
      trusted(wrongKey),
      /^L0: nobody recognised the credential; apiKey: an unknown API key$/,
    ],
    'a refused certificate': [trusted({ 'X-Cert': '1' }), /^cert: revoked$/],
    'a method that says too much': [trusted({ 'X-Leaky': '1' }), /^leaky: an old key$/],
    'a wrong password': [trusted(password('carol:wrong')), /^basic: a wrong password for carol$/],
    'an unknown user': [trusted(password('mallory:s3cret')), /^basic: an unknown user name$/],
    'malformed Basic': [trusted({ Authorization: 'Basic %%%' }), /^basic: .*base64$/],
    'a key twice': [
      trusted(key, { rawHeaders: ['X-API-Key', secret('key'), 'x-api-key', secret('key')] }),
      /^two x-api-key headers$/,
    ],
    'a token in the URL': [trusted(key, { query: 'x=1&Access%5FToken=abc' }), /query of the URL/],
    'a large one': [
      trusted({ 'X-API-Key': 'x'.repeat(12 * 1024 + 1) }),
      /^12289 bytes in the header x-api-key/,
    ],
  }
  const looks = new Set<string>()
  for (const [name, [request, detail]] of Object.entries(cases)) {
    const outcome = await door(['any', refusing, leaking, apiKey, basic()]).knock(request)
    t.equal(code(outcome), 'ERR_AUTH_INVALID', name)
    t.match(outcome.error?.detail, detail, name)
    looks.add(seen(outcome))
  }
  t.equal(looks.size, 1, [...looks].join(' or '))
})

t.test('error="invalid_token" is for whoever sent a token, refused for whatever reason', async (t) => {
  const both: Layers = [['all', bearer, apiKey]]
  const looks = new Set<string>()
  for (const headers of [
    { ...wrongToken, ...key },
    { ...token, ...wrongKey },
    { ...wrongToken, ...wrongKey },
  ]) {
    const outcome = await door(...both).knock(trusted(headers))
    t.equal(challenge(outcome), 'Bearer resource_metadata="https://x", error="invalid_token"')
    looks.add(seen(outcome))
  }
  t.equal(looks.size, 1, 'which of two credentials was wrong is not told')
  t.notMatch(challenge(await door(['any', bearer, apiKey]).knock(trusted(wrongKey))), 'error')
})

t.test('two Authorization headers are refused, also where both are good', async (t) => {
  const { knock } = door(['any', bearer])
  const good = token.Authorization
  for (const rawHeaders of [
    ['Authorization', good, 'Authorization', good],
    ['authorization', good, 'Host', 'a', 'AUTHORIZATION', 'Bearer x'],
  ]) {
    t.equal((await knock(trusted(token, { rawHeaders }))).error?.detail, 'two authorization headers')
  }
})

t.test('all: each must accept; a missing one is no way to try the others', async (t) => {
  const make = (): Door => door(['all', bearer, apiKey])
  const both = await make().knock(trusted({ ...token, ...key }))
  t.equal(code(both), 'all:apiKey:robot & bearer:alice', 'the stronger first')
  t.same(
    both.principal?.others.map(({ id }) => id),
    ['bearer:alice'],
  )
  const missing = [await make().knock(trusted(token)), await make().knock(trusted(wrongToken))]
  t.same(missing.map(code), ['ERR_AUTH_MISSING', 'ERR_AUTH_MISSING'])
  t.equal(seen(missing[0] as Outcome), seen(missing[1] as Outcome), 'whether the token is good is not told')
})

t.test('each of several layers must be met', async (t) => {
  const make = (): Door => door(['any', bearer, basic()], ['any', apiKey])
  t.equal(code(await make().knock(trusted({ ...token, ...key }))), 'all:apiKey:robot & bearer:alice')
  t.equal(
    code(await make().knock(trusted({ ...password('carol:s3cret'), ...key }))),
    'all:basic:carol & apiKey:robot',
  )
  t.equal(code(await make().knock(trusted(token))), 'ERR_AUTH_MISSING')
  t.equal(code(await make().knock(trusted(key))), 'ERR_AUTH_MISSING')
  t.equal(code(await make().knock(trusted({ ...token, ...wrongKey }))), 'ERR_AUTH_INVALID')
  t.equal(code(await make().knock(trusted({ ...wrongToken, ...key }))), 'ERR_AUTH_INVALID')
})

t.test('scopes that a token lacks are told to who has proven everything else', async (t) => {
  const lacking = (...scopes: string[]): SidecarError =>
    new SidecarError('ERR_SCOPE', { detail: 'x', data: { scopes } })
  const jwt = answering('jwt', lacking('mcp', 'write'), { scheme: 'Bearer' })
  const oidc = answering('oidc', lacking('mcp', 'admin'), { scheme: 'Bearer' })
  const headers = { 'X-Jwt': '1', 'X-Oidc': '1' }
  const outcome = await door(['all', jwt, oidc]).knock(trusted(headers))
  t.equal(code(outcome), 'ERR_SCOPE')
  t.equal(
    challenge(outcome),
    'Bearer resource_metadata="https://x", error="insufficient_scope", scope="mcp write admin"',
  )
  t.same(outcome.error?.data, { scopes: ['mcp', 'write', 'admin'] })
  const other = await door(['all', jwt, apiKey]).knock(trusted({ ...headers, ...wrongKey }))
  t.equal(code(other), 'ERR_AUTH_INVALID')
})

t.test('a broken method lets nobody in', async (t) => {
  const broken = new TypeError('it is broken')
  for (const answer of [broken, Promise.resolve(broken)]) {
    const outcome = await door(['any', answering('a', answer), apiKey]).knock(trusted({ 'X-A': '1', ...key }))
    t.equal(code(outcome), 'ERR_INTERNAL')
    t.equal(outcome.principal, undefined)
  }
})

t.test('time for authentication is short, and what runs out of it looks like the rest', async (t) => {
  const never = answering('oidc', new Promise<Answer>(() => {}))
  const made = door(['any', never, apiKey])
  let outcome: Outcome | undefined
  void made.knock(trusted({ 'X-Oidc': '1' })).then((each) => {
    outcome = each
  })
  made.clock.pass(4999)
  await new Promise(setImmediate)
  t.equal(outcome, undefined)
  made.clock.pass(1)
  await new Promise(setImmediate)
  t.equal(outcome?.error?.detail, 'no answer within 5000 ms: oidc')
  t.equal(seen(outcome as Outcome), seen(await made.knock(trusted(wrongKey))))
  t.equal(made.clock.waiting, 0)
})

t.test('an answer that comes too late changes nothing, and nobody is asked after it', async (t) => {
  let answer = (_: Answer): void => {}
  const slow = answering('a', new Promise<Answer>((resolve) => (answer = resolve)))
  const next = answering('b', identity('b'))
  for (const late of [identity('a'), undefined, new Error('late')]) {
    const made = door(['any', slow, next])
    const outcome = made.knock(trusted({ 'X-A': '1', 'X-B': '1' }))
    made.clock.pass(5000)
    t.equal(code(await outcome), 'ERR_AUTH_INVALID')
    answer(late)
    await new Promise(setImmediate)
    t.equal(next.asked, 0)
  }
})

t.test('after too many failures an address is refused, and expensive methods are spared', async (t) => {
  const expensive = answering('jwt', (attempt) => {
    attempt.beforeWork()
    return new SidecarError('ERR_AUTH_INVALID', { detail: 'a wrong signature' })
  })
  const made = door(['any', apiKey, expensive])
  const expect = async (headers: Record<string, string>, expected: string, more?: Partial<Trusted>) => {
    const outcome = await made.knock(trusted(headers, more))
    t.equal(code(outcome), expected)
    return outcome
  }
  await expect(wrongKey, 'ERR_AUTH_INVALID')
  await expect({}, 'ERR_AUTH_MISSING')
  await expect({ 'X-Jwt': '1' }, 'ERR_AUTH_INVALID')
  await expect({}, 'ERR_AUTH_MISSING')
  await expect(key, 'apiKey:robot')
  await expect(wrongKey, 'ERR_AUTH_INVALID')
  const guess = await expect(wrongKey, 'ERR_RATE_LIMITED')
  const work = await expect({ 'X-Jwt': '1' }, 'ERR_RATE_LIMITED')
  t.equal(guess.error?.headers['Retry-After'], '60')
  t.equal(seen(guess), seen(work), 'these look alike, too')
  t.match(guess.error?.detail, 'an unknown API key', 'the log still says why')
  await expect(key, 'apiKey:robot')
  await expect({}, 'ERR_AUTH_MISSING')
  await expect(wrongKey, 'ERR_AUTH_INVALID', { clientAddress: '192.0.2.2' })
  made.gate = gateOf(['any', apiKey])
  await expect(wrongKey, 'ERR_RATE_LIMITED')
  made.clock.pass(60_000)
  await expect(wrongKey, 'ERR_AUTH_INVALID')
})

t.test('whoever we ask being slow is not held against an address', async (t) => {
  const never = answering('oidc', new Promise<Answer>(() => {}))
  const made = door(['any', never, apiKey])
  for (let i = 0; i < 5; i++) {
    const outcome = made.knock(trusted({ 'X-Oidc': '1' }))
    made.clock.pass(5000)
    t.equal(code(await outcome), 'ERR_AUTH_INVALID')
  }
})

t.test('nor is that it is away', async (t) => {
  const refusal = new SidecarError('ERR_AUTH_INVALID', { detail: 'no keys', cause: new Unavailable('down') })
  const away: Authenticator = { ...answering('oidc', undefined), authenticate: () => Promise.reject(refusal) }
  const made = door(['any', away, apiKey])
  for (let i = 0; i < 5; i++) {
    t.equal(code(await made.knock(trusted({ 'X-Oidc': '1' }))), 'ERR_AUTH_INVALID')
  }
})

const names = ['a', 'b', 'c'] as const
const plan = fc.record({
  layers: fc.array(
    fc.record({
      require: fc.constantFrom<'any' | 'all'>('any', 'all'),
      methods: fc.uniqueArray(fc.constantFrom(...names), { minLength: 1, maxLength: 3 }),
    }),
    { minLength: 1, maxLength: 3 },
  ),
  answers: fc.record({
    a: fc.constantFrom('knows', 'nothing', 'refuses', 'breaks'),
    b: fc.constantFrom('knows', 'nothing', 'refuses', 'breaks'),
    c: fc.constantFrom('knows', 'nothing', 'refuses', 'breaks'),
  }),
  brought: fc.subarray([...names]),
  later: fc.subarray([...names]),
})
type Plan = typeof plan extends fc.Arbitrary<infer T> ? T : never

function carriedOut({ layers, answers, brought, later }: Plan): Promise<Outcome> {
  const said: Record<string, Answer> = {
    nothing: undefined,
    refuses: new SidecarError('ERR_AUTH_INVALID', { detail: 'no' }),
    breaks: new TypeError('broken'),
  }
  const method = (name: (typeof names)[number]): Authenticator => {
    const answer = answers[name] === 'knows' ? identity(name) : said[answers[name]]
    return answering(name, later.includes(name) ? Promise.resolve(answer) : answer)
  }
  const headers = Object.fromEntries(brought.map((name) => [`X-${name}`, '1']))
  return door(...layers.map(({ require, methods }) => [require, ...methods.map(method)] as const)).knock(
    trusted(headers),
  )
}

t.test('whether a method answers at once or later makes no difference to the client', async (t) => {
  await fc.assert(
    fc.asyncProperty(plan, async (each) => {
      const [now, later] = [await carriedOut({ ...each, later: [] }), await carriedOut(each)]
      return code(now) === code(later) && seen(now) === seen(later)
    }),
    { numRuns: 300 },
  )
  t.pass('holds for 300 plans')
})

t.test('who passes has met every layer, whatever the layers and answers are', async (t) => {
  await fc.assert(
    fc.asyncProperty(plan, async (each) => {
      const { principal } = await carriedOut(each)
      const proven: readonly Identity[] = principal === undefined ? [] : [principal, ...principal.others]
      const met = each.layers.every(({ require, methods }) =>
        methods[require === 'any' ? 'some' : 'every'](
          (name) => each.answers[name] === 'knows' && proven.some(({ subject }) => subject === name),
        ),
      )
      return principal === undefined || met
    }),
    { numRuns: 300 },
  )
  t.pass('holds for 300 plans')
})
