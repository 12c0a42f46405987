import type { AuthLayer, AuthMethod, JwtMethod, TokenChecks } from '../../core/policy.ts'
import { originOf } from '../origins.ts'
import type { Path } from '../parsed.ts'
import type { ValueType } from '../values.ts'
import {
  type Authentication,
  type AuthMethodValue,
  apiKeyBlock,
  authMethod,
  jwtBlock,
  oidcBlock,
} from './auth-values.ts'
import { type Building, reported } from './building.ts'
import type { Place } from './place.ts'
import type { Manifest } from './read.ts'
import { holderOf, linesOf, type NamedSecret, passwordLine, sourceOf, textOf } from './secrets.ts'

/** What a document says about authentication. */
export interface AuthResult {
  readonly layers: readonly AuthLayer[]
  /** Where it says that nobody is asked. */
  readonly open: string | undefined
  readonly timeoutMs: number | undefined
}

const CHECKS: TokenChecks = {
  audiences: [],
  algorithms: [],
  clockToleranceMs: 30_000,
  requiredClaims: {},
  scopes: [],
  subjectClaim: 'sub',
  groupsClaim: undefined,
}

const OIDC_CACHE_MS = 60_000
const FORWARDED_HEADER = 'x-forwarded-client-cert'

/**
 * The blocks `oidc`, `jwt` and `apiKey` are cumulative: each must accept. `methods` are a choice, which is a layer of
 * its own where there are blocks beside it.
 */
export async function authLayers(
  value: Authentication,
  place: Place,
  manifest: Manifest,
  building: Building,
): Promise<AuthResult> {
  const { enabled, oidc, jwt, apiKey, methods, default: preferred } = value
  if (!enabled) return { layers: [], open: place.at(['enabled']), timeoutMs: undefined }
  const first = methods?.[0]
  if (first?.method === 'None') return { layers: [], open: place.at(['methods', 0]), timeoutMs: undefined }
  if (preferred !== undefined)
    reported(building, manifest, 'default method of authentication', 'methods are tried in their order')

  const blocks: AuthMethod[] = []
  const note = <T>(path: Path, type: ValueType<T>, part: T, made: AuthMethod): AuthMethod =>
    building.origins.note(made, originOf(place, path, type, part))
  if (oidc !== undefined) {
    const clientSecret = await building.references.source('Secret', oidc.clientSecretRef, place, [
      'oidc',
      'clientSecretRef',
    ])
    blocks.push(
      note(['oidc'], oidcBlock, oidc, {
        method: 'oidc',
        ...CHECKS,
        issuer: oidc.issuer,
        audiences: oidc.audiences.length > 0 ? oidc.audiences : [oidc.clientID],
        scopes: oidc.scopes,
        // Without its secret (it was optional) nothing can be introspected.
        clientId: clientSecret === undefined ? undefined : oidc.clientID,
        clientSecret,
        introspectionUrl: undefined,
        tokens: clientSecret === undefined ? 'jwt' : 'auto',
        cacheMs: OIDC_CACHE_MS,
        fetching: building.fetching,
      }),
    )
  }
  if (jwt !== undefined) {
    const keys = { url: jwt.jwksURI, fetching: building.fetching }
    const { issuer, audiences } = jwt
    blocks.push(note(['jwt'], jwtBlock, jwt, { method: 'jwt', ...CHECKS, issuer, audiences, keys }))
  }
  if (apiKey !== undefined) {
    const made = await apiKeys(apiKey.secretRefs, apiKey.header, place, building)
    if (made !== undefined) blocks.push(note(['apiKey'], apiKeyBlock, apiKey, made))
  }

  const choice: AuthMethod[] = []
  for (const [index, each] of (methods ?? []).entries()) {
    const made = await methodOf(each, place, ['methods', index], manifest, building)
    if (made !== undefined) choice.push(note(['methods', index], authMethod, each, made))
  }
  const times = (methods ?? []).flatMap(({ timeout }) => (timeout === undefined ? [] : [timeout]))
  const { title } = manifest
  const both = blocks.length > 0 && choice.length > 0
  const layers: AuthLayer[] = [
    { name: title, require: 'all', methods: blocks },
    { name: both ? `${title} methods` : title, require: 'any', methods: choice },
  ]
  const filled = layers.filter((layer) => layer.methods.length > 0)
  for (const layer of filled)
    building.origins.note(layer, { at: place.at, given: place.given, parts: () => [] })
  return { layers: filled, open: undefined, timeoutMs: times.length === 0 ? undefined : Math.min(...times) }
}

async function apiKeys(
  refs: NonNullable<Authentication['apiKey']>['secretRefs'],
  header: string,
  place: Place,
  building: Building,
): Promise<AuthMethod | undefined> {
  const secrets: NamedSecret[] = []
  for (const [index, ref] of refs.entries()) {
    const path = ['apiKey', 'secretRefs', index]
    const secret = await building.references.text('Secret', ref, place, path)
    if (secret !== undefined) secrets.push({ name: holderOf(ref), secret, path })
  }
  const source = linesOf(secrets, building, place)
  if (source !== undefined) return { method: 'apiKey', source, header }
  // Each may be optional, and one of them must be there all the same: an empty list would let everyone in.
  if (secrets.length === 0)
    building.problems.push(
      place.problem({ path: ['apiKey', 'secretRefs'], message: 'not one of the secrets is there' }),
    )
  return undefined
}

async function methodOf(
  value: AuthMethodValue,
  place: Place,
  path: Path,
  manifest: Manifest,
  building: Building,
): Promise<AuthMethod | undefined> {
  const { token, basic, jwt, clientCert, oAuth2 } = value
  switch (value.method) {
    case 'Bearer':
    case 'ApiKey':
      return token === undefined
        ? undefined
        : await staticMethod(value.method, token, place, [...path, 'token'], building)
    case 'Basic': {
      if (basic === undefined) return undefined
      const at = [...path, 'basic', 'password']
      const password = await textOf(basic.password, building, place, at)
      if (password === undefined) return undefined
      const secret = passwordLine(basic.username, password)
      const source = linesOf([{ name: basic.username, secret, path: at }], building, place)
      return source === undefined ? undefined : { method: 'basic', source }
    }
    case 'JWT':
      return jwt === undefined ? undefined : await jwtMethod(jwt, place, [...path, 'jwt'], building)
    case 'ClientCertificate': {
      if (clientCert === undefined) return undefined
      const caFile = await building.references.file('Secret', clientCert.caRef, place, [
        ...path,
        'clientCert',
        'caRef',
      ])
      if (caFile === undefined) return undefined
      return {
        method: 'clientCertificate',
        from: 'tls',
        caFile,
        crlFile: undefined,
        names: ['spiffe', 'uri', 'dns', 'email'],
        trustDomains: [],
        allow: [],
        header: FORWARDED_HEADER,
      }
    }
    case 'OAuth2': {
      if (oAuth2 === undefined) return undefined
      const clientSecret = await sourceOf(oAuth2.clientSecret, building, place, [
        ...path,
        'oAuth2',
        'clientSecret',
      ])
      if (clientSecret === undefined) return undefined
      if (oAuth2.tokenURL !== undefined)
        reported(building, manifest, 'tokenURL of OAuth2', 'the sidecar asks for no tokens')
      return {
        method: 'oidc',
        ...CHECKS,
        issuer: oAuth2.issuer,
        scopes: oAuth2.scopes,
        clientId: oAuth2.clientID,
        clientSecret,
        introspectionUrl: oAuth2.introspectionURL,
        tokens: 'introspection',
        cacheMs: OIDC_CACHE_MS,
        fetching: building.fetching,
      }
    }
    case 'None':
      return undefined
  }
}

async function staticMethod(
  method: 'Bearer' | 'ApiKey',
  token: NonNullable<AuthMethodValue['token']>,
  place: Place,
  path: Path,
  building: Building,
): Promise<AuthMethod | undefined> {
  const { headerName } = token
  const bearer = method === 'Bearer'
  if (headerName !== undefined && bearer !== (headerName === 'authorization')) {
    const message = bearer
      ? 'a bearer token stands in Authorization: leave this out, or say method: ApiKey'
      : 'Authorization is for bearer tokens: say method: Bearer, or name a header such as X-API-Key'
    building.problems.push(place.problem({ path: [...path, 'headerName'], message }))
    return undefined
  }
  const secret = await textOf(token, building, place, path)
  if (secret === undefined) return undefined
  const name = token.secretRef === undefined ? 'default' : holderOf(token.secretRef)
  const source = linesOf([{ name, secret, path }], building, place)
  if (source === undefined) return undefined
  return bearer
    ? { method: 'bearer', source, header: undefined }
    : { method: 'apiKey', source, header: headerName ?? 'x-api-key' }
}

async function jwtMethod(
  jwt: NonNullable<AuthMethodValue['jwt']>,
  place: Place,
  path: Path,
  building: Building,
): Promise<JwtMethod | undefined> {
  const source = await keySource(jwt, place, [...path, 'signingKey'], building)
  if (source === undefined) return undefined
  const symmetric = jwt.algorithm.startsWith('HS')
  return {
    method: 'jwt',
    ...CHECKS,
    issuer: jwt.issuer,
    audiences: jwt.audience === undefined ? [] : [jwt.audience],
    algorithms: [jwt.algorithm],
    clockToleranceMs: jwt.expirationTolerance,
    keys: symmetric ? { secret: source } : 'file' in source ? source : { text: source.text.reveal() },
  }
}

/** A public key may stand in a document. */
async function keySource(
  { signingKey, algorithm }: NonNullable<AuthMethodValue['jwt']>,
  place: Place,
  path: Path,
  building: Building,
): Promise<Awaited<ReturnType<typeof sourceOf>>> {
  const warnings = algorithm.startsWith('HS') ? building.warnings : []
  return await sourceOf(signingKey, { ...building, warnings }, place, path)
}
