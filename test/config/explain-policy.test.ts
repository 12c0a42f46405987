import t from 'tap'
import { explainPolicy } from '../../src/config/explain.ts'
import { load } from './loading.ts'
import { load as loadDocuments, route, server } from './manifest/documents.ts'

/** Without what only aligns the columns. */
function squeezed(lines: readonly string[]): string[] {
  return lines.map((line) => line.trim().replaceAll(/ {2,}/g, '  '))
}

t.test('without any policy it says so', async (t) => {
  const lines = squeezed(explainPolicy(await load(t, {})))
  for (const line of [
    'authentication: off, every caller is anonymous  default',
    'authorization: off, every operation is permitted  default',
    'no rate limits  default',
    'audit: off  default',
    'nothing is left to others',
  ])
    t.ok(lines.includes(line), line)
})

t.test('each part stands with its place, in the order in which it applies', async (t) => {
  const yaml = `auth:
  apiKey: { keyFile: keys }
  jwt: { issuer: https://id.example.com, jwksUrl: https://id.example.com/keys, clockTolerance: 5s }
  timeout: 3s
authorization:
  rules:
  - id: search
    principals: ['group:dev']
    tools: ['search_*']
    conditions: [{ type: IPAddress, value: 10.0.0.0/8 }]
  scopes: [{ tools: ['write_*'], scopes: [mcp:write] }]
  impliedScopes: { mcp:write: [mcp:read] }
  toolsFilter: [search_a]
  capabilities: { tools: true }
  cedar: { policies: ['permit(principal, action, resource);'] }
rateLimits: [{ name: short, per: ip, tools: [a], requests: 5, window: 1s }]
rateLimitStore: { redis: { url: 'redis://redis' } }
timeouts: [{ tools: [slow], timeout: 5m }]
audit: { includeRequestData: true, destination: audit.log }
namespace: n
`
  const lines = squeezed(explainPolicy(await load(t, { 'c.yaml': yaml, keys: '' })))
  const wanted = [
    'auth: the first that recognises its credential decides  default',
    /^apiKey: keys in the header x-api-key, \S*keys {2}c\.yaml:2:11$/,
    'header: x-api-key  default',
    'jwt: tokens of https://id.example.com  c.yaml:3:8',
    'jwksUrl: https://id.example.com/keys  c.yaml:3:51',
    'clockTolerance: 5s  c.yaml:3:96',
    'subjectClaim: sub  default',
    'time for authentication: 3s  c.yaml:4:12',
    'audience of tokens: the URL that is listened on  default',
    'authorization: on, each of these must permit',
    'only the tools search_a  c.yaml:13:16',
    'only the capabilities tools  c.yaml:14:17',
    'scopes mcp:write for tools write_*  c.yaml:11:12',
    'scope mcp:write implies mcp:read  c.yaml:12:18',
    'search: group:dev  c.yaml:7:5',
    'if IPAddress Equal 10.0.0.0/8  c.yaml:10:18',
    'cedar: MCP::"mcp-server", groups are THVGroup  c.yaml:15:10',
    'authorization.cedar.policies[0]',
    'short: 5 in 1s per ip, tools a  c.yaml:16:14',
    'counted in Redis; while it is away: local  c.yaml:17:17',
    'namespace of callers that have none: n  c.yaml:20:12',
    'tools/call of slow: 5m without progress, 10m in all  c.yaml:18:12',
    /^audit: to \S*audit\.log as mcp-sidecar {2}c\.yaml:19:8$/,
    'with arguments  c.yaml:19:8',
    'no call is served while it cannot be written  c.yaml:19:8',
  ]
  let at = -1
  for (const line of wanted) {
    const found = lines.findIndex((each) => (typeof line === 'string' ? each === line : line.test(each)))
    t.ok(found > at, `${line} is there, and after the one before`)
    at = found
  }
})

t.test('values of documents stand with their own lines, secrets nowhere', async (t) => {
  const lines = `authentication:
  apiKey: { secretRefs: [{ name: keys, key: k }] }
  methods: [{ method: Basic, basic: { username: u, password: { value: hunter2 } }, timeout: 2s }]
authorization:
  rules: [{ principals: ['*'], tools: [a] }]
rateLimit: { limits: [{ dimension: ip, requests: 1, unit: second }] }`
  const container = ', env: [{ name: TOKEN, value: hunter3 }]'
  const loaded = await loadDocuments(
    t,
    [server('permissionProfile: { builtin: none }', container), route(lines)],
    {
      secrets: { 'keys/k': 'hunter4-0123456789' },
    },
  )
  const explained = squeezed(explainPolicy(loaded))
  for (const line of [
    'MCPRoute team-a/search  m.yaml:14:5',
    'apiKey: keys in the header x-api-key, not shown  m.yaml:14:13',
    'secretRefs[0].name: keys  m.yaml:14:36',
    'timeout: 2s  m.yaml:15:95',
    'basic.password.value: (not shown)  m.yaml:15:73',
    'time for authentication: 2s  the documents',
    'rule-1: *  m.yaml:17:13',
    'MCPRoute team-a/search limit-1: 1 in 1s per ip  m.yaml:18:25',
    'namespace of callers that have none: team-a  the documents',
    'network: none  m.yaml:6:33',
    'warnings',
  ])
    t.ok(explained.includes(line), line)
  t.match(explained.at(-1), /a secret stands here in clear.* {2}m\.yaml:15:73$/)
  t.notMatch(explained.join('\n'), 'hunter')
})
