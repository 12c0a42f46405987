import { join } from 'node:path'
import t from 'tap'
import { load, problems } from './loading.ts'

t.test('rules are carried over; bare tools may be listed and called', async (t) => {
  const yaml = `namespace: team-a
authorization:
  ruleEvaluation: all
  rules:
  - principals: ['user:alice', 'group:dev']
    tools: ['search_*']
  - id: docs
    principals: ['*']
    permissions:
    - { resources: ['file:///docs/*'], prompts: [help], actions: [resources/read, prompts/get] }
    conditions:
    - { type: RequestHeader, key: X-Team, value: a, operator: NotEqual }
`
  const { config } = await load(t, { 'c.yaml': yaml })
  const none = { tools: [], resources: [], prompts: [] }
  t.same(config.policy.authz.layers, [
    {
      name: 'authorization',
      evaluation: 'all',
      namespace: 'team-a',
      rules: [
        {
          id: 'rule-1',
          principals: ['user:alice', 'group:dev'],
          permissions: [{ ...none, tools: ['search_*'], actions: ['tools/call', 'tools/list'] }],
          conditions: [],
        },
        {
          id: 'docs',
          principals: ['*'],
          permissions: [
            {
              ...none,
              resources: ['file:///docs/*'],
              prompts: ['help'],
              actions: ['resources/read', 'prompts/get'],
            },
          ],
          conditions: [{ type: 'RequestHeader', key: 'X-Team', value: 'a', operator: 'NotEqual' }],
        },
      ],
    },
  ])
})

t.test('scopes, filter and capabilities are carried over', async (t) => {
  const yaml = `authorization:
  scopes: [{ tools: ['write_*'], scopes: [mcp:write] }, { methods: ['prompts/*'], scopes: [mcp:read] }]
  impliedScopes: { mcp:write: [mcp:read] }
  toolsFilter: [a, b]
  capabilities: { tools: true }
`
  const { config } = await load(t, { 'c.yaml': yaml })
  t.same(config.policy.authz, {
    layers: [],
    cedar: undefined,
    scopes: [
      { methods: [], tools: ['write_*'], resources: [], prompts: [], scopes: ['mcp:write'] },
      { methods: ['prompts/*'], tools: [], resources: [], prompts: [], scopes: ['mcp:read'] },
    ],
    impliedScopes: { 'mcp:write': ['mcp:read'] },
    toolsFilters: [['a', 'b']],
    capabilities: { tools: true, resources: false, prompts: false },
  })
})

t.test('rate limits, their store and timeouts are carried over', async (t) => {
  const yaml = `rateLimits:
- { per: user, requests: 10, window: 1s }
- { name: calls, per: tool, tools: ['x_*'], requests: 1000, window: 1d }
rateLimitStore:
  redis: { url: 'rediss://redis:6379', passwordFile: pw, caFile: ca.pem, whenAway: refuse }
timeouts:
- { tools: [slow], timeout: 5m }
- { methods: ['resources/*'], timeout: 1s, maxTimeout: 2s }
- { methods: ['prompts/get'], timeout: 20m }
namespace: n
`
  const { config } = await load(t, { 'c.yaml': yaml, pw: '', 'ca.pem': '' })
  t.same(config.policy.rates, {
    limits: [
      { name: 'limit-1', dimension: 'user', tools: [], requests: 10, windowMs: 1000 },
      { name: 'calls', dimension: 'tool', tools: ['x_*'], requests: 1000, windowMs: 86_400_000 },
    ],
    namespace: 'n',
    redis: {
      url: 'rediss://redis:6379',
      password: { file: join(t.testdirName, 'pw') },
      caFile: join(t.testdirName, 'ca.pem'),
      prefix: 'mcp-sidecar',
      whenAway: 'refuse',
      timeoutMs: 500,
    },
  })
  t.same(config.policy.timeouts, [
    { methods: [], tools: ['slow'], timeoutMs: 300_000, maxMs: 600_000 },
    { methods: ['resources/*'], tools: [], timeoutMs: 1000, maxMs: 2000 },
    { methods: ['prompts/get'], tools: [], timeoutMs: 1_200_000, maxMs: 1_200_000 },
  ])
})

t.test('limits that contradict themselves are refused where they stand', async (t) => {
  const cases: [yaml: string, wanted: RegExp][] = [
    ['rateLimits: []', /^c\.yaml:1:13: rateLimits: is empty/],
    ['rateLimits: [{ per: user, requests: 1, window: 25d }]', /window: "25d" is out of range: 1s to 24d/],
    ['rateLimits: [{ per: group, requests: 1, window: 1s }]', /per: "group" is not one of user, ip/],
    [
      'rateLimits: [{ name: a, per: ip, requests: 1, window: 1s }, { name: a, per: ip, requests: 9, window: 1m }]',
      /rateLimits\[1\]\.name: is the name of an earlier limit/,
    ],
    ['rateLimitStore: { redis: { url: "redis://:hunter2@r" } }', /url: has a password in it/],
    ['rateLimitStore: { redis: { url: "redis://r", caFile: ca.pem } }', /caFile: needs TLS: write rediss:/],
    ['timeouts: [{ timeout: 2m, maxTimeout: 1m }]', /timeout: is longer than maxTimeout/],
    ['timeouts: [{ methods: [prompts/get], tools: [a], timeout: 2m }]', /tools: are called by tools\/call/],
  ]
  for (const [yaml, wanted] of cases) {
    const found = await problems(t, { 'c.yaml': `${yaml}\n`, 'ca.pem': '' })
    t.match(found, [wanted], `${yaml}: ${found.join(' / ')}`)
    t.notMatch(found.join(), 'hunter2')
  }
})

t.test('the audit log is on when its section is there', async (t) => {
  t.same((await load(t, { 'c.yaml': 'audit: {}\n' })).config.policy.audit, {
    destination: 'stdout',
    eventTypes: [],
    excludeEventTypes: [],
    includeRequestData: false,
    includeResponseData: false,
    maxDataBytes: 1024,
    redact: [],
    onFailure: 'block',
    component: 'mcp-sidecar',
  })
  const yaml = 'audit: { destination: logs/audit.jsonl, maxData: 2KiB, onFailure: continue, component: c }\n'
  const { config } = await load(t, { 'c.yaml': yaml, logs: {} })
  t.match(config.policy.audit, {
    destination: { file: join(t.testdirName, 'logs/audit.jsonl') },
    maxDataBytes: 2048,
    onFailure: 'continue',
    component: 'c',
  })
  t.same(await problems(t, { 'c.yaml': yaml }), [
    'c.yaml:1:23: the folder of audit.destination does not exist (looked in DIR/logs)',
  ])
  t.match(await problems(t, { 'c.yaml': 'audit:\n' }), [/audit: must be a section of keys \(destination, /])
})

t.test('what the combination leaves open is said', async (t) => {
  const open = async (yaml: string): Promise<readonly string[]> =>
    (await load(t, { 'c.yaml': yaml, keys: '' })).config.policy.notEnforced
  const bearer = 'auth: { bearer: { tokenFile: keys } }\n'
  t.match(await open(`permissions: none\nlisten: { host: 0.0.0.0 }\n${bearer}`), [
    /credentials travel unencrypted unless a proxy/,
  ])
  t.same(await open(bearer), [], 'on a loopback address nobody listens')
  t.same(
    await open(
      `permissions: none\nlisten: { host: 0.0.0.0, tls: { certFile: keys, keyFile: keys } }\n${bearer}`,
    ),
    [],
  )
  t.match(await open('rateLimits: [{ per: ip, requests: 1, window: 1s }]\n'), [
    /each sidecar counts for itself/,
  ])
})

t.test('that rules by name do not tell issuers apart is said where there are several', async (t) => {
  const open = async (auth: string, principal: string): Promise<readonly string[]> => {
    const yaml = `auth: { ${auth} }\nauthorization: { rules: [{ principals: ['${principal}'], tools: ['*'] }] }\n`
    return (await load(t, { 'c.yaml': yaml, keys: '' })).config.policy.notEnforced
  }
  const jwt = (...names: string[]): string =>
    `jwt: [${names.map((name) => `{ issuer: 'https://${name}.example', jwksFile: keys, audiences: [mcp] }`).join(', ')}]`
  const bearer = 'bearer: { tokenFile: keys }'
  const said = [/^which issuer or method proved a name: .*; id: names one exactly$/]
  for (const principal of ['user:alice', 'group:dev', 'serviceaccount:a/b']) {
    t.match(await open(jwt('a', 'b'), principal), said, principal)
    t.same(await open(jwt('a'), principal), [], principal)
  }
  t.match(await open(`${jwt('a')}, ${bearer}`, 'user:alice'), said)
  t.same(await open(`${jwt('a')}, ${bearer}`, 'group:dev'), [], 'a static token is in no group')
  for (const principal of ['*', 'id:bearer:ci']) t.same(await open(`${jwt('a')}, ${bearer}`, principal), [])
})
