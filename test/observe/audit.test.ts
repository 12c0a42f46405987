import { type ChildProcess, spawn } from 'node:child_process'
import {
  appendFileSync,
  existsSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import t from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import type { AuditPolicy } from '../../src/core/policy.ts'
import type { Clock } from '../../src/core/types.ts'
import { type Audit, createAudit } from '../../src/observe/audit.ts'
import { lineHash } from '../../src/observe/audit-chain.ts'
import type { AuditInput } from '../../src/observe/audit-event.ts'
import { maxHeldBytes } from '../../src/observe/audit-sink.ts'
import { auditTypes } from '../../src/observe/audit-type.ts'
import { type Verified, verifyAudit } from '../../src/observe/audit-verify.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { type Destination, LineWriter } from '../../src/observe/line-writer.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { type LogLine, recordingLogger, until } from '../support/sidecar.ts'

const defaults: AuditPolicy = {
  destination: 'stdout',
  eventTypes: [],
  excludeEventTypes: [],
  includeRequestData: false,
  includeResponseData: false,
  maxDataBytes: 1024,
  redact: [],
  onFailure: 'block',
  component: 'test',
}
const ping: AuditInput = { type: 'mcp_ping', outcome: 'success' }
const note = (text: string): AuditInput => ({ ...ping, details: { text } })

interface Event {
  readonly type: string
  readonly seq: number
  readonly prev: string
  readonly details: Record<string, unknown>
}

function setUp(policy: Partial<AuditPolicy>, stdout?: LineWriter, clock: Clock = systemClock) {
  const logs: LogLine[] = []
  const counts = { failed: 0, lost: 0 }
  const audit = createAudit(
    { ...defaults, ...policy },
    {
      clock,
      log: recordingLogger(logs),
      metrics: { auditFailed: () => counts.failed++, auditLost: () => counts.lost++ },
      place: { listener: 'mcp' },
      configDigest: () => 'sha256:0',
      stdout,
    },
  )
  return { audit, logs, counts }
}

const eventsIn = (text: string): Event[] =>
  text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Event)
const verify = (text: string): Promise<Verified> =>
  verifyAudit({ name: '-', bytes: Readable.from([Buffer.from(text)]) })

/** Memory that fails on demand, and takes as little at a time as wanted. */
class Store implements Destination {
  text = ''
  code: string | undefined
  most = Number.POSITIVE_INFINITY

  write(bytes: Buffer, from: number, done: (error: Error | undefined, position: number) => void): void {
    queueMicrotask(() => {
      if (this.code !== undefined) done(Object.assign(new Error(this.code), { code: this.code }), from)
      else done(undefined, this.writeSync(bytes, from))
    })
  }

  writeSync(bytes: Buffer, from: number): number {
    const to = Math.min(bytes.length, from + this.most)
    this.text += bytes.toString('latin1', from, to)
    return to
  }

  bytesAtEnd(): number {
    return 0
  }
}

function inMemory(policy: Partial<AuditPolicy> = {}) {
  const clock = new ManualClock()
  const store = new Store()
  const made = setUp(policy, new LineWriter(store, clock), clock)
  const pass = async (ms: number): Promise<void> => {
    clock.pass(ms)
    await new Promise((resolve) => setImmediate(resolve))
  }
  return { ...made, clock, store, pass }
}

t.test('what is recorded is there some 20 ms later, in a chain that holds', async (t) => {
  const { audit, store, pass } = inMemory()
  for (const type of auditTypes) audit.record({ type, outcome: 'success' })
  t.equal(store.text, '')
  await pass(20)
  t.same(
    eventsIn(store.text).map(({ type }) => type),
    auditTypes,
  )
  t.match(await verify(store.text), { ok: true, lines: auditTypes.length, notes: [] })
})

t.test('only the types that are wanted', async (t) => {
  const { audit, store, pass } = inMemory({
    eventTypes: ['mcp_ping', 'mcp_tool_call'],
    excludeEventTypes: ['mcp_tool_call'],
  })
  for (const type of auditTypes) audit.record({ type, outcome: 'success' })
  await pass(20)
  t.match(eventsIn(store.text), [{ type: 'mcp_ping', seq: 1 }])
  for (const wrong of [{ eventTypes: ['mcp_tool_cal'] }, { excludeEventTypes: ['chain_resumed'] }])
    t.throws(() => inMemory(wrong), {
      name: 'AuditError',
      message: /there is no audit event type .*there are mcp_init/,
    })
})

t.test('another policy takes effect at once, or not at all', async (t) => {
  const { audit, store, pass } = inMemory({ onFailure: 'continue' })
  audit.record(ping)
  audit.reconfigure({ ...defaults, excludeEventTypes: ['mcp_ping'], component: 'renamed' })
  audit.record(ping)
  audit.record({ type: 'config_reload', outcome: 'success' })
  t.throws(() => audit.reconfigure({ ...defaults, eventTypes: ['x'] }), { name: 'AuditError' })
  t.throws(() => audit.reconfigure({ ...defaults, destination: { file: '/x' } }), {
    message: /goes to stdout/,
  })
  audit.record({ type: 'config_reload', outcome: 'success' })
  store.code = 'EIO'
  await pass(20)
  t.equal(audit.blocked, true)
  store.code = undefined
  await pass(50)
  await pass(20)
  t.match(eventsIn(store.text), [
    { type: 'mcp_ping', component: 'test' },
    { type: 'config_reload', component: 'renamed' },
    { type: 'config_reload' },
    { type: 'audit_resumed' },
  ])
  t.equal((await verify(store.text)).ok, true)
})

t.test('nothing is lost over failures and short writes; the log says that there was one', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.tuple(
          fc.nat(3),
          fc.constantFrom(undefined, 'ENOSPC', 'EAGAIN', 'EIO'),
          fc.integer({ min: 1, max: 900 }),
        ),
        {
          maxLength: 12,
        },
      ),
      async (steps) => {
        const { audit, store, pass, counts } = inMemory()
        let recorded = 0
        for (const [count, code, most] of steps) {
          for (let i = 0; i < count; i++) audit.record(note(`${recorded++}`))
          Object.assign(store, { code, most })
          await pass(30)
        }
        Object.assign(store, { code: undefined, most: 1e9 })
        for (let i = 0; i < 5; i++) await pass(1000)
        const events = eventsIn(store.text)
        const ours = events
          .filter(({ type }) => type === 'mcp_ping')
          .map(({ details }) => Number(details['text']))
        const { ok } = await verify(store.text)
        return (
          ok &&
          counts.lost === 0 &&
          !audit.blocked &&
          ours.every((n, i) => n === i) &&
          ours.length === recorded
        )
      },
    ),
    { numRuns: 50 },
  )
  t.pass('all was there, in order')
})

t.test('beyond 16 MiB events are lost, and counted where they are missing', async (t) => {
  const { audit, store, pass, counts, logs } = inMemory({ onFailure: 'continue' })
  store.code = 'ENOSPC'
  const pad: Record<string, string> = Object.fromEntries(
    Array.from({ length: 30 }, (_, i) => [`${i}`, 'x'.repeat(500)]),
  )
  const big = (extra: Partial<AuditInput> = {}): void => audit.record({ ...ping, details: pad, ...extra })
  for (let i = 0; i < 1300; i++) big()
  await pass(20)
  t.ok(counts.lost > 100)
  t.equal(audit.blocked, false)
  const { lost } = counts
  store.code = undefined
  for (let i = 0; i < 5; i++) await pass(1000)
  for (let i = 0; i < 300; i++) await pass(0)
  audit.record(ping)
  await pass(20)
  t.ok(store.text.length < maxHeldBytes + 10_000)
  const events = eventsIn(store.text)
  t.match(events.slice(-2), [{ type: 'audit_resumed', details: { lost } }, { type: 'mcp_ping' }])
  t.equal(events.filter(({ type }) => type === 'mcp_ping').length, 1301 - lost)
  t.equal((await verify(store.text)).ok, true)
  t.equal(logs.filter(({ text }) => text === 'events are missing in the audit log').length, 1, 'one a second')
})

t.test('strangers cannot use up the room for what calls did', async (t) => {
  const { audit, store, counts } = inMemory()
  store.code = 'ENOSPC'
  const error = new SidecarError('ERR_AUTH_MISSING', { detail: 'x'.repeat(400) })
  for (let i = 0; i < 40_000; i++) audit.record({ type: 'http_request', outcome: 'denied', error })
  t.ok(counts.lost > 1000)
  const { lost } = counts
  audit.record({
    type: 'mcp_tool_call',
    outcome: 'denied',
    error: new SidecarError('ERR_DENIED', { detail: 'x'.repeat(500) }),
  })
  t.equal(counts.lost, lost + 1, 'nor can callers who are refused')
  for (let i = 0; i < 1000; i++) audit.record(note('served'))
  audit.record({ type: 'mcp_tool_call', outcome: 'timeout', error: new SidecarError('ERR_TIMEOUT') })
  t.equal(counts.lost, lost + 1)
})

t.test('an event that cannot be written down does not harm the call', async (t) => {
  const { audit, store, pass, counts, logs } = inMemory({ includeRequestData: true })
  const broken = (): never => {
    throw new Error('no arguments')
  }
  t.doesNotThrow(() => audit.record({ ...ping, arguments: broken }))
  audit.record(ping)
  await pass(20)
  t.equal(counts.lost, 1)
  t.match(logs, [{ level: 'error', fields: { reason: 'no arguments', lost: 1 } }])
  t.match(eventsIn(store.text), [{ type: 'audit_resumed', details: { lost: 1 } }, { type: 'mcp_ping' }])
})

t.test('after the end nothing is recorded, and nothing may be done', async (t) => {
  const { audit, store, counts } = inMemory()
  audit.record(ping)
  await Promise.all([audit.close(), audit.close()])
  t.equal(eventsIn(store.text).length, 1)
  t.equal(audit.blocked, true)
  audit.record(ping)
  t.equal(counts.lost, 1)
})

const inFile = (t: { testdir(): string }) => {
  const path = join(t.testdir(), 'audit.log')
  return { path, start: () => setUp({ destination: { file: path } }) }
}

t.test('a file goes on where the last process stopped', async (t) => {
  const { path, start } = inFile(t)
  for (let i = 1; i <= 3; i++) {
    const { audit } = start()
    audit.record(ping)
    await audit.close()
    t.match(await verifyAudit(path), { ok: true, lines: i, last: { seq: i } })
  }
})

t.test('a line that was cut off by a crash is closed and named', async (t) => {
  const { path, start } = inFile(t)
  const first = start()
  for (let i = 0; i < 3; i++) first.audit.record(ping)
  await first.audit.close()
  const whole = readFileSync(path, 'utf8')
  const torn = whole.slice(0, -30).split('\n').at(-1) as string
  writeFileSync(path, whole.slice(0, -30))
  const { audit, logs } = start()
  audit.record(ping)
  await audit.close()
  t.match(logs, [{ level: 'warn', text: /was cut off/ }])
  const lines = readFileSync(path, 'utf8').split('\n')
  t.match(JSON.parse(lines[3] as string), {
    type: 'chain_resumed',
    seq: 3,
    details: { torn_bytes: torn.length, torn_hash: lineHash(torn) },
  })
  t.match(await verifyAudit(path), { ok: true, lines: 5, notes: [{ line: 3 }] })
})

t.test('the chain goes on over a rotation and a removal', async (t) => {
  const { path, start } = inFile(t)
  const { audit } = start()
  const old = `${path}.1`
  audit.record(ping)
  await until(() => readFileSync(path, 'utf8').endsWith('\n'), 'the first')
  renameSync(path, old)
  audit.record(ping)
  audit.reopen()
  audit.record(ping)
  await until(() => existsSync(path) && readFileSync(path, 'utf8').endsWith('\n'), 'the second')
  t.match(await verifyAudit([old, path]), { ok: true, lines: 3 })
  t.match(await verifyAudit(path), { ok: true, first: { seq: 2 } })
  rmSync(old)
  renameSync(path, old)
  audit.reopen()
  rmSync(path)
  audit.record(ping)
  await audit.close()
  t.match(await verifyAudit([old, path]), { ok: true, lines: 3, last: { seq: 4 } })
})

t.test('a line that somebody else adds is found', async (t) => {
  const { path, start } = inFile(t)
  const { audit, logs } = start()
  audit.record(ping)
  await until(() => readFileSync(path, 'utf8').endsWith('\n'), 'the first')
  appendFileSync(path, readFileSync(path))
  audit.record(ping)
  await audit.close()
  t.match(await verifyAudit(path), { ok: false, problems: [{ line: 2 }] })
  t.match(logs, [{ level: 'warn', text: /somebody else has changed/ }])
})

const modules = (name: string): string =>
  JSON.stringify(new URL(`../../src/observe/${name}.ts`, import.meta.url).href)

/** A process that logs and records on its standard output. */
function recording(script: string, stdout: 'pipe' | number): ChildProcess {
  const setup = `
    const { createLogger } = await import(${modules('logger')})
    const { createAudit } = await import(${modules('audit')})
    const { systemClock } = await import(${modules('clock')})
    const log = createLogger({ level: 'info', format: 'json' }, process.stdout)
    const counts = { failed: 0, lost: 0 }
    const audit = createAudit(${JSON.stringify(defaults)}, { clock: systemClock, log, stdout: log.stdout,
      metrics: { auditFailed: () => counts.failed++, auditLost: () => counts.lost++ },
      place: { listener: 'mcp' }, configDigest: () => 'sha256:0' })
    const record = (text) => audit.record({ type: 'mcp_ping', outcome: 'success', details: { text } })
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))\n`
  const args = [...process.execArgv, '--input-type=module', '-e', setup + script]
  return spawn(process.execPath, args, { stdio: ['ignore', stdout, 'pipe'] })
}

async function textOf(stream: Readable | null): Promise<string> {
  let text = ''
  for await (const part of stream ?? []) text += String(part)
  return text
}

t.test('on standard output, log and audit never stand inside one another', async (t) => {
  const child = recording(
    `for (let i = 0; i < 300; i++) {
      for (let n = 0; n < 10; n++) { log.info({ n: 'x'.repeat(i * 20) }, 'log'); record('y'.repeat(i)) }
      if (i % 10 === 0) await sleep(1)
    }
    await audit.close()
    await log.flush()`,
    'pipe',
  )
  const [text, stderr] = await Promise.all([textOf(child.stdout), textOf(child.stderr)])
  t.equal(stderr, '')
  const lines = text.split('\n').slice(0, -1)
  const audited = lines.filter((line) => line.startsWith('{"metadata":'))
  t.equal(audited.length, 3000)
  t.equal(lines.length, 6000)
  t.equal(lines.filter((line) => (JSON.parse(line) as { msg?: string }).msg === 'log').length, 3000)
  t.match(await verify(`${audited.join('\n')}\n`), { ok: true, lines: 3000 })
})

t.test('a process that ends without notice writes what it can', async (t) => {
  const child = recording(`record('last words'); process.exit(3)`, 'pipe')
  t.match(await textOf(child.stdout), /last words.*"seq":1,.*\n$/)
})

t.test('a full device as standard output blocks calls', async (t) => {
  const child = recording(
    `record('x')
    while (!audit.blocked) await sleep(5)
    process.stderr.write('blocked ' + (counts.failed > 0))
    process.exit(0)`,
    openSync('/dev/full', 'w'),
  )
  t.equal(await textOf(child.stderr), 'blocked true')
})

t.test('with block, no call gets through unrecorded while nobody reads, beyond what is held', async (t) => {
  const child = recording(
    `let served = 0
    const pad = 'x'.repeat(480)
    const end = Date.now() + 20000
    while (!audit.blocked && Date.now() < end) {
      for (let i = 0; i < 500 && !audit.blocked; i++) { record(served + pad); served++ }
      await sleep(1)
    }
    process.stderr.write(JSON.stringify({ served, lost: counts.lost, blocked: audit.blocked }) + '\\n')
    for (;;) { await sleep(20); if (!audit.blocked) break }
    record('open again')
    await audit.close()
    process.exit(0)`,
    'pipe',
  )
  t.teardown(() => child.kill('SIGKILL'))
  const [first] = await new Promise<Buffer[]>((resolve) =>
    child.stderr?.once('data', (data: Buffer) => resolve([data])),
  )
  const { served, lost, blocked } = JSON.parse(String(first)) as {
    served: number
    lost: number
    blocked: boolean
  }
  t.equal(blocked, true)
  t.equal(lost, 0)
  const text = await textOf(child.stdout)
  const pings = eventsIn(text).filter(({ type }) => type === 'mcp_ping')
  t.equal(pings.length, served + 1, 'all that were served are recorded')
  t.equal((await verify(text)).ok, true)
})

t.test('recording is cheap', async (t) => {
  const path = join(t.testdir(), 'audit.log')
  const { audit } = setUp({ destination: { file: path } })
  const cost = (n: number, one: (audit: Audit) => void): number => {
    const { user, system } = process.cpuUsage()
    for (let i = 0; i < n; i++) one(audit)
    const after = process.cpuUsage()
    return (after.user - user + after.system - system) / n
  }
  cost(5000, (log) => log.record(ping))
  const us = Math.min(...[1, 2, 3].map(() => cost(2000, (log) => log.record(ping))))
  await audit.close()
  t.ok(us < 40, `${us.toFixed(1)} microseconds each`)
})
