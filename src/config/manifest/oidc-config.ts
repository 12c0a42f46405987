import { dirname, resolve } from 'node:path'
import type { AuthLayer, AuthMethod, SecretSource, TokenChecks } from '../../core/policy.ts'
import { Credential } from '../../core/secret.ts'
import type { TypeOf } from '../object.ts'
import { originOf } from '../origins.ts'
import type { Path } from '../parsed.ts'
import { readValue } from '../read-value.ts'
import { type OidcInline, oidcConfig, oidcInline } from './authz-values.ts'
import { type Building, reported } from './building.ts'
import type { Place } from './place.ts'
import type { Manifest } from './read.ts'
import { literalWarning } from './secrets.ts'

const CHECKS: Omit<TokenChecks, 'audiences'> = {
  algorithms: [],
  clockToleranceMs: 30_000,
  requiredClaims: {},
  scopes: [],
  subjectClaim: 'sub',
  groupsClaim: undefined,
}

const KUBERNETES = '/var/run/secrets/kubernetes.io/serviceaccount'

/** `oidcConfig` of ToolHive as a layer of its own. */
export async function oidcLayer(
  value: TypeOf<typeof oidcConfig>,
  place: Place,
  manifest: Manifest,
  building: Building,
): Promise<AuthLayer | undefined> {
  const method = await methodOf(value, place, manifest, building)
  if (method === undefined) return undefined
  building.origins.note(method, originOf(place, [], oidcConfig, value))
  const layer: AuthLayer = { name: `${manifest.title} oidcConfig`, require: 'all', methods: [method] }
  return building.origins.note(layer, { at: place.at, given: place.given, parts: () => [] })
}

async function methodOf(
  { kubernetes, configMap, inline }: TypeOf<typeof oidcConfig>,
  place: Place,
  manifest: Manifest,
  building: Building,
): Promise<AuthMethod | undefined> {
  if (kubernetes !== undefined) {
    if (kubernetes.namespace !== undefined || kubernetes.serviceAccount !== undefined)
      reported(building, manifest, 'service account in oidcConfig', 'the sidecar uses that of its own pod')
    return {
      method: 'kubernetes',
      mode: 'jwks',
      audiences: [kubernetes.audience],
      issuer: kubernetes.issuer,
      apiServer: 'https://kubernetes.default.svc',
      tokenFile: `${KUBERNETES}/token`,
      caFile: `${KUBERNETES}/ca.crt`,
      cacheMs: 60_000,
      timeoutMs: building.fetching.timeoutMs,
    }
  }
  if (inline !== undefined) return await inlineMethod(inline, place, ['inline'], manifest.folder, building)
  if (configMap === undefined) return undefined
  const reference = { ...configMap, optional: undefined }
  const file = await building.references.file('ConfigMap', reference, place, ['configMap'])
  const text = await building.references.text('ConfigMap', reference, place, ['configMap'])
  if (file === undefined || text === undefined) return undefined
  const parsed = readValue(oidcInline, text, file)
  if (parsed.ok) return await inlineMethod(parsed.value, place, ['configMap'], dirname(file), building)
  building.problems.push(...parsed.problems)
  return undefined
}

async function inlineMethod(
  value: OidcInline,
  place: Place,
  path: Path,
  folder: string,
  building: Building,
): Promise<AuthMethod | undefined> {
  const { issuer, audience, jwksURL, introspectionURL, clientId, thvCABundlePath, jwksAllowPrivateIP } = value
  const fetching = {
    ...building.fetching,
    caFile: thvCABundlePath === undefined ? building.fetching.caFile : resolve(folder, thvCABundlePath),
    allowPrivate: jwksAllowPrivateIP || building.fetching.allowPrivate,
  }
  const checks = { ...CHECKS, audiences: audience === undefined ? [] : [audience] }
  if (jwksURL !== undefined && introspectionURL === undefined)
    return { method: 'jwt', issuer, ...checks, keys: { url: jwksURL, fetching } }
  if (jwksURL !== undefined) {
    const message = 'jwksURL and introspectionURL together are not implemented: keep one of them'
    building.problems.push(place.problem({ path: [...path, 'jwksURL'], message }))
    return undefined
  }
  const clientSecret = await secretOf(value, place, path, building)
  if (introspectionURL !== undefined && clientSecret === undefined) return undefined
  return {
    method: 'oidc',
    issuer,
    ...checks,
    clientId,
    clientSecret,
    introspectionUrl: introspectionURL,
    tokens: introspectionURL === undefined ? 'jwt' : 'auto',
    cacheMs: 60_000,
    fetching,
  }
}

async function secretOf(
  { clientSecret, clientSecretRef }: OidcInline,
  place: Place,
  path: Path,
  { references, warnings }: Building,
): Promise<SecretSource | undefined> {
  if (clientSecretRef !== undefined)
    return await references.source('Secret', clientSecretRef, place, [...path, 'clientSecretRef'])
  if (clientSecret === undefined) return undefined
  warnings.push(literalWarning(place, [...path, 'clientSecret']))
  return { text: new Credential(clientSecret) }
}
