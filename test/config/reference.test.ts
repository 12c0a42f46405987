import { readFileSync } from 'node:fs'
import t from 'tap'
import { fieldList } from '../../src/config/fields.ts'
import { FLAGS, VARIABLES } from '../../src/config/flags.ts'
import { loadConfig } from '../../src/config/load.ts'
import { configurationReference, EXAMPLE } from '../../src/config/reference.ts'

t.test('docs/configuration.md is what the code says', async (t) => {
  const file = readFileSync(new URL('../../docs/configuration.md', import.meta.url), 'utf8')
  t.equal(
    file,
    configurationReference(),
    'after a change: npm run build && node dist/bin/mcp-sidecar.js schema --format markdown > docs/configuration.md',
  )
})

t.test('every key, flag and variable is in it', async (t) => {
  const text = configurationReference()
  for (const [key, { file, doc }] of fieldList) {
    t.equal(text.split(`| \`${file}\` | `).length - 1 > 0, true, key)
    t.equal(text.split(doc).length, 2, `${key} is described once`)
  }
  for (const { flag } of FLAGS) t.match(text, `\`${flag}`)
  for (const variable of VARIABLES.keys()) t.match(text, `\`${variable}\``)
})

t.test('its example is valid', async (t) => {
  const cwd = t.testdir({ 'c.yaml': EXAMPLE, tokens: '' })
  const { config } = await loadConfig({ flags: { config: 'c.yaml' }, env: {}, cwd, command: [] })
  t.match(config, {
    server: { command: ['node', '/srv/mcp/server.js'] },
    listen: { host: '0.0.0.0' },
    permissions: { network: { mode: 'allowlist', ports: [443] } },
    limits: { requestTimeoutMs: 120_000 },
  })
})

t.test('tables are well formed', async (t) => {
  let columns = 0
  for (const line of configurationReference().split('\n')) {
    if (!line.startsWith('|')) {
      columns = 0
      continue
    }
    const cells = line.split(/(?<!\\)\|/).length
    if (columns !== 0) t.equal(cells, columns, line.slice(0, 60))
    columns = cells
  }
})
