import { inspect } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import type { Authenticator } from '../../src/authn/authenticator.ts'
import { SecretFileError } from '../../src/authn/secret-lines.ts'
import { buildStatic, type NamedSecret, staticAuthenticator } from '../../src/authn/static-secrets.ts'
import { Credential } from '../../src/core/secret.ts'
import type { Identity } from '../../src/core/types.ts'
import { testAttempt, trusted } from '../support/attempts.ts'
import { holds, shown } from '../support/property.ts'

const alice = 'alice-token-0123456789'
const bob = 'bob+token/0123456789=='

const bearer = { method: 'bearer', header: undefined } as const
const apiKey = { method: 'apiKey', header: 'x-api-key' } as const
type Method = typeof bearer | typeof apiKey

/** Who this method takes the sender of such headers for; undefined: nobody. */
function whoIs(method: Authenticator, headers: Record<string, string>): Identity | undefined {
  return method.authenticate(trusted(headers), testAttempt()) as Identity | undefined
}

const withToken = (file: string, authorization: string): string | undefined =>
  whoIs(buildStatic(bearer, file, 'tokens'), { Authorization: authorization })?.id
const withKey = (file: string, key: string): string | undefined =>
  whoIs(buildStatic(apiKey, file, 'keys'), { 'X-API-Key': key })?.id

function mistake(build: () => unknown): string {
  try {
    build()
  } catch (thrown) {
    if (thrown instanceof SecretFileError) return thrown.message
    throw thrown
  }
  throw new Error('it was accepted')
}
const mistakeIn = (file: string, method: Method = bearer): string =>
  mistake(() => buildStatic(method, file, 'tokens'))

t.test('a file names its tokens, or holds one alone', async (t) => {
  const files: readonly [string, string][] = [
    [`alice:${alice}\nbob:${bob}\n`, 'alice'],
    [`# who\r\n\r\n  alice : ${alice} \r\n`, 'alice'],
    [`${alice}`, 'default'],
    [`\ufeff\n# one\n${alice}\n\n`, 'default'],
    [`a.b_c@d-e:${alice}`, 'a.b_c@d-e'],
  ]
  for (const [file, name] of files) {
    t.equal(withToken(file, `Bearer ${alice}`), `bearer:${name}`, shown(file))
    t.equal(withKey(file, alice), `apiKey:${name}`, shown(file))
  }
})

t.test('every token of the file is its owner, and nothing else is anybody', async (t) => {
  const file = `alice:${alice}\nbob:${bob}\n`
  t.equal(withToken(file, `Bearer ${alice}`), 'bearer:alice')
  t.equal(withToken(file, `Bearer ${bob}`), 'bearer:bob')
  t.equal(withToken(file, `bearer ${alice}`), 'bearer:alice', 'the scheme in any letter case')
  t.equal(withToken(file, `BEARER  ${alice} `), 'bearer:alice')
  const wrong = [
    ...[`${alice}x`, alice.slice(0, -1), alice.toUpperCase(), `${alice} ${alice}`, `${alice},${bob}`],
    ...['', ' ', 'alice', `alice:${alice}`, `"${alice}"`, `${alice}\0`, `token=${alice}`, '__proto__'],
  ]
  for (const token of wrong) t.equal(withToken(file, `Bearer ${token}`), undefined, shown(token))
  const otherwise = [
    ...['', 'Bearer', `Basic ${alice}`, alice, `Bearer\t${alice}`, `Bearer:${alice}`],
    ...[` Bearer ${alice}`, `BearerX ${alice}`],
  ]
  for (const header of otherwise) t.equal(withToken(file, header), undefined, shown(header))
  t.equal(whoIs(buildStatic(bearer, file, 'tokens'), { 'X-API-Key': alice }), undefined)
})

t.test('an API key stands alone in the header that is configured', async (t) => {
  const method = buildStatic({ method: 'apiKey', header: 'x-team-key' }, `alice:${alice}`, 'keys')
  t.same(method.headers, ['x-team-key'])
  t.equal(method.scheme, undefined, 'there is no challenge for it')
  t.equal(whoIs(method, { 'X-Team-Key': alice })?.id, 'apiKey:alice')
  for (const headers of [
    { 'X-API-Key': alice },
    { Authorization: `Bearer ${alice}` },
    { Authorization: alice },
    { 'X-Team-Key': `Bearer ${alice}` },
    { 'X-Team-Key': `${alice}, ${alice}` },
    { 'X-Team-Key': '' },
  ]) {
    t.equal(whoIs(method, headers), undefined, shown(JSON.stringify(headers)))
  }
})

t.test('a secret that nobody has leaves a note and is left to others; no secret leaves none', async (t) => {
  for (const [method, headers, note] of [
    [bearer, { Authorization: `Bearer ${bob}` }, 'bearer: an unknown token'],
    [apiKey, { 'X-API-Key': bob }, 'apiKey: an unknown API key'],
  ] as const) {
    const attempt = testAttempt()
    const built = buildStatic(method, `alice:${alice}`, 'secrets')
    t.equal(built.authenticate(trusted(headers), attempt), undefined)
    t.same(attempt.notes, [note])
    t.equal(built.authenticate(trusted({ Authorization: 'Basic YTpi' }), attempt), undefined)
    t.equal(built.authenticate(trusted({}), attempt), undefined)
    t.equal(attempt.notes.length, 1)
    t.equal(attempt.work, 0, 'nothing of it is expensive')
  }
})

const token = fc.stringMatching(/^[A-Za-z0-9._~+/-]{16,40}={0,2}$/)
const key = fc.stringMatching(/^[!-~]{16,40}$/)
const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._@-]{0,20}$/)

for (const [method, secret] of [
  [bearer, token],
  [apiKey, key],
] as const) {
  t.test(`any file of well-formed lines (${method.method}) lets in exactly those in it`, async (t) => {
    const entries = fc.uniqueArray(fc.tuple(name, secret), {
      minLength: 1,
      maxLength: 6,
      selector: ([name]) => name,
    })
    const filler = fc.constantFrom('', '# comment', '   ', '\t')
    holds(
      t,
      fc.property(
        entries,
        filler,
        fc.constantFrom('\n', '\r\n'),
        secret,
        (all, filler, newline, stranger) => {
          fc.pre(new Set(all.map(([, value]) => value)).size === all.length)
          const file = all.flatMap(([name, value]) => [filler, `${name}:${value}`]).join(newline)
          const built = buildStatic(method, file, 'secrets')
          const ask = (value: string): string | undefined =>
            whoIs(built, method === bearer ? { Authorization: `Bearer ${value}` } : { 'X-API-Key': value })
              ?.id
          return (
            all.every(([name, value]) => ask(value) === `${method.method}:${name}`) &&
            ask(stranger) ===
              all.filter(([, value]) => value === stranger).map(([name]) => `${method.method}:${name}`)[0]
          )
        },
      ),
    )
  })
}

t.test('a mistake is told with its line', async (t) => {
  t.match(mistakeIn(`alice:${alice}\n${bob}\n`), /^tokens:2: a token without a name/)
  t.match(mistakeIn(`alice:short\n`), /^tokens:1: .*fewer than 16/)
  t.match(mistakeIn(`\n\nalice:${alice}\nalice:${bob}`), /^tokens:4: .*twice/)
  t.match(mistakeIn(`alice:${alice}\nbob:${alice}`), /^tokens:2: this token stands in an earlier line/)
  t.match(mistakeIn(`a b:${alice}`), /^tokens:1: the name/)
  t.match(mistakeIn(`alice:${alice}\u00e9`), /^tokens:1: .*characters/)
  t.match(mistakeIn(`alice:with blanks in the middle`), /^tokens:1: .*characters/)
  t.match(mistakeIn(''), /^tokens: there is no token/)
  t.match(
    mistakeIn(`alice:${alice}\n${bob}\n`, apiKey),
    /^tokens:2: an? API key without a name; write NAME:KEY/,
  )
  t.match(mistakeIn(`alice:${alice}\u00e9`, apiKey), /^tokens:1: .*visible ASCII/)
  t.match(mistakeIn(`alice:0123456789 0123456789`, apiKey), /^tokens:1: .*visible ASCII/)
  t.match(
    mistake(() => buildStatic({ method: 'apiKey', header: undefined }, alice, 'keys')),
    /header of their own/,
  )
})

t.test('no mistake repeats a token, not even where name and token are swapped', async (t) => {
  const secret = 'hunter2-hunter2-hunter2'
  const files = [
    `alice:${alice}\n${secret}`,
    `alice:${secret}\u00e9`,
    `alice:${alice}\nalice:${secret}`,
    `${secret}+:alice`,
    `${secret}:alice`,
    `${secret}:a token with blanks`,
    `${secret}:${alice}\n${secret}:${bob}`,
    `alice ${secret}`,
    `alice=${secret}\nbob=${secret}`,
    `alice:${secret} # a comment`,
  ]
  for (const file of files)
    t.notMatch(mistakeIn(file), secret, mistakeIn(file).replaceAll(secret, '(secret)'))
})

t.test('what was read shows no token, however it is shown', async (t) => {
  const method = buildStatic(bearer, `alice:${alice}`, 'tokens')
  const identity = whoIs(method, { Authorization: `Bearer ${alice}` })
  for (const each of [method, identity]) {
    t.notMatch(JSON.stringify(each), alice)
    t.notMatch(inspect(each, { depth: 9, showHidden: true }), alice)
  }
  t.match(identity, {
    id: 'bearer:alice',
    method: 'bearer',
    kind: 'user',
    subject: 'alice',
    scopes: undefined,
  })
  t.ok(Object.isFrozen(identity))
})

t.test('the number of tokens is bounded', async (t) => {
  const lines = (n: number): string => Array.from({ length: n }, (_, i) => `n${i}:${alice}${i}`).join('\n')
  t.equal(withToken(lines(10_000), `Bearer ${alice}9999`), 'bearer:n9999')
  t.match(mistakeIn(lines(10_001)), /^tokens:10001: more than 10000/)
})

t.test('secrets that have their names elsewhere are the same', async (t) => {
  const secret = (name: string, value: string): NamedSecret => ({
    name,
    secret: new Credential(value),
    where: `spec.apiKeys[${name}]`,
  })
  const method = staticAuthenticator(apiKey, [secret('alice', alice), secret('bob', bob)])
  t.equal(whoIs(method, { 'X-API-Key': bob })?.id, 'apiKey:bob')
  t.match(
    mistake(() => staticAuthenticator(apiKey, [secret('alice', 'short')])),
    /^spec.apiKeys\[alice\]: .*fewer than 16/,
  )
  t.match(
    mistake(() => staticAuthenticator(apiKey, [secret('alice', alice), secret('alice', bob)])),
    /^spec.apiKeys\[alice\]: this name stands twice/,
  )
  t.match(
    mistake(() => staticAuthenticator(bearer, [])),
    /there is no token/,
  )
})

t.test('an identity is vouched for as long as its name has its secret', async (t) => {
  const known = (file: string, token: string): Identity =>
    whoIs(buildStatic(bearer, file, 'tokens'), { Authorization: `Bearer ${token}` }) as Identity
  const file = `alice:${alice}\nbob:${bob}`
  const [first, second] = [known(file, alice), known(file, bob)]
  const next = buildStatic(bearer, `alice:${alice}-rotated\nbob:${bob}\ncarol:${alice}`, 'tokens')
  t.notOk(next.vouchesFor(first), 'the same name, another token')
  t.ok(next.vouchesFor(second))
  t.notOk(next.vouchesFor({ ...second, method: 'apiKey' }), 'of another method')
  t.notOk(
    buildStatic(apiKey, file, 'keys').vouchesFor(first),
    'the same name and secret, but proven in another way',
  )
})
