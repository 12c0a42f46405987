import { anonymous, type Identity, type Principal } from '../core/types.ts'
import type { AuthGate, GateLayer } from './gate.ts'

/** The strongest first; tokens of any kind are equal. */
const strength: Readonly<Record<string, number>> = {
  ...{ oidc: 0, jwt: 0, introspection: 0, kubernetes: 0 },
  ...{ clientCertificate: 1, basic: 2, apiKey: 3, bearer: 4 },
}
const weakest = 5

/** Identities that last longer than a request have one principal each. */
const alone = new WeakMap<Identity, Principal>()

/** What a principal of several identities was made of. */
const parts = new WeakMap<Principal, readonly Identity[]>()

/**
 * Who is calling, of all that a request has proven: the strongest identity, in the order of the methods, then in that
 * of the layers. It ends when the first of them ends.
 *
 * Its id names all of them: many callers may share the strongest, as the certificate of a gateway, and what one of them has
 * opened is none of the others' business.
 *
 * @param identities at least one
 */
export function principalOf(identities: readonly Identity[]): Principal {
  const [first] = identities as readonly [Identity]
  if (identities.length > 1) return combined(identities)
  let principal = alone.get(first)
  if (principal === undefined) {
    principal = Object.freeze({ ...first, others: Object.freeze([]) })
    alone.set(first, principal)
  }
  return principal
}

function combined(identities: readonly Identity[]): Principal {
  const different = identities.filter((each, i) => identities.findIndex((other) => same(each, other)) === i)
  const rank = ({ method }: Identity): number => strength[method] ?? weakest
  const [first, ...others] = different.toSorted((a, b) => rank(a) - rank(b)) as [Identity, ...Identity[]]
  const ends = identities.flatMap(({ expiresAt }) => (expiresAt === undefined ? [] : [expiresAt]))
  const principal = Object.freeze({
    ...first,
    ...(others.length === 0 ? {} : { id: jointId([first, ...others]), ownId: first.id }),
    expiresAt: ends.length === 0 ? undefined : Math.min(...ends),
    others: Object.freeze(others),
  })
  parts.set(principal, [first, ...others])
  return principal
}

/** No id of a single identity begins like it, and names cannot run into each other. */
function jointId(identities: readonly Identity[]): string {
  const ids = new Set(identities.map(({ id }) => id.replaceAll('&', '&&')))
  return `all:${[...ids].join(' & ')}`
}

/** The same credential, seen by two layers. Another credential of the same caller may be withdrawn on its own. */
function same(a: Identity, b: Identity): boolean {
  return a.id === b.id && a.method === b.method && a.proof === b.proof
}

/**
 * Whether a session or stream of this principal may go on behind this gate: each layer must be met by identities of the
 * principal that its methods vouch for.
 */
export function stillTrusted(principal: Principal, gate: Pick<AuthGate, 'layers'>): boolean {
  if (gate.layers.length === 0) return principal.id === anonymous.id
  const identities = parts.get(principal) ?? [principal, ...principal.others]
  const met = ({ require, authenticators }: GateLayer): boolean => {
    const vouched = authenticators.map((each) => identities.some((identity) => each.vouchesFor(identity)))
    return vouched.includes(true) && (require === 'any' || !vouched.includes(false))
  }
  return gate.layers.every(met)
}
