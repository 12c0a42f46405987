import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import t from 'tap'
import { ConfigError, type Flags, type LoadInput, loadConfig } from '../../src/config/load.ts'

const command = ['node', 'server.js']

function input(flags: Flags = {}, env: LoadInput['env'] = {}, file?: string): LoadInput {
  const base = { env, cwd: '/project', command }
  return file === undefined
    ? { ...base, flags }
    : { ...base, flags: { config: 'c.yaml', ...flags }, readFile: async () => file }
}

async function failure(from: LoadInput): Promise<ConfigError> {
  try {
    await loadConfig(from)
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('it was accepted')
}

t.test('without anything but a command there is a whole configuration of defaults', async (t) => {
  const { config, files } = await loadConfig(input())
  t.same(files, [])
  const base = ['HOME', 'LANG', 'LC_*', 'LOGNAME', 'PATH', 'SHELL', 'TERM', 'TMPDIR', 'TZ', 'USER']
  t.same(config, {
    server: {
      command,
      cwd: undefined,
      envAllow: base,
      envSet: {},
      era: 'auto',
      topology: 'auto',
      poolSize: 4,
      stateKeyFile: undefined,
      startTimeoutMs: 60_000,
      warmSpares: 1,
    },
    listen: {
      host: '127.0.0.1',
      port: 8080,
      allowedHosts: [],
      allowedOrigins: [],
      tls: undefined,
      trustedProxies: [],
      streamableHttp: true,
      httpSse: true,
      webSocket: false,
      keepAliveMs: 15_000,
    },
    admin: { host: '127.0.0.1', port: 9090 },
    auth: { none: false, bearerTokenFile: undefined },
    limits: {
      requestBodyBytes: 4_194_304,
      serverMessageBytes: 67_108_864,
      sessions: 1000,
      sessionsPerPrincipal: 250,
      processes: 32,
      processesPerPrincipal: 16,
      inFlight: 1000,
      inFlightPerPrincipal: 100,
      subscriptionsPerPrincipal: 1000,
      connections: 10_000,
      requestTimeoutMs: 60_000,
      maxRequestTimeoutMs: 600_000,
      clientInputMs: 300_000,
      idleSessionMs: 1_800_000,
      sessionQueueBytes: 4_194_304,
      replayBufferBytes: 1_048_576,
      batch: 100,
      headerTimeoutMs: 10_000,
      bodyTimeoutMs: 30_000,
    },
    shutdownGraceMs: 10_000,
    log: { level: 'info', format: 'auto' },
    manifests: [],
    secretsDir: '/etc/mcp-sidecar/secrets',
    configMapsDir: '/etc/mcp-sidecar/configmaps',
    policy: {
      auth: {
        layers: [],
        timeoutMs: 10_000,
        failures: { attempts: 20, windowMs: 60_000 },
        resource: undefined,
        authorizationServers: [],
        scopesSupported: [],
      },
      authz: {
        layers: [],
        cedar: undefined,
        scopes: [],
        impliedScopes: {},
        toolsFilters: [],
        capabilities: undefined,
      },
      rates: { limits: [], namespace: 'default', redis: undefined },
      timeouts: [],
      audit: undefined,
      notEnforced: [],
    },
    permissions: undefined,
    protectedPaths: [
      '/etc/mcp-sidecar/secrets',
      '/etc/mcp-sidecar/configmaps',
      '/var/run/secrets/kubernetes.io',
    ],
  })
})

t.test('the order is flag, variable, file, default', async (t) => {
  const file = 'listen: { port: 1, host: 127.0.0.4 }\nlog: { level: debug }\nadmin: { port: 4 }\n'
  const env = { MCP_SIDECAR_PORT: '2', MCP_SIDECAR_HOST: '127.0.0.3' }
  const { config, settings } = await loadConfig(input({ port: '3' }, env, file))
  t.equal(config.listen.port, 3)
  t.equal(settings.get('listen.port')?.where, '--port')
  t.equal(config.listen.host, '127.0.0.3')
  t.equal(settings.get('listen.host')?.where, 'MCP_SIDECAR_HOST')
  t.equal(config.log.level, 'debug')
  t.equal(settings.get('log.level')?.where, 'c.yaml:2:15')
  t.equal(config.log.format, 'auto')
  t.equal(settings.get('log.format')?.where, 'default')
})

t.test('the command line names the command before the variable and the file', async (t) => {
  const env = { MCP_SIDECAR_COMMAND: 'b' }
  const file = 'server: { command: [c] }\n'
  const named = async (from: LoadInput): Promise<readonly string[]> =>
    (await loadConfig(from)).config.server.command
  t.same(await named(input({}, env, file)), command)
  t.same(await named({ ...input({}, env, file), command: [] }), ['b'])
  t.same(await named({ ...input({}, {}, file), command: [] }), ['c'])
})

t.test('a flag, a variable and the file say the same', async (t) => {
  const folder = t.testdir({ tokens: 'x' })
  const tokens = join(folder, 'tokens')
  const flags = {
    host: '0.0.0.0',
    port: '1',
    bearerTokenFile: tokens,
    serverEra: 'legacy',
    topology: 'shared',
    adminPort: '2',
    allowOrigin: ['https://a.b', 'https://c.d'],
    allowHost: ['a.b:1'],
    passEnv: ['A', 'B_*'],
    webSocket: true,
    logLevel: 'warn',
    logFormat: 'json',
    permissions: 'network',
  }
  const variables = {
    MCP_SIDECAR_HOST: '0.0.0.0',
    MCP_SIDECAR_PORT: '1',
    MCP_SIDECAR_BEARER_TOKEN_FILE: tokens,
    MCP_SIDECAR_SERVER_ERA: 'legacy',
    MCP_SIDECAR_TOPOLOGY: 'shared',
    MCP_SIDECAR_ADMIN_PORT: '2',
    MCP_SIDECAR_ALLOW_ORIGIN: 'https://a.b,https://c.d',
    MCP_SIDECAR_ALLOW_HOST: 'a.b:1',
    MCP_SIDECAR_PASS_ENV: 'A,B_*',
    MCP_SIDECAR_WEB_SOCKET: 'true',
    MCP_SIDECAR_LOG_LEVEL: 'warn',
    MCP_SIDECAR_LOG_FORMAT: 'json',
    MCP_SIDECAR_PERMISSIONS: 'network',
  }
  const file = `
permissions: network
server: { era: legacy, topology: shared, env: { allow: [A, B_*] } }
listen: { host: 0.0.0.0, port: 1, allowedHosts: ['a.b:1'], allowedOrigins: [https://a.b, https://c.d], webSocket: true }
admin: { port: 2 }
auth: { bearer: { tokenFile: ${tokens} } }
log: { level: warn, format: json }
`
  const [byFlag, byVariable, byFile] = await Promise.all(
    [input(flags), input({}, variables), input({}, {}, file)].map(
      async (from) => (await loadConfig(from)).config,
    ),
  )
  t.same(byVariable, byFlag)
  const own = byFile?.protectedPaths.filter((path) => path !== '/project/c.yaml')
  t.same({ ...byFile, protectedPaths: own }, byFlag)
  t.match(byFlag, { listen: { webSocket: true, port: 1 }, admin: { host: '0.0.0.0', port: 2 } })
})

t.test('the same can be said of auth none', async (t) => {
  for (const from of [
    input({ auth: 'none' }),
    input({}, { MCP_SIDECAR_AUTH: 'none' }),
    input({}, {}, 'auth: none\n'),
  ])
    t.equal((await loadConfig(from)).config.auth.none, true)
})

t.test('the admin address follows the listening one, origin included', async (t) => {
  const { config, settings } = await loadConfig(input({ host: '::1' }))
  t.equal(config.admin.host, '::1')
  t.equal(settings.get('admin.host')?.where, '--host')
})

t.test('a list replaces the one below it', async (t) => {
  const { config } = await loadConfig(input({ allowHost: ['a'] }, {}, 'listen: { allowedHosts: [b, c] }\n'))
  t.same(config.listen.allowedHosts, ['a'])
})

t.test('a passed name that is in the base set anyway is there once', async (t) => {
  const { config } = await loadConfig(input({ passEnv: ['PATH', 'X'] }))
  t.equal(config.server.envAllow.filter((name) => name === 'PATH').length, 1)
  t.equal(config.server.envAllow.at(-1), 'X')
})

t.test('the files to watch are the configuration and what it names', async (t) => {
  const folder = t.testdir({ conf: { 'c.yaml': 'auth: { bearer: { tokenFile: ../tokens } }\n' }, tokens: '' })
  const { config, files } = await loadConfig({
    flags: { config: 'conf/c.yaml' },
    env: {},
    cwd: folder,
    command,
  })
  t.equal(config.auth.bearerTokenFile, join(folder, 'tokens'))
  t.same(files, [join(folder, 'conf', 'c.yaml'), join(folder, 'tokens')])
})

t.test('everything wrong in flags, variables and file is thrown at once', async (t) => {
  const flags = { port: '99999', logLevel: 'loud', allowOrigin: ['https://a.b', '*'] }
  const env = { MCP_SIDECAR_ADMIN_PORT: 'x', MCP_SIDECAR_HOTS: 'y', MCP_SIDECAR_COMMAND: "node 'a b'" }
  const { problems, message } = await failure(input(flags, env, 'listen:\n  prot: 1\nshutdownGrace: 10\n'))
  const lines = [
    '--allow-origin: wildcards are not allowed: any web page could then use the server through its visitor’s browser',
    '--port: 99999 is out of range: 0 to 65535',
    '--log-level: "loud" is not one of trace, debug, info, warn, error, fatal, silent',
    'MCP_SIDECAR_ADMIN_PORT: "x" is not a whole number',
    'MCP_SIDECAR_HOTS: is not a variable of mcp-sidecar: did you mean MCP_SIDECAR_HOST?',
    'MCP_SIDECAR_COMMAND: has quotes or backslashes, which are not interpreted: use the JSON form ["node","server.js"]',
    'c.yaml:2:3: unknown key "prot" in listen: did you mean port?',
    'c.yaml:3:16: shutdownGrace: 10 has no unit: write 10s',
  ]
  t.same(message.split('\n').sort(), lines.toSorted())
  t.equal(problems.length, lines.length)
})

t.test('a file that is not there, a folder, and a file too large are told apart', async (t) => {
  const folder = t.testdir({ sub: {}, large: '#'.repeat(2 ** 20 + 1), latin: Buffer.from([0x23, 0xe9]) })
  const why = async (config: string): Promise<unknown> =>
    (await failure({ flags: { config }, env: {}, cwd: folder, command })).problems
  t.same(await why('none.yaml'), [
    { where: '--config', message: `none.yaml does not exist (looked in ${folder})` },
  ])
  t.same(await why('sub'), [
    { where: '--config', message: `sub is a folder: name a file in it (looked in ${folder})` },
  ])
  t.same(await why('large'), [
    { where: '--config', message: `large is larger than 1 MiB (looked in ${folder})` },
  ])
  t.same(await why('latin'), [
    { where: '--config', message: `latin is not UTF-8 text (looked in ${folder})` },
  ])
  const variable = await failure({
    flags: {},
    env: { MCP_SIDECAR_CONFIG: 'none.yaml' },
    cwd: folder,
    command,
  })
  t.equal(variable.problems[0]?.where, 'MCP_SIDECAR_CONFIG')
})

t.test('a missing token file or folder is reported where it is named', async (t) => {
  const folder = t.testdir({ file: '' })
  const from = (flags: Flags, file: string): LoadInput => ({ ...input(flags, {}, file), cwd: folder })
  const token = await failure(from({}, 'auth:\n  bearer:\n    tokenFile: ./hunter2\n'))
  t.same(token.problems, [
    {
      where: 'c.yaml:3:16',
      message: `the file of auth.bearer.tokenFile does not exist (looked in ${folder})`,
    },
  ])
  const cwd = await failure(from({ bearerTokenFile: '.' }, 'server: { cwd: file }\n'))
  t.same(cwd.problems, [
    { where: 'c.yaml:1:16', message: `the folder of server.cwd is not a folder (looked in ${folder})` },
    {
      where: '--bearer-token-file',
      message: `the file of auth.bearer.tokenFile is a folder: name a file in it (looked in ${join(folder, '..')})`,
    },
  ])
})

t.test('no error repeats a secret, wherever it was written by mistake', async (t) => {
  const files = [
    'auth: hunter2\n',
    'auth: { bearer: hunter2 }\n',
    'auth: { bearer: { token: hunter2 } }\n',
    'auth: { bearer: { tokenFile: hunter2 } }\n',
    'server: { env: { set: { A: { B: hunter2 } } } }\n',
    'server: { env: { set: A=hunter2 } }\n',
    'server: { env: { allow: [A=hunter2] } }\n',
    'server: { command: node --key hunter2 }\n',
    'server: { command: [node, [hunter2]] }\n',
    'listen: { allowedOrigins: ["https://me:hunter2@a.b"] }\n',
    'listen: { allowedHosts: ["me:hunter2@a.b"] }\n',
    'listen: { host: "me:hunter2@a.b" }\n',
    'server: { env: { set: { A: "hunter2 } } }\n',
    'server:\n  env:\n   set:\n  A: hunter2: hunter2\n',
    'a: "b" hunter2\n',
    'a: !hunter2 b\n',
    'a: *hunter2\n',
    'a: |hunter2\n',
    'a: @hunter2\n',
    'a: "\\uhunter2"\n',
  ]
  const inputs = [
    ...files.map((file) => input({}, {}, file)),
    input({ auth: 'hunter2' }),
    input({ bearerTokenFile: 'hunter2' }),
    input({ passEnv: ['A=hunter2'] }),
    input({}, { MCP_SIDECAR_AUTH: 'hunter2' }),
    input({}, { MCP_SIDECAR_BEARER_TOKEN_FILE: 'hunter2' }),
    input({}, { MCP_SIDECAR_BEARER_TOKEN: 'hunter2' }),
    input({}, { MCP_SIDECAR_COMMAND: "node --key 'hunter2'" }),
    input({}, { MCP_SIDECAR_COMMAND: '["node", hunter2]' }),
  ]
  for (const from of inputs) {
    const error = await failure(from)
    t.notMatch(JSON.stringify(error.problems) + error.stack, 'hunter2', error.message)
  }
})

t.test('YAML and schema code is loaded only for a file', async (t) => {
  const load = new URL('../../src/config/load.ts', import.meta.url).href
  const script = `
    const { loadConfig } = await import(${JSON.stringify(load)})
    const { register } = await import('node:module')
    register('data:text/javascript,' + encodeURIComponent(\`
      export async function resolve(name, context, next) {
        if (name === 'yaml' || name === 'zod') throw new Error('loaded ' + name)
        return next(name, context)
      }\`))
    await loadConfig({ flags: { port: '1' }, env: {}, cwd: '/', command: ['x'] })
    const file = loadConfig({ flags: { config: 'c' }, env: {}, cwd: '/', command: ['x'], readFile: async () => '' })
    console.log(await file.catch((error) => error.message))
  `
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [...process.execArgv, '--input-type=module', '-e', script],
    { encoding: 'utf8' },
  )
  t.match(stdout, /^loaded (yaml|zod)\n$/, stderr)
})
