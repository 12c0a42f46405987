/** Clients of the modern era in front of legacy servers as they are published, and clients of both eras beside them. */
import { test } from 'tap'
import { getDefaultEnvironment, nameOf, play, type Route } from '../support/clients.ts'
import { comparable } from '../support/either-era.ts'
import { everythingScenario, official } from '../support/everything.ts'
import { startTestSidecar } from '../support/sidecar.ts'

const environment = getDefaultEnvironment()
const everything = official('server-everything', 'stdio')

const direct: Route = { sdk: 'v2', over: 'stdio' }
const pinned: Route = { sdk: 'v2', over: 'Streamable HTTP', pinned: true }
const pinnedSocket: Route = { sdk: 'v2', over: 'WebSocket', pinned: true }
const negotiating: Route = { sdk: 'v2', over: 'Streamable HTTP', auto: true }
const legacy: readonly Route[] = [
  { sdk: 'v1', over: 'Streamable HTTP' },
  { sdk: 'v2', over: 'Streamable HTTP' },
]

/** A promise that a later test awaits: not unhandled until then. */
function later<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

test('clients of both eras do with server-everything at the same time what they do over stdio', async (t) => {
  const sidecar = await startTestSidecar(t, {
    command: everything,
    env: environment,
    flags: { webSocket: true },
    // What the server was told to do it does in one process only.
    config: { server: { poolSize: 1, warmSpares: 0 } },
  })
  const target = { command: everything, base: sidecar.base }
  const run = (route: Route) =>
    later(
      play(route, target, async (peer) => {
        return { transcript: comparable(await everythingScenario(peer)), peer }
      }),
    )
  const overStdio = { v1: run({ sdk: 'v1', over: 'stdio' }), v2: run(direct) }
  const behind = legacy.map((route) => [route, run(route)] as const)

  t.test('directly over stdio the scenario leaves out nothing the server has', async (t) => {
    for (const running of Object.values(overStdio)) {
      const { transcript } = await running
      t.match(transcript, { steps: { 'tools never called': [], cancelled: 'none' } })
    }
  })
  for (const route of [pinned, negotiating, pinnedSocket]) {
    t.test(`${nameOf(route)} sees the same`, async (t) => {
      const [{ transcript, peer }, { transcript: expected }] = await Promise.all([run(route), overStdio.v2])
      t.equal(peer.era, 'modern')
      t.strictSame(transcript, expected)
    })
  }
  for (const [route, playing] of behind) {
    t.test(`${nameOf(route)} sees the same`, async (t) => {
      const [{ transcript, peer }, { transcript: expected }] = await Promise.all([
        playing,
        overStdio[route.sdk],
      ])
      if (route.sdk === 'v2') t.equal(peer.era, 'legacy')
      t.strictSame(transcript, expected)
    })
  }
  t.test('the sidecar says in which era it speaks to the server', async (t) => {
    t.match(
      sidecar.logs.filter(({ text }) => text.includes('era')),
      [{ level: 'info', fields: { era: 'legacy', reason: /server\/discover/ } }],
    )
  })
})
