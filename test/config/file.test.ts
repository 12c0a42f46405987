import t from 'tap'
import { readConfigFile } from '../../src/config/file.ts'
import type { Layer } from '../../src/config/layer.ts'

function read(text: string): Promise<Layer> {
  return readConfigFile({ path: 'c.yaml', where: '--config' }, '/etc/mcp', async () => text)
}

t.test('values are entered with their line and column', async (t) => {
  const { settings, problems } = await read(
    'listen:\n  port: 9000\nserver: { command: [node, x] }\nshutdownGrace: 0s\n',
  )
  t.same(problems, [])
  t.same(
    [...settings].map(([key, { value, where }]) => [key, value, where]),
    [
      ['server.command', ['node', 'x'], 'c.yaml:3:20'],
      ['listen.port', 9000, 'c.yaml:2:9'],
      ['shutdownGraceMs', 0, 'c.yaml:4:16'],
    ],
  )
  t.equal(settings.get('server.command')?.at([1]), 'c.yaml:3:27')
})

t.test('auth is a word or a section', async (t) => {
  const none = await read('auth: none\n')
  t.equal(none.settings.get('auth.none')?.value, true)
  const bearer = await read('auth: { bearer: { tokenFile: ./tokens } }\n')
  t.notOk(bearer.settings.has('auth.none'))
  t.equal(
    bearer.settings.get('auth.bearerTokenFile')?.value,
    '/etc/mcp/tokens',
    'from the folder of the file',
  )
})

t.test('paths start at the folder of the file, not at the current one', async (t) => {
  const named = { path: 'conf/c.yaml', where: '--config' }
  const layer = await readConfigFile(named, '/home/me', async (path) => {
    t.equal(path, '/home/me/conf/c.yaml')
    return 'server:\n  cwd: ../server\n'
  })
  t.equal(layer.settings.get('server.cwd')?.value, '/home/me/server')
  t.equal(layer.settings.get('server.cwd')?.where, 'conf/c.yaml:2:8')
})

t.test('everything wrong in the content is reported in the order of the file', async (t) => {
  const text = `servr: {}
server:
  command: []
  startTimeout: 60
  warmSpares: "3"
  env:
    allow: [MCP_SIDECAR_X, A=hunter2]
    set:
      PORT: 8080
      TOKEN: [hunter2]
      1bad: x
listen:
  port: 80800
  hosts: x
  allowedOrigins: ['*', 'https://a.com/', null]
  httpSse: yes
port: 3
colour: red
limits:
  requestBody: 4mb
  sessions: 1.5
  batch:
  request_timeout: 3s
log:
`
  const { problems } = await read(text)
  t.same(
    problems.map(({ where, message }) => `${where} ${message}`),
    [
      'c.yaml:1:1 unknown key "servr": did you mean server?',
      'c.yaml:3:12 server.command: is empty: it needs at least a program, as in [node, server.js]',
      'c.yaml:4:17 server.startTimeout: 60 has no unit: write 60s',
      'c.yaml:5:15 server.warmSpares: is text: write 3 without quotes',
      'c.yaml:7:13 server.env.allow[0]: "MCP_SIDECAR_X" would pass variables of the sidecar itself (MCP_SIDECAR_*)',
      'c.yaml:7:28 server.env.allow[1]: only names stand here: write A, values go into server.env.set',
      'c.yaml:9:13 server.env.set.PORT: must be text, not a number: put quotes around it',
      'c.yaml:10:14 server.env.set.TOKEN: must be text, not a list: put quotes around it',
      'c.yaml:11:13 server.env.set.1bad: "1bad" is not a variable name (letters, digits and _)',
      'c.yaml:13:9 listen.port: 80800 is out of range: 0 to 65535',
      'c.yaml:14:3 unknown key "hosts" in listen: did you mean host?',
      'c.yaml:15:20 listen.allowedOrigins[0]: wildcards are not allowed: any web page could then use the server through its visitor’s browser',
      'c.yaml:15:25 listen.allowedOrigins[1]: has a path: write https://a.com',
      'c.yaml:15:43 listen.allowedOrigins[2]: is empty: give it a value or leave it out',
      'c.yaml:16:12 listen.httpSse: "yes" is neither true nor false',
      'c.yaml:17:1 unknown key "port": did you mean listen.port or admin.port?',
      'c.yaml:18:1 unknown key "colour": there are server, permissions, requirePermissions, listen, admin, auth, authorization, limits, rateLimits, rateLimitStore, timeouts, namespace, audit, manifests, secretsDir, configMapsDir, shutdownGrace, log',
      'c.yaml:20:16 limits.requestBody: "4mb" is not a size: write 4MB',
      'c.yaml:21:13 limits.sessions: 1.5 is not a whole number',
      'c.yaml:22:3 limits.batch: nothing is not a whole number',
      'c.yaml:23:3 unknown key "request_timeout" in limits: did you mean requestTimeout?',
      'c.yaml:24:1 log: must be a section of keys (level, format), not nothing: fill it or leave it out',
    ],
  )
})

t.test('a wrong form of a section or of the whole file is reported', async (t) => {
  const cases: [string, string, string][] = [
    [
      '- a\n',
      'c.yaml:1:1',
      'must be a section of keys (server, permissions, requirePermissions, listen, admin, auth, authorization, limits, rateLimits, rateLimitStore, timeouts, namespace, audit, manifests, secretsDir, configMapsDir, shutdownGrace, log), not a list',
    ],
    [
      'just text\n',
      'c.yaml:1:1',
      'must be a section of keys (server, permissions, requirePermissions, listen, admin, auth, authorization, limits, rateLimits, rateLimitStore, timeouts, namespace, audit, manifests, secretsDir, configMapsDir, shutdownGrace, log), not text',
    ],
    [
      'listen: 8080\n',
      'c.yaml:1:9',
      'listen: must be a section of keys (host, port, allowedHosts, allowedOrigins, tls, trustedProxies, forwardedHeader, streamableHttp, httpSse, webSocket, keepAlive), not a number',
    ],
    ['admin: [9090]\n', 'c.yaml:1:8', 'admin: must be a section of keys (host, port), not a list'],
    [
      'server: {env: {set: [A=1]}}\n',
      'c.yaml:1:21',
      'server.env.set: must be a section of NAME: value, not a list',
    ],
  ]
  for (const [text, where, message] of cases) t.same((await read(text)).problems, [{ where, message }], text)
})

t.test('a half-written auth is an error, never no authentication', async (t) => {
  const choice =
    'auth: must be none, or a section of methods such as bearer with its tokenFile (a flag: --bearer-token-file)'
  const cases: [string, string, string][] = [
    ['auth: hunter2\n', 'c.yaml:1:7', choice],
    ['auth:\n', 'c.yaml:1:1', choice],
    ['auth: true\n', 'c.yaml:1:7', choice],
    ['auth: [none]\n', 'c.yaml:1:7', choice],
    ['auth: {}\n', 'c.yaml:1:7', 'auth: is empty: it needs a method, such as bearer with its tokenFile'],
    [
      'auth:\n  bearer:\n',
      'c.yaml:2:3',
      'auth.bearer: must be a section of keys (tokenFile), not nothing: fill it or leave it out',
    ],
    ['auth: { bearer: {} }\n', 'c.yaml:1:17', 'auth.bearer: is empty: it needs tokenFile'],
    [
      'auth: { bearer: hunter2 }\n',
      'c.yaml:1:17',
      'auth.bearer: must be a section of keys (tokenFile), not text',
    ],
    [
      'auth: { bearer: { tokenFile: } }\n',
      'c.yaml:1:19',
      'auth.bearer.tokenFile: is empty: give it a value or leave it out',
    ],
    [
      'auth: { bearer: { tokenFile: [hunter2] } }\n',
      'c.yaml:1:30',
      'auth.bearer.tokenFile: must be text, not a list',
    ],
    ['auth: { beaer: { tokenFile: x } }\n', 'c.yaml:1:9', 'unknown key in auth: did you mean bearer?'],
    [
      'auth: { bearer: { hunter2hunter2: } }\n',
      'c.yaml:1:19',
      'unknown key in auth.bearer: there are tokenFile',
    ],
  ]
  for (const [text, where, message] of cases) {
    const { problems, failed } = await read(text)
    t.same(problems, [{ where, message }], text)
    t.ok(failed.has('auth.bearerTokenFile'), 'and no rule on authentication is applied')
    t.notMatch(JSON.stringify(problems), 'hunter2')
  }
})

t.test('a file that cannot be read is reported where it was named', async (t) => {
  const layer = await readConfigFile(
    { path: 'none.yaml', where: 'MCP_SIDECAR_CONFIG' },
    '/etc/mcp',
    async () => {
      throw Object.assign(new Error('no'), { code: 'ENOENT' })
    },
  )
  t.same(layer.problems, [
    { where: 'MCP_SIDECAR_CONFIG', message: 'none.yaml does not exist (looked in /etc/mcp)' },
  ])
  t.ok(layer.unreadable)
  const unnamed = await readConfigFile({ path: '', where: '--config' }, '/etc/mcp')
  t.same(unnamed.problems, [{ where: '--config', message: 'is empty: name a file' }])
})

t.test('a file that is not YAML says nothing about any value', async (t) => {
  const layer = await read('listen: {\n')
  t.ok(layer.unreadable)
  t.equal(layer.settings.size, 0)
})

t.test('names of object members are keys like any others', async (t) => {
  const { problems } = await read('constructor: 1\n__proto__: 2\nlisten: { toString: 1 }\n')
  t.equal(problems.length, 3)
  for (const { message } of problems) t.match(message, /^unknown key /)
})

t.test('a value that contains itself does no harm', async (t) => {
  t.equal((await read('server: &s\n  command: *s\n')).problems.length, 1)
  t.equal((await read('server:\n  command: &c [node, *c]\n')).problems.length, 1)
})
