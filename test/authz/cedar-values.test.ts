import fc from 'fast-check'
import t from 'tap'
import {
  cedarNumber,
  cedarNumberText,
  cedarText,
  cedarValue,
  Unreadable,
} from '../../src/authz/cedar-values.ts'
import { cpuMs } from '../support/cost.ts'
import { holds } from '../support/property.ts'

const decimal = (arg: string): object => ({ __extn: { fn: 'decimal', arg } })
const refused = (value: unknown): string | undefined => (value instanceof Unreadable ? value.why : undefined)

t.test('an integer is a Long, another number a decimal', async (t) => {
  t.equal(cedarNumber(5, false), 5)
  t.equal(cedarNumber(-(2 ** 53) + 1, false), -9007199254740991)
  t.same(cedarNumber(0.5, false), decimal('0.5'))
  t.same(cedarNumber(-12.3456, false), decimal('-12.3456'))
})

t.test('as ToolHive has them, all numbers are decimal', async (t) => {
  t.same(cedarNumber(5, true), decimal('5.0'))
  t.same(cedarNumber(-0, true), decimal('0.0'))
  t.same(cedarNumber(1.25, true), decimal('1.25'))
  t.same(cedarNumber(922_337_203_685_477, true), decimal('922337203685477.0'))
})

t.test('a number that Cedar cannot hold exactly is no value', async (t) => {
  for (const value of [0.12345, 1e-7, 2 ** 53, 1e300, 1e15 + 0.5, Number.NaN, Number.POSITIVE_INFINITY])
    t.ok(refused(cedarNumber(value, false)), `${value}`)
  for (const value of [922_337_203_685_478, 2 ** 52]) t.ok(refused(cedarNumber(value, true)), `${value}`)
})

t.test('a number is the one that its text says, or none', async (t) => {
  for (const [text, value] of [
    ['12', 12],
    ['-0', -0],
    ['1.0', 1],
    ['1e3', 1000],
    ['15e-1', decimal('1.5')],
    ['9007199254740991', 9007199254740991],
    ['0.1', decimal('0.1')],
    ['0.10000', decimal('0.1')],
  ] as const) {
    t.same(cedarNumberText(text, false), value, text)
  }
  for (const text of [
    ...['9007199254740993', '12345678901234567890', '0.99999999999999999999', '1.00000000000000000001'],
    ...['0.12345', '1e400', '1e-400', '123456789012.12345'],
  ]) {
    t.ok(refused(cedarNumberText(text, false)), text)
  }
})

t.test('whatever the number, it is held exactly or not at all', async (t) => {
  const digits = fc.tuple(fc.boolean(), fc.bigInt({ min: 0n, max: 10n ** 22n }), fc.nat(8))
  holds(
    t,
    fc.property(digits, ([minus, all, scale]) => {
      const padded = String(all).padStart(scale + 1, '0')
      const whole = padded.slice(0, padded.length - scale)
      const fraction = padded.slice(padded.length - scale)
      const text = `${minus ? '-' : ''}${whole}${scale > 0 ? `.${fraction}` : ''}`
      const value = cedarNumberText(text, false)
      if (value instanceof Unreadable) return true
      const held = typeof value === 'number' ? `${value}` : (value as { __extn: { arg: string } }).__extn.arg
      const [heldWhole = '', heldFraction = ''] = held.replace('-', '').split('.')
      const same = BigInt(heldWhole + heldFraction.padEnd(8, '0')) === BigInt(whole + fraction.padEnd(8, '0'))
      return same && (held.startsWith('-') === minus || all === 0n)
    }),
    1000,
  )
})

t.test('strings are passed on if they are well-formed and not too long', async (t) => {
  t.equal(cedarText('é😀'), 'é😀')
  t.match(refused(cedarText('\ude00')), /Unicode/)
  t.match(refused(cedarText('x'.repeat(65_537))), /more than 65536/)
})

t.test('lists and objects become sets and records; null is absent', async (t) => {
  t.same(cedarValue({ a: [1, 'x', true, null, 0.5], b: null, c: { d: {} } }, false), {
    a: [1, 'x', true, decimal('0.5')],
    c: { d: {} },
  })
  t.equal(cedarValue(null, false), undefined)
  t.equal(cedarValue(undefined, false), undefined)
})

t.test('an object can be no entity and no extension value', async (t) => {
  for (const name of ['__entity', '__extn', '__expr'])
    t.match(refused(cedarValue({ a: [{ [name]: { type: 'Client', id: 'root' } }] }, false)), new RegExp(name))
})

t.test('values nest ten deep', async (t) => {
  const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)])
  t.notOk(refused(cedarValue(nested(10), false)))
  t.match(refused(cedarValue(nested(11), false)), /deeper than 10/)
  t.match(refused(cedarValue({ a: { '\ud800': 1 } }, false)), /Unicode/)
})

t.test('megabytes of digits cost nothing', async (t) => {
  const digits = `1.${'0'.repeat(4_000_000)}1`
  t.ok(cedarNumberText(digits, false) instanceof Unreadable)
  t.ok(cpuMs(() => cedarNumberText(digits, false)) < 500)
})
