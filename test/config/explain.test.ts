import t from 'tap'
import { explainConfig } from '../../src/config/explain.ts'
import { fieldList } from '../../src/config/fields.ts'
import { loadConfig } from '../../src/config/load.ts'

t.test('each value has a line with its origin', async (t) => {
  const file = 'server:\n  env: { allow: [FOO], set: { API_KEY: hunter2 } }\nlimits: { requestBody: 1MiB }\n'
  const loaded = await loadConfig({
    flags: { config: 'c.yaml', port: '9000' },
    env: { MCP_SIDECAR_LOG_LEVEL: 'warn' },
    cwd: '/',
    command: ['node', 'my server.js'],
    readFile: async () => file,
  })
  const lines = explainConfig(loaded)
  t.equal(lines.length, fieldList.length)
  const squeezed = lines.map((line) => line.replaceAll(/ {2,}/g, '  '))
  for (const line of [
    'server.command  node "my server.js"  command line',
    'server.cwd  not set  default',
    'server.env.allow  the base set, FOO  c.yaml:2:17',
    'server.env.set  API_KEY=(not shown)  c.yaml:2:29',
    'listen.port  9000  --port',
    'admin.host  127.0.0.1  default',
    'auth  not set  default',
    'limits.requestBody  1MiB  c.yaml:3:24',
    'limits.requestTimeout  1m  default',
    'log.level  warn  MCP_SIDECAR_LOG_LEVEL',
  ])
    t.ok(squeezed.includes(line), line)
  t.notMatch(lines.join('\n'), 'hunter2')
})
