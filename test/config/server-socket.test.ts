import t from 'tap'
import { loadConfig } from '../../src/config/load.ts'

const command = ['node', 'server.js']

t.test('the socket of a launcher is a path like others', async (t) => {
  const load = async (flags: Record<string, string>, env: Record<string, string> = {}) =>
    (await loadConfig({ flags, env, cwd: '/srv', command })).config.server.socket
  t.equal(await load({}), undefined)
  t.equal(await load({ serverSocket: '/run/mcp/stdio.sock' }), '/run/mcp/stdio.sock')
  t.equal(await load({}, { MCP_SIDECAR_SERVER_SOCKET: 'stdio.sock' }), '/srv/stdio.sock')
})

t.test('it belongs to the sidecar: no profile may open it', async (t) => {
  const flags = { serverSocket: '/run/mcp/stdio.sock' }
  const { config } = await loadConfig({ flags, env: {}, cwd: '/', command })
  t.ok(config.protectedPaths.includes('/run/mcp/stdio.sock'))
})

t.test('a folder in another container is not looked for here', async (t) => {
  const text = 'server: { cwd: /not/here, socket: /run/mcp/stdio.sock }'
  const load = (file: string) =>
    loadConfig({
      ...{ flags: { config: '/etc/sidecar.yaml' }, env: {}, cwd: '/', command },
      readFile: async () => file,
    })
  t.equal((await load(text)).config.server.cwd, '/not/here')
  await t.rejects(load(text.replace(', socket: /run/mcp/stdio.sock', '')), /not\/here|folder/)
})
