import { execFileSync } from 'node:child_process'
import { closeSync, constants, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { systemClock } from '../../src/observe/clock.ts'
import { type Destination, descriptor, type LaneOptions, LineWriter } from '../../src/observe/line-writer.ts'
import { ManualClock } from '../support/modern-calls.ts'
import { holds } from '../support/property.ts'
import { until } from '../support/sidecar.ts'

type Answer = number | string

/** Takes what the test says: so many bytes, all (undefined), or an error. */
class Scripted implements Destination {
  text = ''
  readonly answers: Answer[] = []
  /** The answer of the write under way, where the test gives it later. */
  pending: (() => void) | undefined
  hold = false
  writes = 0
  atEnd = Number.POSITIVE_INFINITY

  write(bytes: Buffer, from: number, done: (error: Error | undefined, position: number) => void): void {
    this.writes++
    const answer = (): void => {
      this.pending = undefined
      const next = this.answers.shift()
      if (typeof next === 'string') done(Object.assign(new Error(next), { code: next }), from)
      else done(undefined, this.#take(bytes, from, next ?? bytes.length))
    }
    if (this.hold) this.pending = answer
    else queueMicrotask(answer)
  }

  writeSync(bytes: Buffer, from: number): number {
    const next = this.answers.shift()
    if (typeof next === 'string') throw Object.assign(new Error(next), { code: next })
    return this.#take(bytes, from, next ?? bytes.length)
  }

  bytesAtEnd(): number {
    return this.atEnd
  }

  #take(bytes: Buffer, from: number, count: number): number {
    const position = Math.min(from + count, bytes.length)
    this.text += bytes.toString('utf8', from, position)
    return position
  }
}

const options: LaneOptions = { delayMs: 20, batchBytes: 100, maxBytes: 1000 }
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

function setUp(more: Partial<LaneOptions> = {}) {
  const destination = new Scripted()
  const clock = new ManualClock()
  const writer = new LineWriter(destination, clock)
  const events: string[] = []
  const lane = writer.lane({
    ...options,
    onFailed: (error) => events.push(`failed ${error.message}`),
    onRecovered: () => events.push('recovered'),
    ...more,
  })
  return { destination, clock, writer, lane, events }
}

t.test('lines wait for each other, but not long, and not when there are many', async (t) => {
  const { destination, clock, lane } = setUp()
  lane.push('a\n')
  lane.push('b\n')
  clock.pass(19)
  await settled()
  t.equal(destination.text, '')
  t.equal(lane.held, 4)
  clock.pass(1)
  await settled()
  t.equal(destination.text, 'a\nb\n')
  t.same([destination.writes, lane.held, clock.waiting], [1, 0, 0])
  lane.push(`${'c'.repeat(60)}\n`)
  lane.push(`${'d'.repeat(60)}\n`)
  await settled()
  t.equal(destination.writes, 2, 'a full batch goes at once')
  clock.pass(20)
  await settled()
  t.equal(destination.writes, 3, 'and what is left in its time')
  lane.push(`${'e'.repeat(300)}\n`)
  await settled()
  t.equal(destination.writes, 4)
  t.equal(lane.held, 0)
})

t.test('one write at a time; what comes meanwhile goes next', async (t) => {
  const { destination, clock, lane } = setUp()
  destination.hold = true
  lane.push('a\n')
  lane.urge()
  lane.push('b\n')
  lane.urge()
  clock.pass(1000)
  t.equal(destination.writes, 1)
  destination.pending?.()
  t.equal(destination.writes, 2)
  destination.pending?.()
  t.equal(destination.text, 'a\nb\n')
})

t.test('short writes go on where they stopped', async (t) => {
  const { destination, lane, events } = setUp()
  destination.answers.push(1, 0, 2)
  lane.push('hé\n')
  lane.push('x\n')
  t.equal(await lane.flush(1000), true)
  t.equal(Buffer.byteLength(destination.text.replaceAll('\ufffd', '')) > 0, true)
  t.match(destination.text, /^h.*\nx\n$/)
  t.same([lane.held, events], [0, []])
})

t.test('what fails is tried again, less and less often, and nothing is lost or doubled', async (t) => {
  const { destination, clock, lane, events } = setUp()
  destination.answers.push(3, 'ENOSPC', 'ENOSPC', 'EIO')
  lane.push('first\n')
  lane.urge()
  await settled()
  lane.push('second\n')
  t.equal(lane.failure?.message, 'ENOSPC')
  t.equal(destination.writes, 2)
  for (const [ms, writes] of [
    [49, 2],
    [1, 3],
    [99, 3],
    [1, 4],
    // And at once the line that came meanwhile.
    [200, 6],
  ] as const) {
    clock.pass(ms)
    await settled()
    t.equal(destination.writes, writes)
  }
  await settled()
  t.equal(destination.text, 'first\nsecond\n')
  t.same(events, ['failed ENOSPC', 'failed ENOSPC', 'failed EIO', 'recovered'])
  t.equal(lane.failure, undefined)
  destination.answers.push(...Array.from({ length: 20 }, () => 'ENOSPC'))
  lane.push('third\n')
  lane.urge()
  for (let i = 0; i < 30; i++) {
    await settled()
    clock.pass(1000)
  }
  await settled()
  t.match(destination.text, /third\n$/, 'the pause has its limit')
})

t.test('it has recovered when all is written that was held at the failure', async (t) => {
  const { destination, clock, lane, events } = setUp()
  lane.push(`${'a'.repeat(100)}\n`)
  destination.answers.push('ENOSPC')
  await settled()
  lane.push(`${'b'.repeat(100)}\n`)
  lane.push(`${'c'.repeat(100)}\n`)
  destination.answers.push(101, 'ENOSPC')
  clock.pass(50)
  await settled()
  t.same(events, ['failed ENOSPC', 'recovered', 'failed ENOSPC'])
  destination.hold = true
  destination.answers.push(101)
  clock.pass(100)
  destination.pending?.()
  t.ok(lane.failure, 'c is still to come')
  destination.pending?.()
  t.equal(lane.failure, undefined)
})

t.test('a full pipe that says so is no failure, but seen as standing still', async (t) => {
  const { destination, clock, writer, lane, events } = setUp()
  t.equal(writer.stalledMs, 0)
  destination.answers.push(...Array.from({ length: 1000 }, () => 'EAGAIN'))
  lane.push('a\n')
  lane.urge()
  for (let i = 0; i < 60; i++) {
    await settled()
    clock.pass(100)
  }
  t.same(events, [])
  t.ok(writer.stalledMs > 5000)
  destination.answers.length = 0
  await settled()
  clock.pass(100)
  await settled()
  t.equal(destination.text, 'a\n')
  t.equal(writer.stalledMs, 0)
})

t.test('what has no room is not taken', async (t) => {
  const { destination, lane } = setUp()
  destination.hold = true
  const line = `${'x'.repeat(99)}\n`
  let taken = 0
  while (lane.push(line)) taken++
  t.equal(taken, 10)
  t.equal(lane.held, 1000)
  destination.hold = false
  destination.pending?.()
  await settled()
  t.equal(lane.held, 0)
  t.equal(lane.push(line), true)
})

t.test('flush tells whether all was written, or that it took too long', async (t) => {
  const { destination, clock, lane, writer } = setUp()
  t.equal(await lane.flush(1), true)
  lane.push('a\n')
  const one = lane.flush(1000)
  const two = lane.flush(1000)
  t.same(await Promise.all([one, two]), [true, true])
  destination.hold = true
  lane.push('b\n')
  const late = lane.flush(1000)
  clock.pass(1000)
  t.equal(await late, false)
  writer.remove(lane)
})

t.test('two sources never stand inside one another, however short the writes are', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(1), fc.integer({ min: 0, max: 250 })), { maxLength: 30 }),
      fc.array(fc.oneof(fc.nat(120), fc.constant('EAGAIN'), fc.constant('EIO')), { maxLength: 40 }),
      async (lines, answers) => {
        const destination = new Scripted()
        const clock = new ManualClock()
        const writer = new LineWriter(destination, clock)
        const lanes = [writer.lane({ ...options, maxBytes: 1e6 }), writer.lane({ ...options, maxBytes: 1e6 })]
        destination.answers.push(...answers)
        const sent = lines.map(([which, length], i) => ({
          which,
          text: `${which}:${i}:${'x'.repeat(length)}\n`,
        }))
        for (const { which, text } of sent) lanes[which]?.push(text)
        for (let i = 0; i < 100; i++) {
          await settled()
          clock.pass(1000)
        }
        for (const lane of lanes) writer.remove(lane)
        const written = destination.text.split(/(?<=\n)/)
        for (const which of [0, 1]) {
          const ours = sent.filter((line) => line.which === which).map(({ text }) => text)
          const found = written.filter((line) => line.startsWith(`${which}:`))
          if (ours.join('') !== found.join('')) return false
        }
        return destination.text.length === sent.reduce((sum, { text }) => sum + text.length, 0)
      },
    ),
    { numRuns: 60 },
  )
  t.pass('lines are whole and in order')
})

t.test('at the end of the process the rest is written, unless a write is under way', async (t) => {
  const { destination, lane, writer } = setUp()
  lane.push('a\n')
  lane.push(`${'b'.repeat(200)}\n`)
  writer.writeRest()
  t.equal(destination.text, '', 'how far the write has come is not known')
  await settled()
  lane.push('c\n')
  writer.writeRest()
  t.equal(destination.text, `a\n${'b'.repeat(200)}\nc\n`)
})

t.test('of which no more than the other side takes without making it wait', async (t) => {
  const { destination, lane, writer } = setUp()
  destination.atEnd = 5
  lane.push('abcd\nefgh\n')
  writer.writeRest()
  t.equal(destination.text, 'abcd\n')
  destination.answers.push('EAGAIN')
  writer.writeRest()
  t.equal(destination.text, 'abcd\n')
  destination.answers.push(0)
  writer.writeRest()
  writer.writeRest()
  t.equal(destination.text, 'abcd\nefgh\n')
  writer.writeRest()
})

t.test('a full disk', async (t) => {
  const fd = openSync('/dev/full', 'w')
  t.teardown(() => closeSync(fd))
  const codes: (string | undefined)[] = []
  const writer = new LineWriter(descriptor(fd), systemClock)
  const lane = writer.lane({
    ...options,
    onFailed: (error) => codes.push((error as NodeJS.ErrnoException).code),
  })
  t.teardown(() => writer.remove(lane))
  lane.push('a\n')
  await until(() => codes.length > 1, 'two attempts')
  t.same(new Set(codes), new Set(['ENOSPC']))
  t.equal(lane.held, 2)
})

t.test('a pipe that nobody reads for a while, and then somebody does', async (t) => {
  const fifo = join(t.testdir(), 'fifo')
  execFileSync('mkfifo', [fifo])
  const fd = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK)
  t.teardown(() => closeSync(fd))
  const writer = new LineWriter(descriptor(fd), systemClock)
  const lane = writer.lane({ delayMs: 1, batchBytes: 65_536, maxBytes: 10_000_000 })
  const line = (i: number): string => `${i} ${'x'.repeat(999)}\n`
  for (let i = 0; i < 300; i++) lane.push(line(i))
  await until(() => writer.stalledMs > 200, 'it stands still')
  t.ok(lane.held > 100_000)
  t.equal(lane.failure, undefined, 'which is no failure')
  let text = ''
  const block = Buffer.alloc(100_000)
  await until(() => {
    try {
      text += block.toString('latin1', 0, readSync(fd, block))
    } catch {
      // Nothing there yet.
    }
    return lane.held === 0
  }, 'all was read')
  while (!text.endsWith(line(299))) text += block.toString('latin1', 0, readSync(fd, block))
  t.equal(text, Array.from({ length: 300 }, (_, i) => line(i)).join(''))
  t.equal(descriptor(fd).bytesAtEnd(), 65_536, 'what an empty pipe takes')
  writer.remove(lane)
})

t.test('without a failure nothing is written twice, whatever is pushed when', async (t) => {
  holds(
    t,
    fc.property(fc.array(fc.integer({ min: 0, max: 250 })), (lengths) => {
      const { destination, lane, writer } = setUp({ maxBytes: 1e6 })
      destination.hold = true
      for (const length of lengths) {
        lane.push(`${'x'.repeat(length)}\n`)
        if (length % 7 === 0) destination.pending?.()
      }
      lane.urge()
      while (destination.pending !== undefined) destination.pending()
      writer.remove(lane)
      return destination.text === lengths.map((length) => `${'x'.repeat(length)}\n`).join('')
    }),
    300,
  )
})
