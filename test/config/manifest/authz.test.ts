import t from 'tap'
import { load, problems, route, server } from './documents.ts'

const policy = async (t: Parameters<typeof load>[0], documents: readonly string[], more = {}) =>
  (await load(t, documents, more)).config.policy

t.test('each unit and dimension of a rate limit is carried over', async (t) => {
  const limits = `rateLimit:
  limits:
  - { dimension: user, requests: 1, unit: second }
  - { dimension: ip, requests: 2, unit: minute }
  - { dimension: principal, requests: 3, unit: hour }
  - { dimension: namespace, requests: 4, unit: day }
  - { dimension: tool, tools: ['db_*'], requests: 5, unit: day }`
  const { rates } = await policy(t, [server(), route(limits)])
  const name = (index: number): string => `MCPRoute team-a/search limit-${index}`
  t.same(rates.limits, [
    { name: name(1), dimension: 'user', tools: [], requests: 1, windowMs: 1000 },
    { name: name(2), dimension: 'ip', tools: [], requests: 2, windowMs: 60_000 },
    { name: name(3), dimension: 'principal', tools: [], requests: 3, windowMs: 3_600_000 },
    { name: name(4), dimension: 'namespace', tools: [], requests: 4, windowMs: 86_400_000 },
    { name: name(5), dimension: 'tool', tools: ['db_*'], requests: 5, windowMs: 86_400_000 },
  ])
})

t.test('Cedar policies of documents are read in the form of ToolHive', async (t) => {
  const text = 'permit(principal, action, resource);'
  const inline = `authzConfig: { type: inline, inline: { policies: ['${text}'], entitiesJSON: '[]' } }`
  t.match((await policy(t, [server(inline)])).authz.cedar, {
    policies: [{ name: 'MCPServer team-a/github authzConfig policies[0]', text }],
    server: 'github',
    groupEntityType: 'THVGroup',
  })
  const map = 'authzConfig: { type: configMap, configMap: { name: authz, key: a.json } }'
  const file = JSON.stringify({ version: '1.0', type: 'cedarv1', cedar: { policies: [text, text] } })
  const loaded = await load(t, [server(), route(map)], { configMaps: { 'authz/a.json': file } })
  t.match(loaded.config.policy.authz.cedar?.policies, [{ name: 'authz/a.json policies[0]' }, {}])
  t.ok(loaded.files.some((path) => path.endsWith('configmaps/authz/a.json')))
})

t.test(
  'Cedar stands in one place, since one set of policies could permit what the other does not',
  async (t) => {
    const inline =
      "authzConfig: { type: inline, inline: { policies: ['permit(principal, action, resource);'] } }"
    t.match(await problems(t, [server(inline), route(inline)]), [
      /^m\.yaml:6:16: Cedar policies stand here and in m\.yaml:13:16/,
    ])
    const config = "authorization: { cedar: { policies: ['permit(principal, action, resource);'] } }\n"
    t.match(await problems(t, [server(inline)], { config }), [
      /^c\.yaml:3:25: Cedar policies stand here and in m\.yaml:6:16/,
    ])
  },
)

t.test('what nothing here carries out is refused, with what there is instead', async (t) => {
  const cases: [lines: string, wanted: RegExp][] = [
    ['rateLimit: {}', /rateLimit: has no limits/],
    ['rateLimit: { limits: [] }', /limits: is empty/],
    [
      'rateLimit: { limits: [{ dimension: server, requests: 1, unit: day }] }',
      /dimension: "server" is not one of/,
    ],
    ['rateLimit: { limits: [{ dimension: ip, requests: 1, unit: week }] }', /unit: "week" is not one of/],
    [
      'rateLimit: { global: { requestsPerSecond: 1 }, perUser: { requestsPerSecond: 1 } }',
      /global is not implemented: there are limits by user/,
    ],
    ['rateLimit: { perUser: { requestsPerSecond: 1, burst: 5 } }', /burst is not implemented/],
    ['authorization: { rules: [] }', /rules: is empty/],
    [
      'authorization: { rules: [{ principals: ["*"], permissions: [{ tools: ["*"], actions: [read] }] }] }',
      /of an earlier draft: write tools\/call/,
    ],
    ['authorization: { rule: [] }', /unknown key: did you mean rules\?/],
    ['timeouts: {}', /names neither request nor backendRequest/],
    ['timeouts: { request: 1s, backendRequest: 2s }', /backendRequest: is longer than request/],
    ['audit: { enabled: true }', /audit is not read from documents: configure audit in the file/],
    ['circuitBreaker: {}', /circuitBreaker is not implemented in this version/],
    ['cors: { allowOrigins: [] }', /cors is not read from documents: listen\.allowedOrigins/],
    [
      'filters: [{ type: ResponseHeaderModifier, responseHeaderModifier: { remove: [Server] } }]',
      /ResponseHeaderModifier is not implemented/,
    ],
    ['filters: [{ type: RequestHeaderModifier }]', /needs exactly requestHeaderModifier/],
    ['authzConfig: { type: inline, configMap: { name: a } }', /inline is missing: type says so/],
    [
      'authzConfig: { type: inline, inline: { policies: [x], entitiesJSON: "{" } }',
      /inline\.entitiesJSON: is not valid JSON/,
    ],
  ]
  for (const [lines, wanted] of cases) {
    const found = await problems(t, [server(), route(lines)])
    t.match(found[0], wanted, `${lines}: ${found.join(' / ')}`)
  }
})
