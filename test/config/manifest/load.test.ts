import t from 'tap'
import type { Policy } from '../../../src/core/policy.ts'
import { type Documents, load, problems, route, server } from './documents.ts'

const issuer = 'https://id.example.com'
const jwt = `jwt: { issuer: ${issuer}, audiences: [a], jwksURI: ${issuer}/keys }`
const apiKey = (name: string): string =>
  `apiKey: { header: X-${name}, secretRefs: [{ name: ${name}, key: k }] }`
const secrets = { 'one/k': 'key-one-0123456789', 'two/k': 'key-two-0123456789' }
const rule = (tool: string): string => `{ rules: [{ principals: ['*'], tools: [${tool}] }] }`
const limit = (requests: number, unit: string): string =>
  `{ limits: [{ dimension: user, requests: ${requests}, unit: ${unit} }] }`
const gateway = (...lines: string[]): string => lines.join('\n')

/** The layers of authentication as `name require method method`. */
function layers({ auth }: Policy): string[] {
  return auth.layers.map(({ name, require, methods }) =>
    [name, require, ...methods.map(({ method }) => method)].join(' '),
  )
}

/** The layers of rules as `name tool tool`. */
function ruleLayers({ authz }: Policy): string[] {
  return authz.layers.map(({ name, rules }) =>
    [name, ...rules.flatMap(({ permissions }) => permissions.flatMap(({ tools }) => tools))].join(' '),
  )
}

interface Clause {
  readonly clause: string
  readonly documents: readonly string[]
  readonly more?: Documents
  readonly of: (policy: Policy) => unknown
  readonly is: unknown
}

const table: readonly Clause[] = [
  {
    clause: 'gateway and route are a layer of authentication each, and both must be met',
    documents: [
      server(),
      route(`authentication: { ${apiKey('one')} }`),
      gateway(`defaultAuthentication: { ${jwt} }`),
    ],
    of: layers,
    is: ['gateway defaults all jwt', 'MCPRoute team-a/search all apiKey'],
  },
  {
    clause: 'a route without authentication keeps that of the gateway',
    documents: [server(), route(), gateway(`defaultAuthentication: { ${jwt} }`)],
    of: layers,
    is: ['gateway defaults all jwt'],
  },
  {
    clause: 'a route cannot switch off what the gateway demands',
    documents: [
      server(),
      route('authentication: { enabled: false }'),
      gateway(`defaultAuthentication: { ${jwt} }`),
    ],
    of: layers,
    is: ['gateway defaults all jwt'],
  },
  {
    clause: 'nor can a gateway that lets everyone in switch off the route',
    documents: [
      server(),
      route(`authentication: { ${jwt} }`),
      gateway('defaultAuthentication: { methods: [{ method: None }] }'),
    ],
    of: layers,
    is: ['MCPRoute team-a/search all jwt'],
  },
  {
    clause: 'the blocks of one authentication are cumulative',
    documents: [server(), route(`authentication: { ${jwt}, ${apiKey('one')} }`)],
    of: layers,
    is: ['MCPRoute team-a/search all jwt apiKey'],
  },
  {
    clause: 'methods are a choice',
    documents: [
      server(),
      route(
        'authentication: { methods: [{ method: Bearer, token: { secretRef: { name: one, key: k } } }, { method: ApiKey, token: { secretRef: { name: two, key: k } } }] }',
      ),
    ],
    of: layers,
    is: ['MCPRoute team-a/search any bearer apiKey'],
  },
  {
    clause: 'blocks and methods beside each other are two layers',
    documents: [
      server(),
      route(
        `authentication: { ${jwt}, methods: [{ method: ApiKey, token: { secretRef: { name: two, key: k } } }] }`,
      ),
    ],
    of: layers,
    is: ['MCPRoute team-a/search all jwt', 'MCPRoute team-a/search methods any apiKey'],
  },
  {
    clause: 'the file of the sidecar is one more layer',
    documents: [server(), route(`authentication: { ${jwt} }`)],
    more: { config: 'auth: { apiKey: { keyFile: keys } }\n' },
    of: layers,
    is: ['MCPRoute team-a/search all jwt', 'auth any apiKey'],
  },
  {
    clause: 'rules of gateway, route and file are a layer each',
    documents: [
      server(),
      route(`authorization: ${rule('a')}`),
      gateway(`defaultAuthorization: ${rule('b')}`),
    ],
    more: { config: "authorization: { rules: [{ principals: ['*'], tools: [c] }] }\n" },
    of: ruleLayers,
    is: ['gateway defaults b', 'MCPRoute team-a/search a', 'authorization c'],
  },
  {
    clause: 'what has no rules is no layer',
    documents: [server(), route(), gateway(`defaultAuthorization: ${rule('b')}`)],
    of: ruleLayers,
    is: ['gateway defaults b'],
  },
  {
    clause: 'one rule of a layer is enough, unless it says all',
    documents: [
      server(),
      route(`authorization: ${rule('a').replace('{ rules', '{ ruleEvaluation: all, rules')}`),
      gateway(`defaultAuthorization: ${rule('b')}`),
    ],
    of: ({ authz }) => authz.layers.map(({ evaluation }) => evaluation),
    is: ['any', 'all'],
  },
  {
    clause: 'Cedar is one more layer, beside the rules',
    documents: [
      server("authzConfig: { type: inline, inline: { policies: ['permit(principal, action, resource);'] } }"),
      route(`authorization: ${rule('a')}`),
    ],
    of: ({ authz }) => [authz.layers.length, authz.cedar?.policies.length],
    is: [1, 1],
  },
  {
    clause: 'a service account without a namespace is of the namespace of the route, for the gateway, too',
    documents: [
      server(),
      route(`authorization: ${rule('a')}`),
      gateway(`defaultAuthorization: ${rule('b')}`),
    ],
    of: ({ authz, rates }) => [...authz.layers.map(({ namespace }) => namespace), rates.namespace],
    is: ['team-a', 'team-a', 'team-a'],
  },
  {
    clause: 'every rate limit is enforced, a short window beside a long one',
    documents: [
      server(),
      route(`rateLimit: ${limit(100, 'hour')}`),
      gateway(`defaultRateLimit: ${limit(1, 'second')}`),
    ],
    more: { config: 'rateLimits: [{ per: user, requests: 1000, window: 1d }]\n' },
    of: ({ rates }) => rates.limits.map(({ requests, windowMs }) => [requests, windowMs]),
    is: [
      [1, 1000],
      [100, 3_600_000],
      [1000, 86_400_000],
    ],
  },
  {
    clause: 'each tool filter is one demand',
    documents: [server('toolsFilter: [a, b]'), route()],
    more: { config: 'authorization: { toolsFilter: [b, c] }\n' },
    of: ({ authz }) => authz.toolsFilters,
    is: [
      ['a', 'b'],
      ['b', 'c'],
    ],
  },
  {
    clause: 'only capabilities that every side serves are served',
    documents: [server('capabilities: { tools: true, prompts: true }'), route()],
    more: { config: 'authorization: { capabilities: { tools: true, resources: true } }\n' },
    of: ({ authz }) => authz.capabilities,
    is: { tools: true, resources: false, prompts: false },
  },
  {
    clause: 'of times for calls the shorter counts',
    documents: [server(), route('timeouts: { request: 2m, backendRequest: 30s }')],
    more: {
      config: 'timeouts: [{ tools: [slow], timeout: 5m }, { tools: [fast], timeout: 1s, maxTimeout: 1s }]\n',
    },
    of: ({ timeouts }) => timeouts.map(({ tools, timeoutMs, maxMs }) => [...tools, timeoutMs, maxMs]),
    is: [
      ['slow', 30_000, 120_000],
      ['fast', 1000, 1000],
      [30_000, 120_000],
    ],
  },
  {
    clause: 'what is required by the gateway may be given by the file',
    documents: [server(), route(), gateway('routeConstraints: { requireAuthentication: true }')],
    more: { config: 'auth: { apiKey: { keyFile: keys } }\n' },
    of: layers,
    is: ['auth any apiKey'],
  },
]

for (const { clause, documents, more = {}, of, is } of table)
  t.test(clause, async (t) => {
    t.same(of((await load(t, documents, { secrets, ...more })).config.policy), is)
    // The order of the documents has no meaning.
    t.same(of((await load(t, documents.toReversed(), { secrets, ...more })).config.policy), is)
  })

const refused: readonly (readonly [
  clause: string,
  documents: readonly string[],
  wanted: RegExp,
  more?: Documents,
])[] = [
  [
    'requireAuthentication without any method',
    [server(), route(), gateway('routeConstraints: { requireAuthentication: true }')],
    /^m\.yaml:\d+:44: authentication is required here, and neither the gateway defaults, the route nor the file/,
  ],
  [
    'requireAuthentication with a route that lets everyone in',
    [
      server(),
      route('authentication: { enabled: false }'),
      gateway('routeConstraints: { requireAuthentication: true }'),
    ],
    /authentication is required here/,
  ],
  [
    'auth: none beside a layer of a document',
    [server(), route(`authentication: { ${jwt} }`)],
    /^--auth: auth is none here, and MCPRoute team-a\/search demands authentication/,
    { flags: { auth: 'none' } },
  ],
  [
    'layers that no request can satisfy together',
    [
      server(),
      route(`authentication: { ${jwt} }`),
      gateway(
        'defaultAuthentication: { methods: [{ method: Bearer, token: { secretRef: { name: one, key: k } } }] }',
      ),
    ],
    /^m\.yaml:\d+:\d+: no request can satisfy both/,
  ],
  [
    'two API keys in one header',
    [
      server(),
      route(`authentication: { ${apiKey('one')} }`),
      gateway(`defaultAuthentication: { ${apiKey('two').replace('X-two', 'X-one')} }`),
    ],
    /no request can satisfy both apiKey/,
  ],
]

for (const [clause, documents, wanted, more = {}] of refused)
  t.test(`refused: ${clause}`, async (t) => {
    t.match(await problems(t, documents, { secrets, ...more }), [wanted])
  })

t.test('the name of the server is that in policies and in the audit log', async (t) => {
  const config =
    "audit: {}\nauthorization: { cedar: { policies: ['permit(principal, action, resource);'] } }\n"
  const { policy } = (await load(t, [server()], { config })).config
  t.equal(policy.audit?.component, 'github')
  t.equal(policy.authz.cedar?.server, 'github')
})

t.test('routing across servers is listed as not enforced', async (t) => {
  const lines = `matches: [{ tools: ['a_*'] }]
filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { remove: [X] } }]`
  const { policy } = (await load(t, [server(), route(lines)])).config
  t.same(policy.notEnforced, [
    'matches of MCPRoute team-a/search: routing across servers belongs to the gateway',
    'RequestHeaderModifier of MCPRoute team-a/search: no header reaches a stdio server',
  ])
})
