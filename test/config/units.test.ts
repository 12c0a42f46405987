import fc from 'fast-check'
import t from 'tap'
import type { Parsed } from '../../src/config/parsed.ts'
import {
  DURATION,
  formatQuantity,
  parseQuantity,
  quantityPattern,
  type Scale,
  SIZE,
} from '../../src/config/units.ts'

function message(parsed: Parsed<unknown>): string | undefined {
  return parsed.ok ? undefined : parsed.faults[0]?.message
}

t.test('a number with a unit is read in milliseconds or bytes', async (t) => {
  const cases: [Scale, string, number][] = [
    [DURATION, '250ms', 250],
    [DURATION, '60s', 60_000],
    [DURATION, '10m', 600_000],
    [DURATION, '1h', 3_600_000],
    [DURATION, '1d', 86_400_000],
    [DURATION, '0s', 0],
    [SIZE, '500B', 500],
    [SIZE, '64KiB', 65_536],
    [SIZE, '4MiB', 4_194_304],
    [SIZE, '1GiB', 1_073_741_824],
    [SIZE, '64KB', 64_000],
    [SIZE, '4MB', 4_000_000],
    [SIZE, '1GB', 1_000_000_000],
  ]
  for (const [scale, text, value] of cases) t.same(parseQuantity(scale, text), { ok: true, value }, text)
})

t.test('anything else is refused with what would be right', async (t) => {
  const cases: [Scale, unknown, string][] = [
    [DURATION, 60, '60 has no unit: write 60s'],
    [DURATION, '60', '60 has no unit: write 60s'],
    [DURATION, 60_000, '60000 has no unit: write 60000ms or 60000s'],
    [DURATION, '10min', '"10min" is not a duration: write 10m'],
    [DURATION, '5 minutes', '"5 minutes" is not a duration: write 5m'],
    [DURATION, '10 s', '"10 s" is not a duration: write 10s'],
    [DURATION, ' 10s', '" 10s" is not a duration: write 10s'],
    [DURATION, '1H', '"1H" is not a duration: write 1h'],
    [DURATION, '20 millis', '"20 millis" is not a duration: write 20ms'],
    [SIZE, 4_194_304, '4194304 has no unit: write 4MiB'],
    [SIZE, 4, '4 has no unit: write 4MiB'],
    [SIZE, 5000, '5000 has no unit: write 5000B'],
    [SIZE, '4mb', '"4mb" is not a size: write 4MB'],
    [SIZE, '4M', '"4M" is not a size: write 4MiB'],
    [SIZE, '4mib', '"4mib" is not a size: write 4MiB'],
    [SIZE, '4 GiB', '"4 GiB" is not a size: write 4GiB'],
    [
      DURATION,
      '1w',
      '"1w" is not a duration: write a whole number and a unit, as in 250ms, 60s, 10m, 1h, 1d',
    ],
    [DURATION, 1.5, '1.5 is not a duration: write a whole number and a unit, as in 250ms, 60s, 10m, 1h, 1d'],
    [DURATION, -1, '-1 is not a duration: write a whole number and a unit, as in 250ms, 60s, 10m, 1h, 1d'],
    [SIZE, '1TiB', '"1TiB" is not a size: write a whole number and a unit, as in 64KiB, 4MiB, 1GiB'],
    [
      SIZE,
      '1constructor',
      '"1constructor" is not a size: write a whole number and a unit, as in 64KiB, 4MiB, 1GiB',
    ],
    [SIZE, '', '"" is not a size: write a whole number and a unit, as in 64KiB, 4MiB, 1GiB'],
    [SIZE, null, 'must be a size such as 64KiB, 4MiB, 1GiB'],
    [DURATION, true, 'must be a duration such as 250ms, 60s, 10m, 1h, 1d'],
    [DURATION, ['1s'], 'must be a duration such as 250ms, 60s, 10m, 1h, 1d'],
  ]
  for (const [scale, input, expected] of cases)
    t.equal(message(parseQuantity(scale, input)), expected, JSON.stringify(input))
})

t.test('what is written is read back as the same number', async () => {
  for (const scale of [DURATION, SIZE])
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 10 ** 12 - 1 }), (value) => {
        const parsed = parseQuantity(scale, formatQuantity(scale, value))
        return parsed.ok && parsed.value === value
      }),
    )
})

t.test('the largest unit that leaves a whole number is written', async (t) => {
  t.equal(formatQuantity(DURATION, 90_000), '90s')
  t.equal(formatQuantity(DURATION, 86_400_000), '1d')
  t.equal(formatQuantity(DURATION, 0), '0ms')
  t.equal(formatQuantity(SIZE, 1_048_577), '1048577B')
})

t.test('the pattern for editors accepts exactly what is accepted', async () => {
  const unit = fc.constantFrom('ms', 's', 'm', 'h', 'd', 'B', 'KB', 'KiB', 'MiB', 'GB', 'mb', '', ' s')
  const number = fc.oneof(fc.integer({ min: -5, max: 1e13 }).map(String), fc.constantFrom('', '1.5', '007'))
  for (const scale of [DURATION, SIZE])
    fc.assert(
      fc.property(number, unit, fc.constantFrom('', ' ', '\n'), (digits, letters, rest) => {
        const text = digits + letters + rest
        return quantityPattern(scale).test(text) === parseQuantity(scale, text).ok
      }),
    )
})
