import t from 'tap'
import { configFile, readFlags, readVariables } from '../../src/config/sources.ts'

t.test('flags are read with their own name as origin', async (t) => {
  const layer = readFlags(
    { port: '9000', allowOrigin: ['https://a.b'], webSocket: true, other: 'ignored' },
    [],
    '/cwd',
  )
  t.equal(layer.settings.get('listen.port')?.value, 9000)
  t.equal(layer.settings.get('listen.port')?.where, '--port')
  t.same(layer.settings.get('listen.allowedOrigins')?.value, ['https://a.b'])
  t.equal(layer.settings.get('listen.webSocket')?.value, true)
  t.equal(layer.settings.size, 3)
})

t.test('a repeatable flag given once is a list of one, commas included', async (t) => {
  const layer = readFlags({ allowHost: 'a,b' }, [], '/cwd')
  t.match(layer.problems, [{ where: '--allow-host', message: '"a,b" is not a host or host:port' }])
})

t.test('what follows -- is the command', async (t) => {
  const layer = readFlags({}, ['node', 'x y'], '/cwd')
  t.same(layer.settings.get('server.command')?.value, ['node', 'x y'])
  t.equal(layer.settings.get('server.command')?.where, 'command line')
})

t.test('paths of flags and variables start at the current folder', async (t) => {
  const flags = readFlags({ bearerTokenFile: './tokens' }, [], '/cwd')
  t.equal(flags.settings.get('auth.bearerTokenFile')?.value, '/cwd/tokens')
  const variables = await readVariables({ MCP_SIDECAR_BEARER_TOKEN_FILE: '../tokens' }, '/cwd')
  t.equal(variables.settings.get('auth.bearerTokenFile')?.value, '/tokens')
})

t.test('variables are read with their own name as origin, other variables not at all', async (t) => {
  const layer = await readVariables(
    {
      PATH: '/bin',
      MCP_SIDECAR_WEB_SOCKET: 'true',
      MCP_SIDECAR_PASS_ENV: 'A, B_*',
      MCP_SIDECAR_COMMAND: '["node","x y"]',
      MCP_SIDECAR_CONFIG: 'read elsewhere',
      MCP_SIDECAR_HOST: undefined,
      MCP_SIDECARS: 'another program',
    },
    '/cwd',
  )
  t.same(layer.problems, [])
  t.equal(layer.settings.get('listen.webSocket')?.where, 'MCP_SIDECAR_WEB_SOCKET')
  t.same(layer.settings.get('server.envAllow')?.value, ['A', 'B_*'])
  t.same(layer.settings.get('server.command')?.value, ['node', 'x y'])
  t.equal(layer.settings.size, 3)
})

t.test('an unknown variable is an error that names the nearest known one', async (t) => {
  const layer = await readVariables(
    { MCP_SIDECAR_PROT: '1', MCP_SIDECAR_LOGLEVEL: 'x', MCP_SIDECAR_COLOUR: 'x' },
    '/',
  )
  t.equal(layer.problems[0]?.where, 'MCP_SIDECAR_PROT')
  t.equal(layer.problems[0]?.message, 'is not a variable of mcp-sidecar: did you mean MCP_SIDECAR_PORT?')
  t.equal(layer.problems[1]?.message, 'is not a variable of mcp-sidecar: did you mean MCP_SIDECAR_LOG_LEVEL?')
  t.match(layer.problems[2]?.message, /^is not a variable of mcp-sidecar: known are MCP_SIDECAR_CONFIG, /)
})

t.test(
  'an empty variable is an error: an expansion that failed must not switch a protection off',
  async (t) => {
    const layer = await readVariables({ MCP_SIDECAR_BEARER_TOKEN_FILE: '' }, '/')
    t.same(layer.problems, [
      { where: 'MCP_SIDECAR_BEARER_TOKEN_FILE', message: 'is empty: give it a value or unset it' },
    ])
    t.ok(layer.failed.has('auth.bearerTokenFile'))
  },
)

t.test('the variables Kubernetes sets for Services are passed over', async (t) => {
  const address = 'tcp://10.0.0.1:80'
  const layer = await readVariables(
    {
      MCP_SIDECAR_SERVICE_HOST: '10.0.0.1',
      MCP_SIDECAR_SERVICE_PORT: '80',
      MCP_SIDECAR_SERVICE_PORT_HTTP: '80',
      MCP_SIDECAR_PORT: address,
      MCP_SIDECAR_PORT_80_TCP: address,
      MCP_SIDECAR_PORT_80_TCP_PROTO: 'tcp',
      MCP_SIDECAR_PORT_80_TCP_PORT: '80',
      MCP_SIDECAR_PORT_80_TCP_ADDR: '10.0.0.1',
      MCP_SIDECAR_ADMIN_PORT: address,
      MCP_SIDECAR_ADMIN_SERVICE_HOST: '10.0.0.1',
    },
    '/',
  )
  t.same(layer.problems, [])
  t.equal(layer.settings.size, 0)
})

t.test('the flag names the file before the variable does', async (t) => {
  t.same(configFile({ config: 'a' }, { MCP_SIDECAR_CONFIG: 'b' }), { path: 'a', where: '--config' })
  t.same(configFile({}, { MCP_SIDECAR_CONFIG: 'b' }), { path: 'b', where: 'MCP_SIDECAR_CONFIG' })
  t.equal(configFile({}, {}), undefined)
})
