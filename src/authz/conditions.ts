import { RE2JS } from 're2js'
import { addressSet, plainAddress } from '../core/net.ts'
import type { Condition } from '../core/policy.ts'
import type { Clock, Received } from '../core/types.ts'
import { quoted } from './fault.ts'

/** Whether a request meets a condition. */
export type ConditionCheck = (request: Received) => boolean

/**
 * | type | value | operators |
 * | --- | --- | --- |
 * | IPAddress | comma list of addresses and networks | Equal, In: in one of them; NotEqual, NotIn: in none |
 * | TimeOfDay | comma list of `HH:MM-HH:MM`, then an IANA time zone (default UTC) | the same |
 * | RequestHeader | a text, a comma list (In, NotIn), an RE2 pattern for the whole value (Matches, NotMatches) | all |
 *
 * A range of times includes its start and excludes its end; an end before the start is on the next day. A request
 * without the header meets the negative operators alone, one with the header twice meets none, and an address that
 * cannot be read meets none.
 *
 * @throws Error for a value, an operator or a type that is none of these
 */
export function compileCondition(condition: Condition, clock: Pick<Clock, 'epoch'>): ConditionCheck {
  switch (condition.type) {
    case 'IPAddress':
      return address(condition)
    case 'TimeOfDay':
      return timeOfDay(condition, clock)
    case 'RequestHeader':
      return header(condition)
  }
  throw new Error(
    `the type ${quoted(condition.type)} is unknown: IPAddress, TimeOfDay and RequestHeader are known`,
  )
}

/** True where the value must be among those that the condition names, false where it must not. */
function isPositive({ type, operator }: Condition): boolean {
  switch (operator) {
    case 'Equal':
    case 'In':
      return true
    case 'NotEqual':
    case 'NotIn':
      return false
    case 'Matches':
    case 'NotMatches':
      throw new Error(`${operator} is for RequestHeader: of ${type} say Equal, NotEqual, In or NotIn`)
  }
  throw new Error(`the operator ${quoted(operator)} is unknown`)
}

function items(value: string): string[] {
  const found = value.split(',').map((item) => item.trim())
  if (found.includes('')) throw new Error(`the list ${quoted(value)} is empty, or has an empty entry`)
  return found
}

function address(condition: Condition): ConditionCheck {
  const positive = isPositive(condition)
  const networks = addressSet(items(condition.value))
  return ({ clientAddress }) => {
    if (networks.has(clientAddress)) return positive
    return !positive && plainAddress(clientAddress) !== undefined
  }
}

const minutesPerDay = 24 * 60

function timeOfDay(condition: Condition, clock: Pick<Clock, 'epoch'>): ConditionCheck {
  const positive = isPositive(condition)
  const [, ranges = condition.value, zone = 'UTC'] = /^(.*\S)\s+([A-Za-z]\S*)\s*$/.exec(condition.value) ?? []
  const within = new Uint8Array(minutesPerDay)
  for (const range of items(ranges)) {
    const [start, end] = minutesOf(range)
    for (let at = start; at !== end; at = (at + 1) % minutesPerDay) within[at] = 1
  }
  const local = localMinute(zone)
  return () => (within[local(clock.epoch())] === 1) === positive
}

function minutesOf(range: string): [number, number] {
  const match = /^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$/.exec(range)
  if (match === null)
    throw new Error(
      `${quoted(range)} is no range of times: write 09:00-17:30, from 00:00 to 23:59, each once`,
    )
  const [, h1, m1, h2, m2] = match.map(Number) as [number, number, number, number, number]
  const [start, end] = [h1 * 60 + m1, h2 * 60 + m2]
  if (start === end)
    throw new Error(`${quoted(range)} begins where it ends: leave the condition out for all day`)
  return [start, end]
}

/** The minute of the day in a time zone, worked out once a minute. */
function localMinute(zone: string): (epoch: number) => number {
  const format = timeFormat(zone)
  let known = Number.NaN
  let local = 0
  return (epoch) => {
    const minute = Math.floor(epoch / 60_000)
    if (minute !== known) {
      const [hours, minutes] = format.format(minute * 60_000).split(':')
      local = Number(hours) * 60 + Number(minutes)
      known = minute
    }
    return local
  }
}

function timeFormat(zone: string): Intl.DateTimeFormat {
  try {
    const digits = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' } as const
    return new Intl.DateTimeFormat('en-US', { timeZone: zone, ...digits })
  } catch (cause) {
    throw new Error(`${quoted(zone)} is no IANA time zone such as Europe/Berlin`, { cause })
  }
}

const fieldName = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

function header(condition: Condition): ConditionCheck {
  const { key, value, operator } = condition
  if (key === undefined || !fieldName.test(key))
    throw new Error(`RequestHeader needs the name of a header as its key, and not ${quoted(key ?? '')}`)
  const name = key.toLowerCase()
  const fits = valueCheck(value, operator)
  const positive = operator === 'Matches' || (operator !== 'NotMatches' && isPositive(condition))
  return ({ rawHeaders }) => {
    let found: string | undefined
    for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
      const each = rawHeaders[i] as string
      if (each.length !== name.length || each.toLowerCase() !== name) continue
      if (found !== undefined) return false
      found = rawHeaders[i + 1] as string
    }
    return found === undefined ? !positive : fits(found) === positive
  }
}

function valueCheck(value: string, operator: Condition['operator']): (text: string) => boolean {
  switch (operator) {
    case 'In':
    case 'NotIn': {
      const among = new Set(items(value))
      return (text) => among.has(text)
    }
    case 'Matches':
    case 'NotMatches':
      return pattern(value)
  }
  return (text) => text === value
}

/** Instructions of a compiled pattern; the time for a match is at most this times the length of the header. */
const maxProgram = 2500

function pattern(text: string): (text: string) => boolean {
  let compiled: RE2JS
  try {
    compiled = RE2JS.compile(text)
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new Error(`the pattern ${quoted(text)} is not RE2 (no look-around, no back-references): ${why}`, {
      cause,
    })
  }
  if (compiled.programSize() > maxProgram)
    throw new Error(`the pattern ${quoted(text)} is too large: count less far in its {...}`)
  return (value) => compiled.testExact(value)
}
