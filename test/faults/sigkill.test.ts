import { Readable } from 'node:stream'
import tap, { type Test } from 'tap'
import { runCli } from '../../src/cli.ts'
import { type CliProcess, startCli } from '../support/cli.ts'
import { configFile } from '../support/config-file.ts'
import { alive, childrenOf, pidFile } from '../support/processes.ts'
import { scriptedCommand, startTestSidecar, until } from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { accept, call, collect, follow, initialize, open, openSession, post } from '../support/wire.ts'

// The command line takes seconds to start from its sources.
tap.jobs = 3
const test = (name: string, run: (t: Test) => Promise<void>) => tap.test(name, { buffered: true }, run)

// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
const textOf = (message: any): string => message.result.content[0].text
const readyz = async (adminUrl: string): Promise<number> => (await fetch(`${adminUrl}/readyz`)).status
const inFlight = async ({ adminUrl }: CliProcess, count: number): Promise<void> =>
  until(async () => {
    const metrics = await (await fetch(`${adminUrl}/metrics`)).text()
    return metrics.includes(`mcp_sidecar_calls_in_flight ${count}\n`)
  }, `${count} calls in flight`)

test('nothing is left of servers, their children and the reaper when the sidecar is killed', async (t) => {
  const servers = pidFile(t)
  const grandchildren = pidFile(t)
  // With a given era no further process is started to find it out.
  const flags = ['--server-era', 'legacy']
  const cli = await startCli(t, flags, [...scriptedCommand, '--ignore-sigterm', `--pid=${servers.path}`])
  const session = await openSession(cli.url)
  await post(cli.url, call(1, 'fork', { file: grandchildren.path }), session)
  const calling = post(cli.url, call(2, 'hang'), session).catch((error: Error) => error)
  await inFlight(cli, 1)
  // The session's and a spare.
  await servers.wrote(2)
  await grandchildren.wrote(1)
  const reapers = (): number[] => childrenOf(cli.pid).filter((pid) => !servers.pids.includes(pid))
  // On a slow machine the sidecar tries one server more, which has no pid in the file at first.
  await until(() => reapers().length === 1, 'besides the servers there is the reaper')
  const [reaper = 0] = reapers()
  process.kill(reaper, 'SIGKILL')
  await until(() => reapers().some((pid) => pid !== reaper), 'a reaper that was killed is replaced')
  const children = childrenOf(cli.pid)
  for (const pid of servers.pids.filter(alive)) t.ok(children.includes(pid), `server ${pid} is a child`)
  cli.signal('SIGKILL')
  t.equal(await cli.exited, 'SIGKILL')
  t.ok((await calling) instanceof Error, 'the client notices')
  await until(() => !children.some(alive), 'its children are gone')
  await servers.gone()
  await grandchildren.gone()
})

test('SIGTERM: readiness first, what is in flight is answered, new work is refused, nothing is left', async (t) => {
  const servers = pidFile(t)
  const cli = await startCli(t, [], [...scriptedCommand, `--pid=${servers.path}`])
  const { url, adminUrl } = cli
  await until(async () => (await readyz(adminUrl)) === 200, 'it is ready')
  const session = await openSession(url)
  const listening = follow(await open(url, 'GET', { ...session, Accept: 'text/event-stream' }))
  const script = { owner: 'me', call: 'c', steps: ['progress'] }
  const step = { jsonrpc: '2.0', method: 'notifications/step', params: { call: 'c' } }
  const plain = post(url, call(1, 'sleep', { ms: 2000 }), session)
  const streaming = post(url, call(2, 'script', script, { progressToken: 't' }), session)
  await inFlight(cli, 2)
  await post(url, step, session)
  cli.signal('SIGTERM')
  await until(async () => (await readyz(adminUrl)) === 503, 'it is not ready any more')
  t.match(await (await fetch(`${adminUrl}/readyz`)).json(), { ready: false, reason: 'shutting down' })
  t.equal((await fetch(`${adminUrl}/healthz`)).status, 200)
  for (const message of [call(3, 'echo'), initialize()]) {
    const refused = await post(url, message, message.method === 'initialize' ? {} : session)
    t.equal(refused.status, 503)
    t.match(refused.json, { id: message.id, error: { data: { reason: 'ERR_DRAINING' } } })
    t.match(refused.headers, { 'retry-after': /^\d+$/ })
  }
  t.equal((await post(url, step, session)).status, 202, 'what belongs to a call in flight still passes')
  t.match((await streaming).messages, [
    { method: 'notifications/progress', params: { progressToken: 't' } },
    { id: 2, result: {} },
  ])
  const answer = await plain
  t.equal(answer.status, 200)
  t.equal(textOf(answer.json), 'slept 2000')
  await listening.closed
  t.equal(await cli.exited, 0)
  t.strictSame(servers.pids.filter(alive), [])
  t.match(cli.lines.at(-1), { msg: 'stopped' })
})

test('what is not answered within the grace is told so, on every transport', async (t) => {
  const servers = pidFile(t)
  const { sidecar, url, base, metric } = await startTestSidecar(t, {
    server: [`--pid=${servers.path}`],
    flags: { webSocket: true },
    config: { shutdownGraceMs: 400 },
  })
  const session = await openSession(url)
  const hanging = post(url, call(1, 'hang'), session)
  const progress = call(2, 'progress', { count: 2, ms: 60_000 }, { progressToken: 1 })
  const headers = { ...session, 'Content-Type': 'application/json', Accept: accept }
  const streaming = follow(await open(url, 'POST', headers, JSON.stringify(progress)))
  const socket = await openSocket(base, { version: '2025-11-25' })
  socket.send(call(1, 'hang'))
  const sse = await openSse(base, { version: '2024-11-05' })
  await sse.send(call(1, 'hang'))
  await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 4, 'all are in flight')
  await until(() => streaming.messages.length > 0, 'it streams')
  await sidecar.stop()
  const draining = { code: -32603, data: { reason: 'ERR_DRAINING' } }
  t.equal((await hanging).status, 503)
  t.match((await hanging).json, { id: 1, error: draining })
  // All that was sent has arrived when its connection has ended.
  await until(() => socket.closed() !== undefined, 'the WebSocket is closed')
  await Promise.all([streaming.closed, sse.closed])
  t.match(streaming.messages, [{ method: 'notifications/progress' }, { id: 2, error: draining }])
  t.match(socket.messages.at(-1), { id: 1, error: draining })
  t.match(sse.messages.at(-1), { id: 1, error: draining })
  t.match(socket.closed(), { code: 1001, reason: 'ERR_DRAINING' })
  t.strictSame(servers.pids.filter(alive), [])
})

test('a second signal, whichever it is, ends the sidecar at once, servers included', async (t) => {
  const servers = pidFile(t)
  const flags = ['--config', configFile(t, { shutdownGrace: '60s' }).config]
  const cli = await startCli(t, flags, [...scriptedCommand, '--ignore-sigterm', `--pid=${servers.path}`])
  const session = await openSession(cli.url)
  const hanging = post(cli.url, call(1, 'hang'), session).catch((error: Error) => error)
  await inFlight(cli, 1)
  cli.signal('SIGTERM')
  await until(async () => (await readyz(cli.adminUrl)) === 503, 'it is shutting down')
  const signalledAt = performance.now()
  cli.signal('SIGINT')
  t.equal(await cli.exited, 1)
  t.ok(performance.now() - signalledAt < 30_000, 'the grace is not waited for')
  t.ok((await hanging) instanceof Error)
  await servers.gone()
})

test('a server that cannot be started is one line on stderr and an exit code', async (t) => {
  let stderr = ''
  const code = await runCli({
    stdin: Readable.from([]),
    argv: ['--port', '0', '--admin-port', '0', '--', 'no-such-program-here'],
    env: { PATH: '/usr/bin:/bin' },
    cwd: process.cwd(),
    stdout: { write: () => t.fail('nothing is written to stdout') },
    stderr: {
      write: (text) => {
        stderr += text
      },
    },
  })
  t.equal(code, 1)
  t.equal(
    stderr,
    'mcp-sidecar: the MCP server cannot be started: there is no program no-such-program-here in PATH (/usr/bin:/bin)\n',
  )
})

test('a reader that is slow to take its answer gets all of it when the sidecar stops', async (t) => {
  const { sidecar, url, metric } = await startTestSidecar(t, { config: { shutdownGraceMs: 60_000 } })
  const session = await openSession(url)
  const bytes = 24 * 1024 * 1024
  const body = JSON.stringify(call(1, 'blob', { bytes }))
  const headers = { ...session, 'Content-Type': 'application/json', Accept: accept }
  const response = await open(url, 'POST', headers, body)
  response.pause()
  await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 0, 'the answer is on its way')
  const stopping = sidecar.stop()
  await new Promise((resolve) => {
    setTimeout(resolve, 500)
  })
  const answer = await collect(response).catch((error: Error) => error)
  t.notOk(answer instanceof Error, `cut off: ${String(answer)}`)
  if (!(answer instanceof Error)) t.equal(textOf(answer.json).length, bytes)
  await stopping
})
