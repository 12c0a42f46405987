import fc from 'fast-check'
import t from 'tap'
import { wireOfText } from '../../src/core/wire.ts'
import { mainStream, parseEventId, ReplayBuffer, type StoredEvent } from '../../src/session/replay.ts'
import { holds } from '../support/property.ts'

type Step =
  | { readonly do: 'open' }
  | { readonly do: 'append'; readonly stream: number; readonly length: number }
  | { readonly do: 'end'; readonly stream: number }

const steps = fc.array(
  fc.oneof(
    fc.constant<Step>({ do: 'open' }),
    {
      arbitrary: fc.record({ do: fc.constant('append' as const), stream: fc.nat(), length: fc.nat(300) }),
      weight: 5,
    },
    fc.record({ do: fc.constant('end' as const), stream: fc.nat() }),
  ),
  { maxLength: 60 },
)

/** Takes the steps on open streams, and remembers everything that happened. */
function play(steps: readonly Step[], limit: number) {
  const evicted: StoredEvent[] = []
  const appended: StoredEvent[] = []
  const buffer = new ReplayBuffer(limit, (event) => evicted.push(event))
  const open = [mainStream]
  const opened = [mainStream]
  for (const step of steps) {
    if (step.do === 'open') {
      const stream = buffer.open()
      open.push(stream)
      opened.push(stream)
      continue
    }
    const i = step.stream % open.length
    const stream = open[i] as number
    if (step.do === 'append') appended.push(buffer.append(stream, wireOfText('x'.repeat(step.length))))
    else if (stream !== mainStream) {
      buffer.end(stream)
      open.splice(i, 1)
    }
  }
  const held = opened.flatMap((stream) => buffer.after(stream, 0))
  return { buffer, evicted, appended, open, opened, held }
}

t.test('every event has an id of its own that names its stream and its place in it', async (t) => {
  holds(
    t,
    fc.property(steps, fc.nat(5000), (steps, limit) => {
      const { appended } = play(steps, limit)
      const next = new Map<number, number>()
      return (
        new Set(appended.map(({ id }) => id)).size === appended.length &&
        appended.every(({ id, stream, sequence }) => {
          const expected = (next.get(stream) ?? 0) + 1
          next.set(stream, expected)
          const parsed = parseEventId(id)
          return sequence === expected && parsed?.stream === stream && parsed.sequence === sequence
        })
      )
    }),
    500,
  )
})

t.test('after an event come exactly the later ones of its stream, in order', async (t) => {
  holds(
    t,
    fc.property(steps, fc.nat(5000), fc.nat(20), (steps, limit, sequence) => {
      const { buffer, appended, evicted, opened } = play(steps, limit)
      const gone = new Set(evicted)
      return opened.every((stream) => {
        const expected = appended.filter(
          (each) => each.stream === stream && each.sequence > sequence && !gone.has(each),
        )
        return fc.stringify(buffer.after(stream, sequence)) === fc.stringify(expected)
      })
    }),
    500,
  )
})

t.test('what it holds is never more than the limit, and the oldest goes first, once', async (t) => {
  holds(
    t,
    fc.property(steps, fc.nat(5000), (steps, limit) => {
      const { appended, evicted, held } = play(steps, limit)
      const bytes = held.reduce((sum, event) => sum + event.bytes, 0)
      return (
        bytes <= limit &&
        fc.stringify(evicted) === fc.stringify(appended.slice(0, evicted.length)) &&
        evicted.length + held.length === appended.length
      )
    }),
    500,
  )
})

t.test('nothing goes before it must', async (t) => {
  holds(
    t,
    fc.property(steps, fc.nat(5000), (steps, limit) => {
      const { appended, evicted } = play(steps, limit)
      const total = appended.reduce((sum, event) => sum + event.bytes, 0)
      if (evicted.length === 0) return total <= limit
      // With the last that went there would have been too much, at the time of some later event or its own.
      const from = appended.slice(evicted.length - 1)
      return from.reduce((sum, event) => sum + event.bytes, 0) > limit
    }),
  )
  const evicted: string[] = []
  const buffer = new ReplayBuffer(3 * 65, ({ id }) => evicted.push(id))
  for (let i = 0; i < 3; i++) buffer.append(mainStream, wireOfText('x'))
  t.same(evicted, [])
  buffer.append(mainStream, wireOfText('x'))
  t.same(evicted, ['0-1'])
})

t.test('an event larger than the whole buffer is not kept, but has its id', async (t) => {
  const evicted: string[] = []
  const buffer = new ReplayBuffer(200, ({ id }) => evicted.push(id))
  buffer.append(mainStream, wireOfText('a'))
  t.equal(buffer.append(mainStream, wireOfText('x'.repeat(500))).id, '0-2')
  t.same(evicted, ['0-1', '0-2'])
  t.same(buffer.after(mainStream, 0), [])
  t.equal(buffer.append(mainStream, wireOfText('a')).id, '0-3')
})

t.test('even empty events are counted, so that their number is bounded', async (t) => {
  const buffer = new ReplayBuffer(1000, () => {})
  for (let i = 0; i < 1000; i++) buffer.append(mainStream, wireOfText(''))
  t.ok(buffer.after(mainStream, 0).length < 20)
})

t.test('a stream is known while it is open or events of it are here', async (t) => {
  const buffer = new ReplayBuffer(3 * 65, () => {})
  const stream = buffer.open()
  t.ok(buffer.knows(mainStream), 'the main stream always')
  t.ok(buffer.knows(stream))
  t.notOk(buffer.knows(stream + 1))
  buffer.append(stream, wireOfText('x'))
  buffer.end(stream)
  t.ok(buffer.knows(stream), 'ended, and its event is here')
  for (let i = 0; i < 3; i++) buffer.append(mainStream, wireOfText('x'))
  t.notOk(buffer.knows(stream), 'ended, and its event is gone')
  const empty = buffer.open()
  buffer.end(empty)
  t.notOk(buffer.knows(empty))
  t.ok(buffer.knows(mainStream))
})

t.test('streams are numbered from 1 and no number comes again', async (t) => {
  const buffer = new ReplayBuffer(0, () => {})
  t.equal(buffer.open(), 1)
  buffer.end(1)
  t.equal(buffer.open(), 2)
})

t.test('an id is taken apart only if it could be one of ours', async (t) => {
  holds(
    t,
    fc.property(fc.nat(999_999_999), fc.nat(2 ** 31), (stream, sequence) => {
      const parsed = parseEventId(`${stream}-${sequence}`)
      return parsed?.stream === stream && parsed.sequence === sequence
    }),
  )
  t.same(parseEventId('3-0'), { stream: 3, sequence: 0 })
  const others = [
    '',
    '-',
    '1',
    '1-',
    '-1',
    '1--1',
    '-1-1',
    '1-1-1',
    '1-1 ',
    ' 1-1',
    '1-1\n',
    '1.5-1',
    '1e3-1',
    '0x1-1',
  ]
  for (const id of [
    ...others,
    '1-1a',
    '+1-1',
    '1 - 1',
    '\u0661-\u0661',
    `${'9'.repeat(10)}-1`,
    `1-${'9'.repeat(16)}`,
  ])
    t.equal(parseEventId(id), undefined, JSON.stringify(id))
  holds(
    t,
    fc.property(fc.string(), (id) => {
      const parsed = parseEventId(id)
      return (
        parsed === undefined || (Number.isSafeInteger(parsed.stream) && Number.isSafeInteger(parsed.sequence))
      )
    }),
  )
})
