/** A server process behind a socket, as a launcher in another container would serve it; the launcher is scripted. */
import { chmodSync, chownSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import t, { type Test } from 'tap'
import { LineReader } from '../../src/core/framing.ts'
import type { Launch } from '../../src/core/sandbox.ts'
import type { Clock, Metrics } from '../../src/core/types.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { AttachedProcess } from '../../src/upstream/attached.ts'
import { tryElsewhere } from '../../src/upstream/attached-trial.ts'
import type { ProcessContext, ServerCommand } from '../../src/upstream/process.ts'
import { Reaper } from '../../src/upstream/reaper.ts'
import { Turns } from '../../src/upstream/turns.ts'
import { forwardClock } from '../support/forward-clock.ts'
import {
  type Connection,
  frameOf,
  report,
  type ScriptedLauncher,
  scriptedLauncher,
  socketPath,
} from '../support/scripted-launcher.ts'
import { type LogLine, recordingLogger, until } from '../support/sidecar.ts'

interface Options {
  readonly clock?: Clock
  readonly waitMs?: number
  readonly what?: Partial<ServerCommand>
  readonly pass?: readonly string[]
  readonly policy?: string
}

interface Attached {
  readonly process: AttachedProcess
  readonly logs: readonly LogLine[]
  /** Reasons of its end; never more than one. */
  readonly ends: string[]
  /** What was counted: `started`, and reasons of exits. */
  readonly counted: readonly string[]
  readonly output: Buffer
  readonly statuses: readonly string[]
  readonly released: boolean
  ended(): Promise<string>
}

function attach(t: Test, path: string, options: Options = {}): Attached {
  const logs: LogLine[] = []
  const ends: string[] = []
  const counted: string[] = []
  const statuses: string[] = []
  const output: Buffer[] = []
  let released = false
  const log = recordingLogger(logs)
  const metrics = {
    dropped: () => {},
    processStarted: () => counted.push('started'),
    processExited: (reason: string) => counted.push(reason),
  } as unknown as Metrics
  const context: ProcessContext = {
    ...{ clock: options.clock ?? systemClock, log, metrics },
    reaper: new Reaper(log),
  }
  const launch = (command: readonly string[], env: Readonly<Record<string, string>>): Launch => {
    let reason: string | undefined
    return {
      ...{ command, env, policy: Buffer.from(options.policy ?? 'v 1\0') },
      status: (line) => {
        statuses.push(line)
        const { event, reason: why, code, signal } = JSON.parse(line)
        if (event === 'refused') reason = `it was not started: ${why}`
        if (event === 'exit') reason = signal === undefined ? `it exited with code ${code}` : `by ${signal}`
      },
      pid: undefined,
      get reason() {
        return reason
      },
      ended: () => {
        released = true
      },
    }
  }
  const what: ServerCommand = {
    ...{
      command: ['server', '--flag'],
      cwd: '/srv',
      env: { SET: 'here' },
      confinement: { hint: undefined, launch },
    },
    ...options.what,
  }
  const to = { path, pass: options.pass ?? ['PATH', 'LC_*'], waitMs: options.waitMs ?? 10_000 }
  const started = new AttachedProcess(what, to, context, (reason) => ends.push(reason))
  started.stdout.on('data', (chunk: Buffer) => output.push(chunk))
  t.teardown(() => {
    void started.stop()
  })
  return {
    ...{ process: started, logs, ends, counted, statuses },
    get output() {
      return Buffer.concat(output)
    },
    get released() {
      return released
    },
    ended: async () => {
      await until(() => ends.length > 0, 'its end was told')
      return ends[0] as string
    },
  }
}

interface Running extends Attached {
  readonly launcher: ScriptedLauncher
  readonly peer: Connection
}

/** One that has reported. */
async function running(t: Test, options: Options & { readonly reads?: boolean } = {}): Promise<Running> {
  const launcher = await scriptedLauncher(t, options.reads === undefined ? {} : { reads: options.reads })
  const attached = attach(t, launcher.path, options)
  const peer = await launcher.connection()
  peer.say('R', report)
  await until(() => attached.process.pid !== undefined, 'it was reported')
  return Object.defineProperties(attached, {
    launcher: { value: launcher },
    peer: { value: peer },
  }) as Running
}

const exit = (fields: object): string => JSON.stringify({ event: 'exit', unclean: false, ...fields })

t.test('the launcher is told policy, variables, folder and command in one frame', async (t) => {
  const launcher = await scriptedLauncher(t)
  attach(t, launcher.path, { policy: 'v 1\0fs open\0' })
  const peer = await launcher.connection()
  t.equal(
    String((await peer.heard('P')).payload),
    'v 1\0fs open\0env.pass PATH\0env.pass LC_*\0env SET=here\0cwd /srv\0arg server\0arg --flag\0',
  )
})

t.test('nothing is written to a server of which nothing was reported', async (t) => {
  const launcher = await scriptedLauncher(t)
  const { process, counted } = attach(t, launcher.path)
  process.stdin.write('a secret\n')
  process.stdin.end('and more\n')
  const peer = await launcher.connection()
  await peer.heard('P')
  peer.say('E', 'still looking around\n')
  // Nothing is to be heard; a turn of the loop on either side gives it the chance.
  for (let i = 0; i < 20; i++) await new Promise(setImmediate)
  t.strictSame(
    peer.frames.map(({ type }) => type),
    ['P'],
  )
  t.ok(process.stdin.writableLength > 0, 'it counts as unread')
  t.strictSame(counted, [])
  peer.say('R', report)
  await peer.heard('C')
  t.equal(String(peer.input), 'a secret\nand more\n')
  t.equal(process.stdin.writableLength, 0)
  t.equal(process.pid, 4711)
  t.strictSame(counted, ['started'])
})

t.test('output, errors and the exit reach whom they concern', async (t) => {
  const attached = await running(t)
  const { peer, process } = attached
  peer.say('O', 'a line\nhalf')
  peer.say('E', 'something is odd\n')
  peer.say('O', ' a line\n')
  peer.say('X', exit({ code: 3 }))
  t.equal(await attached.ended(), 'it exited with code 3')
  await process.gone
  t.equal(String(attached.output), 'a line\nhalf a line\n')
  t.match(attached.logs, [{ text: 'server', fields: { pid: 4711, stderr: 'something is odd' } }])
  t.strictSame(attached.counted, ['started', 'exit'])
  t.equal(attached.statuses.length, 2)
  t.ok(attached.released, 'what it was given is void')
  t.notOk(process.stdin.writable, 'nothing is written to it any more')
  await until(() => peer.closed, 'the connection has ended')
  t.equal(attached.ends.length, 1)
})

t.test('the end is told behind the last line, whoever takes how many at a time', async (t) => {
  const launcher = await scriptedLauncher(t)
  const attached = attach(t, launcher.path)
  let lines = 0
  const reader = new LineReader(65_536)
  attached.process.stdout.removeAllListeners('data')
  const peer = await launcher.connection()
  // The exit arrives while most of it is left.
  const onLine = (): void => {
    if (lines++ === 0) peer.say('X', exit({ code: 0 }))
  }
  new Turns(attached.process.stdout, (chunk, most) => reader.push(chunk, onLine, most), {
    ...systemClock,
    now: () => 0,
  })
  peer.say('R', report)
  await until(() => attached.process.pid !== undefined, 'it was reported')
  const known = new Promise<number>((resolve) => {
    attached.ends.push = () => {
      resolve(lines)
      return 1
    }
  })
  peer.say('O', 'a line\n'.repeat(4000))
  t.equal(await known, 4000)
})

t.test('errors that flood are taken a few lines at a turn, and nothing more is read meanwhile', async (t) => {
  let lines = 0
  // It is asked for the time for each line.
  const now = (): number => {
    lines++
    return systemClock.now()
  }
  const attached = await running(t, { clock: { ...systemClock, now } })
  const { peer, process } = attached
  let most = 0
  let over = false
  const count = (): void => {
    most = Math.max(most, lines)
    lines = 0
    if (!over) setImmediate(count)
  }
  count()
  for (let i = 0; i < 4; i++) peer.say('E', 'x\n'.repeat(32_000))
  peer.say('O', 'behind it')
  await until(() => attached.output.length > 0, 'what is behind it')
  over = true
  t.ok(most <= 256, `${most} lines in a turn`)
  process.stdout.pause()
  for (let i = 0; i < 40; i++) {
    peer.say('O', Buffer.alloc(65_536, 'y'))
    peer.say('E', 'x\n'.repeat(1000))
  }
  await until(() => process.stdout.readableLength > 0, 'some of it came')
  for (let i = 0; i < 200; i++) await new Promise(setImmediate)
  t.ok(process.stdout.readableLength < 1024 * 1024, 'errors do not bring more of the output')
  process.stdout.resume()
  await until(() => attached.output.length === 40 * 65_536 + 9, 'all has arrived')
})

t.test('the end by a signal is counted as such, and stderr can be left out', async (t) => {
  const attached = await running(t, { what: { stderr: 'discard' } })
  attached.peer.say('E', 'nobody wants to know\n')
  attached.process.stdout.once('data', () => {
    attached.process.stderr = 'log'
  })
  attached.peer.say('O', 'x')
  await until(() => attached.process.stderr === 'log', 'somebody wants to know')
  attached.peer.say('E', 'now they do\n')
  attached.peer.say('X', exit({ signal: 'SIGSEGV' }))
  t.equal(await attached.ended(), 'by SIGSEGV')
  t.strictSame(attached.counted, ['started', 'signal'])
  t.strictSame(
    attached.logs.map(({ fields }) => fields['stderr']),
    ['now they do'],
  )
})

t.test('a server that is talked to byte by byte is understood', async (t) => {
  const launcher = await scriptedLauncher(t)
  const attached = attach(t, launcher.path)
  const { socket } = await launcher.connection()
  const said = Buffer.concat([
    frameOf('R', report),
    frameOf('O', 'out\n'),
    frameOf('E', 'err\n'),
    frameOf('O'),
    frameOf('X', exit({ code: 0 })),
  ])
  for (const byte of said) {
    socket.write(Buffer.of(byte))
    await new Promise(setImmediate)
  }
  t.equal(await attached.ended(), 'it exited with code 0')
  t.equal(String(attached.output), 'out\n')
  t.match(attached.logs, [{ fields: { stderr: 'err' } }])
})

t.test('a server that does not read is not written to beyond what the kernel holds', async (t) => {
  const attached = await running(t)
  const { peer, process } = attached
  peer.socket.pause()
  const piece = Buffer.alloc(256 * 1024, 'x')
  let accepted = 0
  while (process.stdin.write(piece) && accepted < 100) accepted++
  t.ok(accepted < 100, 'it says that there is enough')
  for (let i = accepted + 1; i < 32; i++) process.stdin.write(piece)
  t.ok(process.stdin.writableLength > 6 * 1024 * 1024, 'what is unread is known')
  peer.socket.resume()
  await until(() => process.stdin.writableLength === 0, 'all was read')
  await until(() => peer.input.length === 32 * piece.length, 'all has arrived')
})

t.test('a server whose output nobody reads is not read either', async (t) => {
  const attached = await running(t)
  const { peer, process } = attached
  process.stdout.pause()
  const total = 16 * 1024 * 1024
  for (let sent = 0; sent < total; sent += 65_536) peer.say('O', Buffer.alloc(65_536, 'y'))
  await until(() => process.stdout.readableLength > 0, 'some of it came')
  const { writableLength } = peer.socket
  for (let i = 0; i < 50; i++) await new Promise(setImmediate)
  t.ok(peer.socket.writableLength > total / 2, 'most of it waits at the other end')
  t.ok(peer.socket.writableLength <= writableLength)
  t.ok(process.stdout.readableLength < 1024 * 1024)
  process.stdout.resume()
  await until(() => attached.output.length === total, 'all has arrived')
})

t.test('a refusal is the reason, whatever follows', async (t) => {
  const launcher = await scriptedLauncher(t)
  const attached = attach(t, launcher.path)
  attached.process.stdin.write('a secret\n')
  const peer = await launcher.connection()
  await peer.heard('P')
  peer.say('E', 'mcp-sidecar-launcher: no\n')
  peer.say('R', JSON.stringify({ event: 'refused', mechanism: 'landlock.fs', reason: 'no', wayOut: '' }))
  peer.say('X', exit({ code: 126 }))
  t.equal(await attached.ended(), 'it was not started: no')
  await attached.process.gone
  t.equal(peer.input.length, 0)
  t.strictSame(attached.counted, [], 'nothing was started')
  t.ok(attached.released)
})

t.test('a launcher that goes away', async (t) => {
  t.test('before it reported', async (t) => {
    const launcher = await scriptedLauncher(t)
    const attached = attach(t, launcher.path)
    const peer = await launcher.connection()
    await peer.heard('P')
    peer.socket.destroy()
    t.match(await attached.ended(), /did not take it, the connection was closed; the launcher's own output/)
    await attached.process.gone
    t.ok(attached.released)
  })
  t.test('without reading anything', async (t) => {
    const launcher = await scriptedLauncher(t, { reads: false })
    const attached = attach(t, launcher.path)
    const peer = await launcher.connection()
    peer.socket.destroy()
    t.match(
      await attached.ended(),
      /did not take it, the connection (was closed|broke: .*(ECONNRESET|EPIPE))/,
    )
  })
  t.test('while the server runs', async (t) => {
    const attached = await running(t)
    attached.peer.say('O', 'last words\n')
    attached.peer.socket.end()
    t.match(await attached.ended(), /the connection to its launcher at .* was closed/)
    t.equal(String(attached.output), 'last words\n')
    t.strictSame(attached.counted, ['started', 'lost'])
    t.notOk(attached.process.stdin.writable)
  })
  t.test('while it is written to', async (t) => {
    const attached = await running(t)
    attached.peer.socket.pause()
    for (let i = 0; i < 64; i++) attached.process.stdin.write(Buffer.alloc(65_536))
    attached.peer.socket.destroy()
    t.match(await attached.ended(), /the connection to its launcher at .* (was closed|broke)/)
    await attached.process.gone
  })
})

t.test('what a launcher never sends ends the connection', async (t) => {
  const oversized = Buffer.concat([Buffer.from('O'), Buffer.of(0xff, 0xff, 0xff, 0xff)])
  const cases: readonly (readonly [string, readonly Buffer[], RegExp])[] = [
    ['an unknown frame', [frameOf('R', report), frameOf('Z', 'x')], /unknown type 0x5a/],
    ['a frame of its own', [frameOf('P', 'v 1\0')], /unknown type 0x50/],
    ['an oversized frame', [frameOf('R', report), oversized], /4294967295 bytes; the most is 65536/],
    ['output before the report', [frameOf('O', '{}\n')], /output before the report/],
    ['a report that is no JSON', [frameOf('R', 'well')], /report that cannot be read/],
    ['an exit that is no JSON', [frameOf('R', report), frameOf('X', 'bye')], /exit that cannot be read/],
  ]
  for (const [name, frames, expected] of cases) {
    t.test(name, async (t) => {
      const launcher = await scriptedLauncher(t)
      const attached = attach(t, launcher.path)
      const peer = await launcher.connection()
      peer.socket.write(Buffer.concat(frames))
      const reason = await attached.ended()
      t.match(reason, /does not keep to the protocol/)
      t.match(reason, expected)
      await until(() => peer.closed, 'the connection has ended')
      t.equal(attached.output.length, 0)
    })
  }
})

t.test('more that is reported later is handed on, and what cannot be read is logged', async (t) => {
  const attached = await running(t)
  attached.peer.say('R', '{"event":"file"}')
  attached.peer.say('R', 'no JSON')
  attached.peer.say('O', 'alive\n')
  await until(() => attached.output.length > 0, 'it lives')
  t.strictSame(attached.statuses, [report, '{"event":"file"}'])
  t.match(attached.logs, [{ level: 'warn', text: 'the launcher cannot be understood' }])
})

t.test('a socket that comes later is waited for', async (t) => {
  const launcher = await scriptedLauncher(t, { listening: false })
  const clock = forwardClock()
  const attached = attach(t, launcher.path, { clock })
  attached.process.stdin.write('early\n')
  clock.forward(2000)
  await until(() => attached.logs.length > 0, 'it is told')
  t.match(attached.logs, [{ level: 'info', text: 'waiting for the launcher of the server' }])
  await launcher.listen()
  const peer = await launcher.connection()
  peer.say('R', report)
  await peer.heard('I')
  t.equal(String(peer.input), 'early\n')
  t.strictSame(attached.ends, [])
})

t.test('a socket that never comes, and one that nobody listens on, are waited for so long', async (t) => {
  const absent = attach(t, socketPath(t), { waitMs: 150 })
  t.match(await absent.ended(), /could not be started: there is no socket .*, for 150 ms/)
  await absent.process.gone
  const path = await abandoned(t)
  const stale = attach(t, path, { waitMs: 150 })
  t.match(await stale.ended(), /could not be started: nobody listens on the socket .*, for 150 ms/)
})

/** A socket whose listener has ended. */
async function abandoned(t: Test): Promise<string> {
  const path = socketPath(t)
  const { spawnSync } = await import('node:child_process')
  const script = `process.umask(0o117); require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', script], { env: {} })
  return path
}

t.test('a socket that others could have put there is not used', async (t) => {
  const refused = async (path: string, expected: RegExp): Promise<void> => {
    const attached = attach(t, path)
    t.match(await attached.ended(), expected)
    t.ok(attached.released)
  }
  t.test('a file', async (t) => {
    const path = socketPath(t)
    writeFileSync(path, '')
    const attached = attach(t, path)
    t.match(await attached.ended(), /is not a socket/)
  })
  t.test('everybody may write to it', async (t) => {
    const { path, connections } = await scriptedLauncher(t)
    chmodSync(path, 0o666)
    await refused(path, /everybody may write to the socket .*0660/)
    t.equal(connections.length, 0)
  })
  t.test('everybody may replace it', async (t) => {
    const { path, connections } = await scriptedLauncher(t)
    chmodSync(dirname(path), 0o777)
    await refused(path, /everybody may replace the socket .*0770/)
    t.equal(connections.length, 0)
    chmodSync(dirname(path), 0o1777)
    attach(t, path)
    await until(() => connections.length === 1, 'with a sticky folder it is used')
  })
  const skip = process.getuid?.() === 0 ? false : 'only root can give a socket to others'
  t.test('it belongs to somebody else', { skip }, async (t) => {
    const { path, connections } = await scriptedLauncher(t)
    chownSync(path, 54_321, 54_321)
    await refused(path, /belongs to user 54321 and group 54321, which are not ours/)
    t.equal(connections.length, 0)
  })
})

t.test('stopping closes stdin, then asks, then kills, then hangs up', async (t) => {
  const clock = forwardClock()
  const attached = await running(t, { clock })
  const { peer, process } = attached
  const gone = process.stop()
  t.ok(process.stopping)
  await peer.heard('C')
  const signals = (): number[] =>
    peer.frames.filter(({ type }) => type === 'K').map(({ payload }) => payload[0] as number)
  clock.forward(2000)
  await until(() => signals().length === 1, 'SIGTERM')
  clock.forward(3000)
  await until(() => signals().length === 2, 'SIGKILL')
  t.strictSame(signals(), [15, 9])
  clock.forward(1000)
  await until(() => peer.closed, 'it has hung up')
  await gone
  t.equal(await attached.ended(), 'it was stopped')
  t.strictSame(attached.counted, ['started', 'stopped'])
})

t.test('a server that ends when its stdin does is not asked further', async (t) => {
  const attached = await running(t)
  const { peer, process } = attached
  process.stdout.pause()
  const gone = process.stop()
  await peer.heard('C')
  peer.say('O', Buffer.alloc(300_000, 'z').subarray(0, 65_536))
  peer.say('X', exit({ code: 0 }))
  await gone
  t.equal(await attached.ended(), 'it exited with code 0')
  t.notOk(peer.frames.some(({ type }) => type === 'K'))
  t.strictSame(attached.counted, ['started', 'stopped'])
  await process.stop()
})

t.test('where stdin is stuck no signal would arrive: the connection ends', async (t) => {
  const clock = forwardClock()
  const attached = await running(t, { clock })
  const { peer, process } = attached
  peer.socket.pause()
  for (let i = 0; i < 64; i++) process.stdin.write(Buffer.alloc(65_536))
  const gone = process.stop()
  clock.forward(2000)
  await gone
  t.equal(await attached.ended(), 'it was stopped')
})

t.test('stopping while there is no socket yet ends the waiting', async (t) => {
  const launcher = await scriptedLauncher(t, { listening: false })
  const attached = attach(t, launcher.path)
  await attached.process.stop()
  t.match(await attached.ended(), /it was stopped/)
  await launcher.listen()
  for (let i = 0; i < 50; i++) await new Promise(setImmediate)
  t.equal(launcher.connections.length, 0)
})

t.test('a server that closes its stdout and stays is stopped', async (t) => {
  const attached = await running(t)
  attached.peer.say('O', 'the end\n')
  attached.peer.say('O')
  t.equal(await attached.ended(), 'it closed its stdout')
  await attached.peer.heard('C')
  t.equal(String(attached.output), 'the end\n')
  attached.peer.say('X', exit({ code: 0 }))
  await attached.process.gone
})

t.test('what does not fit into a policy frame is said before anything is sent', async (t) => {
  const launcher = await scriptedLauncher(t)
  const large = attach(t, launcher.path, { what: { env: { LARGE: 'x'.repeat(70_000) } } })
  t.match(await large.ended(), /could not be started: its policy, variables and arguments have 7\d{4} bytes/)
  const cut = attach(t, launcher.path, { what: { command: ['a\0b'] } })
  t.match(await cut.ended(), /a value of arg has a NUL in it/)
  await cut.process.gone
  const free = attach(t, launcher.path, { what: { confinement: undefined } })
  t.match(await free.ended(), /needs a policy/)
  t.equal(launcher.connections.length, 0)
})

t.test('a trial', async (t) => {
  const what = { command: ['server'], cwd: undefined, env: {} }
  const ask = (path: string, clock: Clock = systemClock): Promise<string | undefined> =>
    tryElsewhere(Buffer.from('v 1\0'), what, { path, pass: [], waitMs: 0 }, clock)
  t.test('brings home the report', async (t) => {
    const launcher = await scriptedLauncher(t)
    const asked = ask(launcher.path)
    const peer = await launcher.connection()
    t.equal(String((await peer.heard('P')).payload), 'v 1\0check 1\0arg server\0')
    peer.say('R', report)
    t.equal(await asked, report)
    await until(() => peer.closed, 'the connection has ended')
  })
  t.test('finds nobody, which is no fault', async (t) => {
    t.equal(await ask(socketPath(t)), undefined)
    t.equal(await ask(await abandoned(t)), undefined)
  })
  t.test('says what is wrong', async (t) => {
    const launcher = await scriptedLauncher(t)
    const closed = ask(launcher.path)
    const first = await launcher.connection()
    first.say('E', 'mcp-sidecar-launcher: serve: missing: fs\n')
    first.socket.end()
    await t.rejects(
      closed,
      /closed the connection without a report: mcp-sidecar-launcher: serve: missing: fs/,
    )
    const garbled = ask(launcher.path)
    ;(await launcher.connection(1)).socket.write('HTTP/1.1 400 Bad Request\r\n')
    await t.rejects(garbled, /does not keep to the protocol: a frame of the unknown type 0x48/)
    const clock = forwardClock()
    const silent = ask(launcher.path, clock)
    await (await launcher.connection(2)).heard('P')
    clock.forward(10_000)
    await t.rejects(silent, /does not answer/)
    chmodSync(launcher.path, 0o666)
    await t.rejects(ask(launcher.path), /everybody may write/)
  })
})
