import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import tap, { type Test } from 'tap'
import { type CliProcess, spawnCli, startCli } from '../support/cli.ts'
import { alive, childrenOf, folder, pidFile } from '../support/processes.ts'
import { scriptedCommand, startTestSidecar, testConfig, until } from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
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
  const cli = await startCli(t, [], [...scriptedCommand, '--ignore-sigterm', `--pid=${servers.path}`])
  const session = await openSession(cli.url)
  await post(cli.url, call(1, 'fork', { file: grandchildren.path }), session)
  const calling = post(cli.url, call(2, 'hang'), session).catch((error: Error) => error)
  await inFlight(cli, 1)
  // The session's and a spare.
  await servers.wrote(2)
  await grandchildren.wrote(1)
  const children = childrenOf(cli.pid)
  for (const pid of servers.pids.filter(alive)) t.ok(children.includes(pid), `server ${pid} is a child`)
  t.ok(children.length > servers.pids.filter(alive).length, 'so is the reaper')
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

test('SIGTERM: what is not answered within the grace is told so', async (t) => {
  const servers = pidFile(t)
  const file = join(folder(t), 'sidecar.yaml')
  writeFileSync(file, 'shutdownGrace: 500ms\n')
  const cli = await startCli(t, ['--config', file], [...scriptedCommand, `--pid=${servers.path}`])
  const session = await openSession(cli.url)
  const hanging = post(cli.url, call(1, 'hang'), session)
  await inFlight(cli, 1)
  cli.signal('SIGTERM')
  const answer = await hanging
  t.equal(answer.status, 503)
  t.match(answer.json, { id: 1, error: { code: -32603, data: { reason: 'ERR_DRAINING' } } })
  t.equal(await cli.exited, 0)
  t.strictSame(servers.pids.filter(alive), [])
})

for (const [first, second] of [
  ['SIGTERM', 'SIGTERM'],
  ['SIGTERM', 'SIGINT'],
] as const) {
  test(`${second} after ${first} ends it at once, servers included`, async (t) => {
    const servers = pidFile(t)
    const cli = await startCli(t, [], [...scriptedCommand, '--ignore-sigterm', `--pid=${servers.path}`])
    const session = await openSession(cli.url)
    const hanging = post(cli.url, call(1, 'hang'), session).catch((error: Error) => error)
    await inFlight(cli, 1)
    cli.signal(first)
    await until(async () => (await readyz(cli.adminUrl)) === 503, 'it is shutting down')
    const signalledAt = performance.now()
    cli.signal(second)
    t.equal(await cli.exited, 1)
    t.ok(performance.now() - signalledAt < 4000, 'the grace of 10 s is not waited for')
    t.ok((await hanging) instanceof Error)
    await servers.gone()
  })
}

test('reload: tokens, log level and server change with their files; a bad file changes nothing', async (t) => {
  const tokens = bearerTokens(t, 'alice')
  const servers = pidFile(t)
  const file = join(folder(t), 'sidecar.yaml')
  const write = (mark: string, more = '', level = 'info'): void =>
    writeFileSync(
      file,
      `server:
  command: ${JSON.stringify([...scriptedCommand, '--ignore-sigterm', `--pid=${servers.path}`])}
  env: { set: { MARK: ${mark} } }
auth: { bearer: { tokenFile: ${tokens.file} } }
shutdownGrace: 1s
log: { level: ${level} }
${more}`,
    )
  write('old')
  const cli = await startCli(t, ['--config', file], [])
  const { url } = cli
  const alice = tokens.of('alice')
  const markOf = async (session: Record<string, string>): Promise<string> =>
    JSON.parse(textOf((await post(url, call(1, 'env'), session)).json)).MARK
  const reloads = (): number => cli.lines.filter(({ msg }) => msg === 'configuration reloaded').length
  const refusals = () => cli.lines.filter(({ msg }) => /new configuration was not taken/.test(msg))
  const old = await openSession(url, { headers: alice })
  t.equal(await markOf(old), 'old')

  // A changed file is noticed.
  write('new')
  await until(() => reloads() === 1, 'the changed file is taken')
  const fresh = await openSession(url, { headers: alice })
  t.equal(await markOf(fresh), 'new')
  t.equal(await markOf(old), 'old', 'a session keeps the server it has')

  // Bad files: each is refused with its place, and nothing changes.
  write('bad', 'nonsense: 1')
  await until(() => refusals().length === 1, 'an unknown key is refused')
  t.match(refusals().at(-1), { reason: new RegExp(`${file}:8.*nonsense`) })
  write('bad', 'limits: { requestTimeout: 10 parsecs }')
  await until(() => refusals().length === 2, 'a wrong unit is refused')
  t.match(refusals().at(-1), { reason: new RegExp(`${file}:8.*requestTimeout`, 's') })
  write('bad', 'listen: { keepAlive: 20s }')
  await until(() => refusals().length === 3, 'what needs a restart is refused')
  t.match(refusals().at(-1), { reason: /listen\.keepAlive cannot change while running/ })
  writeFileSync(tokens.file, 'alice:tooshort\n')
  cli.signal('SIGHUP')
  await until(() => refusals().length >= 4, 'a bad token file is refused')
  t.ok(refusals().some(({ reason }) => String(reason).includes(`${tokens.file}:1`)))
  t.equal(await markOf(fresh), 'new')
  t.equal(await markOf(await openSession(url, { headers: alice })), 'new')

  // Tokens.
  write('new', '', 'warn')
  tokens.write('alice', 'bob')
  cli.signal('SIGHUP')
  await until(async () => (await post(url, initialize(), tokens.of('bob'))).status === 200, 'bob is known')
  const withdrawn = await openSession(url, { headers: tokens.of('bob') })
  const listening = follow(
    await open(url, 'GET', { ...withdrawn, ...tokens.of('bob'), Accept: 'text/event-stream' }),
  )
  tokens.write('alice')
  await until(async () => (await post(url, call(1, 'echo'), withdrawn)).status === 401, 'bob is not any more')
  await listening.closed
  t.equal(await markOf(old), 'old', 'the session of alice has outlived all that')

  // The log level.
  const calls = cli.lines.filter(({ msg }) => msg === 'call').length
  await post(url, call('quiet', 'echo'), old)
  t.notOk(reloads() === 0)
  t.equal(cli.lines.filter(({ msg }) => msg === 'call').length, calls, 'calls are not logged at this level')
  const log = JSON.stringify(cli.lines)
  t.notMatch(log, /token-0123456789abcdef|tooshort/, 'no token stands in the log')

  cli.signal('SIGTERM')
  t.equal(await cli.exited, 0)
  t.strictSame(servers.pids.filter(alive), [], 'servers of before the reload are gone too')
})

test('an error at the start is one line on stderr and an exit code', async (t) => {
  const cli = spawnCli(t, ['--port', '0', '--admin-port', '0', '--', 'no-such-program-here'])
  t.equal(await cli.exited, 1)
  t.match(
    cli.stderr,
    /^mcp-sidecar: the MCP server cannot be started: there is no program no-such-program-here/,
  )
  t.equal(cli.stderr.trim().split('\n').length, 1)
})

test('the sidecar has stopped when servers of before a reload are gone too', async (t) => {
  const servers = pidFile(t)
  const server = ['--ignore-sigterm', `--pid=${servers.path}`]
  for (const topology of ['per-session', 'shared']) {
    const { sidecar, url } = await startTestSidecar(t, { server, flags: { topology } })
    await openSession(url)
    const changed = await testConfig({ server: [...server, '--version=2025-06-18'], flags: { topology } })
    sidecar.reload(changed)
    await openSession(url)
    await sidecar.stop()
    t.strictSame(servers.pids.filter(alive), [], topology)
  }
})

test('a stream opened before a reload and initialized after it gets the new server', async (t) => {
  for (const topology of ['per-session', 'shared']) {
    const flags = { topology, webSocket: true }
    const { sidecar, base } = await startTestSidecar(t, { flags })
    const socket = await openSocket(base)
    const sse = await openSse(base)
    sidecar.reload(await testConfig({ server: ['--version=2025-03-26'], flags }))
    for (const client of [socket, sse]) {
      const answer = await client.request(initialize('2025-03-26'))
      t.match(answer, { id: 0, result: { protocolVersion: '2025-03-26' } }, topology)
    }
    socket.close()
    sse.cut()
  }
})

test('a reader that is slow to take its answer gets all of it when the sidecar stops', async (t) => {
  const { sidecar, url, metric } = await startTestSidecar(t, { config: { shutdownGraceMs: 8000 } })
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
