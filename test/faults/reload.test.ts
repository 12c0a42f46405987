import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import tap, { type Test } from 'tap'
import { startConfigured } from '../support/callers.ts'
import { cliCommand, startCli } from '../support/cli.ts'
import { signingKey } from '../support/jwt-keys.ts'
import { alive, folder, pidFile } from '../support/processes.ts'
import { cut, json, scriptedIssuer } from '../support/scripted-issuer.ts'
import { scriptedCommand, startTestSidecar, testConfig, until } from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { bearerTokens } from '../support/tokens.ts'
import { call, follow, initialize, open, openSession, post } from '../support/wire.ts'

// Much of this is waiting for files to be noticed and for processes to go.
tap.jobs = 3
const test = (name: string, run: (t: Test) => Promise<void>) => tap.test(name, { buffered: true }, run)

// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
const textOf = (message: any): string => message.result.content[0].text

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
  t.match(refusals().at(-1), { reason: new RegExp(`${file}:7:1: .*nonsense`) })
  write('bad', 'limits: { requestTimeout: 10 parsecs }')
  await until(() => refusals().length === 2, 'a wrong unit is refused')
  t.match(refusals().at(-1), { reason: new RegExp(`${file}:7:27: .*requestTimeout`) })
  write('bad', 'listen: { keepAlive: 20s }')
  await until(() => refusals().length === 3, 'what needs a restart is refused')
  t.match(refusals().at(-1), { reason: /listen\.keepAlive cannot change while running/ })
  write('new')
  await until(() => reloads() === 2, 'the mended file is taken')
  writeFileSync(tokens.file, 'alice:tooshort\n')
  await until(() => refusals().length === 4, 'a bad token file is refused')
  t.match(refusals().at(-1), { reason: new RegExp(`${tokens.file}:1: `) })
  t.equal(await markOf(fresh), 'new')
  t.equal(await markOf(await openSession(url, { headers: alice })), 'new')

  // Tokens.
  tokens.write('alice', 'bob')
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
  const callsLogged = (): number => cli.lines.filter(({ msg }) => msg === 'call').length
  const before = callsLogged()
  await post(url, call(1, 'echo'), old)
  await until(() => callsLogged() > before, 'calls are logged')
  write('new', '', 'warn')
  cli.signal('SIGHUP')
  await until(async () => {
    const count = callsLogged()
    await post(url, call(1, 'echo'), old)
    // Longer than lines are held back.
    await new Promise((resolve) => {
      setTimeout(resolve, 350)
    })
    return callsLogged() === count
  }, 'they are not at the level of warnings')
  const log = JSON.stringify(cli.lines)
  t.notMatch(log, /token-0123456789abcdef|tooshort/, 'no token stands in the log')

  cli.signal('SIGTERM')
  t.equal(await cli.exited, 0)
  t.strictSame(servers.pids.filter(alive), [], 'servers of before the reload are gone too')
})

test('the sidecar has stopped when servers of before a reload are gone too', async (t) => {
  for (const topology of ['per-session', 'shared']) {
    const servers = pidFile(t)
    const server = [`--pid=${servers.path}`, '--ignore-sigterm']
    const { sidecar, url } = await startTestSidecar(t, { server, flags: { topology } })
    await openSession(url)
    await sidecar.reload(await testConfig({ server: [server[0] as string], flags: { topology } }))
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
    await sidecar.reload(await testConfig({ server: ['--version=2025-03-26'], flags }))
    for (const client of [socket, sse]) {
      const answer = await client.request(initialize('2025-03-26'))
      t.match(answer, { id: 0, result: { protocolVersion: '2025-03-26' } }, topology)
    }
    socket.close()
    sse.cut()
  }
})

test('what was opened with a token that was replaced is closed', async (t) => {
  const tokens = bearerTokens(t, 'alice', 'bob')
  const flags = { ...tokens.flags, webSocket: true, topology: 'shared' }
  const { sidecar, url, base, config } = await startTestSidecar(t, { flags })
  const [alice, bob] = [tokens.of('alice'), tokens.of('bob')]
  const socket = await openSocket(base, { headers: alice, version: '2025-11-25' })
  const sse = await openSse(base, { headers: alice, version: '2024-11-05' })
  const session = await openSession(url, { headers: alice })
  const stream = follow(await open(url, 'GET', { ...session, Accept: 'text/event-stream' }))
  const other = await openSocket(base, { headers: bob, version: '2025-11-25' })
  writeFileSync(tokens.file, `alice:another-0123456789abcdef\nbob:${tokens.token('bob')}\n`)
  await sidecar.reload(config)
  await until(() => socket.closed() !== undefined, 'the WebSocket is closed')
  t.match(socket.closed(), { code: 4401 })
  await Promise.all([sse.closed, stream.closed])
  t.match(await other.request(call(1, 'echo', { text: 'still here' })), { id: 1, result: {} })
  other.close()
})

test('a reload keeps the keys of an issuer that is away, and drops them when its method changes', async (t) => {
  const issuer = await scriptedIssuer(t)
  const key = signingKey('k1')
  issuer.answers['/keys'] = json({ keys: [key.jwk] })
  const settings = (clockTolerance: string, requestTimeout: string): string =>
    JSON.stringify({
      auth: {
        fetching: { allowHttp: true, allowPrivateAddresses: true },
        jwt: { issuer: issuer.url, jwksUrl: `${issuer.url}/keys`, audiences: ['mcp'], clockTolerance },
      },
      limits: { requestTimeout },
    })
  const { url, reload } = await startConfigured(t, settings('30s', '60s'))
  const exp = Math.floor(Date.now() / 1000) + 3600
  const as = (sub: string) => ({
    Authorization: `Bearer ${key.token({ iss: issuer.url, aud: 'mcp', sub, exp })}`,
  })
  t.equal((await post(url, initialize(), as('alice'))).status, 200)
  issuer.answers['/keys'] = cut
  await reload(settings('30s', '50s'))
  t.equal((await post(url, initialize(), as('bob'))).status, 200, 'nobody else is locked out by it')
  await reload(settings('20s', '50s'))
  t.equal((await post(url, initialize(), as('carol'))).status, 401, 'another method begins anew')
})

test('reloads come one after the other, and none outlives the stop', async (t) => {
  const tokens = bearerTokens(t, 'alice')
  const options = { flags: tokens.flags }
  const { sidecar, logs } = await startTestSidecar(t, options)
  const config = await testConfig(options)
  const other = { ...config, limits: { ...config.limits, requestTimeoutMs: 1234 } }
  const all = [sidecar.reload(other), sidecar.reload(config), sidecar.reload(other)]
  await Promise.all(all)
  t.equal(sidecar.config.limits.requestTimeoutMs, 1234, 'the last one is in force')
  const late = sidecar.reload(config)
  const stopped = sidecar.stop()
  await Promise.allSettled([late, stopped])
  await t.rejects(sidecar.reload(other), { message: 'the sidecar is shutting down' })
  t.notOk(logs.some(({ level }) => level === 'error'))
})

test('an admin port that is in use is one line, and nothing goes on', async (t) => {
  const { adminUrl } = await startTestSidecar(t)
  const taken = new URL(adminUrl).port
  const [program, ...args] = cliCommand() as [string, ...string[]]
  const options = ['--port', '0', '--admin-port', taken, '--', ...scriptedCommand]
  // It has to end by itself: the time is for a machine that is busy.
  const { status, stderr } = await ended(program, [...args, ...options], 20_000)
  t.equal(status, 1)
  t.match(stderr, `cannot listen on 127.0.0.1:${taken}: it is in use`)
})

function ended(
  program: string,
  args: readonly string[],
  timeout: number,
): Promise<{ readonly status: number | undefined; readonly stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(program, args, { timeout, killSignal: 'SIGKILL' }, (_error, _stdout, stderr) => {
      resolve({ status: child.exitCode ?? undefined, stderr })
    })
  })
}
