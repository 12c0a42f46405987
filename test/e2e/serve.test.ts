/** A server that another launcher starts, reached over a unix socket, as it is when it lives in a container of its own. */
import { execFileSync } from 'node:child_process'
import { chmodSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import tap, { type Test } from 'tap'
import type { Flags } from '../../src/config/load.ts'
import { StartError } from '../../src/main.ts'
import { startCli } from '../support/cli.ts'
import { nameOf, type Peer, play, type Route } from '../support/clients.ts'
import { conformanceScenario, conformanceServer } from '../support/conformance.ts'
import { comparable } from '../support/either-era.ts'
import { everythingScenario, official } from '../support/everything.ts'
import { noLauncher } from '../support/launcher.ts'
import { alive, childrenOf, folder, pidFile } from '../support/processes.ts'
import { frameOf, socketPath } from '../support/scripted-launcher.ts'
import { bareStart, serve, talk } from '../support/serving.ts'
import {
  scriptedServer,
  startTestSidecar,
  type TestOptions,
  type TestSidecar,
  until,
} from '../support/sidecar.ts'
import type { Transcript } from '../support/transcript.ts'
import { call, openSession, post, send } from '../support/wire.ts'

const skip = noLauncher ?? false
const test = (name: string, run: (t: Test) => Promise<void>) => tap.test(name, { skip }, run)

const scripted = (...switches: string[]): string[] => [process.execPath, scriptedServer, ...switches]
const attacker = fileURLToPath(new URL('../fixtures/escape/attacker-server.mjs', import.meta.url))
const legacy = { server: { era: 'legacy', warmSpares: 0 } } as const

/** In front of the launcher at this socket. */
function inFront(t: Test, path: string, options: TestOptions = {}): Promise<TestSidecar> {
  const { flags = {}, command = scripted(), config = legacy, ...rest } = options
  return startTestSidecar(t, { command, config, ...rest, flags: { ...flags, serverSocket: path } })
}

type Session = Awaited<ReturnType<typeof openSession>>

/** The text that a tool answers with. */
async function ask(url: string, session: Session, tool: string, args: object = {}): Promise<string> {
  const { json } = await post(url, call(1, tool, args), session)
  return (json as { result: { content: [{ text: string }] } }).result.content[0].text
}

test('a client sees the same of a server that is started here and of one that a launcher serves', async (t) => {
  const { path } = await serve(t)
  const everything = official('server-everything', 'stdio')
  const scenarios: readonly (readonly [Route, readonly string[], (peer: Peer) => Promise<Transcript>])[] = [
    [{ sdk: 'v1', over: 'Streamable HTTP' }, everything, everythingScenario],
    [{ sdk: 'v2', over: 'HTTP+SSE' }, everything, everythingScenario],
    [{ sdk: 'v2', over: 'Streamable HTTP', pinned: true }, conformanceServer('modern'), conformanceScenario],
  ]
  for (const [route, command, scenario] of scenarios) {
    const run = async (flags: Flags): Promise<object> => {
      const { base } = await startTestSidecar(t, { command, flags })
      return await play(route, { command, base }, async (peer) => {
        const { steps, ...rest } = comparable(await scenario(peer)) as Transcript
        return { ...rest, steps: { ...steps, environment: withoutRunner(steps['environment'] ?? {}) } }
      })
    }
    const [here, there] = await Promise.all([run({}), run({ serverSocket: path })])
    t.strictSame(there, here, nameOf(route))
  }
})

/** The test runner puts variables into every process that is started from here. */
function withoutRunner(environment: unknown): object {
  const own = Object.entries(environment as object).filter(
    ([name]) => !name.startsWith('_TAPJS') && name !== 'NODE_OPTIONS',
  )
  return Object.fromEntries(own)
}

test('two sessions are two processes, each with the environment of that container', async (t) => {
  const cwd = folder(t)
  const env = { PATH: process.env['PATH'] ?? '', FROM_IMAGE: 'yes', SECRET: 'of the container', LC_ALL: 'C' }
  const { path, pid: server } = await serve(t, { env, cwd })
  const { url } = await inFront(t, path, {
    env: { PATH: '/sidecar/bin', HOME: '/sidecar', FROM_IMAGE: 'no', OWN: 'sidecar' },
    flags: { passEnv: ['FROM_IMAGE', 'OWN'] },
    config: { server: { ...legacy.server, envSet: { LC_ALL: 'C.UTF-8', SET: 'here' } } },
  })
  const sessions = [await openSession(url), await openSession(url)] as const
  const pids = await Promise.all(sessions.map((session) => ask(url, session, 'pid')))
  t.equal(new Set(pids).size, 2)
  t.strictSame(JSON.parse(await ask(url, sessions[0], 'env')), {
    PATH: env.PATH,
    FROM_IMAGE: 'yes',
    LC_ALL: 'C.UTF-8',
    SET: 'here',
  })
  t.equal(await ask(url, sessions[1], 'cwd'), cwd, 'it starts where the launcher was started')
  t.equal(childrenOf(server).length, 2, 'one connection for each')
  await send(url, 'DELETE', sessions[0])
  await until(() => childrenOf(server).length === 1, 'the end of a session is the end of its process')
  await until(() => !alive(Number(pids[0])), 'and of all that it started')
  t.equal(await ask(url, sessions[1], 'pid'), pids[1])
})

test('the end of a server process concerns its session alone, and its way is told', async (t) => {
  const { path } = await serve(t)
  const { url, logs, metric } = await inFront(t, path)
  const [first, second, third] = [await openSession(url), await openSession(url), await openSession(url)]
  const pids = [await ask(url, first, 'pid'), await ask(url, second, 'pid')]
  const crashed = await post(url, call(2, 'crash', { code: 7 }), first)
  t.match(crashed.json, { error: { data: { reason: 'ERR_UPSTREAM_EXIT' } } })
  t.equal((await post(url, call(3, 'pid'), first)).status, 404)
  const hanging = post(url, call(4, 'hang'), second)
  await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 1, 'a call is in flight')
  process.kill(Number(pids[1]), 'SIGKILL')
  t.match((await hanging).json, { error: { data: { reason: 'ERR_UPSTREAM_EXIT' } } })
  const told = (text: string): boolean => logs.some(({ fields }) => JSON.stringify(fields).includes(text))
  await until(() => told('it exited with code 7') && told('it was ended by SIGKILL'), 'both ways are told')
  t.equal(await ask(url, third, 'echo', { text: 'still here' }), 'still here')
  t.equal(await metric('mcp_sidecar_process_starts_total'), 3)
})

test('a server that closes its stdout and stays is ended', async (t) => {
  const { path, pid: server } = await serve(t)
  const { url } = await inFront(t, path)
  const session = await openSession(url)
  const pid = Number(await ask(url, session, 'pid'))
  const closed = await post(url, call(2, 'close-stdout'), session)
  t.match(closed.json, { error: { data: { reason: 'ERR_UPSTREAM_EXIT' } } })
  await until(() => !alive(pid) && childrenOf(server).length === 0, 'it is gone')
})

test('when the launcher is killed, so is every server; a new one serves new sessions', async (t) => {
  const pids = pidFile(t)
  const first = await serve(t)
  const { url, metric } = await inFront(t, first.path, {
    command: scripted(`--pid=${pids.path}`, `--fork=${pids.path}`, '--ignore-sigterm'),
  })
  const session = await openSession(url)
  await pids.wrote(2)
  const hanging = post(url, call(1, 'hang'), session)
  await until(async () => (await metric('mcp_sidecar_calls_in_flight ')) === 1, 'a call is in flight')
  await first.kill('SIGKILL')
  t.match((await hanging).json, { error: { data: { reason: 'ERR_UPSTREAM_EXIT' } } })
  await pids.gone()
  t.equal((await post(url, call(2, 'pid'), session)).status, 404)
  // Its socket is left behind, and gives way.
  await serve(t, { path: first.path })
  t.match(await ask(url, await openSession(url), 'pid'), /^\d+$/)
})

test('when the sidecar is killed, the launcher ends what it asked for', async (t) => {
  const pids = pidFile(t)
  const { path, pid: server } = await serve(t)
  const sidecar = await startCli(
    t,
    ['--server-socket', path, '--server-era', 'legacy'],
    scripted(`--pid=${pids.path}`, `--fork=${pids.path}`, '--ignore-sigterm'),
  )
  await openSession(sidecar.url)
  await pids.wrote(2)
  sidecar.signal('SIGKILL')
  await pids.gone()
  await until(() => childrenOf(server).length === 0, 'no connection is left')
})

test('a sidecar that starts before the container of the server waits for it', async (t) => {
  const path = socketPath(t)
  const { sidecar, adminUrl, url, logs } = await inFront(t, path, {
    flags: { permissions: 'full-access' },
    config: { server: { era: 'auto' } },
  })
  const before = (await send(`${adminUrl}/readyz`, 'GET')).json
  t.match(before, { ready: false, enforcement: { verdict: 'refused', refused: /does not listen yet/ } })
  t.equal((await send(`${adminUrl}/healthz`, 'GET')).status, 200, 'it lives')
  await serve(t, { path })
  await until(() => sidecar.ready, 'it is ready')
  const { verdict, mechanisms } = sidecar.enforcement
  t.equal(verdict, 'weakened', 'what the launcher has measured')
  t.ok(mechanisms.some(({ mechanism, active }) => mechanism === 'seccomp' && active))
  t.match(await ask(url, await openSession(url), 'pid'), /^\d+$/)
  t.strictSame(
    logs.filter(({ level }) => level === 'error'),
    [],
  )
})

test('a profile holds where the server is', async (t) => {
  const place = folder(t)
  const secret = join(place, 'secret')
  writeFileSync(secret, 'nobody reads this')
  const open = createServer((socket) => socket.end('let in'))
  const shut = createServer((socket) => socket.end('let in'))
  const [allowed, other] = await Promise.all([open, shut].map(listening))
  t.teardown(() => [open, shut].forEach((each) => void each.close()))
  const profile = join(place, 'profile.yaml')
  const read = [fileURLToPath(new URL('../fixtures', import.meta.url)), process.execPath]
  const network = { allowCIDR: ['127.0.0.1/32'], allowPort: [allowed] }
  writeFileSync(profile, JSON.stringify({ permissionProfile: { filesystem: { read }, network } }))
  const { path } = await serve(t)
  const { url, sidecar, logs } = await inFront(t, path, {
    command: [process.execPath, attacker],
    flags: { permissions: profile },
  })
  t.match(sidecar.enforcement, { profile: { name: 'profile.yaml' }, verdict: /enforced|weakened/ })
  const session = await openSession(url)
  const evaluate = async (code: string): Promise<object> =>
    JSON.parse(await ask(url, session, 'eval', { code })) as object
  const reach = (to: string): string => `
    const { connect } = require('node:net')
    return await new Promise((resolve, reject) => {
      const socket = connect(${to})
      let text = ''
      socket.on('data', (chunk) => { text += chunk })
      socket.on('close', () => resolve(text))
      socket.on('error', reject)
    })`
  t.test('files', async (t) => {
    const file = JSON.stringify(secret)
    t.match(await evaluate(`return require('node:fs').readFileSync(${file}, 'utf8')`), { error: 'EACCES' })
  })
  t.test('connections go through the proxy of the sidecar', async (t) => {
    t.match(await evaluate(reach(`${allowed}, '127.0.0.1'`)), { value: 'let in' })
    const refused = (await evaluate(reach(`${other}, '127.0.0.1'`))) as { error?: string; value?: string }
    t.not(refused.value, 'let in')
    t.ok(logs.some(({ text, fields }) => /kept from connecting/.test(text) && fields['port'] === other))
  })
  t.test('row 83: the socket of the launcher is closed to it', async (t) => {
    t.match(await evaluate(reach(JSON.stringify(path))), { error: 'EACCES' })
  })
})

async function listening(server: ReturnType<typeof createServer>): Promise<number> {
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  return (server.address() as { port: number }).port
}

test('what the launcher refuses keeps the sidecar from starting, with its reason', async (t) => {
  const place = folder(t)
  const profile = join(place, 'profile.yaml')
  writeFileSync(profile, 'permissionProfile: { filesystem: { read: [/not/in/that/container] } }')
  const { path } = await serve(t, {
    args: ['--shared-pid-namespace', '--require', 'landlock,seccomp,broker'],
  })
  const refused = async (options: TestOptions, expected: RegExp): Promise<void> => {
    const error = await inFront(t, path, options).then(
      () => new Error('it started'),
      (thrown: Error) => thrown,
    )
    t.type(error, StartError)
    t.match(error.message, expected)
  }
  await refused({ flags: { permissions: profile } }, /cannot be enforced: .*\/not\/in\/that\/container/)
  await refused({}, /this launcher requires landlock/)
  await refused({ command: ['no-such-program'], flags: { permissions: 'none' } }, /no-such-program/)
  chmodSync(path, 0o666)
  await refused({ flags: { permissions: 'none' } }, /everybody may write to the socket/)
})

test('row 83: who may connect', async (t) => {
  t.test('not a server, though it is no stranger', async (t) => {
    const serving = await serve(t)
    const script = `
      const socket = require('node:net').connect(${JSON.stringify(serving.path)})
      socket.write(Buffer.from(${JSON.stringify(bareStart(['touch', '/proc/self/never']).toString('latin1'))}, 'latin1'))
      let text = ''
      socket.on('data', (chunk) => { text += chunk })
      socket.on('error', () => {})
      socket.on('close', () => console.log('got ' + text.length + ' bytes'))`
    // As a child of a server that has left its group, too.
    for (const command of [
      [process.execPath, '-e', script],
      ['setsid', '--fork', '--wait', process.execPath, '-e', script],
    ]) {
      const { frames } = await talk(serving.path, bareStart(command))
      t.strictSame(
        frames.filter(([type, text]) => type === 'O' && text !== ''),
        [['O', 'got 0 bytes\n']],
      )
    }
    await until(
      () => (serving.said.match(/refused: it belongs to a server/g) ?? []).length === 2,
      'both are told',
    )
  })
  t.test('not a process of its own container, unless it was told so', async (t) => {
    const serving = await serve(t, { args: [] })
    t.strictSame((await talk(serving.path, bareStart(['true']))).frames, [])
    const refusal = /refused: it is a process of this container/
    await until(() => refusal.test(serving.said), 'the launcher says why')
    const { sidecar, logs } = await startOrWhy(t, serving.path)
    t.equal(sidecar, undefined)
    t.match(logs, /closed the connection without a report; its own output says why/)
  })
  const unshare = unshareProblem()
  t.test('a process of another one', { skip: unshare ?? false }, async (t) => {
    const within = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc', '--']
    const { path } = await serve(t, { args: [], within })
    const { url } = await inFront(t, path)
    const session = await openSession(url)
    t.ok(Number(await ask(url, session, 'pid')) < 100, 'its numbers are its own')
  })
  const root = process.getuid?.() === 0 ? false : 'only root can be several users'
  t.test('not another user', { skip: root }, async (t) => {
    const path = socketPath(t)
    chmodSync(join(path, '..'), 0o1777)
    chmodSync(join(path, '..', '..'), 0o755)
    const strict = await serve(t, { path, uid: 65_534, gid: 0 })
    t.strictSame((await talk(strict.path, bareStart(['true']))).frames, [])
    await until(() => /refused: its uid is not the sidecar's/.test(strict.said), 'the launcher says why')
    await strict.kill('SIGTERM')
    const told = await serve(t, {
      ...{ path, uid: 65_534, gid: 0 },
      args: ['--shared-pid-namespace', '--uid', '0'],
    })
    const { url } = await inFront(t, told.path)
    t.match(await ask(url, await openSession(url), 'pid'), /^\d+$/, 'the group lets the sidecar in')
  })
})

async function startOrWhy(t: Test, path: string): Promise<{ sidecar?: TestSidecar; logs: string }> {
  try {
    return { sidecar: await inFront(t, path), logs: '' }
  } catch (thrown) {
    return { logs: (thrown as Error).message }
  }
}

function unshareProblem(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can make a PID namespace'
  try {
    execFileSync('unshare', ['--pid', '--fork', '--mount-proc', 'true'], { stdio: 'ignore' })
    return undefined
  } catch {
    return 'no PID namespace can be made here'
  }
}

test('row 83: frames that the sidecar never sends end the connection and the server', async (t) => {
  const { path, pid: server } = await serve(t)
  const sleeper = bareStart(['sleep', '60'])
  const oversized = Buffer.concat([Buffer.from('I'), Buffer.of(0, 1, 0, 1), Buffer.alloc(65_537)])
  const cases: readonly (readonly [string, Buffer])[] = [
    ['a second policy', bareStart(['touch', '/proc/never'])],
    ['an oversized frame', oversized],
    ['a frame of the launcher', frameOf('O', 'x')],
    ['a signal that is not allowed', frameOf('K', Buffer.of(19))],
    ['two signals', frameOf('K', Buffer.of(15, 15))],
  ]
  for (const [name, bytes] of cases) {
    const { frames } = await talk(path, sleeper, (type) => (type === 'R' ? bytes : undefined))
    t.equal(frames[0]?.[0], 'R', name)
    t.notOk(
      frames.some(([type]) => type === 'X'),
      `${name}: it is not even told of the end`,
    )
    await until(() => childrenOf(server).length === 0, `${name}: nothing is left`)
  }
  const first = await talk(path, frameOf('I', 'hello'))
  t.match(first.frames, [['R', /the first frame is not a policy/]])
  const twice = await talk(path, Buffer.concat([bareStart(['true']), frameOf('K', '')]))
  t.notOk(twice.frames.some(([type, text]) => type === 'O' && text !== ''))
})

test('the exit arrives although much that was sent is not read', async (t) => {
  const { path } = await serve(t)
  const flood = Buffer.concat(Array.from({ length: 64 }, () => frameOf('I', Buffer.alloc(65_536))))
  const command = ['sh', '-c', 'exec 0<&-; echo last words; exit 7']
  for (let i = 0; i < 5; i++) {
    const { frames, reset } = await talk(path, bareStart(command), (type) =>
      type === 'R' ? flood : undefined,
    )
    t.notOk(reset)
    t.match(
      frames.filter(([type]) => type !== 'E'),
      [
        ['R', /"event":"report"/],
        ['O', 'last words\n'],
        ['O', ''],
        ['X', /"code":7/],
      ],
    )
  }
})

test('policy, variables and folder are as they were sent', async (t) => {
  const cwd = folder(t)
  const { path } = await serve(t, { env: { A: '1', B: '2', PRE_X: '3', PRE: '4', BA: '5' } })
  const records = ['env.pass A', 'env.pass B', 'env.pass PRE_*', 'env B=set', `cwd ${cwd}`]
  const { frames } = await talk(path, bareStart(['sh', '-c', 'pwd; env'], records))
  const output = frames.filter(([type]) => type === 'O').map(([, text]) => text)
  const lines = output.join('').trim().split('\n')
  t.equal(lines.shift(), cwd)
  t.strictSame(lines.filter((line) => !/^(PATH|PWD|_|SHLVL|OLDPWD)=/.test(line)).sort(), [
    'A=1',
    'B=set',
    'PRE_X=3',
  ])
  const trial = await talk(path, bareStart(['touch', join(cwd, 'never')], ['check 1', `cwd ${cwd}`]))
  t.match(trial.frames[0], ['R', /"event":"report"/])
  t.match(trial.frames.at(-1), ['X', /"code":0/])
  t.equal(execFileSync('ls', [cwd]).length, 0, 'nothing was run')
})
