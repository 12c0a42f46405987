/** What a reload makes of server processes that run under a permission profile which the configuration has no more. */
import { mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import tap, { type Test } from 'tap'
import { findLauncher } from '../../src/sandbox/launcher.ts'
import { startConfigured } from '../support/callers.ts'
import { alive, folder } from '../support/processes.ts'
import { until } from '../support/sidecar.ts'
import { openSocket } from '../support/streams.ts'
import { call, initialize, openSession, post, send } from '../support/wire.ts'

const attacker = fileURLToPath(new URL('../fixtures/escape/attacker-server.mjs', import.meta.url))
const command = ['/usr/bin/env', '-u', 'NODE_OPTIONS', process.execPath, attacker]

const skip = findLauncher() === undefined ? 'there is no launcher: no C compiler when it was built' : false
// Much of this is waiting for processes to end.
tap.jobs = 3
const test = (name: string, run: (t: Test) => Promise<void>) => tap.test(name, { buffered: true, skip }, run)

/** A sidecar whose server reads `data` and, at first, `secret`. */
async function world(t: Test, { topology = 'per-session', grace = 1000 } = {}) {
  const base = realpathSync(folder(t))
  for (const name of ['data', 'secret']) mkdirSync(join(base, name))
  writeFileSync(join(base, 'secret/b.txt'), 'a secret')
  const audit = join(base, 'audit.jsonl')
  const yaml = (...read: readonly string[]): string =>
    JSON.stringify({
      server: { topology, era: 'legacy' },
      audit: { destination: audit },
      permissions: { filesystem: { read: [dirname(attacker), ...read], write: [join(base, 'data')] } },
    })
  const wide = yaml(join(base, 'secret'))
  const started = await startConfigured(t, wide, {
    command,
    flags: { webSocket: true },
    config: { shutdownGraceMs: grace },
  })
  const { url, adminUrl } = started
  let id = 0
  const evaluate = async (session: Record<string, string>, code: string) => {
    const answer = await post(url, call(++id, 'eval', { code }), session)
    const { result, error } = answer.messages.at(-1) ?? {}
    return { status: answer.status, error, ...JSON.parse(result?.content?.[0]?.text ?? '{}') }
  }
  const readSecret = `return require('node:fs').readFileSync(${JSON.stringify(join(base, 'secret/b.txt'))}, 'utf8')`
  /** Answers once there is a file `go`, with the secret. */
  const waitForGo = `while (!require('node:fs').existsSync(${JSON.stringify(join(base, 'data/go'))})) await new Promise((resolve) => setTimeout(resolve, 10))
    ${readSecret}`
  return {
    ...{ ...started, wide, narrow: yaml(), audit, evaluate, readSecret, waitForGo },
    pidOf: async (session: Record<string, string>): Promise<number> =>
      (await evaluate(session, 'return process.pid')).value,
    begun: () =>
      until(async () => (await started.metric('mcp_sidecar_calls_in_flight')) > 0, 'it is under way'),
    go: () => writeFileSync(join(base, 'data/go'), ''),
    enforcement: async () => JSON.parse((await send(`${adminUrl}/readyz`, 'GET')).body).enforcement,
  }
}

test('a process that could read a folder is gone after a reload that takes it away; its session starts anew', async (t) => {
  const { url, base, evaluate, readSecret, pidOf, reload, narrow, wide, enforcement } = await world(t)
  const session = await openSession(url)
  t.match(await evaluate(session, readSecret), { value: 'a secret' })
  const old = await pidOf(session)
  const socket = await openSocket(base)
  t.match(await socket.request(initialize()), { id: 0 })

  await reload(wide.replace('"per-session"', '"per-session","warmSpares":0'))
  t.equal(
    await pidOf(session),
    old,
    'a reload that leaves the permissions as they are leaves sessions their process',
  )
  t.equal((await enforcement()).retiring, undefined)

  const before = (await enforcement()).digest
  await reload(narrow)
  t.equal((await evaluate(session, readSecret)).status, 404)
  await until(() => !alive(old), 'the old process is gone')
  await until(() => socket.closed() !== undefined, 'so is the connection of the other session')
  const fresh = await openSession(url)
  t.match(await evaluate(fresh, readSecret), { status: 200, error: 'EACCES' })
  await until(async () => (await enforcement()).retiring === undefined, 'nothing of before is left')
  t.not((await enforcement()).digest, before)
})

for (const topology of ['per-session', 'shared'])
  test(`what is in flight is answered under the old permissions, and nothing new is taken (${topology})`, async (t) => {
    const { url, evaluate, readSecret, waitForGo, pidOf, begun, go, reload, narrow, enforcement, audit } =
      await world(t, { topology, grace: 60_000 })
    const session = await openSession(url)
    const old = await pidOf(session)
    const running = evaluate(session, waitForGo)
    await begun()
    await reload(narrow)
    t.equal((await evaluate(session, readSecret)).status, 404)
    t.ok((await enforcement()).retiring >= 1, 'and it is told')
    const fresh = await openSession(url)
    t.match(await evaluate(fresh, readSecret), { error: 'EACCES' })
    t.ok(alive(old))
    go()
    t.match(await running, { status: 200, value: 'a secret' })
    await until(() => !alive(old), 'with its last call it ends')
    await until(async () => (await enforcement()).retiring === undefined, 'nothing of before is left')
    const reloaded = (): unknown =>
      readFileSync(audit, 'utf8')
        .split('\n')
        .find((line) => line.includes('"config_reload"'))
    await until(() => reloaded() !== undefined, 'the audit log has the reload')
    t.match(reloaded(), /"retiring":[1-9]/)
  })

test('a call that goes on is given up when the grace is over', async (t) => {
  const { url, evaluate, waitForGo, pidOf, begun, reload, narrow } = await world(t, { grace: 200 })
  const session = await openSession(url)
  const old = await pidOf(session)
  const running = evaluate(session, waitForGo)
  await begun()
  await reload(narrow)
  t.match((await running).error, { data: { reason: 'ERR_UPSTREAM_EXIT' } })
  await until(() => !alive(old), 'its process is gone')
})

test('a shared server of before a reload is not started again', async (t) => {
  const { url, evaluate, waitForGo, pidOf, begun, reload, narrow, metric } = await world(t, {
    topology: 'shared',
    grace: 60_000,
  })
  const session = await openSession(url)
  const old = await pidOf(session)
  const running = evaluate(session, waitForGo)
  await begun()
  await reload(narrow)
  process.kill(old, 'SIGKILL')
  t.match((await running).error, { data: { reason: 'ERR_UPSTREAM_EXIT' } })
  await openSession(url)
  await until(async () => (await metric('mcp_sidecar_processes ')) === 1, 'only the new one runs')
  t.equal(await metric('mcp_sidecar_process_restarts_total'), 0)
})
