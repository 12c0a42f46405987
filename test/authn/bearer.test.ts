import { inspect } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { bearerAuthenticator, parseTokens, TokenFileError } from '../../src/authn/bearer.ts'
import { SidecarError } from '../../src/core/errors.ts'
import type { Principal, Trusted } from '../../src/core/types.ts'
import { holds, shown } from '../support/property.ts'

const alice = 'alice-token-0123456789'
const bob = 'bob+token/0123456789=='

const request = (authorization: string | undefined): Trusted =>
  ({ headers: { authorization } }) as unknown as Trusted

/** Who it is, nobody (undefined), or the code of the refusal. */
function outcome(file: string, authorization: string | undefined): string | undefined {
  const tokens = parseTokens(file, 'tokens')
  try {
    const found = bearerAuthenticator(() => tokens).authenticate(request(authorization))
    return (found as Principal | undefined)?.id
  } catch (thrown) {
    if (thrown instanceof SidecarError) return thrown.code
    throw thrown
  }
}

const names = (file: string): string[] => parseTokens(file, 'tokens').map(({ principal }) => principal.id)

function mistake(file: string): string {
  try {
    parseTokens(file, 'tokens')
  } catch (thrown) {
    if (thrown instanceof TokenFileError) return thrown.message
    throw thrown
  }
  throw new Error('it was accepted')
}

t.test('a file names its tokens, or holds one alone', async (t) => {
  t.same(names(`alice:${alice}\nbob:${bob}\n`), ['bearer:alice', 'bearer:bob'])
  t.same(names(`# who\r\n\r\n  alice : ${alice} \r\n`), ['bearer:alice'])
  t.same(names(`${alice}`), ['bearer:default'])
  t.same(
    names(`\ufeff\n# one\n${alice}\n\n`),
    ['bearer:default'],
    'a byte order mark and blank lines do no harm',
  )
  t.same(names(`a.b_c@d-e:${alice}`), ['bearer:a.b_c@d-e'])
})

t.test('every token of the file is its owner, and nothing else is anybody', async (t) => {
  const file = `alice:${alice}\nbob:${bob}\n`
  t.equal(outcome(file, `Bearer ${alice}`), 'bearer:alice')
  t.equal(outcome(file, `Bearer ${bob}`), 'bearer:bob')
  t.equal(outcome(file, `bearer ${alice}`), 'bearer:alice', 'the scheme in any letter case')
  t.equal(outcome(file, `BEARER  ${alice} `), 'bearer:alice')
  const wrong = [
    ...[
      `${alice}x`,
      alice.slice(0, -1),
      alice.toUpperCase(),
      `${alice} ${alice}`,
      `${alice},${bob}`,
      '',
      ' ',
      'alice',
    ],
    ...[`alice:${alice}`, `"${alice}"`, `${alice}\0`, `token=${alice}`, '__proto__'],
  ]
  for (const token of wrong) t.equal(outcome(file, `Bearer ${token}`), 'ERR_AUTH_INVALID', shown(token))
  for (const header of [
    undefined,
    '',
    'Bearer',
    `Basic ${alice}`,
    alice,
    `Bearer\t${alice}`,
    `Bearer:${alice}`,
    ` Bearer ${alice}`,
    `BearerX ${alice}`,
  ])
    t.equal(outcome(file, header), undefined, shown(String(header)))
})

const token = fc.stringMatching(/^[A-Za-z0-9._~+/-]{16,40}={0,2}$/)
const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._@-]{0,20}$/)

t.test('any file of well-formed lines lets in exactly those in it', async (t) => {
  const entries = fc.uniqueArray(fc.tuple(name, token), {
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
      token,
      (entries, filler, newline, stranger) => {
        fc.pre(new Set(entries.map(([, token]) => token)).size === entries.length)
        const file = entries.flatMap(([name, token]) => [filler, `${name}:${token}`]).join(newline)
        return (
          entries.every(([name, token]) => outcome(file, `Bearer ${token}`) === `bearer:${name}`) &&
          outcome(file, `Bearer ${stranger}`) ===
            (entries.find(([, token]) => token === stranger)?.[0] ?? 'ERR_AUTH_INVALID')
        )
      },
    ),
  )
})

t.test('a mistake is told with its line', async (t) => {
  t.match(mistake(`alice:${alice}\n${bob}\n`), /^tokens:2: a token without a name/)
  t.match(mistake(`alice:short\n`), /^tokens:1: .*fewer than 16/)
  t.match(mistake(`\n\nalice:${alice}\nalice:${bob}`), /^tokens:4: .*twice/)
  t.match(mistake(`a b:${alice}`), /^tokens:1: the name/)
  t.match(mistake(`:${alice}`), /^tokens:1: the name/)
  t.match(mistake(`${'n'.repeat(65)}:${alice}`), /^tokens:1: the name/)
  t.match(mistake(`alice:${alice}\u00e9`), /^tokens:1: .*characters/)
  t.match(mistake(`alice:with blanks in the middle`), /^tokens:1: .*characters/)
  t.match(mistake(''), /^tokens: there is no token/)
  t.match(mistake('# only\n\n'), /^tokens: there is no token/)
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
  for (const file of files) t.notMatch(mistake(file), secret, mistake(file).replaceAll(secret, '(secret)'))
})

t.test('what was read shows no token, however it is shown', async (t) => {
  const tokens = parseTokens(`alice:${alice}`, 'tokens')
  t.notMatch(JSON.stringify(tokens), alice)
  t.notMatch(inspect(tokens, { depth: 9, showHidden: true }), alice)
  t.match(tokens[0]?.principal, { id: 'bearer:alice', method: 'bearer' })
  t.ok(Object.isFrozen(tokens[0]?.principal))
})

t.test('the number of tokens is bounded', async (t) => {
  const lines = (n: number): string => Array.from({ length: n }, (_, i) => `n${i}:${alice}${i}`).join('\n')
  t.equal(parseTokens(lines(10_000), 'tokens').length, 10_000)
  t.match(mistake(lines(10_001)), /^tokens:10001: more than 10000/)
})

t.test('the challenge is that of RFC 6750', async (t) => {
  const authenticator = bearerAuthenticator(() => [])
  t.equal(authenticator.name, 'bearer')
  t.equal(authenticator.challenge(undefined), 'Bearer')
  t.equal(authenticator.challenge('invalid_token'), 'Bearer error="invalid_token"')
})

t.test(
  'the tokens are those of the moment, and sessions of a withdrawn one are not vouched for',
  async (t) => {
    let tokens = parseTokens(`alice:${alice}\nbob:${bob}`, 'tokens')
    const authenticator = bearerAuthenticator(() => tokens)
    const known = (token: string): Principal =>
      authenticator.authenticate(request(`Bearer ${token}`)) as Principal
    const [first, second] = [known(alice), known(bob)]
    t.ok(authenticator.vouchesFor(first) && authenticator.vouchesFor(second))
    tokens = parseTokens(`alice:${alice}-rotated\nbob:${bob}\ncarol:${alice}`, 'tokens')
    t.notOk(authenticator.vouchesFor(first), 'the same name, another token')
    t.ok(authenticator.vouchesFor(second))
    t.equal(known(alice).id, 'bearer:carol', 'the same token, another name')
    t.throws(() => bearerAuthenticator(() => []).authenticate(request(`Bearer ${alice}`)), {
      code: 'ERR_AUTH_INVALID',
    })
  },
)
