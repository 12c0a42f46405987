import { object, optional, required, type TypeOf } from '../object.ts'
import { bad, good, type Parsed, quote } from '../parsed.ts'
import { DURATION, formatQuantity } from '../units.ts'
import { flag, text, type ValueType } from '../values.ts'

const MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
/** Beyond, timers overflow. */
const LONGEST_MS = 24 * 86_400_000

/** A duration as Go writes it (`30s`, `1m30s`), with days too. At least 1 ms, at most 24 days. */
export const goDuration: ValueType<number> = {
  name: 'duration',
  json: { type: 'string' },
  parse: (input) => {
    const refused: Parsed<number> = bad(`${quote(input)} is not a duration such as 30s, 1m30s or 1d`)
    if (typeof input !== 'string' || !/^([0-9]{1,9}(\.[0-9]{1,9})?(ms|[smhd]))+$/.test(input)) return refused
    let total = 0
    for (const [, count, unit] of input.matchAll(/([0-9.]+)(ms|[smhd])/g))
      total += Number(count) * (MS[unit ?? ''] ?? 0)
    return total >= 1 && total <= LONGEST_MS
      ? good(Math.round(total))
      : bad(`${quote(input)} is out of range: 1ms to 24d`)
  },
  parseText: (input) => goDuration.parse(input),
  show: (value) => formatQuantity(DURATION, value),
}

const NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/

/** The name of an object in Kubernetes (RFC 1123 subdomain); never a path. */
export const objectName: ValueType<string> = text('name', {}, (input) =>
  NAME.test(input) && !input.includes('..')
    ? good(input)
    : bad(`${quote(input)} is not the name of a Kubernetes object`),
)

/** A key of a Secret or ConfigMap; never a path. */
export const objectKey: ValueType<string> = text('key', {}, (input) =>
  /^[-._a-zA-Z0-9]{1,253}$/.test(input) && !input.startsWith('..') && input !== '.'
    ? good(input)
    : bad(`${quote(input)} is not a key of a Secret or ConfigMap`),
)

/** A value in a Secret or ConfigMap. */
export const reference = object({
  name: required(objectName, 'Name of the Secret or ConfigMap.'),
  key: required(objectKey, 'Key in it.'),
  optional: optional(flag, 'false', 'Whether it may be missing.'),
})

export type Reference = TypeOf<typeof reference>
