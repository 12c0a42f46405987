import { scryptSync } from 'node:crypto'
import { inspect } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { type Derive, deriveScrypt, hashPassword, PasswordHash } from '../../src/authn/password-hash.ts'
import { holds } from '../support/property.ts'

const salt = Buffer.alloc(16, 1)
const salt64 = salt.toString('base64url')
const hash64 = Buffer.alloc(32, 2).toString('base64url')

/** As another implementation would have made it. */
function lineOf(password: string, N = 2 ** 14, p = 1): string {
  const hash = scryptSync(password, salt, 32, { N, r: 8, p, maxmem: 2 ** 30 })
  return `scrypt$${N}$8$${p}$${salt64}$${hash.toString('base64url')}`
}

t.test('what was hashed is verified, and nothing else', async (t) => {
  const line = await hashPassword('correct horse')
  t.match(line, /^scrypt\$32768\$8\$3\$[\w-]{22}\$[\w-]{43}$/)
  const hash = PasswordHash.parse(line, 'users:1')
  t.ok(await hash.matches('correct horse', deriveScrypt))
  t.notOk(await hash.matches('correct horse ', deriveScrypt))
  t.not(await hashPassword('correct horse'), line, 'every hash has a salt of its own')
})

t.test('hashes of other implementations are verified, up to the highest cost', async (t) => {
  for (const [N, p] of [
    [2 ** 14, 1],
    [2 ** 14, 4],
    [2 ** 18, 1],
  ] as const) {
    const hash = PasswordHash.parse(lineOf('pässword', N, p), 'users:1')
    t.ok(await hash.matches('pässword', deriveScrypt), `N ${N}, p ${p}`)
    t.notOk(await hash.matches('password', deriveScrypt))
  }
})

t.test('the same text is the same password, however it is composed', async (t) => {
  const hash = PasswordHash.parse(lineOf('caf\u00e9'), 'users:1')
  t.ok(await hash.matches('cafe\u0301', deriveScrypt))
})

t.test('what no client could send is not hashed', async (t) => {
  for (const [password, why] of [
    ['', 'empty'],
    ['secret\n', 'control characters'],
    ['a\u0000b', 'control characters'],
    ['x'.repeat(1025), '1024 bytes'],
    ['é'.repeat(513), '1024 bytes'],
  ] as const) {
    await t.rejects(hashPassword(password), { name: 'PasswordError', message: new RegExp(why) })
  }
})

t.test('costs that are too low to protect or too high to afford are refused', async (t) => {
  const parse = (cost: string): PasswordHash =>
    PasswordHash.parse(`scrypt$${cost}$${salt64}$${hash64}`, 'users:7')
  for (const cost of ['16384$8$1', '262144$8$4', '131072$8$1']) t.ok(parse(cost), cost)
  for (const [cost, why] of [
    ['8192$8$1', 'N must be a power of two'],
    ['524288$8$1', 'N must be'],
    ['20000$8$1', 'N must be'],
    ['0$8$1', 'N must be'],
    ['16384$1$1', 'r must be 8'],
    ['16384$32$1', 'r must be 8'],
    ['16384$8$0', 'p must be 1 to 4'],
    ['16384$8$5', 'p must be 1 to 4'],
  ] as const) {
    t.throws(() => parse(cost), { name: 'SecretFileError', message: new RegExp(`^users:7: ${why}`) }, cost)
  }
})

t.test('anything else is no hash, and the error repeats none of it', async (t) => {
  const ok = `scrypt$16384$8$1$${salt64}$${hash64}`
  const wrong = [
    ...['', 'hunter2', 'scrypt$', `${ok}$x`, ` ${ok}`, ok.toUpperCase(), ok.replace('scrypt', 'bcrypt')],
    ...[ok.replace('16384', '-16384'), ok.replace('16384', '1e5'), ok.replace('$8$', '$8.0$')],
    ...[`${ok}=`, ok.replace(salt64, salt64.slice(0, 10)), ok.replace(hash64, hash64.slice(0, 20))],
    ...[ok.replace(salt64, `${salt64.slice(0, -1)}R`), `scrypt$16384$8$1$${hash64.repeat(3)}$${hash64}`],
    ...[
      `scrypt$16384$8$1$${salt64}$${hash64.repeat(3)}`,
      ok.replace(salt64, ''),
      `${'9'.repeat(10_000)}${ok}`,
    ],
  ]
  for (const text of wrong) {
    try {
      PasswordHash.parse(text, 'users:1')
      t.fail(text)
    } catch (thrown) {
      t.match(thrown, { name: 'SecretFileError', message: /^users:1: .*mcp-sidecar hash/ })
      if (text.length > 8) t.notMatch((thrown as Error).message, text)
    }
  }
})

t.test('a hash shows nothing of itself; its fingerprint is that of the entry', async (t) => {
  const hash = PasswordHash.parse(`scrypt$16384$8$1$${salt64}$${hash64}`, 'users:1')
  for (const shown of [JSON.stringify(hash), inspect(hash, { depth: 9, showHidden: true }), String(hash)]) {
    t.notMatch(shown, salt64)
    t.notMatch(shown, hash64)
    t.notMatch(shown, /0202/)
  }
  t.match(hash.fingerprint, /^[0-9a-f]{12}$/)
  const other = Buffer.alloc(32, 3).toString('base64url')
  t.not(PasswordHash.parse(`scrypt$16384$8$1$${salt64}$${other}`, 'x').fingerprint, hash.fingerprint)
})

t.test('a hash that nobody has costs what its model costs and matches nothing', async (t) => {
  const costs: unknown[] = []
  const counting: Derive = async (_, salt, length, cost) => {
    costs.push([salt.length, length, cost])
    return Buffer.alloc(length)
  }
  const model = PasswordHash.parse(lineOf('x', 2 ** 15, 2), 'users:1')
  await model.matches('x', counting)
  t.notOk(await model.unmatched().matches('x', counting))
  t.same(costs[0], [16, 32, { N: 2 ** 15, r: 8, p: 2 }])
  t.same(costs[1], costs[0])
  t.notOk(await model.unmatched().matches('x', deriveScrypt))
})

t.test('no text makes the parser do anything but accept or refuse', async (t) => {
  const part = fc.oneof(fc.constantFrom('scrypt', '16384', '8', '1', salt64, hash64, ''), fc.string())
  holds(
    t,
    fc.property(fc.array(part, { maxLength: 7 }), (parts) => {
      const text = parts.join('$')
      try {
        PasswordHash.parse(text, 'w')
        return text === `scrypt$16384$8$1$${parts[4]}$${parts[5]}`
      } catch (thrown) {
        return (thrown as Error).name === 'SecretFileError'
      }
    }),
    500,
  )
})
