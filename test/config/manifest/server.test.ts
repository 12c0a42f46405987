import t from 'tap'
import { load, problems, route, server } from './documents.ts'

t.test('command, arguments and variables of the container start the server', async (t) => {
  const container = `, args: ['--host=$(HOST)', '$$(HOST)', '$(NONE)', ''], env: [{ name: HOST, value: 'https://$(PART)' }, { name: PART, value: x }, { name: URL, value: '$(HOST)/a' }, { name: EMPTY }]`
  const { config, settings } = await load(t, [server('', container)])
  t.same(config.server.command, ['github-mcp', '--host=https://$(PART)', '$(HOST)', '$(NONE)', ''])
  t.same(config.server.envSet, { HOST: 'https://$(PART)', PART: 'x', URL: 'https://$(PART)/a', EMPTY: '' })
  t.equal(settings.get('server.command')?.where, 'm.yaml:5:74')
})

t.test('variables from Secrets and ConfigMaps are looked up as all references are', async (t) => {
  const container = `, env: [{ name: A, valueFrom: { secretKeyRef: { name: s, key: k } } }, { name: B, valueFrom: { configMapKeyRef: { name: c, key: k } } }, { name: C, valueFrom: { secretKeyRef: { name: none, key: k, optional: true } } }, { name: D, valueFrom: { fieldRef: { fieldPath: status.podIP } } }]`
  const more = { secrets: { 's/k': 'hunter2\n' }, configMaps: { 'c/k': 'b' } }
  const { config } = await load(t, [server('', container)], more)
  t.same(config.server.envSet, { A: 'hunter2', B: 'b' })
  t.match(config.policy.notEnforced, [
    'variable D of MCPServer team-a/github: only Kubernetes knows its value: set it in server.env',
  ])
  t.match(await problems(t, [server('', container)]), [/Secret s, key k/, /ConfigMap c, key k/])
})

t.test('flags and file come first: their command, and their variables one by one', async (t) => {
  const container = ', env: [{ name: A, value: a }, { name: B, value: b }]'
  const config = 'server: { command: [other], env: { set: { B: mine } } }\n'
  const loaded = await load(t, [server('', container)], { config })
  t.same(loaded.config.server.command, ['other'])
  t.same(loaded.config.server.envSet, { A: 'a', B: 'mine' })
  const setting = loaded.settings.get('server.envSet')
  t.equal(setting?.at(['B']), 'c.yaml:3:46')
  t.equal(setting?.at(['A']), 'm.yaml:5:94')
})

t.test('a variable that changes what code runs needs permission here, too', async (t) => {
  const container = ', env: [{ name: NODE_OPTIONS, value: --require=x }]'
  t.match(await problems(t, [server('', container)]), [/^m\.yaml:5:\d+: NODE_OPTIONS changes what code runs/])
})

t.test('a container without a command cannot be started, unless another is given', async (t) => {
  const without = server().replace(', command: [github-mcp]', ', image: x')
  t.match(await problems(t, [without]), [
    /^m\.yaml:5:45: the container mcp-server has no command: write it out, since the entrypoint/,
  ])
  t.same(await problems(t, [without], { config: 'server: { command: [x] }\n' }), [])
})

t.test('what belongs to others, or to a later version, is listed and never dropped', async (t) => {
  const lines = `version: 1.2.3
serviceAccount: github
secrets: [{ name: a, key: b, targetEnvName: C }]
port: 8080`
  const container = ', workingDir: /app, envFrom: [{ secretRef: { name: x } }] }, { name: other'
  const { config } = await load(t, [server(lines, container)])
  t.same(config.policy.notEnforced, [
    ...['version', 'serviceAccount', 'secrets', 'port'].map(
      (key) => `${key} of MCPServer team-a/github: belongs to the operator`,
    ),
    'other containers of MCPServer team-a/github: belongs to the operator',
    'envFrom of MCPServer team-a/github: set the variables in server.env',
    'workingDir of MCPServer team-a/github: set server.cwd',
  ])
})

t.test('a server elsewhere is the affair of the gateway', async (t) => {
  const remote = server('transport: streamable-http').replace(
    / {2}hosted: .*/,
    '  remote: { url: https://mcp.example.com }',
  )
  const { config } = await load(t, [remote], { config: 'server: { command: [x] }\n' })
  t.match(config.policy.notEnforced, [/^remote of MCPServer/])
})

t.test('every spelling of a permission profile is validated', async (t) => {
  const text = '{"read": ["/data"]}'
  const configMaps = { 'p/k': text, 'p/permissions.json': text }
  for (const profile of [
    '{ builtin: none }',
    '{ builtin: { name: none } }',
    '{ builtin: network }',
    '{ type: builtin, name: network }',
    '{ type: configmap, name: p }',
    '{ configmap: { name: p, key: k } }',
    '{ inline: { allow: [{ network: { allowHost: ["*.x.com"], allowCIDR: [10.0.0.0/8] } }] } }',
    '{ inline: { read: [/data], write: [], network: { outbound: { allowHost: [a.b], allowPort: [443] } } } }',
  ])
    t.same(await problems(t, [server(`permissionProfile: ${profile}`)], { configMaps }), [], profile)
  for (const [profile, wanted] of [
    ['{}', /needs one of builtin, configMap, inline/],
    ['{ builtin: none, inline: {} }', /exclude each other/],
    ['{ builtin: all }', /"all" is not one of none, network-only, full-access/],
    ['{ inline: { alow: [] } }', /unknown key: did you mean allow\?/],
    [
      '{ inline: { allow: [{ network: { allowCIDR: [10.0.0.0/64] } }] } }',
      /neither an IP address nor a network/,
    ],
    [
      '{ inline: { allow: [{ kubeResources: { apiGroups: [""], resources: [pods] } }] } }',
      /verbs is missing/,
    ],
  ] as const)
    t.match(await problems(t, [server(`permissionProfile: ${profile}`)]), [wanted], profile)
})

t.test('a server that cannot be served so is refused', async (t) => {
  const cases: [document: string, wanted: RegExp][] = [
    [server('transport: sse'), /transport: a sidecar serves servers that speak stdio, not sse/],
    [
      server().replace('hosted: {', 'hosted: { replicas: 2,'),
      /replicas: a stdio server has at most one replica/,
    ],
    [server().replace('name: mcp-server', 'name: server'), /exactly one of them must be named mcp-server/],
    [server('remote: { url: https://a.b }'), /remote and hosted exclude each other/],
    [server('toolsFilter: []'), /toolsFilter: is empty/],
    [server('capabilities: { tool: true }'), /unknown key: did you mean tools\?/],
    [server('env: []'), /env belongs to the container mcp-server/],
    [server('', ', env: [{ name: A, value: 1 }]'), /env\[0\]\.value: must be text/],
    [server('', ', env: [{ name: "A-B", value: x }]'), /is not the name of a variable/],
  ]
  for (const [document, wanted] of cases) {
    const found = await problems(t, [document, route()])
    t.match(found, [wanted], `${document}: ${found.join(' / ')}`)
  }
})
