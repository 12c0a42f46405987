import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { createSeal } from '../../src/bridge/seal.ts'
import { holds } from '../support/property.ts'

const key = randomBytes(32)
const state = { kind: 'parked', principal: 'é\u2028', call: 'c', round: 1, '': [1.5, null] }

t.test('what was sealed comes out again, with the same key also elsewhere', async (t) => {
  const text = createSeal(key).seal(state)
  t.same(createSeal(key).open(text), state)
  const own = createSeal()
  t.same(own.open(own.seal(state)), state)
  holds(
    t,
    fc.property(fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue()), (each) => {
      const seal = createSeal(key)
      return JSON.stringify(seal.open(seal.seal(each))) === JSON.stringify(each)
    }),
    300,
  )
})

t.test('it tells nothing and is never the same twice', async (t) => {
  const seal = createSeal(key)
  const texts = Array.from({ length: 100 }, () => seal.seal({ secret: 'principal-alice' }))
  t.equal(new Set(texts.map((text) => text.split('.')[2])).size, 100, 'a fresh nonce each time')
  for (const text of texts) {
    t.match(text, /^[\w-]+\.\.[\w-]+\.[\w-]+\.[\w-]+$/)
    const decoded = text.split('.').map((part) => Buffer.from(part, 'base64url').toString('latin1'))
    t.notMatch(decoded.join(), /alice|secret/)
  }
  t.same(JSON.parse(Buffer.from(texts[0]?.split('.')[0] ?? '', 'base64url').toString()), {
    alg: 'dir',
    enc: 'A256GCM',
  })
})

t.test('another key opens nothing', async (t) => {
  const text = createSeal(key).seal(state)
  const almost = Buffer.from(key)
  almost[31] = (almost[31] as number) ^ 1
  for (const other of [
    createSeal(),
    createSeal(almost),
    createSeal(randomBytes(32)),
    createSeal(Buffer.alloc(32)),
  ])
    t.equal(other.open(text), undefined)
})

t.test('not one character may change', async (t) => {
  const seal = createSeal(key)
  const text = seal.seal(state)
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. \n\0é'
  let opened = 0
  for (let at = 0; at < text.length; at++) {
    for (const c of alphabet) {
      if (c === text[at]) continue
      if (seal.open(text.slice(0, at) + c + text.slice(at + 1)) !== undefined) opened++
    }
    if (seal.open(text.slice(0, at)) !== undefined) opened++
    if (seal.open(text.slice(at + 1)) !== undefined) opened++
    if (seal.open(text.slice(0, at) + text.slice(at + 1)) !== undefined) opened++
    for (const c of ['A', '.', '=', ' '])
      if (seal.open(text.slice(0, at) + c + text.slice(at)) !== undefined) opened++
  }
  t.equal(opened, 0)
  t.same(seal.open(text), state)
})

t.test('not one bit of any part', async (t) => {
  const seal = createSeal(key)
  const parts = seal.seal(state).split('.')
  let opened = 0
  for (const which of [0, 2, 3, 4]) {
    const bytes = Buffer.from(parts[which] as string, 'base64url')
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = Buffer.from(bytes)
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7))
      if (seal.open(parts.with(which, changed.toString('base64url')).join('.')) !== undefined) opened++
    }
  }
  t.equal(opened, 0)
})

t.test('parts of two seals do not fit together', async (t) => {
  const seal = createSeal(key)
  const [a, b] = [seal.seal(state), seal.seal({ ...state, principal: 'bob' })].map((text) =>
    text.split('.'),
  ) as [string[], string[]]
  for (const which of [2, 3, 4]) t.equal(seal.open(a.with(which, b[which] as string).join('.')), undefined)
})

t.test('a seal has one spelling', async (t) => {
  const seal = createSeal(key)
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
  // Long enough that each part ends with unused bits in some of them.
  for (let pad = 0; pad < 6; pad++) {
    const parts = seal.seal({ x: 'y'.repeat(pad) }).split('.')
    for (const which of [2, 3, 4]) {
      const part = parts[which] as string
      const same = [...alphabet].map((c) => part.slice(0, -1) + c).filter((each) => each !== part)
      const spellings = [
        ...same.filter((each) => Buffer.from(each, 'base64url').equals(Buffer.from(part, 'base64url'))),
        ...[`${part}=`, `${part}==`, ` ${part}`, `${part}\n`, `${part}*`],
        ...[part.replaceAll('-', '+').replaceAll('_', '/')].filter((each) => each !== part),
      ]
      for (const each of spellings) t.equal(seal.open(parts.with(which, each).join('.')), undefined)
    }
  }
})

t.test('and one length of its parts', async (t) => {
  const seal = createSeal(key)
  const parts = seal.seal(state).split('.')
  const cut = (which: number, by: number): string => {
    const bytes = Buffer.from(parts[which] as string, 'base64url')
    const kept = by > 0 ? bytes.subarray(0, bytes.length - by) : Buffer.concat([bytes, Buffer.alloc(-by)])
    return parts.with(which, kept.toString('base64url')).join('.')
  }
  // GCM would take a tag of four bytes, which can be guessed.
  for (const by of [-4, -1, 1, 4, 8, 12, 16]) {
    t.equal(seal.open(cut(4, by)), undefined, `tag shorter by ${by}`)
    if (by <= 12) t.equal(seal.open(cut(2, by)), undefined, `nonce shorter by ${by}`)
    t.equal(seal.open(cut(3, by)), undefined, `text shorter by ${by}`)
  }
})

t.test('anything else is nothing', async (t) => {
  const seal = createSeal(key)
  const text = seal.seal(state)
  const [header, , iv, body, tag] = text.split('.')
  const other = Buffer.from('{"enc":"A256GCM","alg":"dir"}').toString('base64url')
  const none = Buffer.from('{"alg":"none"}').toString('base64url')
  for (const each of [
    ...['', '.', '....', '.....', 'x', `${text}.`, `.${text}`, `${text}.x`, 'null', '__proto__'],
    `${header}.x.${iv}.${body}.${tag}`,
    `${header}.${iv}.${body}.${tag}`,
    `..${iv}.${body}.${tag}`,
    `${other}..${iv}.${body}.${tag}`,
    `${none}..${iv}.${body}.${tag}`,
    `${header}..${iv}..${tag}`,
    `${header}....`,
    `${text}${'A'.repeat(3 * 1024 * 1024)}`,
    'A'.repeat(10 * 1024 * 1024),
    '.'.repeat(10 * 1024 * 1024),
  ])
    t.equal(seal.open(each), undefined, each.slice(0, 40))
  holds(
    t,
    fc.property(fc.string({ unit: 'binary' }), (each) => seal.open(each) === undefined),
    500,
  )
})

t.test('whatever can be sealed can be opened', async (t) => {
  const seal = createSeal(key)
  for (const size of [1000, 100_000, 1_000_000]) {
    const big = { state: 'x'.repeat(size) }
    t.ok((seal.open(seal.seal(big)) as typeof big | undefined)?.state === big.state, String(size))
  }
  t.throws(() => seal.seal({ state: 'x'.repeat(2_000_000) }), { code: 'ERR_UPSTREAM_MESSAGE' })
})
