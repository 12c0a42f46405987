/** The part of the composition that keeps strangers and misuse out: the policy made into what carries it out. */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Authenticator } from './authn/authenticator.ts'
import type { BearerChallenge } from './authn/challenge.ts'
import { type AuthGate, createGate, type GateLayer } from './authn/gate.ts'
import { createResourceMetadata, type ResourceMetadata } from './authn/resource-metadata.ts'
import { buildStatic } from './authn/static-secrets.ts'
import { readSecret } from './authn/token-method.ts'
import type { AuthzContext } from './authz/authorize.ts'
import { permitAll } from './authz/permit-all.ts'
import { scopeHierarchy } from './authz/scopes.ts'
import { addressSet } from './core/net.ts'
import type { Layer } from './core/pipeline.ts'
import type { AuthMethod, AuthzPolicy, Policy, SecretSource } from './core/policy.ts'
import { Credential } from './core/secret.ts'
import type { Clock, Decoded, Logger, Permitted } from './core/types.ts'
import { type Timeouts, timeouts } from './limit/timeouts.ts'

export interface SecurityContext {
  readonly clock: Clock
  readonly log: Logger
  /** This server as clients name it where the policy does not say, once it listens. */
  readonly resource: () => string
  /** The same by its endpoints. */
  readonly aliases: () => readonly string[]
  /** Paths that clients are given. */
  readonly endpoints: readonly string[]
  /** Whose word on addresses and certificates is taken, as configured. */
  readonly proxies: readonly string[]
  /** Whether issuers are asked at once. Default: yes. */
  readonly prefetch?: boolean
}

/** One policy in force. */
export interface Security {
  readonly gate: AuthGate
  readonly metadata: ResourceMetadata
  readonly authorize: Layer<Decoded, Permitted>
  /** Calls of tools are judged by what the server says of them. */
  readonly readsHints: boolean
  readonly timeouts: Timeouts
  /** Every authenticator, by what it was made of. */
  readonly made: ReadonlyMap<string, Authenticator>
  /** Closes what the next one has not taken over. */
  retire(next?: Security): void
}

/**
 * @param previous what it has that would be made the same again is taken over, with all that it remembers: keys of an issuer
 *   that cannot be reached just now, tokens that were verified
 * @throws an Error that says what is wrong with files, policies or options; nothing is left open then
 */
export async function buildSecurity(
  policy: Policy,
  context: SecurityContext,
  previous?: Security,
): Promise<Security> {
  const { auth, authz } = policy
  // One name that was configured is the only one.
  const aliases = auth.resource === undefined ? context.aliases : () => []
  const grants = scopeHierarchy(authz.impliedScopes)
  const resource = (): string => auth.resource ?? audienceUrl(policy) ?? context.resource()
  const { proxies, endpoints } = context
  const surroundings = [auth.resource, audienceUrl(policy), authz.impliedScopes, proxies, endpoints]
  const made = new Map<string, Authenticator>()
  const retire = (next?: Security): void => {
    const kept = new Set(next?.made.values())
    for (const each of made.values()) if (!kept.has(each)) each.close?.()
  }
  try {
    const layers: GateLayer[] = []
    for (const { name, require, methods } of auth.layers) {
      const authenticators: Authenticator[] = []
      for (const method of methods) {
        const making = makingOf([surroundings, method])
        const same = made.get(making) ?? previous?.made.get(making)
        const one = same ?? (await authenticatorOf(method, { ...context, resource, aliases, grants }))
        made.set(making, one)
        authenticators.push(one)
      }
      layers.push({ name, require, authenticators })
    }
    const gate = createGate({ ...auth, layers })
    const metadata = createResourceMetadata({
      resource,
      endpoints: context.endpoints,
      authorizationServers: [
        ...auth.authorizationServers,
        ...gate.authenticators.flatMap(({ authorizationServers }) => authorizationServers),
      ],
      // Not what single operations need: clients ask for all that stands here (basic/authorization, "Scope Minimization").
      scopesSupported: [...auth.scopesSupported, ...gate.scopes],
    })
    const bearerChallenge: BearerChallenge = (error, scopes) => metadata.bearerChallenge(error, scopes)
    const demands = { baseScopes: gate.scopes, bearerChallenge }
    return {
      gate,
      metadata,
      ...(await authorizerOf(authz, { ...context, ...demands })),
      timeouts: timeouts(policy.timeouts),
      ...{ made, retire },
    }
  } catch (thrown) {
    retire(previous)
    throw thrown
  }
}

/** A digest of options, with the content of the files that they name and the secrets in them. */
export function makingOf(options: unknown): string {
  const hash = createHash('sha256')
  const visit = (name: string, value: unknown): void => {
    hash.update(`${name}=`)
    if (value instanceof Credential) hash.update(value.reveal())
    else if (typeof value === 'object' && value !== null) {
      for (const [inner, each] of Object.entries(value)) visit(inner, each)
    } else hash.update(JSON.stringify(value) ?? 'undefined')
    if (/file$/i.test(name) && typeof value === 'string') hash.update(contentOf(value))
    hash.update(';')
  }
  visit('', options)
  return hash.digest('hex')
}

/** A file that cannot be read is reported by who needs it. */
function contentOf(file: string): Buffer | string {
  try {
    return readFileSync(file)
  } catch {
    return ''
  }
}

interface MethodContext extends SecurityContext {
  readonly resource: () => string
  readonly grants: (granted: readonly string[], needed: string) => boolean
}

// Imported only where they are configured: each costs time at every start.
async function authenticatorOf(method: AuthMethod, context: MethodContext): Promise<Authenticator> {
  const deps = { prefetch: true, ...context }
  const proxies = addressSet(context.proxies)
  switch (method.method) {
    case 'bearer':
    case 'apiKey':
      return buildStatic(method, textOf(method.source), placeOf(method.source))
    case 'basic':
      return (await import('./authn/basic.ts')).buildBasic(
        textOf(method.source),
        placeOf(method.source),
        context,
      )
    case 'jwt':
      return (await import('./authn/jwt.ts')).jwtAuthenticator(method, deps)
    case 'oidc':
      return (await import('./authn/oidc.ts')).oidcAuthenticator(method, deps)
    case 'kubernetes':
      return (await import('./authn/kubernetes.ts')).kubernetesAuthenticator(method, deps)
    case 'clientCertificate':
      return (await import('./authn/client-certificate.ts')).certificateAuthenticator(method, {
        ...context,
        trustsPeer: (address) => proxies.has(address),
      })
  }
}

async function authorizerOf(
  policy: AuthzPolicy,
  context: Omit<AuthzContext, 'cedar'>,
): Promise<Pick<Security, 'authorize' | 'readsHints'>> {
  const { layers, cedar, scopes, toolsFilters, capabilities } = policy
  const parts = [...layers, ...scopes, ...toolsFilters]
  if (parts.length === 0 && cedar === undefined && capabilities === undefined)
    return { authorize: permitAll, readsHints: false }
  const { createAuthorizer } = await import('./authz/authorize.ts')
  const decider = cedar === undefined ? undefined : await (await import('./authz/cedar.ts')).loadCedar(cedar)
  const authorize = createAuthorizer(policy, { ...context, cedar: decider })
  return { authorize, readsHints: decider?.readsHints === true }
}

function textOf(source: SecretSource): string {
  return 'file' in source ? readFileSync(source.file, 'utf8') : readSecret(source, 'the secret', {}).reveal()
}

function placeOf(source: SecretSource): string {
  return 'file' in source ? source.file : 'the configuration'
}

/** An audience that is a URL names this server as its clients do (RFC 8707). */
function audienceUrl({ auth }: Policy): string | undefined {
  const audiences = auth.layers.flatMap(({ methods }) =>
    methods.flatMap((method) =>
      method.method === 'jwt' || method.method === 'oidc' ? method.audiences : [],
    ),
  )
  return audiences.find((audience) => /^https?:\/\//.test(audience) && URL.canParse(audience))
}
