import type { Identity, Principal } from '../core/types.ts'
import { quoted } from './fault.ts'

/** Whether a caller is among those that a rule is for. */
export type PrincipalMatcher = (principal: Principal) => boolean

/** DNS labels, as namespaces are named (RFC 1123), and the subdomains that service accounts may be named. */
const label = '[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?'
const namespaceName = new RegExp(`^${label}$`)
const accountName = new RegExp(`^(?=.{1,253}$)${label}(?:\\.${label})*$`)

interface Named {
  readonly ids: Set<string>
  readonly users: Set<string>
  readonly groups: Set<string>
  /** `NAMESPACE/NAME`. */
  readonly accounts: Set<string>
  everyone: boolean
  anonymous: boolean
}

/**
 * @param principals `user:ID`, `group:NAME`, `serviceaccount:NAME | NS/NAME | NS:NAME | system:serviceaccount:NS:NAME`,
 *   `id:PRINCIPAL-ID` for a name as one issuer or method has proven it, `*` for every authenticated caller, `anonymous`. Letter case counts, and no name has wildcards. A caller matches
 *   with any identity that its request has proven
 * @param namespace of a `serviceaccount:` without one
 * @throws Error for anything else
 */
export function compilePrincipals(
  principals: readonly string[],
  namespace: string | undefined,
): PrincipalMatcher {
  const named: Named = {
    ids: new Set(),
    users: new Set(),
    groups: new Set(),
    accounts: new Set(),
    everyone: false,
    anonymous: false,
  }
  for (const principal of principals) read(principal, namespace, named)
  return (principal) => {
    if (isNamed(principal, named)) return true
    const { others, ownId } = principal
    if (ownId !== undefined && named.ids.has(ownId)) return true
    for (let i = 0; i < others.length; i++) if (isNamed(others[i] as Identity, named)) return true
    return false
  }
}

function isNamed(identity: Identity, named: Named): boolean {
  // Groups of somebody unknown prove nothing.
  if (identity.kind === 'anonymous') return named.anonymous
  if (named.everyone || named.ids.has(identity.id)) return true
  if ((identity.kind === 'user' ? named.users : named.accounts).has(identity.subject)) return true
  if (named.groups.size === 0) return false
  const { groups } = identity
  for (let i = 0; i < groups.length; i++) if (named.groups.has(groups[i] as string)) return true
  return false
}

function read(text: string, namespace: string | undefined, named: Named): void {
  if (text === '*') named.everyone = true
  else if (text === 'anonymous') named.anonymous = true
  else {
    const colon = text.indexOf(':')
    const kind = colon < 0 ? '' : text.slice(0, colon)
    const name = text.slice(colon + 1)
    switch (kind) {
      case 'user':
        named.users.add(plain(text, name))
        return
      case 'id':
        named.ids.add(plain(text, name))
        return
      case 'group':
        named.groups.add(plain(text, name))
        return
      case 'serviceaccount':
        named.accounts.add(account(text, name, namespace))
        return
    }
    throw new Error(
      `${quoted(text)} names no principal: write user:ID, group:NAME, serviceaccount:NAMESPACE/NAME, id:PRINCIPAL-ID, * or anonymous`,
    )
  }
}

function plain(text: string, name: string): string {
  if (name === '' || name !== name.trim())
    throw new Error(`${quoted(text)} has no name, or blanks around it, after the colon`)
  if (name.includes('*'))
    throw new Error(`${quoted(text)} has a wildcard: names are exact, and * alone is every caller`)
  return name
}

const systemPrefix = 'system:serviceaccount:'

function account(text: string, name: string, namespace: string | undefined): string {
  const bare = name.startsWith(systemPrefix) ? name.slice(systemPrefix.length) : name
  const parts = bare.includes('/') && bare === name ? bare.split('/') : bare.split(':')
  const [first = '', second] = parts
  if (second === undefined && namespace === undefined)
    throw new Error(`${quoted(text)} has no namespace, and nothing here says which is meant: write NS/NAME`)
  const [space, own] = second === undefined ? [namespace as string, first] : [first, second]
  const whole = second !== undefined || bare === name
  if (!whole || parts.length > 2 || !namespaceName.test(space) || !accountName.test(own))
    throw new Error(
      `${quoted(text)} names no service account: write NAME, NS/NAME, NS:NAME or ${systemPrefix}NS:NAME`,
    )
  return `${space}/${own}`
}
