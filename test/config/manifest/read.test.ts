import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import t from 'tap'
import { readDocuments } from '../../../src/config/document.ts'
import { loadConfig } from '../../../src/config/load.ts'
import { gatewayDefaults, routeSpec } from '../../../src/config/manifest/route-values.ts'
import { serverSpec } from '../../../src/config/manifest/server-values.ts'
import type { ValueType } from '../../../src/config/values.ts'
import { holds } from '../../support/property.ts'
import { load, problems, route, server } from './documents.ts'

const fixture = (name: string): string =>
  fileURLToPath(new URL(`../../fixtures/ome/${name}`, import.meta.url))

const secrets = {
  'github-token': { token: 'ghp_1\n' },
  'oidc-client': { 'client-secret': 'client-secret' },
  'api-keys': { ci: 'ci-key-0123456789', nightly: 'nightly-key-0123456789\n' },
  'notes-bearer': { token: 'bearer-0123456789' },
  'notes-key': { key: 'key-0123456789abc' },
  'notes-basic': { password: 'hunter2' },
  'notes-jwt': { 'key.pem': '' },
  'notes-oauth': { secret: 'oauth' },
}
const authz = JSON.stringify({
  version: '1.0',
  type: 'cedarv1',
  cedar: { policies: ['permit(principal, action, resource);'] },
})

t.test('the documents of the API load as they are, in any order and spread over files', async (t) => {
  const cwd = t.testdir({ secrets, configmaps: {}, 'c.yaml': 'secretsDir: secrets\n' })
  const from = async (...names: string[]) =>
    (
      await loadConfig({
        flags: { config: 'c.yaml', manifest: names.map(fixture) },
        env: {},
        cwd,
        command: [],
      })
    ).config
  const config = await from('server.yaml', 'route.yaml', 'gateway.yaml')
  t.same(config.server.command, ['/server/github-mcp-server', 'stdio', '--toolsets', 'repos,issues'])
  t.same(config.server.envSet, { GITHUB_TOOLSETS: 'repos,issues', GITHUB_PERSONAL_ACCESS_TOKEN: 'ghp_1' })
  t.match(config.policy.auth.layers, [
    { name: 'gateway defaults', methods: [{ method: 'jwt' }] },
    { name: 'MCPRoute team-a/search', require: 'all', methods: [{ method: 'oidc' }, { method: 'apiKey' }] },
  ])
  t.same(
    config.policy.authz.layers.map(({ name, namespace, rules }) => [name, namespace, rules.length]),
    [
      ['gateway defaults', 'team-a', 1],
      ['MCPRoute team-a/search', 'team-a', 2],
    ],
  )
  t.equal(config.policy.rates.limits.length, 4)
  const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value))
  t.same(
    plain((await from('gateway.yaml', 'route.yaml', 'server.yaml')).policy.auth),
    plain(config.policy.auth),
  )
  t.same(plain(await from('server.yaml', 'route.yaml', 'gateway-configmap.yaml')), {
    ...(plain(config) as object),
    manifests: ['server.yaml', 'route.yaml', 'gateway-configmap.yaml'].map(fixture),
    protectedPaths: config.protectedPaths.map((path) =>
      path === fixture('gateway.yaml') ? fixture('gateway-configmap.yaml') : path,
    ),
  })
})

t.test('and those of earlier drafts, with what they spelt in other ways', async (t) => {
  const cwd = t.testdir({
    secrets,
    configmaps: { 'notes-authz': { 'authz.json': authz } },
    'c.yaml': 'secretsDir: secrets\nconfigMapsDir: configmaps\n',
  })
  const flags = { config: 'c.yaml', manifest: [fixture('earlier-drafts.yaml')] }
  const { config } = await loadConfig({ flags, env: {}, cwd, command: [] })
  t.match(config.policy, {
    auth: {
      timeoutMs: 5000,
      layers: [
        {
          name: 'MCPRoute notes',
          require: 'any',
          methods: [
            { method: 'bearer' },
            { method: 'apiKey', header: 'x-notes-key' },
            { method: 'basic' },
            { method: 'jwt', algorithms: ['ES256'], clockToleranceMs: 10_000, audiences: ['notes'] },
            { method: 'oidc', tokens: 'introspection', scopes: ['notes'] },
          ],
        },
      ],
    },
    authz: { layers: [{ evaluation: 'all' }], cedar: { server: 'notes' } },
    timeouts: [{ methods: ['*'], timeoutMs: 90_000, maxMs: 86_400_000 }],
  })
})

t.test('a document that is not read here is refused, and says what is', async (t) => {
  const cases: [document: string, wanted: RegExp][] = [
    [
      'kind: Service\napiVersion: v1',
      /^m\.yaml:1:7: document 1: kind: "Service" is not read here: there are MCPServer/,
    ],
    ['kind: Secret\napiVersion: v1\ndata: { a: aHVudGVyMg== }', /"Secret" is not read here/],
    ['kind: [a]', /kind: a list is not a kind/],
    ['a: b', /is neither an MCPServer, an MCPRoute nor gateway defaults/],
    ['- a', /document 1: must be a section of keys, not a list/],
    [
      'defaultAuthentification: {}',
      /^m\.yaml:1:1: document 1 \(gateway defaults\): unknown key: did you mean defaultAuthentication\?/,
    ],
    [server().replace('v1alpha1', 'v2'), /apiVersion: "ome.io\/v2" is not known: write ome.io\/v1alpha1/],
    [server().replace('name: github, ', ''), /document 1 \(MCPServer\): metadata: name is missing/],
    [server().replace('spec:', 'sepc:'), /unknown key: did you mean spec\?/],
    [
      route('authentification: {}'),
      /^m\.yaml:6:3: document 1 \(MCPRoute team-a\/search\): spec: unknown key: did you mean authentication\?/,
    ],
    [route().replace('kind: MCPRoute', 'kind: ConfigMap'), /document 1 \(ConfigMap\): data is missing/],
    [
      'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: x }\ndata: { a: "b: 1" }',
      /data: holds no gateway defaults/,
    ],
    ['a: [', /^m\.yaml:1:\d: not valid YAML/],
  ]
  for (const [document, wanted] of cases) {
    const found = await problems(t, [document])
    t.equal(found.length, 1, found.join(' / '))
    t.match(found[0], wanted, document)
    t.notMatch(found[0], /hunter2|aHVudGVyMg/)
  }
})

t.test('each document is counted and placed on its own', async (t) => {
  const wrong = route('authentication: { jwt: { audiences: [], jwksURI: https://id.example.com } }')
  t.same(await problems(t, [server(), wrong]), [
    'm.yaml:13:39: document 2 (MCPRoute team-a/search): spec.authentication.jwt.audiences: is empty: it needs at least one item',
  ])
})

t.test('one server, one route and one set of defaults', async (t) => {
  const defaults = 'routeConstraints: { requireAuthentication: false }'
  for (const [document, kind] of [
    [server(), 'MCPServer'],
    [route(), 'MCPRoute'],
    [defaults, 'gateway defaults'],
  ] as const) {
    const found = await problems(t, [server(), document, ...(kind === 'MCPServer' ? [] : [document])])
    t.match(found, [new RegExp(`a second ${kind}: one sidecar serves one server, by one route`)], kind)
  }
})

t.test('a route leads to its server, in the same namespace', async (t) => {
  t.match(await problems(t, [server(), route().replace('name: github', 'name: gitlab')]), [
    /document 2 \(MCPRoute team-a\/search\): spec\.backendRefs: do not lead to MCPServer team-a\/github/,
  ])
  t.match(await problems(t, [server(), route().replace('team-a', 'team-b')]), [/is in another namespace/])
  t.same(await problems(t, [server(), route().replace(', namespace: team-a', '')]), [])
  t.same(
    await problems(t, [server(), route().replace('{ serverRef: { name: github } }', '{ name: github }')]),
    [],
  )
})

t.test('a ConfigMap holds its defaults in one text, or each in a text of its own', async (t) => {
  const map = (data: string): string =>
    `apiVersion: v1\nkind: ConfigMap\nmetadata: { name: gw, namespace: ome }\ndata:\n${data}`
  const apart = map(
    '  defaultRateLimit: "{limits: [{dimension: ip, requests: 1, unit: second}]}"\n  other: x\n  routeConstraints: "requireAuthentication: false"\n',
  )
  t.match((await load(t, [server(), apart])).config.policy.rates.limits, [{ dimension: 'ip' }])
  const wrong = map(
    '  gw.yaml: |\n    defaultRateLimit:\n      limits: [{ dimension: ip, requests: 0, unit: second }]\n',
  )
  t.match(await problems(t, [wrong, server()]), [
    /^m\.yaml:5:12 \(data\.gw\.yaml:2:39\): document 1 \(ConfigMap ome\/gw\): defaultRateLimit\.limits\[0\]\.requests: 0 is out of range/,
  ])
  t.match(await problems(t, [server(), map('  defaultRateLimit: "{"\n')]), [/is not one valid YAML document/])
  t.match(await problems(t, [server(), map('  defaultRateLimits: "{}"\n')]), [
    /unknown key: did you mean defaultRateLimit/,
  ])
})

t.test('documents named as the configuration file are refused with the right flag', async (t) => {
  const cwd = t.testdir({ 'one.yaml': server(), 'two.yaml': `${server()}\n---\n${route()}` })
  for (const config of ['one.yaml', 'two.yaml'])
    await t.rejects(loadConfig({ flags: { config }, env: {}, cwd, command: ['x'] }), {
      message: /--manifest/,
    })
})

t.test('a file that cannot be read, or holds nothing, is reported where it was named', async (t) => {
  t.same(await problems(t, [server()], { flags: { manifest: ['m.yaml', 'none.yaml'] } }), [
    '--manifest: a file of manifests does not exist (looked in DIR)',
  ])
  t.match(await problems(t, ['']), [/--manifest: a file of manifests holds no document/])
})

t.test('whatever stands in a spec, it is read or refused, never thrown at', async (t) => {
  const specs = ['server.yaml', 'route.yaml', 'gateway.yaml', 'earlier-drafts.yaml'].flatMap((name) => {
    const documents = readDocuments(readFileSync(fixture(name), 'utf8'), name)
    if ('problems' in documents) throw new Error(JSON.stringify(documents.problems))
    return documents.map(({ value }): [ValueType<unknown>, unknown] => {
      const { kind, spec } = value as { kind?: string; spec?: unknown }
      if (kind === undefined) return [gatewayDefaults, value]
      return [kind === 'MCPServer' ? serverSpec : routeSpec, spec]
    })
  })
  for (const [type, spec] of specs) t.ok(type.parse(spec).ok)
  const odd = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.constantFrom(undefined, Number.NaN, '__proto__', '\0', {}),
  )
  const property = fc.property(fc.nat(specs.length - 1), fc.nat(500), odd, (which, position, value) => {
    const [type, spec] = specs[which] as [ValueType<unknown>, unknown]
    const parsed = type.parse(replaced(spec, position, value))
    if (!parsed.ok) return parsed.faults.length > 0 && parsed.faults.every(({ message }) => message !== '')
    return type.show(parsed.value) !== ''
  })
  holds(t, property, 1000)
})

/** The same value with another one in the place that is reached after so many steps. */
function replaced(spec: unknown, position: number, value: unknown): unknown {
  let left = position
  const walk = (inner: unknown): unknown => {
    left -= 1
    if (left === 0) return value
    if (Array.isArray(inner)) return inner.map(walk)
    if (typeof inner !== 'object' || inner === null) return inner
    return Object.fromEntries(Object.entries(inner).map(([key, each]) => [key, walk(each)]))
  }
  return walk(spec)
}
