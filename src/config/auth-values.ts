import { defaulted, object, oneOrMore, optional, record, required, type TypeOf } from './object.ts'
import { bad, type Fault, good } from './parsed.ts'
import { choice, duration, flag, list, path, type ValueType } from './values.ts'
import {
  credentialHeader,
  fetchUrl,
  globText,
  headerName,
  issuerUrl,
  plainHttp,
  scope,
  trustDomain,
  word,
} from './words.ts'

/** JWS algorithms (RFC 7518 section 3.1, RFC 8037, RFC 9864); `none` is not one. */
export const ASYMMETRIC = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512'],
  ...['EdDSA', 'Ed25519'],
] as const
export const SYMMETRIC = ['HS256', 'HS384', 'HS512'] as const

export const algorithm: ValueType<string> = choice<string>(...ASYMMETRIC, ...SYMMETRIC)

const SCALARS: ValueType<string | number | boolean | null> = {
  name: 'text, number, true, false or null',
  json: { type: ['string', 'number', 'boolean', 'null'] },
  parse: (input) =>
    input === null || ['string', 'number', 'boolean'].includes(typeof input)
      ? good(input as string | number | boolean | null)
      : bad('must be a single value, or null where the claim only has to be there'),
  parseText: good,
  show: (value) => JSON.stringify(value),
}

/** How keys and answers are fetched; what a method does not say is as in `auth.fetching`. */
const fetching = {
  caFile: optional(
    path('file'),
    '`auth.fetching.caFile`',
    'PEM file of the certification authorities that the TLS certificate of the other side must lead to.',
  ),
  timeout: optional(
    duration('100ms', '1m'),
    '`auth.fetching.timeout`',
    'Longest time for one request to the other side.',
  ),
  allowPrivateAddresses: optional(
    flag,
    '`auth.fetching.allowPrivateAddresses`',
    'Whether the other side may have an address of a private network or of this machine.',
  ),
  allowHttp: optional(
    flag,
    '`auth.fetching.allowHttp`',
    'Whether plain http may be used, which is for loopback addresses alone.',
  ),
}

/** What every kind of token is held against. */
/** A list that says, when it is empty, what then stands in. */
function unlessEmpty<T>(type: ValueType<readonly T[]>, meaning: string): ValueType<readonly T[]> {
  return { ...type, show: (values) => (values.length === 0 ? meaning : type.show(values)) }
}

const checks = {
  audiences: defaulted(
    unlessEmpty(list(word('text')), 'the resource'),
    [],
    'Accepted values of `aud`; one of them must be in it. Empty: the resource, `auth.resource`.',
  ),
  clockTolerance: defaulted(
    duration('0s', '5m'),
    '30s',
    'How far the clocks of issuer and sidecar may differ.',
  ),
  requiredClaims: defaulted(
    record(SCALARS, 'claim'),
    {},
    'Claims that must have this value, or be a list that holds it; null: that must be there.',
  ),
  scopes: defaulted(list(scope), [], 'Scopes that every token must carry.'),
  subjectClaim: defaulted(word('text'), 'sub', 'The claim that names the caller.'),
  groupsClaim: optional(
    word('text'),
    'the first of `groups`, `roles`, `cognito:groups` that is there',
    'The claim with the groups of the caller.',
  ),
}

/** Urls among these that plain http would expose. */
function exposed(
  value: { readonly [name: string]: unknown; readonly allowHttp: boolean | undefined },
  ...names: readonly string[]
): Fault[] {
  return names.flatMap((name) => {
    const url = value[name]
    const message = typeof url === 'string' ? plainHttp(url, value.allowHttp !== false) : undefined
    return message === undefined ? [] : [{ path: [name], message }]
  })
}

export const apiKeyType = object({
  keyFile: required(
    path('file'),
    'File with the keys, one `NAME:KEY` a line, at least 16 visible ASCII characters each. It is read again when it changes.',
  ),
  header: defaulted(credentialHeader, 'x-api-key', 'The header that carries the key.'),
})

export const basicType = object({
  passwordFile: required(
    path('file'),
    'File with a line `NAME:scrypt$...` for each user, as `mcp-sidecar hash` makes it. It is read again when it changes.',
  ),
})

const algorithms =
  'Signature algorithms to accept. Empty: the asymmetric ones, RS256 to RS512, PS256 to PS512, ES256 to ES512 and EdDSA'

export const jwtType = object(
  {
    issuer: required(word('text'), 'The `iss` that tokens must have, letter by letter.'),
    jwksUrl: optional(fetchUrl, 'another source of keys', 'Where the keys are published (JWKS).'),
    jwksFile: optional(path('file'), 'another source of keys', 'File with the keys (JWKS).'),
    publicKeyFile: optional(path('file'), 'another source of keys', 'File with a public key (PEM).'),
    secretFile: optional(
      path('file'),
      'another source of keys',
      'File with the secret of HS256, HS384 or HS512, at least 32 bytes. Whoever can verify such a token can make one.',
    ),
    algorithms: defaulted(
      unlessEmpty(list(algorithm), 'the default'),
      [],
      `${algorithms}; with \`secretFile\` those of HS256 to HS512 that it is long enough for. \`none\` is never accepted.`,
    ),
    ...checks,
    ...fetching,
  },
  {
    one: [['jwksUrl', 'jwksFile', 'publicKeyFile', 'secretFile']],
    check: (value) => [...exposed(value, 'jwksUrl'), ...mixedAlgorithms(value.algorithms, value.secretFile)],
  },
)

function mixedAlgorithms(algorithms: readonly string[], secretFile: string | undefined): Fault[] {
  const symmetric = secretFile !== undefined
  return algorithms.flatMap((name, index) => {
    if (name.startsWith('HS') === symmetric) return []
    const message = symmetric
      ? `${name} is not for a secret: write HS256, HS384 or HS512, or name a public key`
      : `${name} needs secretFile: with a public key anybody could make such tokens`
    return [{ path: ['algorithms', index], message }]
  })
}

export const oidcType = object(
  {
    issuer: required(
      issuerUrl,
      'The OpenID provider or OAuth server; its keys and endpoints are found by discovery.',
    ),
    clientId: optional(
      word('text'),
      'no introspection',
      'Name of the sidecar at the issuer, for introspection.',
    ),
    clientSecretFile: optional(path('file'), 'no introspection', 'File with the secret of `clientId`.'),
    introspectionUrl: optional(
      fetchUrl,
      'what discovery names',
      'Where opaque tokens are introspected (RFC 7662).',
    ),
    tokens: defaulted(
      choice('auto', 'jwt', 'introspection'),
      'auto',
      '`jwt` accepts only JWT, `introspection` asks the issuer about every token, `auto` verifies JWT by their keys and asks about others.',
    ),
    cache: defaulted(
      duration('0s', '1h'),
      '60s',
      'How long the answer of an introspection is believed; a token withdrawn meanwhile is still accepted.',
    ),
    algorithms: defaulted(
      unlessEmpty(list(choice<string>(...ASYMMETRIC)), 'the default'),
      [],
      `${algorithms}.`,
    ),
    ...checks,
    ...fetching,
  },
  {
    check: (value) => {
      const { clientId, clientSecretFile, introspectionUrl, tokens } = value
      const faults = exposed(value, 'issuer', 'introspectionUrl')
      const fault = (path: string, message: string): number => faults.push({ path: [path], message })
      if (clientId === undefined && clientSecretFile !== undefined)
        fault('clientSecretFile', 'is named without a clientId')
      if (clientId !== undefined && clientSecretFile === undefined)
        fault('clientId', 'is named without a clientSecretFile')
      if (clientId === undefined && introspectionUrl !== undefined)
        fault('introspectionUrl', 'needs clientId and clientSecretFile')
      if (clientId === undefined && tokens === 'introspection')
        fault('tokens', 'introspection needs clientId and clientSecretFile')
      if (clientId !== undefined && tokens === 'jwt')
        fault('tokens', 'jwt never introspects, and a clientId is there: say auto, or leave the client out')
      return faults
    },
  },
)

export const kubernetesType = object(
  {
    mode: defaulted(
      choice('token-review', 'jwks'),
      'token-review',
      '`token-review` asks the API server about each token, which needs the right to create tokenreviews; `jwks` verifies with the keys of the cluster and sees no deleted pod or account before its token expires.',
    ),
    audiences: required(list(word('text'), 1), 'Accepted audiences of tokens; a pod asks for one of them.'),
    apiServer: defaulted(fetchUrl, 'https://kubernetes.default.svc', 'The API server.'),
    tokenFile: defaulted(
      path('unwatched'),
      '/var/run/secrets/kubernetes.io/serviceaccount/token',
      'File with the own token of the sidecar. It is read again when it is used.',
    ),
    caFile: defaulted(
      path('unwatched'),
      '/var/run/secrets/kubernetes.io/serviceaccount/ca.crt',
      'PEM file of the certification authority of the API server.',
    ),
    issuer: defaulted(
      issuerUrl,
      'https://kubernetes.default.svc.cluster.local',
      'The `iss` of tokens, for mode `jwks`.',
    ),
    cache: defaulted(
      duration('0s', '10m'),
      '60s',
      'How long an answer is believed; a token withdrawn meanwhile is still accepted.',
    ),
    timeout: defaulted(duration('100ms', '1m'), '5s', 'Longest time for one request to the API server.'),
  },
  {
    check: ({ apiServer }) =>
      apiServer.startsWith('https:')
        ? []
        : [{ path: ['apiServer'], message: 'must begin with https://: tokens are sent there' }],
  },
)

export const certificateType = object(
  {
    from: defaulted(
      choice('tls', 'forwarded'),
      'tls',
      '`tls`: presented to the listener itself (`listen.tls`). `forwarded`: in a header of a proxy that `listen.trustedProxies` names.',
    ),
    caFile: required(
      path('file'),
      'PEM file of the certification authorities that issue client certificates. Forwarded ones are verified, too.',
    ),
    crlFile: optional(path('file'), 'no revocation', 'PEM file of revocation lists.'),
    names: defaulted(
      list(choice('spiffe', 'uri', 'dns', 'email', 'cn'), 1),
      ['spiffe', 'uri', 'dns', 'email'],
      'Which names of a certificate make the identity, in order of preference. `cn` is free text of the issuer and counts only when it is listed.',
    ),
    trustDomains: defaulted(
      list(trustDomain),
      [],
      'Trust domains of SPIFFE ids to accept. Empty: any that the authorities vouch for.',
    ),
    allow: defaulted(list(globText), [], 'Names to accept, `*` for any text. Empty: any.'),
    header: optional(
      headerName,
      '`x-forwarded-client-cert`',
      'For `forwarded`: the header with the certificate, in the form of Envoy or as URL-encoded PEM.',
    ),
  },
  {
    check: ({ from, header, names, trustDomains }) => {
      const faults: Fault[] = []
      if (from === 'tls' && header !== undefined)
        faults.push({ path: ['header'], message: 'is for forwarded certificates: say from: forwarded' })
      if (trustDomains.length > 0 && !names.includes('spiffe'))
        faults.push({ path: ['trustDomains'], message: 'are of SPIFFE ids: put spiffe into names' })
      return faults
    },
  },
)

export const jwtTypes = oneOrMore(jwtType)
export const oidcTypes = oneOrMore(oidcType)

/** The part of `auth` that says how callers prove who they are, as the file has it. */
export interface AuthSettings {
  readonly 'auth.require': 'any' | 'all'
  readonly 'auth.timeoutMs': number
  readonly 'auth.resource': string | undefined
  readonly 'auth.apiKey': TypeOf<typeof apiKeyType> | undefined
  readonly 'auth.basic': TypeOf<typeof basicType> | undefined
  readonly 'auth.jwt': TypeOf<typeof jwtTypes> | undefined
  readonly 'auth.oidc': TypeOf<typeof oidcTypes> | undefined
  readonly 'auth.kubernetes': TypeOf<typeof kubernetesType> | undefined
  readonly 'auth.clientCertificate': TypeOf<typeof certificateType> | undefined
  readonly 'auth.fetching.caFile': string | undefined
  readonly 'auth.fetching.timeoutMs': number
  readonly 'auth.fetching.allowPrivateAddresses': boolean
  readonly 'auth.fetching.allowHttp': boolean
  readonly 'auth.failures.attempts': number
  readonly 'auth.failures.windowMs': number
  readonly 'auth.authorizationServers': readonly string[]
  readonly 'auth.scopesSupported': readonly string[]
}

export type JwtSettings = TypeOf<typeof jwtType>
export type OidcSettings = TypeOf<typeof oidcType>
export type KubernetesSettings = TypeOf<typeof kubernetesType>
export type CertificateSettings = TypeOf<typeof certificateType>
