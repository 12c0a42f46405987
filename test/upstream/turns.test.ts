import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { PassThrough, type Readable } from 'node:stream'
import t from 'tap'
import { LineReader } from '../../src/core/framing.ts'
import type { Clock } from '../../src/core/types.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { Turns } from '../../src/upstream/turns.ts'

/** No turn takes long, however busy the machine is. */
const timeless: Clock = { ...systemClock, now: () => 0 }

function reading<T extends Readable = PassThrough>(
  stream = new PassThrough({ highWaterMark: 2 ** 24 }) as Readable as T,
): { stream: T; turns: Turns; lines: string[] } {
  const reader = new LineReader(2 ** 24)
  const lines: string[] = []
  const turns = new Turns(
    stream,
    (chunk, most) =>
      reader.push(
        chunk,
        (line) => void lines.push('bytes' in line ? line.bytes.toString() : 'overlong'),
        most,
      ),
    timeless,
  )
  return { stream, turns, lines }
}

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))
const numbered = (count: number, from = 0): string[] =>
  Array.from({ length: count }, (_, i) => `line ${from + i}`)
const text = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('')

t.test('a flood is taken a few lines at a turn, whatever they are, and everything in order', async (t) => {
  const { stream, lines } = reading()
  const all = numbered(5000)
  stream.write(`${'\n'.repeat(1000)}${text(all.slice(0, 3000))}`)
  stream.write(text(all.slice(3000)))
  let most = 0
  let turns = 0
  while (lines.length < all.length && turns < 1000) {
    const before = lines.length
    await turn()
    turns++
    most = Math.max(most, lines.length - before)
  }
  t.same(lines, all)
  t.ok(most <= 128, `${most} lines in a turn`)
  t.ok(turns >= 6000 / 128, `${turns} turns`)
})

t.test('what came before the end is known at the end', async (t) => {
  const { stream, lines } = reading()
  const all = numbered(1000)
  const known = new Promise<number>((resolve) => void stream.on('end', () => resolve(lines.length)))
  stream.end(text(all))
  t.equal(await known, all.length)
  for (let i = 0; i < 20; i++) await turn()
  t.same(lines, all)
})

t.test('few lines are taken at once, and so is a long one in its pieces', async (t) => {
  const { stream, lines } = reading()
  const few = numbered(60)
  stream.write(text(few))
  await turn()
  t.same(lines, few)
  const long = 'x'.repeat(300_000)
  for (let at = 0; at < long.length; at += 65_536) stream.write(long.slice(at, at + 65_536))
  stream.write('\n')
  for (let i = 0; i < 20; i++) await turn()
  t.equal(lines.at(-1), long)
})

t.test('who pauses it between two turns gets no more than was read, until it goes on', async (t) => {
  const { stream, turns, lines } = reading()
  stream.write(text(numbered(200)))
  await turn()
  t.ok(lines.length > 0 && lines.length < 200)
  turns.pause()
  stream.write(text(numbered(200, 200)))
  for (let i = 0; i < 20; i++) await turn()
  t.same(lines, numbered(200))
  turns.resume()
  turns.pause()
  turns.resume()
  for (let i = 0; i < 20; i++) await turn()
  t.same(lines, numbered(400))
})

t.test('all of what a process wrote before it exited arrives in order', async (t) => {
  const written = `let all = ''
for (let i = 0; i < 4000; i++) all += 'line ' + i + '\\n'.padStart(32, ' x')
for (let at = 0; at < all.length; ) at += require('node:fs').writeSync(1, all.slice(at))`
  const child = spawn(process.execPath, ['-e', written], { stdio: ['ignore', 'pipe', 'inherit'] })
  const { lines } = reading(child.stdout)
  await once(child, 'close')
  t.same(
    lines.map((line) => line.slice(0, line.indexOf(' ', 5))),
    numbered(4000),
  )
})

t.test('what a stream that somebody resumed brings comes after what is left', async (t) => {
  const { stream, lines } = reading()
  stream.write(text(numbered(200)))
  await turn()
  t.ok(lines.length > 0 && lines.length < 200)
  stream.write(text(numbered(200, 200)))
  stream.resume()
  for (let i = 0; i < 20; i++) await turn()
  t.same(lines, numbered(400))
})

t.test('what is left when the stream is destroyed is not taken', async (t) => {
  const { stream, lines } = reading()
  stream.write(text(numbered(1000)))
  await turn()
  stream.destroy()
  await once(stream, 'close')
  const { length } = lines
  for (let i = 0; i < 20; i++) await turn()
  t.equal(lines.length, length)
  t.ok(length < 1000)
})

t.test('after a turn that took long, everything else has as long a time', async (t) => {
  const stream = new PassThrough({ highWaterMark: 2 ** 24 })
  const spans: { start: number; end: number }[] = []
  const busyMs = 40
  const take = (chunk: Buffer): number => {
    const start = performance.now()
    while (performance.now() - start < busyMs) {
      // As if a large message was read.
    }
    spans.push({ start, end: performance.now() })
    return chunk.length
  }
  new Turns(stream, take, systemClock)
  // Timers of the sidecar keep no process alive.
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(alive))
  for (let i = 0; i < 4; i++) stream.write('a line\n')
  while (spans.length < 4) await turn()
  for (const [i, { start }] of spans.entries()) {
    const before = spans[i - 1]
    if (before !== undefined) t.ok(start - before.end >= busyMs - 5, `${start - before.end} ms apart`)
  }
})
