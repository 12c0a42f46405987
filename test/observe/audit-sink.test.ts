import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Clock } from '../../src/core/types.ts'
import { AuditSink, maxHeldBytes } from '../../src/observe/audit-sink.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { type Destination, descriptor, LineWriter } from '../../src/observe/line-writer.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { type LogLine, recordingLogger, until } from '../support/sidecar.ts'

function setUp(destination: Destination, onFailure: 'block' | 'continue', clock: Clock = new ManualClock()) {
  const logs: LogLine[] = []
  const counts = { failed: 0, lost: 0 }
  const recovered: { reason: string; ms: number }[] = []
  const stdout = new LineWriter(destination, clock)
  const sink = new AuditSink(
    { destination: 'stdout', onFailure },
    {
      clock,
      log: recordingLogger(logs),
      metrics: { auditFailed: () => counts.failed++, auditLost: () => counts.lost++ },
      stdout,
      onRecovered: (failure) => recovered.push(failure),
    },
  )
  return { sink, logs, counts, recovered, stdout }
}

/** Fails as long as it is told to. */
class Failing implements Destination {
  code: string | undefined
  /** Neither fails nor gets on. */
  stuck = false
  text = ''

  write(bytes: Buffer, from: number, done: (error: Error | undefined, position: number) => void): void {
    if (this.stuck) return
    queueMicrotask(() => {
      if (this.code !== undefined) {
        done(Object.assign(new Error(`write ${this.code}`), { code: this.code }), from)
        return
      }
      this.text += bytes.toString('latin1', from)
      done(undefined, bytes.length)
    })
  }

  writeSync(bytes: Buffer): number {
    return bytes.length
  }

  bytesAtEnd(): number {
    return 0
  }
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

async function passed(clock: ManualClock, ms: number): Promise<void> {
  clock.pass(ms)
  await settled()
}

t.test('with block, calls are refused from the first failure until all is written', async (t) => {
  const clock = new ManualClock()
  const destination = new Failing()
  const { sink, logs, counts, recovered } = setUp(destination, 'block', clock)
  sink.push('a\n')
  t.equal(sink.blocked, false)
  destination.code = 'ENOSPC'
  await passed(clock, 20)
  t.equal(sink.blocked, true)
  await passed(clock, 50)
  await passed(clock, 100)
  t.equal(counts.failed, 3)
  t.match(logs, [
    {
      level: 'error',
      text: 'the audit log cannot be written; calls are refused until it can',
      fields: { reason: 'ENOSPC' },
    },
  ])
  destination.code = 'EIO'
  await passed(clock, 200)
  t.equal(logs.length, 2, 'another reason is told')
  destination.code = undefined
  await passed(clock, 400)
  t.equal(sink.blocked, false)
  t.equal(destination.text, 'a\n')
  t.same(recovered, [{ reason: 'EIO', ms: 750 }])
  t.match(logs.at(-1), { level: 'info', text: 'the audit log can be written again' })
})

t.test('with continue, calls go on', async (t) => {
  const clock = new ManualClock()
  const destination = new Failing()
  const { sink, logs } = setUp(destination, 'continue', clock)
  destination.code = 'ENOSPC'
  sink.push('a\n')
  await passed(clock, 20)
  t.equal(sink.blocked, false)
  t.match(logs, [{ text: 'the audit log cannot be written; calls go on' }])
  sink.onFailure = 'block'
  t.equal(sink.blocked, true, 'until the configuration wants it otherwise')
})

t.test('who takes nothing for 5 s has failed', async (t) => {
  const clock = new ManualClock()
  const destination = new Failing()
  destination.stuck = true
  const { sink, logs, counts } = setUp(destination, 'block', clock)
  sink.push('a\n')
  await passed(clock, 5000)
  t.equal(sink.blocked, false)
  await passed(clock, 21)
  t.equal(sink.blocked, true)
  t.equal(sink.blocked, true)
  t.equal(counts.failed, 1)
  t.match(logs, [{ level: 'error', text: /nobody takes what is written/ }])
})

t.test('calls are refused long before there is no room for those that were let in', async (t) => {
  const destination = new Failing()
  destination.stuck = true
  const { sink } = setUp(destination, 'block')
  const line = `${'x'.repeat(1024 * 1024 - 1)}\n`
  const seen: [boolean, boolean, boolean][] = []
  for (let i = 0; i <= 16; i++) {
    seen.push([sink.blocked, sink.hasRoom(line.length, false), sink.hasRoom(line.length, true)])
    sink.push(line)
  }
  t.equal(maxHeldBytes, 16 * line.length)
  t.equal(
    seen.findIndex(([blocked]) => blocked),
    9,
  )
  t.equal(
    seen.findIndex(([, room]) => !room),
    12,
  )
  t.equal(
    seen.findIndex(([, , room]) => !room),
    16,
  )
})

t.test('closing writes what is held, or says that it could not', async (t) => {
  const clock = new ManualClock()
  const destination = new Failing()
  const { sink, logs } = setUp(destination, 'block', clock)
  sink.push('a\n')
  await sink.close()
  t.equal(destination.text, 'a\n')
  t.equal(sink.blocked, true, 'nothing is recorded any more')
  const other = setUp(destination, 'block', clock)
  destination.code = 'EIO'
  other.sink.push('b\n')
  const closing = other.sink.close()
  await settled()
  for (let i = 0; i < 6; i++) await passed(clock, 1000)
  await closing
  t.match(other.logs.at(-1), {
    level: 'error',
    text: 'the audit log lacks its last events',
    fields: { bytes: 2 },
  })
  t.same(logs, [])
})

t.test('a full disk', async (t) => {
  const fd = openSync('/dev/full', 'w')
  t.teardown(() => closeSync(fd))
  const { sink, counts } = setUp(descriptor(fd), 'block', systemClock)
  sink.push('a\n')
  await until(() => sink.blocked && counts.failed > 0, 'it is seen')
  t.ok(sink.hasRoom(1000, false), 'and nothing is lost yet')
})

t.test('a pipe whose reader has gone', async (t) => {
  const fifo = join(t.testdir(), 'fifo')
  execFileSync('mkfifo', [fifo])
  const reader = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK)
  const fd = openSync(fifo, constants.O_WRONLY | constants.O_NONBLOCK)
  t.teardown(() => closeSync(fd))
  const { sink, logs, recovered } = setUp(descriptor(fd), 'block', systemClock)
  closeSync(reader)
  sink.push('a\n')
  await until(() => sink.blocked, 'it is seen')
  t.match(logs, [{ fields: { reason: 'EPIPE' } }])
  const again = openSync(fifo, constants.O_RDONLY | constants.O_NONBLOCK)
  t.teardown(() => closeSync(again))
  await until(() => !sink.blocked, 'another reader came')
  const block = Buffer.alloc(10)
  t.equal(block.toString('latin1', 0, readSync(again, block)), 'a\n')
  t.equal(recovered.length, 1)
})
