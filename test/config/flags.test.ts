import t from 'tap'
import { FLAGS, VARIABLES } from '../../src/config/flags.ts'

t.test('the flags are those of the command line, under the keys an option parser gives them', async (t) => {
  t.same(
    FLAGS.map(({ key }) => key).sort(),
    [
      'config',
      'host',
      'port',
      'auth',
      'bearerTokenFile',
      'serverEra',
      'serverSocket',
      'topology',
      'adminPort',
      'allowOrigin',
      'allowHost',
      'passEnv',
      'permissions',
      'webSocket',
      'logLevel',
      'manifest',
      'logFormat',
    ].sort(),
  )
})

t.test(
  'every flag has the variable of the same name; the command and what an image asks for have one, too',
  async (t) => {
    const flags = FLAGS.map(({ flag }) => `MCP_SIDECAR_${flag.slice(2).toUpperCase().replaceAll('-', '_')}`)
    const alone = ['MCP_SIDECAR_COMMAND', 'MCP_SIDECAR_REQUIRE_PERMISSIONS']
    t.same([...VARIABLES.keys()].sort(), [...flags, ...alone].sort())
    for (const { variable } of FLAGS) t.ok(VARIABLES.has(variable), variable)
  },
)

t.test('a flag tells everything an option needs', async (t) => {
  const byKey = new Map(FLAGS.map((spec) => [spec.key, spec]))
  t.same(byKey.get('port'), {
    key: 'port',
    flag: '--port',
    placeholder: 'N',
    description: 'Port to listen on (default 8080)',
    repeatable: false,
    variable: 'MCP_SIDECAR_PORT',
  })
  t.match(byKey.get('webSocket'), {
    placeholder: undefined,
    description: 'Serve WebSocket at /ws, subprotocol mcp (default false)',
  })
  t.match(byKey.get('allowOrigin'), { placeholder: 'ORIGIN', repeatable: true })
  t.match(byKey.get('config'), { placeholder: 'FILE', variable: 'MCP_SIDECAR_CONFIG' })
  t.equal(byKey.get('auth')?.description, 'none: accept every caller')
})

t.test('descriptions are one line of plain text', async (t) => {
  for (const { flag, description } of FLAGS) t.match(description, /^[^`\n]{10,160}[^.`\n]$/, flag)
})
