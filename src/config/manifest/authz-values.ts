import { rateDimensions } from '../../core/policy.ts'
import { accessRules } from '../authz-values.ts'
import { defaulted, isSection, lenient, object, optional, required, type TypeOf } from '../object.ts'
import { good } from '../parsed.ts'
import { choice, flag, integer, list, path, text } from '../values.ts'
import { fetchUrl, globText, issuerUrl, resourceUrl, word } from '../words.ts'
import { goDuration, objectKey, objectName, reference } from './values.ts'

/** `authorization` of a route, `defaultAuthorization` of gateway defaults. */
export const authorization = object({
  rules: required(accessRules, 'Who may do what.'),
  ruleEvaluation: defaulted(choice('any', 'all'), 'any', 'Whether one rule must permit or each.'),
})

const rateLimit = object({
  dimension: required(choice(...rateDimensions), 'What is counted apart.'),
  tools: defaulted(list(globText), [], 'Only calls of these tools count.'),
  requests: required(integer(1, 1_000_000_000), 'How many requests in one unit.'),
  unit: required(choice('second', 'minute', 'hour', 'day'), 'How long a window is.'),
})

const count = optional(integer(1, 1_000_000_000), 'none', 'How many requests.')
const perCaller = object(
  { requestsPerSecond: count, requestsPerMinute: count, requestsPerHour: count },
  { known: { burst: 'is not implemented: requestsPerSecond bounds bursts' } },
)

export const PER_UNIT = {
  requestsPerSecond: 1000,
  requestsPerMinute: 60_000,
  requestsPerHour: 3_600_000,
} as const

const NO_DIMENSION =
  'is not implemented: there are limits by user, ip, tool, principal and namespace; for all requests together there is limits.inFlight in the file of --config'

/** `rateLimit` of a route, `defaultRateLimit` of gateway defaults. */
export const rateLimits = object(
  {
    limits: optional(list(rateLimit, 1), '`perUser`, `perIP`', 'The limits.'),
    perUser: optional(perCaller, 'none', 'Limits of each user, in an earlier form.'),
    perIP: optional(perCaller, 'none', 'Limits of each address, in an earlier form.'),
  },
  {
    known: { global: NO_DIMENSION, perServer: NO_DIMENSION },
    check: ({ limits, perUser, perIP }) =>
      (limits ?? perUser ?? perIP) === undefined
        ? [{ path: [], message: 'has no limits: name at least one in limits' }]
        : [],
  },
)

/** `timeouts` of a route. */
export const timeouts = object(
  {
    request: optional(goDuration, '`backendRequest`', 'Longest time of a call in all.'),
    backendRequest: optional(goDuration, '`request`', 'Longest time without an answer or progress.'),
  },
  {
    check: ({ request, backendRequest }) => {
      if ((request ?? backendRequest) === undefined)
        return [{ path: [], message: 'names neither request nor backendRequest' }]
      if (request !== undefined && backendRequest !== undefined && backendRequest > request)
        return [{ path: ['backendRequest'], message: 'is longer than request' }]
      return []
    },
  },
)

/** `configMap` in either spelling. */
export function configMapSpelling(input: unknown): unknown {
  if (!isSection(input) || !Object.hasOwn(input, 'configmap') || Object.hasOwn(input, 'configMap'))
    return input
  const { configmap, ...rest } = input
  const type = rest['type'] === 'configmap' ? { type: 'configMap' } : {}
  return { ...rest, ...type, configMap: configmap }
}

/** A variant is what `type` says, and nothing else is there. */
function variant(type: string, blocks: Readonly<Record<string, unknown>>) {
  const there = Object.keys(blocks).filter((name) => blocks[name] !== undefined)
  const others = there.filter((name) => name !== type)
  return [
    ...(there.includes(type) ? [] : [{ path: [], message: `${type} is missing: type says so` }]),
    ...others.map((name) => ({
      path: [name],
      key: true as const,
      message: `${name} has no meaning: type is ${type}`,
    })),
  ]
}

const authzInline = object({
  policies: required(list(text('Cedar policies', {}, good), 1), 'Cedar policies.'),
  entitiesJSON: defaulted(text('JSON text', {}, good), '[]', 'Entities.'),
})

/** `authzConfig` of ToolHive. */
export const authzConfig = lenient(
  object(
    {
      type: required(choice('configMap', 'inline'), 'Where the policies are.'),
      configMap: optional(
        object({
          name: required(objectName, 'Name of the ConfigMap.'),
          key: defaulted(objectKey, 'authz.json', 'Key in it.'),
        }),
        'none',
        "File in ToolHive's form.",
      ),
      inline: optional(authzInline, 'none', 'The policies themselves.'),
    },
    { check: ({ type, configMap, inline }) => variant(type, { configMap, inline }) },
  ),
  configMapSpelling,
)

/** `inline` of `oidcConfig`, and the content of its ConfigMap. */
export const oidcInline = object(
  {
    issuer: required(issuerUrl, 'The issuer.'),
    audience: optional(word('text'), 'the resource', 'Accepted audience.'),
    jwksURL: optional(fetchUrl, 'what discovery names', 'Where the keys are published.'),
    introspectionURL: optional(fetchUrl, 'none', 'Where opaque tokens are introspected.'),
    clientId: optional(word('text'), 'none', 'Name of the sidecar at the issuer.'),
    clientSecret: optional({ ...text('text', {}, good), show: () => '(not shown)' }, 'none', 'Its secret.'),
    clientSecretRef: optional(reference, 'none', 'Where its secret is.'),
    thvCABundlePath: optional(path('file'), 'the roots of Node.js', 'Authorities of the issuer.'),
    jwksAllowPrivateIP: defaulted(flag, false, 'Whether private addresses may be asked.'),
  },
  {
    most: [['clientSecret', 'clientSecretRef']],
    known: { jwksAuthTokenPath: 'is not implemented: keys are fetched without a token' },
    check: (value) => {
      const secret = value.clientSecret ?? value.clientSecretRef
      if ((value.introspectionURL === undefined) !== (secret === undefined))
        return [{ path: [], message: 'introspectionURL and clientSecret go together' }]
      if ((secret === undefined) !== (value.clientId === undefined))
        return [{ path: [], message: 'clientId and clientSecret go together' }]
      return []
    },
  },
)

export type OidcInline = TypeOf<typeof oidcInline>

const oidcKubernetes = object(
  {
    audience: required(word('text'), 'Accepted audience; there is no default.'),
    issuer: defaulted(issuerUrl, 'https://kubernetes.default.svc', 'The `iss` of tokens.'),
    namespace: optional(objectName, 'that of the document', 'Namespace of the service account.'),
    serviceAccount: optional(objectName, 'none', 'Name of the service account.'),
    useClusterAuth: defaulted(flag, true, 'Whether the own token of the sidecar is used.'),
  },
  {
    known: {
      jwksURL: 'is not implemented: the keys of the cluster are those of its API server',
      introspectionURL:
        'is not implemented: use auth.kubernetes with mode token-review in the file of --config',
    },
    check: ({ useClusterAuth }) =>
      useClusterAuth ? [] : [{ path: ['useClusterAuth'], message: 'false is not implemented' }],
  },
)

/** `oidcConfig` of ToolHive. */
export const oidcConfig = lenient(
  object(
    {
      type: defaulted(choice('kubernetes', 'configMap', 'inline'), 'kubernetes', 'Where the settings are.'),
      resourceURL: optional(resourceUrl, '`auth.resource`', 'This server as clients name it.'),
      kubernetes: optional(oidcKubernetes, 'none', 'Tokens of service accounts.'),
      configMap: optional(
        object({
          name: required(objectName, 'Name of the ConfigMap.'),
          key: defaulted(objectKey, 'oidc.json', 'Key in it.'),
        }),
        'none',
        'File with the members of `inline`.',
      ),
      inline: optional(oidcInline, 'none', 'Tokens of an issuer.'),
    },
    { check: ({ type, kubernetes, configMap, inline }) => variant(type, { kubernetes, configMap, inline }) },
  ),
  configMapSpelling,
)
