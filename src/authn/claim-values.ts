/** Reads single claims, whatever the issuer has put there. */
import type { JsonObject } from './fetching.ts'
import { own } from './token-format.ts'
import { refusal, shown } from './token-method.ts'

const maxSubject = 256
/** 9999-12-31, as far as dates are written. */
const lastSecond = 253_402_300_799
export const unprintable = /[\p{Cc}\p{Cs}\u2028\u2029]/u
/** RFC 6749 section 3.3, `scope-token`. */
export const scopePattern = /^[\x21\x23-\x5b\x5d-\x7e]+$/

/** NumericDate (RFC 7519 section 2) in milliseconds. */
export function timeOf(claims: JsonObject, claim: string): number | undefined {
  const value = own(claims, claim)
  if (value === undefined) return undefined
  if (typeof value !== 'number' || !(value >= 0 && value <= lastSecond)) {
    throw refusal(`its ${claim} is not a time: ${shown(value)}`)
  }
  return Math.floor(value * 1000)
}

export function subjectOf(claims: JsonObject, claim: string): string {
  const value = own(claims, claim)
  if (typeof value !== 'string' || value === '') throw refusal(`its ${claim} names nobody`)
  if (value.length > maxSubject) throw refusal(`its ${claim} has more than ${maxSubject} characters`)
  if (unprintable.test(value)) throw refusal(`its ${claim} has control characters in it`)
  return value
}

/**
 * A Kubernetes service account. Its token says so twice: the name alone could be one that somebody chose for
 * themselves at another issuer.
 */
export function serviceAccountOf(
  claims: JsonObject,
  subject: string,
): { readonly namespace: string; readonly name: string } | undefined {
  const [, namespace, name] = /^system:serviceaccount:([a-z0-9.-]+):([a-z0-9.-]+)$/.exec(subject) ?? []
  const said = objectOf(own(claims, 'kubernetes.io'))
  const account = said && objectOf(own(said, 'serviceaccount'))
  if (namespace === undefined || name === undefined || said === undefined || account === undefined)
    return undefined
  return own(said, 'namespace') === namespace && own(account, 'name') === name
    ? { namespace, name }
    : undefined
}

function objectOf(value: unknown): JsonObject | undefined {
  return typeof value === 'object' && value !== null ? (value as JsonObject) : undefined
}

/** `scope` (RFC 8693 section 4.2), else `scp`; texts are separated by spaces. */
export function scopesOf(claims: JsonObject): string[] {
  const value = own(claims, 'scope') ?? own(claims, 'scp')
  if (value === undefined || value === null) return []
  const list = typeof value === 'string' ? value.split(' ') : listOf(value)
  if (list === undefined) throw refusal('its scope is neither a text nor a list of texts')
  return [...new Set(list.filter((scope) => scopePattern.test(scope)))]
}

export function groupsOf(claims: JsonObject, claim: string | undefined): readonly string[] {
  const names = claim === undefined ? ['groups', 'roles', 'cognito:groups'] : [claim]
  const found = names.find((name) => own(claims, name) !== undefined)
  const list = found === undefined ? undefined : listOf(own(claims, found), true)
  return (list ?? []).filter((group) => group !== '' && !unprintable.test(group))
}

/** A text, or a list of texts; undefined for anything else. With `some`, a list may hold other things, too. */
export function listOf(value: unknown, some = false): readonly string[] | undefined {
  if (typeof value === 'string') return [value]
  if (!Array.isArray(value)) return undefined
  const texts = value.filter((each): each is string => typeof each === 'string')
  return some || texts.length === value.length ? texts : undefined
}
