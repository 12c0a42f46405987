/** Kubernetes service accounts: which tokens are theirs, and who they are. */
import type { Identity } from '../core/types.ts'
import type { JsonObject } from './fetching.ts'
import { own } from './token-format.ts'
import { refusal, shown } from './token-method.ts'

export interface ServiceAccount {
  readonly namespace: string
  readonly name: string
}

/** What is known of a service account, and of the pod that its token was made for. */
export interface ServiceAccountFacts extends ServiceAccount {
  readonly groups: readonly string[]
  readonly claims: Readonly<Record<string, string | undefined>>
  /** See {@link Identity}. */
  readonly proof: string
  readonly expiresAt: number | undefined
}

const maxGroups = 100
const maxText = 512
const maxSentence = 300
const maxAnswer = 4096
/** RFC 1123 labels: of a namespace one, of an account's name several. */
const label = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const username = new RegExp(`^system:serviceaccount:(${label}):(${label}(?:\\.${label})*)$`)
/** Of the tokens in Secrets, before they had an end. */
const legacyIssuer = 'kubernetes/serviceaccount'

/** Whether a token says of itself that it is one of a service account, projected or of a Secret. */
export function isServiceAccountToken(claims: JsonObject): boolean {
  const sub = own(claims, 'sub')
  return (
    (typeof sub === 'string' && sub.startsWith('system:serviceaccount:')) ||
    own(claims, 'kubernetes.io') !== undefined ||
    own(claims, 'iss') === legacyIssuer
  )
}

/**
 * @param name `system:serviceaccount:NAMESPACE:NAME`
 * @throws ERR_AUTH_INVALID for anything else
 */
export function serviceAccountOf(name: unknown): ServiceAccount {
  const [, namespace, account] = (typeof name === 'string' ? username.exec(name) : null) ?? []
  if (namespace === undefined || account === undefined || account.length > 253)
    throw refusal(`${shown(name)} is not the name of a service account`)
  return { namespace, name: account }
}

export function identityOf({
  namespace,
  name,
  groups,
  claims,
  proof,
  expiresAt,
}: ServiceAccountFacts): Identity {
  const known = Object.entries(claims).filter(([, value]) => value !== undefined)
  return Object.freeze({
    id: `serviceaccount:${namespace}/${name}`,
    method: 'kubernetes',
    kind: 'serviceaccount' as const,
    subject: `${namespace}/${name}`,
    groups: Object.freeze([...groups]),
    scopes: undefined,
    claims: Object.freeze({
      sub: `system:serviceaccount:${namespace}:${name}`,
      namespace,
      serviceaccount: name,
      ...Object.fromEntries(known),
    }),
    proof,
    expiresAt,
  })
}

/** The texts of a list: at most 100, each short and on one line; others are left out. */
export function textsOf(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.slice(0, maxGroups).flatMap((each) => plainText(each) ?? []) : []
}

/** A short text on one line; undefined for anything else. */
export function plainText(value: unknown): string | undefined {
  if (typeof value !== 'string' || value === '' || value.length > maxText) return undefined
  return /[\p{Cc}\p{Cs}\u2028\u2029]/u.test(value) ? undefined : value
}

/** What the API server says to people, as it may stand in the log: without anything that could be a token. */
export function sentenceOf(value: unknown): string | undefined {
  if (typeof value !== 'string' || value === '') return undefined
  const text = value.slice(0, maxAnswer).replace(/eyJ[\w.-]+|[\w-]{64,}/g, '[redacted]')
  return JSON.stringify(text.length > maxSentence ? `${text.slice(0, maxSentence)}...` : text)
}

/** A member of a member of an object that somebody else has made; undefined when there is none. */
export function memberOf(value: unknown, ...names: readonly string[]): unknown {
  let found = value
  for (const name of names) {
    if (typeof found !== 'object' || found === null) return undefined
    found = own(found as JsonObject, name)
  }
  return found
}
