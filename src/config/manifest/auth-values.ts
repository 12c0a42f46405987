import { algorithm } from '../auth-values.ts'
import { checked, defaulted, object, optional, required, type TypeOf } from '../object.ts'
import type { Fault } from '../parsed.ts'
import { good } from '../parsed.ts'
import { choice, flag, list, text, type ValueType } from '../values.ts'
import { credentialHeader, fetchUrl, headerName, issuerUrl, scope, word } from '../words.ts'
import { goDuration, reference } from './values.ts'

/** A secret written out; nobody shows it. */
const literal: ValueType<string> = { ...text('text', {}, good), show: () => '(not shown)' }

export const credential = object(
  {
    secretRef: optional(reference, '`value`', 'Where the secret is.'),
    value: optional(literal, '`secretRef`', 'The secret itself; it should not stand in a document.'),
    headerName: optional(headerName, 'the usual header', 'The header that carries it.'),
  },
  { one: [['secretRef', 'value']] },
)

const plainCredential: typeof credential = checked(credential, ({ headerName: header }) =>
  header === undefined ? [] : [{ path: ['headerName'], message: 'has no meaning here: leave it out' }],
)

const bearerOrKey = credential

export const oidcBlock = object({
  issuer: required(issuerUrl, 'The issuer.'),
  clientID: required(word('text'), 'Accepted audience, and the name of the sidecar for introspection.'),
  clientSecretRef: required(reference, 'Its secret.'),
  audiences: defaulted(list(word('text')), [], 'Accepted audiences instead of `clientID`.'),
  scopes: defaulted(list(scope), [], 'Scopes that every token must carry.'),
})

export const jwtBlock = object({
  audiences: required(list(word('text'), 1), 'Accepted audiences.'),
  jwksURI: required(fetchUrl, 'Where the keys are published.'),
  issuer: optional(word('text'), 'any that the keys vouch for', 'The `iss` that tokens must have.'),
})

export const apiKeyBlock = object({
  header: defaulted(credentialHeader, 'X-API-Key', 'The header that carries the key.'),
  secretRefs: required(list(reference, 1), 'Keys to accept.'),
})

const LISTENER = 'belongs to the listener: it is listen.tls in the file of --config'

const blocks = {
  token: optional(bearerOrKey, 'none', 'For Bearer and ApiKey: what is accepted.'),
  basic: optional(
    object({
      username: required(word('text'), 'The name.'),
      password: required(plainCredential, 'The password, or its line as `mcp-sidecar hash` makes it.'),
    }),
    'none',
    'For Basic.',
  ),
  jwt: optional(
    object({
      signingKey: required(
        plainCredential,
        'What tokens are verified with: PEM, JWKS, or the secret of HS256 to HS512.',
      ),
      algorithm: defaulted(algorithm, 'RS256', 'The only one to accept.'),
      issuer: optional(word('text'), 'any', 'The `iss` that tokens must have.'),
      audience: optional(word('text'), 'the resource', 'Accepted audience.'),
      expirationTolerance: defaulted(goDuration, '30s', 'How far clocks may differ.'),
    }),
    'none',
    'For JWT.',
  ),
  clientCert: optional(
    object(
      { caRef: required(reference, 'Authorities that issue client certificates.') },
      { known: { certificateRef: LISTENER, privateKeyRef: LISTENER, verifyServerCert: LISTENER } },
    ),
    'none',
    'For ClientCertificate.',
  ),
  oAuth2: optional(
    object({
      clientID: required(word('text'), 'Name of the sidecar at the issuer.'),
      clientSecret: required(plainCredential, 'Its secret.'),
      issuer: required(issuerUrl, 'Whose tokens are introspected.'),
      introspectionURL: optional(fetchUrl, 'what discovery names', 'Where they are.'),
      tokenURL: optional(fetchUrl, 'none', 'Where clients get tokens.'),
      scopes: defaulted(list(scope), [], 'Scopes that every token must carry.'),
    }),
    'none',
    'For OAuth2: introspection of tokens.',
  ),
} as const

const NEEDS = {
  None: undefined,
  Bearer: 'token',
  ApiKey: 'token',
  Basic: 'basic',
  JWT: 'jwt',
  ClientCertificate: 'clientCert',
  OAuth2: 'oAuth2',
} as const satisfies Readonly<Record<string, keyof typeof blocks | undefined>>

export const authMethod = object(
  {
    method: required(
      choice('None', 'Bearer', 'ApiKey', 'Basic', 'JWT', 'ClientCertificate', 'OAuth2'),
      'Which kind of credential.',
    ),
    timeout: optional(goDuration, '`auth.timeout`', 'Longest time for it.'),
    ...blocks,
  },
  {
    check: (value) => {
      const needed = NEEDS[value.method]
      const faults: Fault[] = []
      if (needed !== undefined && value[needed] === undefined)
        faults.push({ path: [], message: `${needed} is missing: ${value.method} is about it` })
      for (const name of Object.keys(blocks) as (keyof typeof blocks)[])
        if (name !== needed && value[name] !== undefined)
          faults.push({ path: [name], key: true, message: `${name} has no meaning for ${value.method}` })
      return faults
    },
  },
)

export type AuthMethodValue = TypeOf<typeof authMethod>

/** `authentication` of a route, `defaultAuthentication` of gateway defaults. */
export const authentication = object(
  {
    enabled: defaulted(flag, true, 'Whether callers must prove who they are.'),
    oidc: optional(oidcBlock, 'none', 'Tokens of an OpenID provider.'),
    jwt: optional(jwtBlock, 'none', 'Signed tokens.'),
    apiKey: optional(apiKeyBlock, 'none', 'Keys in a header.'),
    methods: optional(
      list(authMethod, 1),
      'none',
      'Methods to choose from: the first that recognises its credential decides.',
    ),
    default: optional(word('text'), 'none', 'Which method clients should take.'),
  },
  {
    check: ({ enabled, oidc, jwt, apiKey, methods }) => {
      const any = oidc ?? jwt ?? apiKey ?? methods
      if (enabled && any === undefined)
        return [{ path: [], message: 'names no method: oidc, jwt, apiKey or methods' }]
      if (!enabled && any !== undefined)
        return [{ path: ['enabled'], message: 'is false, and there are methods: keep one of the two' }]
      const none = methods?.findIndex(({ method }) => method === 'None') ?? -1
      if (none >= 0 && ((methods ?? []).length > 1 || (oidc ?? jwt ?? apiKey) !== undefined))
        return [
          {
            path: ['methods', none],
            message: 'None must stand alone: beside it no other method would matter',
          },
        ]
      return []
    },
  },
)

export type Authentication = TypeOf<typeof authentication>
