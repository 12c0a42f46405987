import { fileURLToPath } from 'node:url'
import { test } from 'tap'
import { connect, getDefaultEnvironment, type Json } from '../support/clients.ts'
import { startTestSidecar } from '../support/sidecar.ts'

const script = fileURLToPath(
  new URL('../../node_modules/@modelcontextprotocol/server-everything/dist/index.js', import.meta.url),
)
test('x', async (t) => {
  const command = [process.execPath, script, 'stdio']
  const sidecar = await startTestSidecar(t, {
    command,
    env: getDefaultEnvironment(),
    flags: { webSocket: true },
  })
  for (const over of ['Streamable HTTP', 'WebSocket'] as const) {
    const peer = await connect({ sdk: 'v2', over, pinned: true }, { command, base: sidecar.base })
    const show = async (name: string, f: () => Json) => {
      try {
        console.error(name, JSON.stringify(await f()).slice(0, 700))
      } catch (e) {
        console.error(name, 'THREW', (e as Json).code, (e as Json).message, JSON.stringify((e as Json).data))
      }
    }
    console.error(JSON.stringify(peer.server).slice(0, 600), peer.era)
    await show('tools', async () => (await peer.listTools()).tools.map((x) => x.name))
    await show('roots', () => peer.call('get-roots-list'))
    await show('sampling', () => peer.call('trigger-sampling-request', { prompt: 'hi' }))
    peer.user.answers.push({ action: 'accept' }, { action: 'accept' })
    await show('errorPath', () =>
      peer.call('trigger-url-elicitation', {
        url: 'https://example.org/a',
        message: 'm',
        elicitationId: 'e',
        errorPath: true,
      }),
    )
    await show('progress', () =>
      peer.call('trigger-long-running-operation', { duration: 0.2, steps: 4 }, { token: 'tok' }),
    )
    await show('missing', () => peer.readResource('demo://resource/nothing'))
    await show('missing tool', () => peer.call('nope'))
    await show('log', () => peer.call('toggle-simulated-logging', {}, { logLevel: 'debug' }))
    const l = await peer.listen({
      resourceSubscriptions: ['demo://resource/dynamic/text/7'],
      toolsListChanged: true,
    })
    await show('listen', () => l.honoredFilter)
    await show('toggle', () => peer.call('toggle-subscriber-updates'))
    await peer.wire.until('u', (m) => m.method === 'notifications/resources/updated')
    console.error(JSON.stringify(peer.user.asked), JSON.stringify(peer.wire.fromServer), peer.errors)
    await l.close()
    await peer.close()
  }
})
