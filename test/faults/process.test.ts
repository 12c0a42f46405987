import { realpathSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import tap, { type Test } from 'tap'
import { StartError } from '../../src/main.ts'
import { findLauncher } from '../../src/sandbox/launcher.ts'
import { startCli } from '../support/cli.ts'
import { alive, folder, pidFile } from '../support/processes.ts'
import {
  type LogLine,
  scriptedCommand,
  scriptedServer,
  startTestSidecar,
  type TestOptions,
  until,
} from '../support/sidecar.ts'
import { bearerTokens } from '../support/tokens.ts'
import { call, follow, held, initialize, open, openSession, post, released, send } from '../support/wire.ts'

// Much of this is waiting for processes to go.
tap.jobs = 4
// On a busy machine it takes minutes.
tap.setTimeout(300_000)
const test = (name: string, run: (t: Test) => Promise<void>) => tap.test(name, { buffered: true }, run)

const noSpares = { server: { warmSpares: 0 } } satisfies TestOptions['config']
const shared = { topology: 'shared' }
const textOf = (answer: { json: { result: { content: { text: string }[] } } }): string =>
  answer.json.result.content[0]?.text ?? ''
const exitError = { code: -32603, data: { source: 'mcp-sidecar', reason: 'ERR_UPSTREAM_EXIT' } }
const readyz = async (adminUrl: string): Promise<number> => (await fetch(`${adminUrl}/readyz`)).status
const pauses = (logs: readonly LogLine[]): number[] =>
  logs.flatMap(({ fields }) => (typeof fields['pauseMs'] === 'number' ? [fields['pauseMs']] : []))

test('a command that does not exist is refused at the start, with what was looked for', async (t) => {
  const file = join(folder(t), 'plain.txt')
  writeFileSync(file, 'no program', { mode: 0o644 })
  for (const [command, problem] of [
    ['no-such-program-here', /there is no program no-such-program-here in PATH/],
    ['/no/such/program', /there is no file \/no\/such\/program/],
    [file, /plain\.txt may not be executed/],
    [folder(t), /is not a file/],
  ] as const) {
    const refused = await startTestSidecar(t, { command: [command] }).catch((thrown: unknown) => thrown)
    t.ok(refused instanceof StartError, `${command}: ${String(refused)}`)
    t.match((refused as Error).message, problem)
  }
})

for (const topology of ['per-session', 'shared']) {
  test(`${topology}: a server that exits at once fails initialize, and nothing is ready`, async (t) => {
    const { url, adminUrl, logs } = await startTestSidecar(t, { server: ['--exit=7'], flags: { topology } })
    const answer = await post(url, initialize())
    t.equal(answer.status, 200)
    t.match(answer.json, { id: 0, error: exitError })
    t.notOk(answer.headers['mcp-session-id'])
    await until(
      () => logs.some(({ fields }) => /code 7/.test(String(fields['reason']))),
      'the exit is logged',
    )
    t.equal(await readyz(adminUrl), 503)
    t.equal((await fetch(`${adminUrl}/healthz`)).status, 200)
  })

  test(`${topology}: a server that never answers fails initialize after the start timeout and is ended`, async (t) => {
    const pids = pidFile(t)
    const { url, adminUrl, sidecar } = await startTestSidecar(t, {
      server: ['--silent', `--pid=${pids.path}`],
      flags: { topology },
      config: { server: { startTimeoutMs: 1000, warmSpares: 0 } },
    })
    const answer = await post(url, initialize())
    t.equal(answer.status, 200)
    t.match(answer.json, {
      id: 0,
      error: { code: -32603, data: { reason: /^ERR_(TIMEOUT|UPSTREAM_EXIT)$/ } },
    })
    t.equal(await readyz(adminUrl), 503)
    const [first = 0] = await pids.wrote(1)
    await until(() => !alive(first), 'the silent process is ended')
    await sidecar.stop()
    await pids.gone()
  })

  test(`${topology}: a server that reads nothing is ended after the start timeout`, async (t) => {
    const pids = pidFile(t)
    const { url, sidecar } = await startTestSidecar(t, {
      server: ['--deaf', `--pid=${pids.path}`],
      flags: { topology },
      config: { server: { startTimeoutMs: 1000, warmSpares: 0 } },
    })
    t.match((await post(url, initialize())).json, { id: 0, error: { code: -32603 } })
    await pids.wrote(1)
    await sidecar.stop()
    await pids.gone()
  })

  test(`${topology}: a server that closes its stdout fails initialize at once and is ended`, async (t) => {
    const pids = pidFile(t)
    const { url, adminUrl, sidecar } = await startTestSidecar(t, {
      server: ['--close-stdout', `--pid=${pids.path}`],
      flags: { topology },
      config: noSpares,
    })
    const answer = await post(url, initialize())
    t.match(answer.json, { id: 0, error: exitError })
    t.equal(await readyz(adminUrl), 503)
    const [first = 0] = await pids.wrote(1)
    await until(() => !alive(first), 'the process that cannot be heard is ended')
    await sidecar.stop()
    await pids.gone()
  })

  test(`${topology}: readiness is false while the server does not come up, and true when it does`, async (t) => {
    const obstacle = join(folder(t), 'down')
    writeFileSync(obstacle, '')
    const script = `test -e '${obstacle}' && exit 9; exec ${scriptedCommand.map((part) => `'${part}'`).join(' ')}`
    const { url, adminUrl, logs } = await startTestSidecar(t, {
      command: ['/bin/sh', '-c', script],
      flags: { topology },
      config: noSpares,
    })
    t.equal(await readyz(adminUrl), 503)
    await until(() => pauses(logs).length >= 3, 'it has been tried three times')
    const [first, second = 0, third = 0] = pauses(logs)
    t.equal(first, 0, 'at once after the first failure')
    t.ok(second >= 125 && second <= 250, `then 0.25 s with jitter: ${second}`)
    t.ok(third >= 250 && third <= 500, `then double: ${third}`)
    t.equal(await readyz(adminUrl), 503)
    rmSync(obstacle)
    await until(async () => (await readyz(adminUrl)) === 200, 'it is ready')
    const session = await openSession(url)
    t.equal((await post(url, call(1, 'echo', { text: 'up' }), session)).status, 200)
  })

  test(`${topology}: grandchildren are killed when the sidecar stops`, async (t) => {
    const grandchildren = pidFile(t)
    const { url, sidecar } = await startTestSidecar(t, { flags: { topology }, config: noSpares })
    const session = await openSession(url)
    await post(url, call(1, 'fork', { file: grandchildren.path }), session)
    const [pid = 0] = await grandchildren.wrote(1)
    t.ok(alive(pid))
    await sidecar.stop()
    await grandchildren.gone()
  })

  test(`${topology}: grandchildren are killed when the server crashes`, async (t) => {
    const grandchildren = pidFile(t)
    const { url } = await startTestSidecar(t, { flags: { topology }, config: noSpares })
    const session = await openSession(url)
    await post(url, call(1, 'fork', { file: grandchildren.path }), session)
    await grandchildren.wrote(1)
    t.match((await post(url, call(2, 'crash'), session)).json, { id: 2, error: exitError })
    await grandchildren.gone()
  })
}

test('a spare that closes its stdout before it is used is not given to a session', async (t) => {
  const { url, logs } = await startTestSidecar(t, {
    server: ['--close-stdout', '--ignore-sigterm'],
    config: { server: { startTimeoutMs: 60_000, warmSpares: 1 } },
  })
  // The spare is found out a moment after its stdout has ended; from then on it must not be used.
  await until(() => pauses(logs).length > 0, 'a process was found to be mute')
  for (let i = 0; i < 3; i++) {
    const response = await Promise.race([post(url, initialize()), later(20_000)])
    t.match(response?.json, { id: 0, error: exitError })
  }
})

test('closing stdout in the middle of a call fails it, ends the session and the process', async (t) => {
  const pids = pidFile(t)
  const { url } = await startTestSidecar(t, { server: [`--pid=${pids.path}`], config: noSpares })
  const session = await openSession(url)
  const hanging = post(url, call('h', 'hang'), session)
  await post(url, call('c', 'close-stdout'), session)
  t.match((await hanging).json, { id: 'h', error: exitError })
  t.equal((await post(url, call(1, 'echo'), session)).status, 404)
  await pids.gone()
})

test('a server that ignores SIGTERM is gone soon after its session has ended', async (t) => {
  const pids = pidFile(t)
  const server = ['--ignore-sigterm', `--pid=${pids.path}`]
  const { url, metric } = await startTestSidecar(t, { server, config: noSpares })
  const session = await openSession(url)
  t.equal((await send(url, 'DELETE', session)).status, 200)
  await pids.gone()
  await until(async () => (await metric('mcp_sidecar_processes ')) === 0, 'it is not counted any more')
})

test('grandchildren are killed when their session ends, and those of other sessions live on', async (t) => {
  const mine = pidFile(t)
  const others = pidFile(t)
  const { url } = await startTestSidecar(t)
  const session = await openSession(url)
  const other = await openSession(url)
  await post(url, call(1, 'fork', { file: mine.path }), session)
  await post(url, call(1, 'fork', { file: others.path }), other)
  await mine.wrote(1)
  const [survivor = 0] = await others.wrote(1)
  await send(url, 'DELETE', session)
  await mine.gone()
  t.ok(alive(survivor))
  t.equal((await post(url, call(2, 'echo', { text: 'here' }), other)).status, 200)
})

test('a process that left the group and holds stdout open keeps no call waiting after a crash, and is ended', async (t) => {
  const strays = pidFile(t)
  const { url } = await startTestSidecar(t, { config: noSpares })
  const session = await openSession(url)
  const options = { detached: true, stdio: ['ignore', 'inherit', 'inherit'] }
  await post(url, call(1, 'fork', { file: strays.path, options }), session)
  const [stray = 0] = await strays.wrote(1)
  const hanging = post(url, call(2, 'hang'), session)
  t.match((await post(url, call(3, 'crash'), session)).json, { id: 3, error: exitError })
  t.match((await hanging).json, { id: 2, error: exitError })
  t.equal((await post(url, call(4, 'echo'), session)).status, 404)
  // The launcher finds it among what it has inherited. Where there is no launcher it is out of reach.
  if (findLauncher() === undefined) process.kill(stray, 'SIGKILL')
  else await until(() => !alive(stray), 'it is ended, too')
})

test('a crash fails exactly the calls in flight, in band, and ends their session', async (t) => {
  const { url, metric } = await startTestSidecar(t)
  const session = await openSession(url)
  const other = await openSession(url)
  const answered = await post(url, call(1, 'echo', { text: 'before' }), session)
  t.equal(textOf(answered), 'before')
  const main = follow(await open(url, 'GET', { ...session, Accept: 'text/event-stream' }))
  const plain = post(url, call('1', 'hang'), session)
  const streaming = post(url, call(2, 'progress', { count: 1, ms: 60_000 }, { progressToken: 't' }), session)
  const elsewhere = post(url, held(1, 'elsewhere'), other)
  await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 3, 'all are in flight')
  const crashed = await post(url, call(3, 'crash', { code: 5 }), session)
  t.equal(crashed.status, 200)
  t.match(crashed.json, { jsonrpc: '2.0', id: 3, error: exitError })
  t.equal((await plain).status, 200)
  t.match((await plain).json, { id: '1', error: exitError })
  const { status, messages } = await streaming
  t.equal(status, 200)
  t.match(messages, [
    { method: 'notifications/progress', params: { progressToken: 't', progress: 1 } },
    { id: 2, error: exitError },
  ])
  await main.closed
  const after = await post(url, call(4, 'echo'), session)
  t.equal(after.status, 404)
  t.match(after.json, { id: 4, error: { code: -32600, data: { reason: 'ERR_SESSION_UNKNOWN' } } })
  await post(url, released('elsewhere'), other)
  t.match(textOf(await elsewhere), '"call":"elsewhere"')
  t.equal((await post(url, initialize())).status, 200)
})

test('an error of a crash names no internals', async (t) => {
  const { url } = await startTestSidecar(t)
  const session = await openSession(url)
  const { body } = await post(url, call(1, 'crash', { code: 77 }), session)
  t.notMatch(body, /77|scripted|node|\.m?[jt]s/)
})

test('a server killed from outside is like one that crashed', async (t) => {
  const { url, metric } = await startTestSidecar(t)
  const session = await openSession(url)
  const pid = Number(textOf(await post(url, call(1, 'pid'), session)))
  const hanging = post(url, call(2, 'hang'), session)
  await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 1, 'the call is in flight')
  process.kill(pid, 'SIGKILL')
  t.match((await hanging).json, { id: 2, error: exitError })
  t.equal((await post(url, call(3, 'echo'), session)).status, 404)
})

test('shared: sessions survive a crash; the server is restarted, initialized and subscribed anew', async (t) => {
  const { url, metric } = await startTestSidecar(t, { flags: shared })
  const a = await openSession(url)
  const b = await openSession(url)
  const first = textOf(await post(url, call(1, 'pid'), a))
  for (const [session, uri] of [
    [a, 'test://a'],
    [b, 'test://a'],
    [b, 'test://b'],
  ] as const) {
    await post(url, { jsonrpc: '2.0', id: 'sub', method: 'resources/subscribe', params: { uri } }, session)
  }
  const level = { jsonrpc: '2.0', id: 'level', method: 'logging/setLevel', params: { level: 'debug' } }
  await post(url, level, a)
  const hanging = [post(url, call(2, 'hang'), a), post(url, call(2, 'hang'), b)]
  await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 2, 'both are in flight')
  t.match((await post(url, call(3, 'crash'), a)).json, { id: 3, error: exitError })
  for (const each of hanging) t.match((await each).json, { id: 2, error: exitError })
  await until(
    async () => (await post(url, call(4, 'echo'), b)).json?.result !== undefined,
    'the new process answers',
  )
  t.not(textOf(await post(url, call(5, 'pid'), a)), first)
  t.equal(await metric('mcp_sidecar_process_restarts_total'), 1)
  const received = JSON.parse(textOf(await post(url, call(6, 'notifications'), b))) as object[]
  const params = (method: string) => received.filter((each) => 'method' in each && each.method === method)
  t.strictSame(params('notifications/initialized').length, 1)
  t.strictSame(params('resources/subscribe'), [
    { method: 'resources/subscribe', params: { uri: 'test://a' } },
    { method: 'resources/subscribe', params: { uri: 'test://b' } },
  ])
  t.strictSame(params('logging/setLevel'), [{ method: 'logging/setLevel', params: { level: 'debug' } }])
})

test('shared: what a client was asked is withdrawn when the server crashes', async (t) => {
  const { url } = await startTestSidecar(t, { flags: shared })
  const session = await openSession(url, { capabilities: { sampling: {} } })
  const asking = follow(
    await open(
      url,
      'POST',
      { ...session, 'Content-Type': 'application/json', Accept: 'application/json, text/event-stream' },
      JSON.stringify(call(1, 'ask', { method: 'sampling/createMessage' })),
    ),
  )
  const messages = () => asking.events.flatMap(({ data }) => (data ? [JSON.parse(data)] : []))
  await until(() => messages().length > 0, 'the client is asked')
  await post(url, call(2, 'crash'), session)
  await asking.closed
  t.match(messages(), [{ method: 'sampling/createMessage' }, { id: 1, error: exitError }])
})

test('shared: a server that crashes soon after each start is restarted ever more slowly', async (t) => {
  const { logs } = await startTestSidecar(t, { server: ['--exit-after-init=0'], flags: shared })
  await until(() => pauses(logs).length >= 5, 'it has crashed five times', 60_000)
  t.ok(
    pauses(logs).some((ms) => ms > 0),
    `pauses between restarts: ${pauses(logs).join(', ')} ms`,
  )
})

test('shared: a call that waits for a restarting server has its own timeout', async (t) => {
  const { url } = await startTestSidecar(t, {
    server: ['--init-delay=2500'],
    flags: shared,
    config: { limits: { requestTimeoutMs: 300 } },
  })
  const session = await openSession(url)
  await post(url, call(1, 'crash'), session)
  let answer = await post(url, call(2, 'echo'), session)
  while (answer.json.error?.data.reason === 'ERR_UPSTREAM_EXIT') {
    answer = await post(url, call(2, 'echo'), session)
  }
  t.match(answer.json, { id: 2, error: { data: { reason: 'ERR_TIMEOUT' } } })
})

test('the environment of the server is what it was allowed and given, and nothing else', async (t) => {
  const tokens = bearerTokens(t, 'alice')
  const { url } = await startTestSidecar(t, {
    command: [process.execPath, scriptedServer],
    flags: { ...tokens.flags, passEnv: ['PASSED', 'SOME_*'] },
    config: { server: { envSet: { GIVEN: 'given', PASSED_TOO: 'x' } } },
    env: {
      PATH: process.env['PATH'] ?? '',
      HOME: '/nowhere',
      TAP: '1',
      TAP_CHILD_ID: '3',
      NODE_OPTIONS: '--no-warnings',
      NODE_EXTRA_CA_CERTS: '/ca',
      MCP_SIDECAR_BEARER_TOKEN_FILE: tokens.file,
      MCP_SIDECAR_LOG_LEVEL: 'debug',
      AWS_SECRET_ACCESS_KEY: 'secret',
      LD_PRELOAD: '/lib/evil.so',
      PASSED: 'passed',
      SOME_ONE: 'one',
      SOME_TWO: 'two',
      SOMETHING: 'else',
      GIVEN: 'not this one',
    },
  })
  const session = await openSession(url, { headers: { ...tokens.of('alice') } })
  const env = JSON.parse(textOf(await post(url, call(1, 'env'), session))) as Record<string, string>
  t.notMatch(env['NODE_OPTIONS'] ?? '', '--no-warnings')
  // The test runner adds these to every process that a test starts, and macOS its own.
  for (const name of Object.keys(env)) {
    if (/^(_TAPJS_PROCESSINFO_.*|NODE_OPTIONS|__CF_USER_TEXT_ENCODING)$/.test(name)) delete env[name]
  }
  t.strictSame(env, {
    PATH: process.env['PATH'],
    HOME: '/nowhere',
    PASSED: 'passed',
    SOME_ONE: 'one',
    SOME_TWO: 'two',
    GIVEN: 'given',
    PASSED_TOO: 'x',
  })
})

test('the server runs in the folder it was given', async (t) => {
  const cwd = realpathSync(folder(t))
  const { url } = await startTestSidecar(t, { config: { server: { cwd } } })
  t.equal(textOf(await post(url, call(1, 'cwd'), await openSession(url))), cwd)
})

test('what the server writes to stderr stands in the log line by line, with its pid', async (t) => {
  const { url, logs } = await startTestSidecar(t, { config: noSpares })
  const session = await openSession(url)
  const pid = Number(textOf(await post(url, call(1, 'pid'), session)))
  await post(
    url,
    call(2, 'stderr', { lines: ['first', '{"second":2}', `${'x'.repeat(40_000)}`, 'last'] }),
    session,
  )
  await until(() => logs.some(({ fields }) => fields['stderr'] === 'last'), 'the last line is logged')
  const said = logs.filter(({ fields }) => fields['pid'] === pid && 'stderr' in fields)
  t.strictSame(
    said.map(({ fields }) => fields['stderr']),
    ['first', '{"second":2}', 'last'],
  )
  t.ok(logs.some(({ fields }) => Number(fields['bytes']) >= 40_000, 'the overlong line is mentioned'))
})

test('a flood on stderr is logged in part, counted, and slows no call down', async (t) => {
  const { url, logs, metric } = await startTestSidecar(t, { config: noSpares })
  const session = await openSession(url)
  const lines = Array.from({ length: 5000 }, (_, i) => `line ${i}`)
  const flooded = await post(url, call(1, 'stderr', { lines }), session)
  t.equal(textOf(flooded), 'said')
  t.equal(textOf(await post(url, call(2, 'echo', { text: 'still here' }), session)), 'still here')
  const dropped = () => metric('mcp_sidecar_dropped_messages_total{reason="stderr_line"}')
  const logged = () => logs.filter(({ fields }) => 'stderr' in fields).length
  await until(async () => (await dropped()) + logged() === 5000, 'every line is logged or counted')
  t.ok(logged() >= 100 && logged() <= 2000, `${logged()} lines were logged`)
})

test('a session finds a process that was started ahead, and the next one is then started', async (t) => {
  const pids = pidFile(t)
  // Finding out the era takes a process of its own, which would pass for a spare.
  const config = { server: { era: 'legacy' } } satisfies TestOptions['config']
  const { url } = await startTestSidecar(t, { server: [`--pid=${pids.path}`], config })
  await pids.wrote(1)
  const one = Number(textOf(await post(url, call(1, 'pid'), await openSession(url))))
  t.ok(pids.pids.includes(one))
  await until(() => pids.pids.some((pid) => pid !== one && alive(pid)), 'another spare has started')
  const ahead = [...pids.pids]
  const two = Number(textOf(await post(url, call(1, 'pid'), await openSession(url))))
  t.not(two, one)
  t.ok(ahead.includes(two), 'the second session uses the spare')
})

test('a spare that is killed is replaced', async (t) => {
  const pids = pidFile(t)
  const { url, adminUrl } = await startTestSidecar(t, { server: [`--pid=${pids.path}`] })
  const [spare = 0] = await pids.wrote(1)
  process.kill(spare, 'SIGKILL')
  await until(() => pids.pids.some((pid) => pid !== spare && alive(pid)), 'another has started')
  await until(async () => (await readyz(adminUrl)) === 200, 'the server answers')
  const used = Number(textOf(await post(url, call(1, 'pid'), await openSession(url))))
  t.not(used, spare)
})

test('the server is found to answer although only one process is allowed', async (t) => {
  const { url, adminUrl } = await startTestSidecar(t, { config: { limits: { processes: 1 } } })
  await until(async () => (await readyz(adminUrl)) === 200, 'readiness without any client')
  t.equal(textOf(await post(url, call(1, 'echo', { text: 'one' }), await openSession(url))), 'one')
})

test('looking whether the server answers takes no process away from a session', async (t) => {
  const { url } = await startTestSidecar(t, {
    server: ['--init-delay=1500'],
    config: { server: { warmSpares: 0 }, limits: { processes: 1 } },
  })
  // By now the server is being tried out, for as long as it takes to answer.
  await new Promise((resolve) => {
    setTimeout(resolve, 700)
  })
  t.equal((await post(url, initialize())).status, 200)
})

test('at the limit of processes a principal gives up its own longest unused session, never another’s', async (t) => {
  const tokens = bearerTokens(t, 'alice', 'bob')
  const { url, adminUrl, metric } = await startTestSidecar(t, {
    flags: tokens.flags,
    config: { server: { warmSpares: 0 }, limits: { processes: 2 } },
  })
  await until(async () => (await readyz(adminUrl)) === 200, 'the server answers')
  await until(async () => (await metric('mcp_sidecar_processes ')) === 0, 'the trial is over')
  const oldest = await openSession(url, { headers: tokens.of('alice') })
  const newer = await openSession(url, { headers: tokens.of('alice') })
  t.equal((await post(url, call(1, 'echo'), oldest)).status, 200, 'now the other one is unused for longer')
  const refused = await post(url, initialize(), tokens.of('bob'))
  t.equal(refused.status, 503)
  t.match(refused.json, { error: { code: -32603, data: { reason: 'ERR_OVERLOADED' } } })
  t.match(refused.headers, { 'retry-after': /^\d+$/ })
  t.equal((await post(url, call(2, 'echo'), oldest)).status, 200, 'of alice nothing was taken')
  const third = await openSession(url, { headers: tokens.of('alice') })
  t.equal((await post(url, call(3, 'echo'), third)).status, 200)
  t.equal((await post(url, call(3, 'echo'), oldest)).status, 200)
  const given = await post(url, call(3, 'echo'), newer)
  t.equal(given.status, 404)
  t.match(given.json, { error: { data: { reason: 'ERR_SESSION_UNKNOWN' } } })
  await until(async () => (await metric('mcp_sidecar_processes ')) <= 2, 'no more processes than allowed')
})

test('a session with a call in flight is not given up at the limit', async (t) => {
  const { url, metric } = await startTestSidecar(t, {
    config: { server: { warmSpares: 0 }, limits: { processes: 1 } },
  })
  const busy = await openSession(url)
  const calling = post(url, held(1, 'busy'), busy)
  await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 1, 'the call is in flight')
  t.equal((await post(url, initialize())).status, 503, 'there is no room')
  await post(url, released('busy'), busy)
  t.match(textOf(await calling), '"call":"busy"')
  t.equal((await post(url, initialize())).status, 200)
})

test('at the limit of sessions a principal gives up its own longest unused session, never another’s', async (t) => {
  const tokens = bearerTokens(t, 'alice', 'bob')
  const { url, metric } = await startTestSidecar(t, {
    flags: { ...tokens.flags, ...shared },
    config: { limits: { sessions: 2 } },
  })
  const oldest = await openSession(url, { headers: tokens.of('alice') })
  const newer = await openSession(url, { headers: tokens.of('alice') })
  const refused = await post(url, initialize(), tokens.of('bob'))
  t.equal(refused.status, 503)
  t.match(refused.json, { error: { code: -32603, data: { reason: 'ERR_OVERLOADED' } } })
  const third = await openSession(url, { headers: tokens.of('alice') })
  t.equal((await post(url, call(1, 'echo'), oldest)).status, 404)
  t.equal((await post(url, call(1, 'echo'), newer)).status, 200)
  t.equal((await post(url, call(1, 'echo'), third)).status, 200)
  t.equal(await metric('mcp_sidecar_sessions '), 2)
})

test('an unused session ends after the idle time, with its process; one in use does not', async (t) => {
  const pids = pidFile(t)
  const { url, metric, logs } = await startTestSidecar(t, {
    server: [`--pid=${pids.path}`],
    config: { server: { warmSpares: 0 }, limits: { idleSessionMs: 3000 } },
  })
  const unused = await openSession(url)
  const listening = await openSession(url)
  const stream = follow(await open(url, 'GET', { ...listening, Accept: 'text/event-stream' }))
  const calling = await openSession(url)
  const long = post(url, call(1, 'sleep', { ms: 5000 }), calling)
  await until(async () => (await metric('mcp_sidecar_sessions ')) <= 2, 'the unused one ends')
  t.equal((await post(url, call(1, 'echo'), unused)).status, 404)
  t.equal(textOf(await long), 'slept 5000')
  t.equal((await post(url, call(2, 'echo'), listening)).status, 200)
  t.ok(logs.some(({ text, fields }) => text === 'session ended' && fields['reason'] === 'it was idle'))
  t.equal((await send(url, 'DELETE', listening)).status, 200)
  await stream.closed
  await pids.gone()
  await until(async () => (await metric('mcp_sidecar_processes ')) === 0, 'no process is counted')
})

test('the log of the start says which server answers', async (t) => {
  const { adminUrl, logs } = await startTestSidecar(t)
  await until(async () => (await readyz(adminUrl)) === 200, 'it is ready')
  t.match(
    logs.find(({ text }) => text === 'the MCP server answers'),
    { fields: { server: 'scripted-server', serverVersion: '1.0.0' } },
  )
})

for (const topology of ['per-session', 'shared']) {
  // In a process of its own: what it looks for would end this one.
  test(`${topology}: a server that refuses initialize and talks on harms nothing`, async (t) => {
    const server = [...scriptedCommand, '--refuse-init', '--ignore-sigterm']
    const { url, adminUrl, signal, exited } = await startCli(t, ['--topology', topology], server)
    const answer = await post(url, initialize())
    t.equal(answer.status, 200)
    t.hasProp(answer.json, 'error')
    // While its end is waited for the server goes on asking and logging.
    for (let i = 0; i < 20; i++) {
      t.equal((await fetch(`${adminUrl}/healthz`)).status, 200)
      await new Promise((resolve) => {
        setTimeout(resolve, 25)
      })
    }
    signal('SIGTERM')
    t.equal(await exited, 0)
  })
}

function later(ms: number): Promise<undefined> {
  return new Promise((resolve) => {
    setTimeout(() => resolve(undefined), ms).unref()
  })
}
