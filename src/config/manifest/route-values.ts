import { defaulted, isSection, lenient, object, optional, required, type TypeOf } from '../object.ts'
import type { Fault } from '../parsed.ts'
import { choice, flag, integer, list } from '../values.ts'
import { headerName, word } from '../words.ts'
import { authentication } from './auth-values.ts'
import { authorization, authzConfig, oidcConfig, rateLimits, timeouts } from './authz-values.ts'
import { anything } from './server-values.ts'
import { objectName } from './values.ts'

/** `serverRef: {name}`, or `name` alone. */
const backendRef = lenient(
  object({
    serverRef: required(object({ name: required(objectName, 'Name of the MCPServer.') }), 'The MCPServer.'),
    weight: optional(integer(0, 1_000_000), '1', 'Its share of the requests.'),
  }),
  (input) => {
    if (!isSection(input) || typeof input['name'] !== 'string' || 'serverRef' in input) return input
    const { name, ...rest } = input
    return { ...rest, serverRef: { name } }
  },
)

const header = object({
  name: required(headerName, 'Name of the header.'),
  value: required(word('text'), 'Its value.'),
})
const modifier = object({
  set: defaulted(list(header), [], 'Headers to set.'),
  add: defaulted(list(header), [], 'Headers to add.'),
  remove: defaulted(list(headerName), [], 'Headers to remove.'),
})

const filter = object(
  {
    type: required(choice('RequestHeaderModifier', 'ResponseHeaderModifier'), 'What is changed.'),
    requestHeaderModifier: optional(modifier, 'none', 'Changes of requests.'),
    responseHeaderModifier: optional(modifier, 'none', 'Changes of responses.'),
  },
  {
    check: ({ type, requestHeaderModifier, responseHeaderModifier }) => {
      const response = type === 'ResponseHeaderModifier'
      const [mine, other] = response
        ? [responseHeaderModifier, requestHeaderModifier]
        : [requestHeaderModifier, responseHeaderModifier]
      const faults: Fault[] = []
      if (mine === undefined || other !== undefined)
        faults.push({ path: [], message: `needs exactly ${type[0]?.toLowerCase()}${type.slice(1)}` })
      if (response)
        faults.push({ path: ['type'], message: 'ResponseHeaderModifier is not implemented in this version' })
      return faults
    },
  },
)

const NOT_HERE = 'is not implemented in this version: leave it out'
const IN_FILE = 'is not read from documents: '

/** Policies of earlier drafts that nothing here carries out. */
const UNIMPLEMENTED: Readonly<Record<string, string>> = {
  audit: `${IN_FILE}configure audit in the file of --config`,
  circuitBreaker: NOT_HERE,
  filtering: NOT_HERE,
  pii: NOT_HERE,
  sampling: NOT_HERE,
  elicitation: NOT_HERE,
  sessionIsolation: `${IN_FILE}server.topology in the file of --config`,
  cors: `${IN_FILE}listen.allowedOrigins in the file of --config`,
  headers: NOT_HERE,
  protocol: NOT_HERE,
  observability: `${IN_FILE}log and admin in the file of --config`,
}

/** `spec` of an MCPRoute. */
export const routeSpec = object(
  {
    backendRefs: required(list(backendRef, 1), 'The servers it leads to.'),
    matches: optional(list(anything, 1), 'everything', 'Which requests go to which server.'),
    authentication: optional(authentication, 'none', 'Who may come in.'),
    authorization: optional(authorization, 'none', 'What they may do.'),
    rateLimit: optional(rateLimits, 'none', 'How often.'),
    filters: optional(list(filter, 1), 'none', 'Changes of headers.'),
    timeouts: optional(timeouts, 'those of `limits`', 'How long.'),
    oidcConfig: optional(oidcConfig, 'none', 'Authentication, in the form of ToolHive.'),
    authzConfig: optional(authzConfig, 'none', 'Cedar policies, in the form of ToolHive.'),
  },
  {
    known: UNIMPLEMENTED,
    check: ({ backendRefs }) =>
      backendRefs.length > 16 ? [{ path: ['backendRefs'], message: 'are more than 16' }] : [],
  },
)

export type RouteSpec = TypeOf<typeof routeSpec>

/** Gateway defaults, as a document or in a ConfigMap. */
export const gatewayDefaults = object(
  {
    defaultAuthentication: optional(authentication, 'none', 'Who may come in, on every route.'),
    defaultAuthorization: optional(authorization, 'none', 'What they may do.'),
    defaultRateLimit: optional(rateLimits, 'none', 'How often.'),
    routeConstraints: optional(
      object({ requireAuthentication: defaulted(flag, false, 'Whether somebody must ask who is calling.') }),
      'none',
      'What routes must have.',
    ),
  },
  { known: UNIMPLEMENTED },
)

export type GatewayDefaults = TypeOf<typeof gatewayDefaults>
export const GATEWAY_KEYS = [
  'defaultAuthentication',
  'defaultAuthorization',
  'defaultRateLimit',
  'routeConstraints',
] as const
