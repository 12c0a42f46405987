import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import type { Clock, Metrics } from '../../src/core/types.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { type ProbeResult, probe } from '../../src/upstream/probe.ts'
import type { ProcessContext, ServerCommand } from '../../src/upstream/process.ts'
import { Reaper } from '../../src/upstream/reaper.ts'
import { alive, type PidFile, pidFile } from '../support/processes.ts'
import { type LogLine, recordingLogger, until } from '../support/sidecar.ts'

const script = fileURLToPath(new URL('../fixtures/probe-server.sh', import.meta.url))

/** What the server does, as shell code: at its start, when asked for discover, when asked to initialize. */
interface Behaviour {
  readonly start?: string
  readonly discover?: string
  readonly initialize?: string
}

interface ProbeSetup {
  readonly clock?: Clock
  readonly startTimeoutMs?: number
  readonly maxMessageBytes?: number
  /** Instead of the scripted server. */
  readonly command?: readonly string[]
}

interface Started {
  readonly result: Promise<ProbeResult>
  stop(): Promise<void>
  readonly pids: PidFile
  readonly logs: readonly LogLine[]
  /** The messages that the server has read. */
  // biome-ignore lint/suspicious/noExplicitAny: messages of any shape
  received(): any[]
}

const nothing = (): void => {}
const metrics: Metrics = {
  refused: nothing,
  asked: nothing,
  authenticated: nothing,
  rateStore: nothing,
  auditFailed: nothing,
  auditLost: nothing,
  dropped: nothing,
  call: nothing,
  sessionOpened: nothing,
  sessionClosed: nothing,
  egress: nothing,
  egressBytes: nothing,
  processStarted: nothing,
  processExited: nothing,
  processRestarted: nothing,
}

function start(t: Test, server: Behaviour, setup: ProbeSetup = {}): Started {
  const pids = pidFile(t)
  const logs: LogLine[] = []
  const log = recordingLogger(logs)
  const context: ProcessContext = { clock: setup.clock ?? systemClock, log, metrics, reaper: new Reaper(log) }
  const { start = '', discover = '', initialize = '' } = server
  const command: ServerCommand = {
    command: setup.command ?? ['/bin/sh', script, pids.path, start, discover, initialize],
    cwd: undefined,
    env: { PATH: '/usr/bin:/bin' },
  }
  const { startTimeoutMs = 10_000, maxMessageBytes = 1_000_000 } = setup
  const started = probe(command, context, { startTimeoutMs, maxMessageBytes, version: '1.2.3' })
  t.teardown(async () => {
    await started.stop()
    context.reaper.close()
    await pids.gone()
  })
  return {
    result: started.result,
    stop: () => started.stop(),
    pids,
    logs,
    received: () =>
      existsSync(`${pids.path}.in`)
        ? readFileSync(`${pids.path}.in`, 'utf8')
            .trim()
            .split('\n')
            .map((line) => JSON.parse(line))
        : [],
  }
}

/** Time that passes when told to. */
function manualClock(): { clock: Clock; pass(ms: number): void } {
  let now = 0
  const timers = new Map<object, { at: number; then: () => void }>()
  const clock: Clock = {
    now: () => now,
    epoch: () => now,
    after: (ms, then) => {
      const timer = {
        refresh: () => timers.set(timer, { at: now + ms, then }),
        cancel: () => timers.delete(timer),
      }
      timer.refresh()
      return timer
    },
  }
  const pass = (ms: number): void => {
    const end = now + ms
    for (;;) {
      const [next] = [...timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)
      if (next === undefined) break
      const [timer, { at, then }] = next
      timers.delete(timer)
      now = at
      then()
    }
    now = end
  }
  return { clock, pass }
}

/** For what is to be answered before the probe loses patience: a second of it is ten. */
const patient: Clock = { ...systemClock, after: (ms, then) => systemClock.after(ms * 10, then) }

const discovered = {
  resultType: 'complete',
  supportedVersions: ['2099-01-01', '2026-07-28'],
  capabilities: { tools: {} },
  instructions: 'Be kind',
  ttlMs: 0,
  cacheScope: 'public',
  _meta: { 'io.modelcontextprotocol/serverInfo': { name: 'probed', version: '1' } },
}
const initialized = {
  protocolVersion: '2025-11-25',
  capabilities: {},
  serverInfo: { name: 'x', version: '1' },
}
const result = (value: unknown): string => `result '${JSON.stringify(value)}'`
const error = (value: unknown): string => `error '${JSON.stringify(value)}'`

const modern = { discover: result(discovered) }
const legacy = { initialize: result(initialized) }
const refuse = error({ code: -32022, message: 'x', data: { supported: ['2026-07-28'] } })

/** @param certain it showed that it is, by an answer */
async function isLegacy(t: Test, started: Started, reason: string | RegExp, certain = true): Promise<void> {
  const found = await started.result
  t.equal(found.era, 'legacy')
  if (found.era !== 'legacy') return
  t.equal(found.certain, certain)
  if (typeof reason === 'string') t.equal(found.reason, reason)
  else t.match(found.reason, reason)
  await started.pids.gone()
}

t.test('a modern server is found and its process handed over', async (t) => {
  const started = start(t, modern, { clock: patient })
  const found = await started.result
  t.equal(found.era, 'modern')
  if (found.era !== 'modern') return
  t.same(found.discovered, discovered, 'every member is kept')
  t.equal(found.link?.ended, undefined)
  t.same(started.pids.pids, [found.link?.process.pid])
  t.ok(alive(found.link?.process.pid as number))
  t.match(started.received(), [
    {
      jsonrpc: '2.0',
      method: 'server/discover',
      params: {
        _meta: {
          'io.modelcontextprotocol/protocolVersion': '2026-07-28',
          'io.modelcontextprotocol/clientInfo': { name: 'mcp-sidecar', version: '1.2.3' },
          'io.modelcontextprotocol/clientCapabilities': {},
        },
      },
    },
  ])
  await started.stop()
  t.same(started.pids.pids.filter(alive), [], 'stop ends it even then')
})

t.test('nothing a modern server says before it has an owner does harm', async (t) => {
  const chatter = [
    '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}',
    '{"jsonrpc":"2.0","id":7,"method":"roots/list"}',
    '{"jsonrpc":"2.0","id":1,"result":{}}',
    '{"jsonrpc":"2.0","id":99,"result":{}}',
    'garbage',
  ].map((line) => `echo '${line}'`)
  const server = {
    start: chatter.slice(0, 2).join(';'),
    discover: [modern.discover, ...chatter].join(';'),
  }
  const started = start(t, server, { clock: patient })
  const found = await started.result
  t.equal(found.era, 'modern')
  if (found.era !== 'modern') return
  await until(() => started.logs.some(({ text }) => text.includes('no JSON-RPC message')), 'all was read')
  t.equal(found.link?.ended, undefined)
})

t.test('stderr is discarded until the process is handed over', async (t) => {
  const waitFor = (name: string): string => `until [ -e "$pids.${name}" ]; do sleep 0.01; done`
  const started = start(t, {
    start: `echo early >&2; echo >"$pids.wrote"; ${waitFor('read')}`,
    discover: `${modern.discover}; ${waitFor('taken')}; echo late >&2`,
  })
  await until(() => existsSync(`${started.pids.path}.wrote`), 'the server has written to stderr')
  // What is in the pipe by now is read in the next two turns.
  await new Promise(setImmediate)
  await new Promise(setImmediate)
  writeFileSync(`${started.pids.path}.read`, '')
  await started.result
  writeFileSync(`${started.pids.path}.taken`, '')
  const lines = (): unknown[] =>
    started.logs.filter(({ text }) => text === 'server').map((line) => line.fields['stderr'])
  await until(() => lines().length > 0, 'the server has written to stderr again')
  t.same(lines(), ['late'])
})

const answers: readonly (readonly [string, string, string | RegExp])[] = [
  [
    'method not found',
    error({ code: -32601, message: 'Method not found' }),
    'it answered server/discover with error -32601 (Method not found)',
  ],
  ['invalid request', error({ code: -32600, message: '' }), 'it answered server/discover with error -32600'],
  ['any other error', error({ code: 1, message: 3 }), 'it answered server/discover with error 1'],
  ['an error without a code', error({}), 'it answered server/discover with an error without a code'],
  ['an error that is none', error(null), 'it answered server/discover with an error without a code'],
  ['a message that cannot be text', error({ code: 1, message: { toString: 1, valueOf: 1 } }), /error 1$/],
  [
    'a long message',
    error({ code: -1, message: 'm'.repeat(5000) }),
    `it answered server/discover with error -1 (${'m'.repeat(200)}…)`,
  ],
  ['a result without versions', result({ capabilities: {} }), /with no usable supportedVersions$/],
  ['the result of something else', result(initialized), /with no usable supportedVersions$/],
  ['a result that is no object', result('yes'), /with a result that is no object$/],
  ['a result that is null', result(null), /with a result that is no object$/],
  [
    'a question',
    result({ ...discovered, resultType: 'input_required' }),
    /with a result that is not complete$/,
  ],
  [
    'capabilities that are a list',
    result({ ...discovered, capabilities: [] }),
    /with no usable capabilities$/,
  ],
  ['no capabilities', result({ ...discovered, capabilities: undefined }), /with no usable capabilities$/],
  [
    'instructions of another type',
    result({ ...discovered, instructions: {} }),
    /with unusable instructions$/,
  ],
  ['_meta of another type', result({ ...discovered, _meta: 1 }), /with an unusable _meta$/],
  ['versions in a text', result({ ...discovered, supportedVersions: '2026-07-28' }), /no usable supportedV/],
  [
    'versions that are none',
    result({ ...discovered, supportedVersions: ['2026-07-28', 1] }),
    /no usable supp/,
  ],
  [
    'a huge version',
    result({ ...discovered, supportedVersions: ['2026-07-28', 'v'.repeat(9000)] }),
    /no usable supp/,
  ],
  [
    'thousands of versions',
    result({ ...discovered, supportedVersions: new Array(5000).fill('2026-07-28') }),
    /no usable supp/,
  ],
  [
    'other versions',
    result({ ...discovered, supportedVersions: ['2099-01-01', '2098-01-01'] }),
    'it answers server/discover with versions 2099-01-01, 2098-01-01 only',
  ],
  [
    'long other versions',
    result({ ...discovered, supportedVersions: ['a'.repeat(90), 'b'.repeat(90), 'c'.repeat(90)] }),
    /^it answers server\/discover with versions a{90}, b{90}, c{16}… only$/,
  ],
  [
    'no version at all',
    result({ ...discovered, supportedVersions: [] }),
    'it answers server/discover with no versions',
  ],
  [
    'a refusal of the version with others',
    error({
      code: -32022,
      message: 'Unsupported',
      data: { supported: ['2099-01-01'], requested: '2026-07-28' },
    }),
    'it answers server/discover with versions 2099-01-01 only',
  ],
  [
    'a refusal of the version without others',
    error({ code: -32022, message: 'Unsupported', data: { supported: 'none' } }),
    'it answered server/discover with error -32022 (Unsupported)',
  ],
  ['a refusal of the version and no data', error({ code: -32022 }), /with error -32022$/],
  [
    'a refusal of the very version it lists',
    error({ code: -32022, message: 'x', data: { supported: ['2026-07-28'] } }),
    'it refuses version 2026-07-28, which it says it supports',
  ],
]

t.test('whatever else it answers means that it is legacy', async (t) => {
  for (const [name, discover, reason] of answers) {
    await t.test(name, async (t) => isLegacy(t, start(t, { discover, ...legacy }), reason))
  }
})

t.test('an answer that is too large, or no JSON-RPC, is one, too', async (t) => {
  const large = `printf '{"jsonrpc":"2.0","id":%s,"result":{"x":"' "$id"; head -c 300000 /dev/zero | tr '\\0' a; echo '"}}'`
  await isLegacy(
    t,
    start(t, { discover: large }, { maxMessageBytes: 100_000 }),
    /^the message had \d+ bytes$/,
  )
  const broken = `printf '{"jsonrpc":"2.0","id":%s,"result":{]}\\n' "$id"`
  await isLegacy(t, start(t, { discover: broken }), /./)
  const deep = `printf '{"jsonrpc":"2.0","id":%s,"result":' "$id"; head -c 3000 /dev/zero | tr '\\0' '['; echo '}'`
  await isLegacy(t, start(t, { discover: deep }), /./)
})

t.test('a refused version is asked for once more if the server lists it', async (t) => {
  const discover = `if [ -z "$again" ]; then again=1; ${refuse}; else ${modern.discover}; fi`
  const started = start(t, { discover }, { clock: patient })
  const found = await started.result
  t.equal(found.era, 'modern')
  t.type(found.era === 'modern' && found.link, 'object')
  t.same(
    started.received().map(({ method }) => method),
    ['server/discover', 'server/discover'],
  )
})

t.test('a server that cannot answer is legacy', async (t) => {
  await isLegacy(t, start(t, { start: 'exit 3' }), 'the server process is gone: it exited with code 3', false)
  await isLegacy(
    t,
    start(t, { discover: 'exit 1' }),
    'the server process is gone: it exited with code 1',
    false,
  )
  await isLegacy(t, start(t, { discover: 'kill -9 $$' }), /it was ended by SIGKILL$/, false)
  await isLegacy(t, start(t, { start: 'exec >&-' }), /it closed its stdout$/, false)
  await isLegacy(t, start(t, { start: 'echo Hello; echo "{}"; exit' }), /it exited with code 0$/, false)
  await isLegacy(
    t,
    start(t, {}, { command: ['no-such-program'] }),
    /it could not be started: .*ENOENT/,
    false,
  )
  await isLegacy(t, start(t, {}, { command: ['/bin/sh', 'nul\0'] }), /^it could not be started: /, false)
  const huge = { command: ['/bin/sh', '-c', 'x'.repeat(4_000_000)] }
  await isLegacy(t, start(t, {}, huge), /it could not be started: .*E2BIG/, false)
})

t.test('garbage before the answer is passed over', async (t) => {
  const garbage = `echo 'Server listening'; echo '{"a":1}'; echo '[]'; echo`
  t.equal((await start(t, { start: garbage, ...modern }).result).era, 'modern')
  await isLegacy(t, start(t, { start: garbage, discover: error({ code: -32601 }) }), /error -32601$/)
})

t.test('a server that answers initialize but not discover is legacy', async (t) => {
  for (const initialize of [
    legacy.initialize,
    error({ code: -32602, message: { toString: 1 } }),
    `printf '{"jsonrpc":"2.0","id":%s,"result":1,"error":1}\\n' "$id"`,
  ]) {
    const { clock, pass } = manualClock()
    const started = start(
      t,
      { start: 'echo garbage', initialize: `${initialize}; echo '{"after":1}'` },
      { clock },
    )
    await until(() => started.received().length === 1, 'it was asked')
    pass(999)
    await sleep(50)
    t.equal(started.received().length, 1, 'it is given a second')
    pass(1)
    // The garbage after the answer is logged as the second line that is none, or third if the answer is.
    await until(() => started.logs.length >= 2, 'it answered initialize')
    t.match(started.received()[1], {
      method: 'initialize',
      params: { protocolVersion: '2025-11-25', clientInfo: { name: 'mcp-sidecar', version: '1.2.3' } },
    })
    let settled = false
    void started.result.then(() => {
      settled = true
    })
    pass(199)
    await new Promise(setImmediate)
    t.notOk(settled, 'discover may still be answered')
    pass(1)
    await isLegacy(t, started, 'it ignores server/discover')
  }
})

t.test('an answer to discover that initialize overtook counts', async (t) => {
  const { clock, pass } = manualClock()
  const overtake = `${result(initialized)}; id=$first; ${modern.discover}`
  const started = start(t, { discover: 'first=$id', initialize: overtake }, { clock })
  await until(() => started.received().length === 1, 'it was asked')
  pass(1000)
  const found = await started.result
  t.match(found, { era: 'modern', link: undefined })
  await started.pids.gone()
})

t.test('a server that is silent for ever is legacy', async (t) => {
  const { clock, pass } = manualClock()
  const started = start(t, { start: 'echo garbage' }, { clock, startTimeoutMs: 5000 })
  await until(() => started.logs.length > 0, 'it wrote')
  pass(4900)
  await until(() => started.received().length === 2, 'it was asked twice')
  pass(200)
  await isLegacy(t, started, 'it was silent', false)
})

t.test('a server that answered initialize in the last moment is not called silent', async (t) => {
  const { clock, pass } = manualClock()
  const initialize = `${legacy.initialize}; echo garbage`
  const started = start(t, { initialize }, { clock, startTimeoutMs: 1100 })
  await until(() => started.received().length === 1, 'it was asked')
  pass(1000)
  await until(() => started.logs.length > 0, 'it answered initialize')
  pass(150)
  await isLegacy(t, started, 'it ignores server/discover')
})

t.test('a server that has refused a modern version is not offered initialize', async (t) => {
  const { clock, pass } = manualClock()
  const discover = `if [ -z "$again" ]; then again=1; ${refuse}; fi`
  const started = start(t, { discover }, { clock, startTimeoutMs: 5000 })
  await until(() => started.received().length === 2, 'it was asked twice')
  pass(2000)
  await sleep(50)
  t.equal(started.received().length, 2)
  pass(3100)
  await isLegacy(t, started, 'it was silent', false)
})

t.test('a retry gets no time of its own', async (t) => {
  const { clock, pass } = manualClock()
  const wait = 'until [ -e "$pids.passed" ]; do sleep 0.01; done'
  const discover = `if [ -z "$again" ]; then again=1; ${wait}; ${refuse}; fi`
  const started = start(t, { discover }, { clock, startTimeoutMs: 900 })
  await until(() => started.received().length === 1, 'it was asked')
  pass(500)
  writeFileSync(`${started.pids.path}.passed`, '')
  await until(() => started.received().length === 2, 'it was asked twice')
  pass(450)
  await isLegacy(t, started, 'it was silent', false)
})

t.test('a process that was handed over is asked nothing more', async (t) => {
  const { clock, pass } = manualClock()
  const started = start(t, modern, { clock })
  t.match(await started.result, { era: 'modern', link: { ended: undefined } })
  pass(60_000)
  await sleep(50)
  t.equal(started.received().length, 1)
})

t.test('a short limit ends before initialize is offered', async (t) => {
  const started = start(t, legacy, { startTimeoutMs: 100 })
  await isLegacy(t, started, 'it was silent', false)
  t.notOk(started.received().some(({ method }) => method === 'initialize'))
})

t.test('a slow start', async (t) => {
  const slow = { start: 'sleep 1.5' }
  const [found] = await Promise.all([
    start(t, { ...slow, ...modern, initialize: error({ code: -32601 }) }).result,
    isLegacy(t, start(t, { ...slow, ...legacy, discover: error({ code: -32601 }) }), /error -32601$/),
    isLegacy(t, start(t, { ...slow, ...legacy }), 'it ignores server/discover'),
  ])
  t.match(found, { era: 'modern', discovered, link: undefined })
})

t.test('stop ends it, at any time', async (t) => {
  const early = start(t, modern)
  await early.stop()
  t.same(await early.result, { era: 'legacy', reason: 'stopped', certain: false })
  const waiting = start(t, {})
  await until(() => waiting.received().length === 1, 'it was asked')
  await Promise.all([waiting.stop(), waiting.stop()])
  t.same(await waiting.result, { era: 'legacy', reason: 'stopped', certain: false })
  t.same(waiting.pids.pids.filter(alive), [])
  const missing = start(t, {}, { command: ['no-such-program'] })
  await missing.stop()
  t.same(await missing.result, { era: 'legacy', reason: 'stopped', certain: false })
})

t.test('one that ignores the end of its input is ended nevertheless', async (t) => {
  const stubborn = `trap '' TERM; while :; do sleep 1; done`
  const { clock, pass } = manualClock()
  const started = start(t, { discover: `${error({ code: -32601 })}; ${stubborn}` }, { clock })
  t.match(await started.result, { era: 'legacy' }, 'the result does not wait for that')
  t.same(started.pids.pids.filter(alive).length, 1)
  pass(5000)
  await started.pids.gone()
})
