/** What server-everything asks modern clients, and what it tells them. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'tap'
import { getDefaultEnvironment, nameOf, type Peer, play, type Route } from '../support/clients.ts'
import { conformanceServer } from '../support/conformance.ts'
import { about, orderOf } from '../support/either-era.ts'
import { official } from '../support/everything.ts'
import { startTestSidecar, until } from '../support/sidecar.ts'

const everything = official('server-everything', 'stdio')
const pinned: Route = { sdk: 'v2', over: 'Streamable HTTP', pinned: true }
const pinnedSocket: Route = { sdk: 'v2', over: 'WebSocket', pinned: true }

test('what a legacy server asks a modern client', async (t) => {
  const start = (command: readonly string[] = everything) =>
    startTestSidecar(t, {
      command,
      env: getDefaultEnvironment(),
      flags: { webSocket: true },
      config: { server: { warmSpares: 0 } },
    })
  const { base } = await start()
  const visit = { url: 'https://example.org/b', message: 'Please visit', errorPath: true }
  // The server also asks for roots, 350 ms after its start, whatever runs.
  const asked = (peer: Peer) =>
    peer.user.asked.filter(({ method }) => method !== 'roots/list').map(({ params }) => params)

  for (const route of [pinned, pinnedSocket]) {
    t.test(`${nameOf(route)}: a URL that is required by an error is asked for like any other`, async (t) => {
      await play(route, { command: everything, base }, async (peer) => {
        peer.user.answers.push({ action: 'accept' }, { action: 'accept' })
        const result = await peer.call('trigger-url-elicitation', { ...visit, elicitationId: route.over })
        t.match(result.content[0].text, `completed the URL elicitation flow.\nElicitation ID: ${route.over}`)
        t.strictSame(asked(peer), [
          {
            mode: 'url',
            message: 'Open this link to satisfy the prerequisite, then retry the request.',
            url: 'https://modelcontextprotocol.io',
          },
          { mode: 'url', message: visit.message, url: visit.url },
        ])
        t.notMatch(JSON.stringify(peer.wire.received), /-32042|elicitationId/)
        t.strictSame(peer.errors, [])
      })
    })
  }
  t.test('a required URL that is declined ends the call as a failed one', async (t) => {
    for (const action of ['decline', 'cancel'] as const) {
      await play(pinned, { command: everything, base }, async (peer) => {
        peer.user.answers.push({ action })
        t.match(await peer.call('trigger-url-elicitation', { ...visit, elicitationId: action }), {
          isError: true,
        })
        t.equal(asked(peer).length, 1)
      })
    }
  })
  t.test('a client that declared nothing is told what it lacks', async (t) => {
    const abilities = { roots: false, sampling: false, elicits: [] }
    await play(
      pinned,
      { command: everything, base },
      async (peer) => {
        const lacking = (requiredCapabilities: object) => ({ code: -32021, data: { requiredCapabilities } })
        const sample = peer.call('trigger-sampling-request', { prompt: 'x' })
        await t.rejects(sample, lacking({ sampling: {} }))
        await t.rejects(peer.call('trigger-elicitation-request'), lacking({ elicitation: { form: {} } }))
        await t.rejects(peer.call('trigger-url-elicitation', visit), lacking({ elicitation: { url: {} } }))
        t.match(await peer.call('echo', { message: 'here' }), { content: [{ text: 'Echo: here' }] })
      },
      abilities,
    )
  })
  t.test('log messages come to a call that asks for them, and to no other', async (t) => {
    await play(pinned, { command: everything, base }, async (peer) => {
      await peer.call('toggle-simulated-logging', {}, { logLevel: 'debug' })
      // What else it logs, of the roots it was told, may fall into the same call.
      const simulated = about('notifications/message', 'level')
      await peer.wire.until('a log message', simulated)
      await peer.call('toggle-simulated-logging')
      t.equal(peer.wire.fromServer.filter(simulated).length, 1)
    })
  })
  t.test('roots that the server asks for during a call', async (t) => {
    // A process that has just started has not been told any.
    const fresh = await start()
    await play(pinned, { command: everything, base: fresh.base }, async (peer) => {
      const result = await peer.call('get-roots-list')
      t.match(result.content[0].text, 'URI: file:///somewhere/project')
      t.match(peer.user.asked, [{ method: 'roots/list' }])
    })
  })
  t.test('roots, although the server asked for them before the call that needs them', async (t) => {
    const dir = await mkdtemp(join(tmpdir(), 'eras-'))
    t.teardown(() => rm(dir, { recursive: true, force: true }))
    const said = join(dir, 'stdout')
    const command = ['/bin/sh', '-c', `"$0" "$@" | tee ${said}`, ...everything]
    const fresh = await start(command)
    await play(pinned, { command, base: fresh.base }, async (peer) => {
      await peer.call('echo', { message: 'starts a process' })
      const asked = async () => (await readFile(said, 'utf8')).includes('roots/list')
      await until(asked, 'the server to ask for roots of its own accord')
      const result = await peer.call('get-roots-list')
      t.match(result.content[0].text, 'URI: file:///somewhere/project')
    })
  })
  t.test('a call does not fail for roots that the server asks for when it has just started', async (t) => {
    const fresh = await start()
    const scenario = async (peer: Peer): Promise<void> => {
      const result = peer.call('trigger-long-running-operation', { duration: 1, steps: 2 })
      t.match(await result, { content: [{ text: /completed/ }] })
    }
    await play(pinned, { command: everything, base: fresh.base }, scenario, { roots: false })
  })
})

test('progress goes on under the token of the caller, whatever its type, for calls at once', async (t) => {
  const command = conformanceServer('legacy')
  const { base } = await startTestSidecar(t, { command, flags: { webSocket: true } })
  for (const route of [pinned, pinnedSocket]) {
    await play(route, { command, base }, async (peer) => {
      const tokens = ['same', 'other', 987_654]
      await Promise.all(tokens.map((token) => peer.call('test_tool_with_progress', {}, { token })))
      for (const token of tokens) t.strictSame(orderOf(peer, token), [0, 50, 100, 'result'])
    })
  }
})
