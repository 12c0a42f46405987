import { join } from 'node:path'
import t from 'tap'
import { explainPolicy } from '../../../src/config/explain.ts'
import { permissionPlace } from '../../../src/config/permissions/place.ts'
import { load, problems } from '../loading.ts'

const file = 'filesystem:\n  read: [/app]\nnetwork:\n  allowHost: [db.example.com]\n'

t.test('without a setting nothing is chosen', async (t) => {
  const loaded = await load(t, {})
  t.equal(loaded.config.permissions, undefined)
  t.equal(permissionPlace(loaded, []), 'default')
  const lines = explainPolicy(loaded).filter((line) => line.startsWith('permissions'))
  t.match(lines, [/^permissions: no profile, the server runs with the rights of this user +default$/])
})

t.test('a builtin profile by flag, variable and file, in this order', async (t) => {
  const files = { 'c.yaml': 'permissions: none\n' }
  const env = { MCP_SIDECAR_PERMISSIONS: 'full-access' }
  const flags = { permissions: 'network-only' }
  for (const [options, name, where] of [
    [{}, 'none', 'c.yaml:1:14'],
    [{ env }, 'full-access', 'MCP_SIDECAR_PERMISSIONS'],
    [{ env, flags }, 'network', '--permissions'],
  ] as const) {
    const loaded = await load(t, files, options)
    t.equal(loaded.config.permissions?.name, name)
    t.equal(permissionPlace(loaded, ['network', 'hosts', 0]), where)
  }
})

t.test('a file, whose places are told, and which is watched', async (t) => {
  const files = { 'c.yaml': 'permissions: profiles/pg.yaml\n', profiles: { 'pg.yaml': file } }
  const loaded = await load(t, files)
  const { permissions } = loaded.config
  t.equal(permissions?.name, 'pg.yaml')
  t.same(permissions?.network.hosts, [{ kind: 'exact', name: 'db.example.com' }])
  t.equal(permissionPlace(loaded, ['filesystem', 'read', 0]), 'profiles/pg.yaml:2:10')
  t.ok(loaded.files.includes(join(t.testdirName, 'profiles/pg.yaml')))
  const json = '{ "read": ["/app"], "network": { "outbound": { "allow_port": [443] } } }'
  const imported = await load(t, { 'p.json': json }, { flags: { permissions: './p.json' } })
  t.match(imported.config.permissions, { name: 'p.json', network: { ports: [443] } })
  t.match(imported.warnings, [{ where: 'p.json:1:62', message: /any public host on these ports/ }])
})

t.test('a profile in the configuration itself, with the name of its key', async (t) => {
  const inline = `permissions:\n  ${file.trim().replaceAll('\n', '\n  ')}\n`
  const loaded = await load(t, { 'c.yaml': inline })
  t.equal(loaded.config.permissions?.name, 'permissions')
  t.equal(permissionPlace(loaded, ['network', 'hosts', 0]), 'c.yaml:5:17')
  const other = await load(t, { p: file }, { flags: { permissions: 'p' } })
  t.equal(other.config.permissions?.digest, loaded.config.permissions?.digest)
})

t.test('what is wrong is said where it stands', async (t) => {
  const cases: [files: Record<string, string>, flag: string | undefined, ...wanted: string[]][] = [
    [
      {},
      'netwrok',
      '--permissions: "netwrok" is no builtin profile: did you mean network? (a file: ./netwrok)',
    ],
    [{}, 'None', '--permissions: "None" is no builtin profile: did you mean none? (a file: ./None)'],
    [{}, './none', '--permissions: the profile none does not exist (looked in DIR)'],
    [{}, '', '--permissions: is empty: give it a value or leave it out'],
    [
      { p: 'filesystem: { read: [app] }' },
      'p',
      'p:1:22: filesystem.read[0]: "app" is not an absolute path: paths start with / here, as the server sees them',
    ],
    [
      { p: 'filesystem: [' },
      'p',
      'p:1:14: not valid YAML: the indentation does not fit the lines around it, or a bracket is not closed',
    ],
    [
      { 'c.yaml': 'permissions: {}' },
      undefined,
      'c.yaml:1:14: permissions: is empty: the profile that grants nothing is written permissions: none',
    ],
    [
      { 'c.yaml': 'permissions:' },
      undefined,
      'c.yaml:1:1: permissions: is empty: give it a value or leave it out',
    ],
    [{ 'c.yaml': 'permissions: [none]' }, undefined, 'c.yaml:1:14: permissions: must be text, not a list'],
    [
      { 'c.yaml': 'permissions: { network: { allowHost: [a:1] } }' },
      undefined,
      'c.yaml:1:39: permissions.network.allowHost[0]: "a:1" has a port in it: write the name alone, ports go into allowPort',
    ],
    [
      { 'c.yaml': 'permissions: { builtin: none }' },
      undefined,
      'c.yaml:1:16: permissions: builtin is how an MCPServer writes it: write permissions: none, network or full-access',
    ],
    [
      { 'c.yaml': 'permissions: { networks: {} }' },
      undefined,
      'c.yaml:1:16: permissions: unknown key: did you mean network?',
    ],
    [
      { 'c.yaml': 'permission: none' },
      undefined,
      'c.yaml:1:1: unknown key "permission": did you mean permissions?',
    ],
  ]
  for (const [files, permissions, ...wanted] of cases) {
    const flags = permissions === undefined ? {} : { permissions }
    t.same(await problems(t, files, { flags }), wanted, JSON.stringify([files, permissions]))
  }
})

t.test('what the profile grants is explained, part by part, with its place', async (t) => {
  const text = `filesystem: { read: [/app, { path: /x, execute: false, optional: true }], write: [/data], proc: all }
network: { allowHost: ['*.a.b'], allowCIDR: [10.0.0.1/32], allowPort: [443] }
env: { allow: [PGUSER], set: { TOKEN: hunter2 } }
limits: { memory: 512Mi, cpuSeconds: 5 }
allowDegraded: [net-port-only]
`
  const loaded = await load(t, { 'p.yaml': text }, { flags: { permissions: 'p.yaml' } })
  const lines = explainPolicy(loaded)
  const from = lines.findIndex((line) => line.startsWith('permissions'))
  const squeezed = lines
    .slice(from, lines.indexOf('not enforced here'))
    .map((line) => line.trim().replaceAll(/ {2,}/g, '  '))
  const [head = '', ...rest] = squeezed
  t.match(head, /^permissions: profile p\.yaml, sha256:[0-9a-f]{64} +p\.yaml:1:1$/)
  t.same(rest, [
    'files: what every program needs, the program of the server, and  p.yaml:1:13',
    'read and execute /app  p.yaml:1:22',
    'read /x, if it is there  p.yaml:1:28',
    'read and write /data  p.yaml:1:83',
    'processes in /proc: all  p.yaml:1:97',
    'network: connections over TCP to',
    '*.a.b  p.yaml:2:24',
    '10.0.0.1/32  p.yaml:2:46',
    'on port 443  p.yaml:2:72',
    'variable PGUSER: passed  p.yaml:3:16',
    'variable TOKEN: set  p.yaml:3:39',
    'memory: at most 512MiB  p.yaml:4:19',
    'processes: at most 256  default',
    'open files of a process: at most 1024  default',
    'CPU seconds of a process: at most 5  p.yaml:4:38',
    'may do without: net-port-only  p.yaml:5:17',
  ])
  t.notMatch(lines.join('\n'), /hunter2/)
})

t.test('what belongs to the sidecar is protected, and the folder of the server is not', async (t) => {
  const files = {
    'c.yaml':
      'auth: { bearer: { tokenFile: tokens } }\npermissions: p\nserver: { cwd: work }\naudit: { destination: audit.log }\n',
    tokens: 'a:0123456789abcdef0123\n',
    p: file,
    work: {},
  }
  const { config } = await load(t, files)
  const inside = config.protectedPaths.map((path) => path.replace(t.testdirName, 'DIR'))
  t.same(inside.toSorted(), [
    '/etc/mcp-sidecar/configmaps',
    '/etc/mcp-sidecar/secrets',
    '/var/run/secrets/kubernetes.io',
    'DIR/audit.log',
    'DIR/c.yaml',
    'DIR/p',
    'DIR/tokens',
  ])
})
