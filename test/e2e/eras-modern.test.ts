import { test } from 'tap'
import {
  connect,
  getDefaultEnvironment,
  nameOf,
  type Peer,
  type Route,
  type Target,
} from '../support/clients.ts'
import { comparable } from '../support/either-era.ts'
import { everythingScenario, official } from '../support/everything.ts'
import { startTestSidecar } from '../support/sidecar.ts'

const environment = getDefaultEnvironment()
const everything = official('server-everything', 'stdio')

const pinned: Route = { sdk: 'v2', over: 'Streamable HTTP', pinned: true }
const auto: Route = { sdk: 'v2', over: 'Streamable HTTP', auto: true }
const legacy: readonly Route[] = [
  { sdk: 'v1', over: 'Streamable HTTP' },
  { sdk: 'v2', over: 'Streamable HTTP' },
]

async function play<T>(route: Route, target: Target, scenario: (peer: Peer) => Promise<T>): Promise<T> {
  const peer = await connect(route, target)
  try {
    return await scenario(peer)
  } finally {
    await peer.close()
  }
}

function later<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {})
  return promise
}

test('clients of both eras do with server-everything at the same time what they do over stdio', async (t) => {
  const sidecar = await startTestSidecar(t, {
    command: everything,
    env: environment,
    // What the server was told to do it does in one process only.
    config: { server: { poolSize: 1, warmSpares: 0 } },
  })
  const target = { command: everything, base: sidecar.base }
  const run = (route: Route): Promise<object> =>
    later(play(route, target, async (peer) => comparable(await everythingScenario(peer))))
  const overStdio = { v1: run({ sdk: 'v1', over: 'stdio' }), v2: run({ sdk: 'v2', over: 'stdio' }) }
  const behind = legacy.map((route) => [route, run(route)] as const)
  for (const route of [pinned, auto]) {
    t.test(`${nameOf(route)} sees the same`, async (t) => {
      t.strictSame(await run(route), await overStdio.v2)
    })
  }
  for (const [route, playing] of behind) {
    t.test(`${nameOf(route)} sees the same`, async (t) => {
      t.strictSame(await playing, await overStdio[route.sdk])
    })
  }
})
