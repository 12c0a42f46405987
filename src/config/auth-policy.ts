import type {
  AuthLayer,
  AuthMethod,
  AuthPolicy,
  CertificateMethod,
  Fetching,
  JwtMethod,
  KubernetesMethod,
  OidcMethod,
  TokenChecks,
} from '../core/policy.ts'
import {
  apiKeyType,
  basicType,
  type CertificateSettings,
  certificateType,
  type JwtSettings,
  jwtType,
  type KubernetesSettings,
  kubernetesType,
  type OidcSettings,
  oidcType,
} from './auth-values.ts'
import type { SettingKey } from './field.ts'
import { FIELDS } from './fields.ts'
import type { Given } from './given.ts'
import { type Origins, originOf } from './origins.ts'
import type { ValueType } from './values.ts'

/** The settings of which each is a method, or several. */
export const METHOD_KEYS = [
  'auth.bearerTokenFile',
  'auth.apiKey',
  'auth.basic',
  'auth.clientCertificate',
  'auth.kubernetes',
  'auth.jwt',
  'auth.oidc',
] as const satisfies readonly SettingKey[]

type Checks = Pick<
  JwtSettings,
  'audiences' | 'algorithms' | 'clockTolerance' | 'requiredClaims' | 'scopes' | 'subjectClaim' | 'groupsClaim'
>

export function fetchingOf({ value }: Given): Fetching {
  return {
    caFile: value('auth.fetching.caFile'),
    timeoutMs: value('auth.fetching.timeoutMs'),
    allowPrivate: value('auth.fetching.allowPrivateAddresses'),
    allowHttp: value('auth.fetching.allowHttp'),
  }
}

/** The layer of the file itself, in the order in which its methods are tried: what costs least comes first. */
export function ownLayer(given: Given, origins: Origins): AuthLayer | undefined {
  const { value } = given
  const standard = fetchingOf(given)
  const one = <T>(
    key: SettingKey,
    type: ValueType<T>,
    settings: T | undefined,
    make: (settings: T) => AuthMethod,
  ) =>
    settings === undefined
      ? []
      : [origins.note(make(settings), originOf(given.setting(key), [], type, settings))]
  const several = <T>(
    key: SettingKey,
    type: ValueType<T>,
    settings: readonly T[] | undefined,
    make: (settings: T) => AuthMethod,
  ) =>
    (settings ?? []).map((each, index) =>
      origins.note(make(each), originOf(given.setting(key), [index], type, each)),
    )

  const methods: AuthMethod[] = [
    ...one(
      'auth.bearerTokenFile',
      FIELDS['auth.bearerTokenFile'].type,
      value('auth.bearerTokenFile'),
      (file) => ({
        method: 'bearer',
        source: { file },
        header: undefined,
      }),
    ),
    ...one('auth.apiKey', apiKeyType, value('auth.apiKey'), ({ keyFile, header }) => ({
      method: 'apiKey',
      source: { file: keyFile },
      header,
    })),
    ...one('auth.basic', basicType, value('auth.basic'), ({ passwordFile }) => ({
      method: 'basic',
      source: { file: passwordFile },
    })),
    ...one('auth.clientCertificate', certificateType, value('auth.clientCertificate'), certificateMethod),
    ...one('auth.kubernetes', kubernetesType, value('auth.kubernetes'), kubernetesMethod),
    ...several('auth.jwt', jwtType, value('auth.jwt'), (settings) => jwtMethod(settings, standard)),
    ...several('auth.oidc', oidcType, value('auth.oidc'), (settings) => oidcMethod(settings, standard)),
  ]
  return methods.length === 0 ? undefined : { name: 'auth', require: value('auth.require'), methods }
}

/** Everything but the layers. */
export function authFrame({ value }: Given): Omit<AuthPolicy, 'layers'> {
  return {
    timeoutMs: value('auth.timeoutMs'),
    failures: { attempts: value('auth.failures.attempts'), windowMs: value('auth.failures.windowMs') },
    resource: value('auth.resource'),
    authorizationServers: value('auth.authorizationServers'),
    scopesSupported: value('auth.scopesSupported'),
  }
}

function checksOf(settings: Checks): TokenChecks {
  const { audiences, algorithms, requiredClaims, scopes, subjectClaim, groupsClaim } = settings
  const clockToleranceMs = settings.clockTolerance
  return { audiences, algorithms, clockToleranceMs, requiredClaims, scopes, subjectClaim, groupsClaim }
}

function fetching(settings: JwtSettings | OidcSettings, standard: Fetching): Fetching {
  return {
    caFile: settings.caFile ?? standard.caFile,
    timeoutMs: settings.timeout ?? standard.timeoutMs,
    allowPrivate: settings.allowPrivateAddresses ?? standard.allowPrivate,
    allowHttp: settings.allowHttp ?? standard.allowHttp,
  }
}

function jwtMethod(settings: JwtSettings, standard: Fetching): JwtMethod {
  const { issuer } = settings
  return { method: 'jwt', issuer, ...checksOf(settings), keys: keysOf(settings, standard) }
}

function keysOf(settings: JwtSettings, standard: Fetching): JwtMethod['keys'] {
  const { jwksUrl, jwksFile, publicKeyFile, secretFile } = settings
  if (jwksUrl !== undefined) return { url: jwksUrl, fetching: fetching(settings, standard) }
  if (secretFile !== undefined) return { secret: { file: secretFile } }
  return { file: jwksFile ?? publicKeyFile ?? '' }
}

function oidcMethod(settings: OidcSettings, standard: Fetching): OidcMethod {
  const { issuer, clientId, clientSecretFile, introspectionUrl, tokens, cache } = settings
  return {
    method: 'oidc',
    issuer,
    ...checksOf(settings),
    clientId,
    clientSecret: clientSecretFile === undefined ? undefined : { file: clientSecretFile },
    introspectionUrl,
    tokens,
    cacheMs: cache,
    fetching: fetching(settings, standard),
  }
}

function kubernetesMethod(settings: KubernetesSettings): KubernetesMethod {
  const { cache, timeout, ...rest } = settings
  return { method: 'kubernetes', ...rest, cacheMs: cache, timeoutMs: timeout }
}

function certificateMethod({ header, ...rest }: CertificateSettings): CertificateMethod {
  return { method: 'clientCertificate', ...rest, header: header ?? 'x-forwarded-client-cert' }
}
