import { bad, good, type Parsed, quote } from './parsed.ts'

/** A family of units. `factors` runs from the smallest unit to the largest. */
export interface Scale {
  readonly noun: 'duration' | 'size'
  readonly factors: Readonly<Record<string, number>>
  /** The units to write numbers in, largest last; the rest is only read. */
  readonly written: readonly string[]
  /** The examples that an error message and the reference show. */
  readonly examples: readonly string[]
  /** What to write for a number without a unit. */
  readonly complete: (value: number) => string
  /** The unit that was probably meant by one that does not exist. */
  readonly guess: (unit: string) => string | undefined
}

/** Milliseconds. */
export const DURATION: Scale = {
  noun: 'duration',
  factors: { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 },
  written: ['ms', 's', 'm', 'h', 'd'],
  examples: ['250ms', '60s', '10m', '1h', '1d'],
  // From a thousand up the writer may well have thought in milliseconds: guessing wrong would be off by 1000.
  complete: (value) => (value >= 1000 ? `${value}ms or ${value}s` : `${value}s`),
  guess: (unit) => {
    const lower = unit.toLowerCase()
    if (/^(ms|milli)/.test(lower)) return 'ms'
    return /^(s|sec|secs|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)$/.test(lower) ? lower[0] : undefined
  },
}

/** Bytes: KiB is 1024 bytes, KB is 1000. */
export const SIZE: Scale = {
  noun: 'size',
  factors: { B: 1, KB: 1e3, KiB: 2 ** 10, MB: 1e6, MiB: 2 ** 20, GB: 1e9, GiB: 2 ** 30 },
  written: ['B', 'KiB', 'MiB', 'GiB'],
  examples: ['64KiB', '4MiB', '1GiB'],
  complete: (value) => (value >= 1024 ? formatQuantity(SIZE, value) : `${value}MiB`),
  guess: (unit) => {
    const match = /^([kmg])(i?)(b?)$/i.exec(unit)
    if (match?.[1] === undefined) return undefined
    // `4M` is the binary unit to some and the decimal one to others; the binary one is the usual for memory.
    return `${match[1].toUpperCase()}${match[3] !== '' && match[2] === '' ? 'B' : 'iB'}`
  },
}

/** The spelling `parseQuantity` accepts, as a regular expression that the JSON Schema can carry too. */
export function quantityPattern(scale: Scale): RegExp {
  return new RegExp(`^[0-9]{1,12}(${Object.keys(scale.factors).join('|')})$`)
}

/** Reads `60s` as 60000, `4MiB` as 4194304. Whole numbers only; a number without a unit is refused. */
export function parseQuantity(scale: Scale, input: unknown): Parsed<number> {
  const text = typeof input === 'number' ? String(input) : input
  if (typeof text !== 'string') return bad(`must be a ${scale.noun} such as ${scale.examples.join(', ')}`)
  const match = /^([0-9]{1,12})(?:(\s*)([A-Za-z]+))?$/.exec(text.trim())
  if (match?.[1] !== undefined) {
    const unit = match[3]
    if (unit === undefined) return bad(`${match[1]} has no unit: write ${scale.complete(Number(match[1]))}`)
    const factor = Object.hasOwn(scale.factors, unit) ? scale.factors[unit] : undefined
    if (factor !== undefined && `${match[1]}${unit}` === text) return good(Number(match[1]) * factor)
    const meant = factor === undefined ? scale.guess(unit) : unit
    if (meant !== undefined) return bad(`${quote(text)} is not a ${scale.noun}: write ${match[1]}${meant}`)
  }
  return bad(
    `${quote(input)} is not a ${scale.noun}: write a whole number and a unit, as in ${scale.examples.join(', ')}`,
  )
}

/** Writes 60000 as `1m`, 4194304 as `4MiB`: the largest unit that leaves a whole number. */
export function formatQuantity(scale: Scale, value: number): string {
  for (const unit of scale.written.toReversed()) {
    const factor = scale.factors[unit] ?? 1
    if (value >= factor && value % factor === 0) return `${value / factor}${unit}`
  }
  return `${value}${scale.written[0]}`
}
