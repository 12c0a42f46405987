/** Which demands for authentication contradict each other, as far as the configuration alone tells. */
import type { AuthLayer, AuthMethod, SecretSource } from './policy.ts'

/** One method that a request would have to satisfy, and who asks for it. */
interface Demand {
  readonly layer: string
  readonly method: AuthMethod
}

/**
 * Why no request can meet all layers at once: two methods read the same header and accept nothing that the other
 * accepts, too. Layers with `require: any` are met by one of their methods, so that each choice must fail. Also why a
 * layer cannot be meant: without methods, or with a method that is never asked.
 *
 * Different files or texts of static secrets, or of users, are taken for disjoint: two files with the same secret in
 * them are one file.
 *
 * @returns for people, or undefined when nothing speaks against it
 */
export function impossible(layers: readonly AuthLayer[]): string | undefined {
  for (const { name, require, methods } of layers) {
    if (methods.length === 0) return `${name}: no method is given; leave the layer out to let everyone in`
    const basics = methods.filter(({ method }) => method === 'basic')
    if (require === 'any' && basics.length > 1) {
      return `${name}: with more than one basic method the first refuses the users of the others; put all users in one file`
    }
  }
  return firstConflict(layers, [])
}

/** Undefined as soon as one choice of methods goes together; else the conflict of the first choice. */
function firstConflict(layers: readonly AuthLayer[], chosen: readonly Demand[]): string | undefined {
  const [layer, ...rest] = layers
  if (layer === undefined) return undefined
  const { name, require, methods } = layer
  const choices = require === 'all' ? [methods] : methods.map((method) => [method])
  let first: string | undefined
  for (const choice of choices) {
    const demands = [...chosen]
    let found: string | undefined
    for (const method of choice) {
      const demand = { layer: name, method }
      found ??= demands.map((other) => conflict(other, demand)).find((text) => text !== undefined)
      demands.push(demand)
    }
    found ??= firstConflict(rest, demands)
    if (found === undefined) return undefined
    first ??= found
  }
  return first
}

function conflict(one: Demand, other: Demand): string | undefined {
  const header = headerOf(one.method)
  if (header === undefined || header !== headerOf(other.method)) return undefined
  const why = disjoint(one.method, other.method)
  if (why === undefined) return undefined
  const [a, b] = [one, other].map(({ layer, method }) => `${describe(method)} (${layer})`)
  return `no request can satisfy both ${a} and ${b}: the header ${header} carries one credential, and ${why}`
}

/** What it reads the credential from; undefined: the TLS connection. */
function headerOf(method: AuthMethod): string | undefined {
  switch (method.method) {
    case 'bearer':
    case 'apiKey':
      return method.header ?? 'authorization'
    case 'clientCertificate':
      return method.from === 'forwarded' ? method.header : undefined
    default:
      return 'authorization'
  }
}

function describe(method: AuthMethod): string {
  return 'issuer' in method && method.issuer !== undefined
    ? `${method.method} of ${method.issuer}`
    : method.method
}

/** Why a credential in one header cannot satisfy both; undefined when one might. */
function disjoint(a: AuthMethod, b: AuthMethod): string | undefined {
  if (kindOf(a) !== kindOf(b)) return `one wants ${kindOf(a)}, the other ${kindOf(b)}`
  if ((isStatic(a) && isStatic(b)) || (a.method === 'basic' && b.method === 'basic')) {
    return sameSource(a.source, b.source) ? undefined : 'they know different ones'
  }
  const [one, other] = [issuerOf(a), issuerOf(b)]
  if (one !== undefined && other !== undefined && one !== other) return 'a token has one issuer'
  const [keys, others] = [signedWith(a), signedWith(b)]
  if (keys !== undefined && others !== undefined && keys !== others) {
    return 'a token is signed with a shared secret or with a private key, not with both'
  }
  if ((needsJwt(a) || needsJwt(b)) && !meet(algorithmsOf(a), algorithmsOf(b))) {
    return 'a token is signed with one algorithm'
  }
  return undefined
}

type StaticSecrets = Extract<AuthMethod, { method: 'bearer' | 'apiKey' }>

function isStatic(method: AuthMethod): method is StaticSecrets {
  return method.method === 'bearer' || method.method === 'apiKey'
}

function kindOf(method: AuthMethod): string {
  switch (method.method) {
    case 'bearer':
    case 'apiKey':
      return method.header === undefined ? 'a static bearer token' : 'a static secret'
    case 'basic':
      return 'a user with a password'
    case 'clientCertificate':
      return 'a certificate'
    default:
      return 'a token of an issuer'
  }
}

function sameSource(a: SecretSource, b: SecretSource): boolean {
  if ('file' in a) return 'file' in b && a.file === b.file
  return 'text' in b && a.text.reveal() === b.text.reveal()
}

/** Of every token it accepts; undefined when that is left open. */
function issuerOf(method: AuthMethod): string | undefined {
  if (method.method === 'jwt' || method.method === 'oidc') return method.issuer
  return method.method === 'kubernetes' && method.mode === 'jwks' ? method.issuer : undefined
}

/** Undefined when any token may do: whoever is asked decides. */
function signedWith(method: AuthMethod): 'secret' | 'private key' | undefined {
  if (method.method === 'jwt') return 'secret' in method.keys ? 'secret' : 'private key'
  if (method.method === 'oidc') return method.tokens === 'introspection' ? undefined : 'private key'
  return method.method === 'kubernetes' && method.mode === 'jwks' ? 'private key' : undefined
}

/** Whether it accepts no opaque token. */
function needsJwt(method: AuthMethod): boolean {
  return method.method === 'jwt' || (method.method === 'oidc' && method.tokens === 'jwt')
}

/** Of every JWT it accepts; empty when that is left open. */
function algorithmsOf(method: AuthMethod): readonly string[] {
  if (method.method === 'oidc' && method.tokens === 'introspection') return []
  return method.method === 'jwt' || method.method === 'oidc' ? method.algorithms : []
}

function meet(some: readonly string[], others: readonly string[]): boolean {
  return some.length === 0 || others.length === 0 || some.some((each) => others.includes(each))
}
