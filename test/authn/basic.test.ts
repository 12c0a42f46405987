import { scryptSync } from 'node:crypto'
import { inspect } from 'node:util'
import t from 'tap'
import type { Authenticator } from '../../src/authn/authenticator.ts'
import { buildBasic } from '../../src/authn/basic.ts'
import { type Derive, deriveScrypt, hashPassword, type ScryptCost } from '../../src/authn/password-hash.ts'
import { Slots } from '../../src/authn/slots.ts'
import { SidecarError } from '../../src/core/errors.ts'
import type { Identity, Trusted } from '../../src/core/types.ts'
import { type TestAttempt, testAttempt, trusted } from '../support/attempts.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { shown } from '../support/property.ts'

const lineOf = (name: string, password: string, salt: number, N = 2 ** 14): string => {
  const bytes = Buffer.alloc(16, salt)
  const hash = scryptSync(password, bytes, 32, { N, r: 8, p: 1, maxmem: 2 ** 30 })
  return `${name}:scrypt$${N}$8$1$${bytes.toString('base64url')}$${hash.toString('base64url')}`
}
const alice = lineOf('alice', 'correct horse', 1)
const bob = lineOf('bob', 'pässword:with:colons', 2)
const users = `# users\n${alice}\n${bob}\n`

const basic = (text: string | Buffer): string => `Basic ${Buffer.from(text).toString('base64')}`
const request = (authorization: string, clientAddress = '192.0.2.1'): Trusted =>
  trusted({ Authorization: authorization }, { clientAddress })

interface Bench {
  readonly clock: ManualClock
  readonly method: Authenticator
  /** The costs of each derivation there was. */
  readonly derived: ScryptCost[]
  /** Who it is, or the code and reason of the refusal. */
  ask(authorization: string, attempt?: TestAttempt, address?: string): Promise<string | undefined>
}

function bench(text = users, options: { derive?: Derive; slots?: Slots } = {}): Bench {
  const clock = new ManualClock()
  const derived: ScryptCost[] = []
  const derive: Derive = (password, salt, length, cost) => {
    derived.push(cost)
    return (options.derive ?? deriveScrypt)(password, salt, length, cost)
  }
  const method = buildBasic(text, 'users', { clock, derive, slots: options.slots ?? new Slots(2, 64) })
  const ask = async (
    authorization: string,
    attempt = testAttempt(),
    address?: string,
  ): Promise<string | undefined> => {
    try {
      return (await method.authenticate(request(authorization, address), attempt))?.id
    } catch (thrown) {
      if (thrown instanceof SidecarError) return `${thrown.code} ${thrown.detail}`
      throw thrown
    }
  }
  return { clock, method, derived, ask }
}

t.test('a user with the right password is that user', async (t) => {
  const { method, ask } = bench()
  t.equal(await ask(basic('alice:correct horse')), 'basic:alice')
  t.equal(await ask(basic('bob:pässword:with:colons')), 'basic:bob', 'colons and letters of any kind')
  t.equal(await ask(basic('alice:correct horse').replace('Basic', 'bASIC ')), 'basic:alice')
  const identity = await method.authenticate(request(basic('alice:correct horse')), testAttempt())
  t.match(identity, { method: 'basic', kind: 'user', subject: 'alice', groups: [], scopes: undefined })
  t.ok(Object.isFrozen(identity))
  t.notMatch(inspect([method, identity], { depth: 9, showHidden: true }), /correct|AQEBAQ/)
})

t.test('a line that the command made is one', async (t) => {
  const { ask } = bench(`carol:${await hashPassword('s3cret')}`)
  t.equal(await ask(basic('carol:s3cret')), 'basic:carol')
})

t.test('a wrong password and an unknown name are refused, at the same cost', async (t) => {
  const { ask, derived } = bench()
  const attempt = testAttempt()
  t.equal(await ask(basic('alice:wrong'), attempt), 'ERR_AUTH_INVALID basic: a wrong password for alice')
  t.equal(await ask(basic('mallory:wrong'), attempt), 'ERR_AUTH_INVALID basic: an unknown user name')
  t.equal(await ask(basic(':'), attempt), 'ERR_AUTH_INVALID basic: an unknown user name')
  t.same(derived, Array(3).fill({ N: 2 ** 14, r: 8, p: 1 }), 'one derivation each, of equal cost')
  t.equal(attempt.work, 6, 'announced before it waits, and before it is done')
})

t.test('with several costs an unknown name has that of some user, and keeps it', async (t) => {
  const quick: Derive = async (_, _salt, length) => Buffer.alloc(length)
  const { ask, derived } = bench(`${alice}\n${lineOf('dora', 'x', 4, 2 ** 15)}`, { derive: quick })
  const names = Array.from({ length: 40 }, (_, i) => `unknown${i}`)
  for (const name of names) await ask(basic(`${name}:x`))
  const first = derived.map(({ N }) => N)
  t.same([...new Set(first)].toSorted(), [2 ** 14, 2 ** 15])
  for (const name of names) await ask(basic(`${name}:y`))
  t.same(
    derived.slice(names.length).map(({ N }) => N),
    first,
  )
})

t.test('what is no user and password is refused before anything is spent on it', async (t) => {
  const { ask, derived } = bench()
  const attempt = testAttempt()
  const encoded = Buffer.from('alice:correct horse').toString('base64')
  const malformed: Record<string, RegExp> = {
    'Basic !!!!': /not base64/,
    'Basic alice:correct': /not base64/,
    [`Basic ${encoded}=`]: /not base64/,
    [`Basic ${encoded.replace(/=+$/, '')}`]: /not base64/,
    [`Basic ${encoded} ${encoded}`]: /not base64/,
    [`Basic ${encoded}, Basic ${encoded}`]: /not base64/,
    [basic('alice')]: /no colon/,
    [basic('alice:correct\u0000horse')]: /control/,
    [basic('alice\n:x')]: /control/,
    [basic('alice:x\u007f')]: /control/,
    [basic(Buffer.from('alice:\xff', 'latin1'))]: /not UTF-8/,
    'Basic ': /no colon/,
  }
  for (const [header, why] of Object.entries(malformed)) {
    const outcome = await ask(header, attempt)
    t.match(outcome, /^ERR_AUTH_INVALID basic: /, shown(header))
    t.match(outcome, why)
  }
  t.equal(attempt.work, 0)
  t.equal(derived.length, 0)
})

t.test('other schemes are for others', async (t) => {
  const { ask } = bench()
  for (const header of ['Bearer x', 'Basic', 'BasicX YTpi', '']) t.equal(await ask(header), undefined, header)
})

t.test('a password that was verified is known for five minutes, without a promise', async (t) => {
  const { clock, method, ask, derived } = bench()
  const right = basic('alice:correct horse')
  await ask(right)
  clock.pass(299_000)
  const attempt = testAttempt()
  const known = method.authenticate(request(right), attempt)
  t.notOk(known instanceof Promise)
  t.equal((known as Identity).id, 'basic:alice')
  t.equal(attempt.work, 0, 'it costs nothing')
  t.equal(derived.length, 1)
  t.match(await ask(basic('alice:wrong')), 'ERR_AUTH_INVALID')
  t.match(await ask(basic('bob:correct horse')), 'ERR_AUTH_INVALID', 'of nobody else')
  clock.pass(1_001)
  t.equal(await ask(right), 'basic:alice')
  t.equal(derived.length, 4, 'verified anew')
})

t.test(
  'an address with too many failures can neither verify nor guess; who is known there passes',
  async (t) => {
    const { ask, derived } = bench()
    const right = basic('alice:correct horse')
    await ask(right)
    await ask(basic('bob:pässword:with:colons'), testAttempt(), '192.0.2.9')
    const limited = (): TestAttempt => Object.assign(testAttempt(), { limited: true })
    t.equal(await ask(right, limited()), 'basic:alice')
    t.match(await ask(basic('bob:pässword:with:colons'), limited()), 'ERR_RATE_LIMITED', 'known elsewhere')
    for (let i = 0; i < 10; i++) t.match(await ask(basic(`alice:guess${i}`), limited()), 'ERR_RATE_LIMITED')
    t.match(await ask(right, limited()), 'ERR_RATE_LIMITED', 'ten guesses end what was known')
    t.equal(derived.length, 2)
    t.equal(await ask(right), 'basic:alice', 'who may spend something is verified anew')
  },
)

t.test('who waits for a turn is looked at again when it comes', async (t) => {
  const slots = new Slots(1, 64)
  const { ask, derived } = bench(users, { slots })
  const right = basic('alice:correct horse')
  const late = testAttempt()
  const tired = testAttempt()
  const answers = [
    ask(right),
    ask(right),
    ask(basic('alice:wrong'), late, '192.0.2.2'),
    ask(basic('alice:wrong'), tired, '192.0.2.3'),
    ask(basic('bob:pässword:with:colons'), testAttempt(), '192.0.2.4'),
  ]
  late.limited = true
  tired.controller.abort()
  t.same(await Promise.all(answers), [
    'basic:alice',
    'basic:alice',
    'ERR_RATE_LIMITED undefined',
    'ERR_AUTH_INVALID basic: no time was left to verify the password',
    'basic:bob',
  ])
  t.equal(derived.length, 2, 'the second is the first, the third and fourth are too late')
})

t.test('beyond what may wait it is too much', async (t) => {
  const { ask } = bench(users, { slots: new Slots(1, 1) })
  const answers = await Promise.all(
    [1, 2, 3].map((n) => ask(basic(`alice:wrong${n}`), testAttempt(), `192.0.2.${n}`)),
  )
  t.match(answers, [/^ERR_AUTH_INVALID/, /^ERR_AUTH_INVALID/, /^ERR_OVERLOADED/])
})

t.test('one address cannot take the whole queue, so that few strangers lock nobody out', async (t) => {
  const { ask } = bench(users, { slots: new Slots(1, 64) })
  const hosts = Array.from({ length: 100 }, (_, i) => `2001:db8::${i + 1}`)
  const strangers = hosts.map((host) => ask(basic('alice:wrong'), testAttempt(), host))
  const other = ask(basic('alice:correct horse'), testAttempt(), '192.0.2.2')
  const codes = await Promise.all(strangers)
  t.equal(codes.filter((code) => code?.startsWith('ERR_OVERLOADED')).length, 67, 'one at work and half of 64')
  t.equal(await other, 'basic:alice')
})

t.test('an identity is vouched for as long as its line stands', async (t) => {
  const { method } = bench()
  const identity = (await method.authenticate(
    request(basic('alice:correct horse')),
    testAttempt(),
  )) as Identity
  t.ok(bench().method.vouchesFor(identity))
  t.notOk(bench(lineOf('alice', 'correct horse', 9)).method.vouchesFor(identity), 'the same password anew')
  t.notOk(bench(bob).method.vouchesFor(identity))
  t.notOk(method.vouchesFor({ ...identity, method: 'bearer' }))
  t.notOk(method.vouchesFor({ ...identity, subject: 'bob' }))
})

t.test('a mistake in the file is told with its line', async (t) => {
  const build = (text: string) => () => buildBasic(text, 'users', { clock: new ManualClock() })
  t.throws(build(`${alice}\nbob:hunter2`), { name: 'SecretFileError', message: /^users:2: what follows/ })
  t.throws(build(`${alice}\nalice:${bob.slice(4)}`), { message: /^users:2: this name stands twice/ })
  t.throws(build(alice.slice(6)), { message: /^users:1: a user without a name/ })
  t.throws(build('# none'), { message: /^users: there is no user/ })
})
