import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import t from 'tap'
import { type Line, LineReader, type Overlong } from '../../src/core/framing.ts'
import { cpuMs } from '../support/cost.ts'
import { objectOf } from '../support/messages.ts'
import { arrayText, holds, jsonText, type Member, objectText, stringText } from '../support/property.ts'

type Seen = string | { readonly overlongBytes: number; readonly idText: string | undefined }

function seen(line: Line | Overlong): Seen {
  if ('bytes' in line) return line.bytes.toString('latin1')
  const { overlongBytes, idText } = line
  return { overlongBytes, idText }
}

/** What a reader reports for a text cut at these places. */
function readIn(bytes: Buffer, cuts: readonly number[], limit: number): Seen[] {
  const reader = new LineReader(limit)
  const result: Seen[] = []
  const places = [0, ...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]
  for (const [i, from] of places.entries()) {
    if (i === 0) continue
    // A copy, as if it came from a stream: the reader may keep no more than it was given.
    reader.push(Buffer.from(bytes.subarray(places[i - 1], from)), (line) => result.push(seen(line)))
    if (reader.held > limit + 1) throw new Error(`it holds ${reader.held} bytes of ${limit}`)
  }
  return result
}

/** The lines of a text that are neither empty nor longer than the limit, which counts without \\n and \\r\\n. */
function linesOf(bytes: Buffer, limit: number): Seen[] {
  const lines = bytes.toString('latin1').split('\n').slice(0, -1)
  return lines.flatMap((line): Seen[] => {
    const content = line.replace(/\r$/, '')
    if (content.length > limit) return [{ overlongBytes: line.length, idText: undefined }]
    return content === '' ? [] : [content]
  })
}

const cuts = fc.array(fc.nat(), { maxLength: 20 })
const text = fc
  .array(fc.constantFrom('a', '\n', '\r', '\r\n', '{"id":1}', '\u00e9\u{1f600}', '\0', 'abc'), {
    maxLength: 30,
  })
  .map((parts) => Buffer.from(parts.join('')))

t.test('the lines are the same however the text is cut into chunks', async (t) => {
  holds(
    t,
    fc.property(text, cuts, (bytes, cuts) => {
      return fc.stringify(readIn(bytes, cuts, 1000)) === fc.stringify(linesOf(bytes, 1000))
    }),
    500,
  )
  const whole = Buffer.from('{"a":1}\n\r\n\n{"b":"\u{1f600}"}\r\nrest\nno end')
  const expected = linesOf(whole, 1000)
  t.equal(expected.length, 3)
  for (let cut = 0; cut <= whole.length; cut++) t.same(readIn(whole, [cut], 1000), expected)
  const everyByte = Array.from(whole, (_, i) => i)
  t.same(readIn(whole, everyByte, 1000), expected)
})

t.test('so are they where some lines are longer than allowed', async (t) => {
  holds(
    t,
    fc.property(text, cuts, fc.integer({ min: 1, max: 12 }), (bytes, cuts, limit) => {
      const lengths = (lines: Seen[]): Seen[] =>
        lines.map((line) => (typeof line === 'string' ? line : { ...line, idText: undefined }))
      return (
        fc.stringify(lengths(readIn(bytes, cuts, limit))) === fc.stringify(lengths(linesOf(bytes, limit))) &&
        fc.stringify(readIn(bytes, cuts, limit)) === fc.stringify(readIn(bytes, [], limit))
      )
    }),
    500,
  )
})

t.test('a line of exactly the limit passes, one byte more does not', async (t) => {
  for (const cuts of [[], [1], [1, 2, 3, 4, 5]]) {
    t.same(readIn(Buffer.from('12345\nx\n'), cuts, 5), ['12345', 'x'])
    t.same(readIn(Buffer.from('123456\nx\n'), cuts, 5), [{ overlongBytes: 6, idText: undefined }, 'x'])
  }
})

t.test('the line break does not count, \\r\\n included', async (t) => {
  t.same(readIn(Buffer.from('12345\r\nx\r\n'), [], 5), ['12345', 'x'])
})

/** An object with a top-level id and whatever else, decoys included; the id's text with it. */
const withId = fc
  .oneof(fc.integer().map(String), fc.constantFrom('"a"', '"p\\"1"', '"\\\\"', '"id"', '" , } "', '"{[\\""'))
  .chain((id) => {
    const decoy: fc.Arbitrary<string> = fc.oneof(
      jsonText,
      fc.constantFrom(
        '{"id":99}',
        '[{"id":98},{"id":{"id":97}}]',
        '"\\"id\\":96"',
        '"id"',
        '"}"',
        '["id",95]',
        '"\\\\"',
      ),
    )
    const other = fc.record({
      key: fc.oneof(
        stringText.filter((key) => JSON.parse(key) !== 'id'),
        fc.constantFrom('"result"', '"i"', '"ID"', '"id "', '"\\"id"', '"x\\"id\\":94,\\""'),
      ),
      value: decoy,
    })
    const own: Member = { key: '"id"', value: id }
    return fc
      .tuple(fc.array(other, { maxLength: 3 }), fc.array(other, { maxLength: 3 }))
      .chain(([before, after]) => objectText([...before, own, ...after]))
      .map((text) => ({ id, bytes: Buffer.from(text.replace(/[\r\n]/g, ' ')) }))
  })

t.test('of an overlong line the id is found, wherever it stands and whatever else is named id', async (t) => {
  holds(
    t,
    fc.property(withId, cuts, ({ id, bytes }, cuts) => {
      const next = Buffer.from('\n{"id":"next"}\n')
      const limit = Math.max(13, Math.min(20, bytes.length - 1))
      fc.pre(bytes.length > limit)
      const expected = [{ overlongBytes: bytes.length, idText: id }, '{"id":"next"}']
      return fc.stringify(readIn(Buffer.concat([bytes, next]), cuts, limit)) === fc.stringify(expected)
    }),
    500,
  )
})

t.test('an overlong question is told from an overlong answer', async (t) => {
  const asks = (text: string): boolean | undefined => {
    let result: boolean | undefined
    new LineReader(1).push(Buffer.from(`${text}\n`), (line) => {
      if (!('bytes' in line)) result = line.asks
    })
    return result
  }
  t.equal(asks('{"jsonrpc":"2.0","id":1,"method":"roots/list"}'), true)
  t.equal(asks('{"method":"roots/list","id":1}'), true)
  t.equal(asks('{"id":1,"result":{"method":"x"}}'), false)
  t.equal(asks('{"id":"method","result":"method"}'), false)
})

const found = (line: string): string | undefined => {
  const [first] = readIn(Buffer.from(`${line}\n`), [], 1)
  return typeof first === 'object' ? first.idText : undefined
}

t.test('the id is found first, last, in the middle, and past everything that looks like it', async (t) => {
  const long = 'x'.repeat(2000)
  t.equal(found(`{"id":7,"jsonrpc":"2.0","result":"${long}"}`), '7')
  t.equal(found(`{"jsonrpc":"2.0","result":{"x":"${long}"},"id":7}`), '7')
  t.equal(found(`{"jsonrpc":"2.0", "id" : 7 , "result":[${long.length}]}`), '7')
  t.equal(found(`{"result":{"id":1,"x":[{"id":2}]},"id":7}`), '7')
  t.equal(found(`{"result":"\\"id\\":1,","id":7}`), '7')
  t.equal(found(`{"${long}":1,"id":7}`), '7')
  t.equal(found(`{"id":"a\\"b","x":1}`), '"a\\"b"')
  t.equal(found(`{"x":"id","y":1,"id":7}`), '7')
  t.equal(found(`{"id":7,"id":8}`), '7')
})

t.test('a line without a top-level id has none', async (t) => {
  for (const line of [
    '{"method":"a","params":{"id":1}}',
    '[{"id":1}]',
    '"id"',
    '["id",5]',
    'garbage id: 5',
    '{"x":"id"}',
  ])
    t.equal(found(line), undefined, line)
})

t.test('an id in an escaped spelling, or of other letters, is reported as it was written', async (t) => {
  t.equal(found('{"id":"\u00e9\u{1f600}","x":1}'), '"\u00e9\u{1f600}"')
  t.equal(found('{"\\u0069d":7,"x":1}'), '7')
})

t.test('garbage of any kind is lines like others', async (t) => {
  holds(
    t,
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      cuts,
      fc.integer({ min: 1, max: 50 }),
      (bytes, cuts, limit) => {
        const lines = readIn(Buffer.from(bytes), cuts, limit)
        return lines.length === linesOf(Buffer.from(bytes), limit).length
      },
    ),
    500,
  )
})

t.test('a pretty-printed object is several lines: stdio frames by line', async (t) => {
  const pretty = arrayText(['1', '2'])
  holds(
    t,
    fc.property(fc.oneof(pretty, objectOf()), cuts, (text, cuts) => {
      const bytes = Buffer.from(`${text}\n`)
      return fc.stringify(readIn(bytes, cuts, 1000)) === fc.stringify(linesOf(bytes, 1000))
    }),
  )
})

/** Processor time for lines of this many MiB in chunks of 64 KiB. */
function timeOf(mebibytes: number, lines: number, limit: number): number {
  const chunk = Buffer.alloc(65_536, 0x61)
  const newline = Buffer.from('\n')
  return cpuMs(() => {
    const reader = new LineReader(limit)
    for (let line = 0; line < lines; line++) {
      let length = 0
      for (let i = 0; i < mebibytes * 16; i++) reader.push(chunk, () => {})
      reader.push(newline, (line) => {
        length = 'bytes' in line ? line.bytes.length : line.overlongBytes
      })
      if (length !== mebibytes * 2 ** 20) throw new Error(`${length} bytes came out`)
    }
  }, 2)
}

t.test('a line of 64 MiB takes linear time', async (t) => {
  // The same number of bytes on both sides. Fresh pages make the large one several times slower; quadratic time would
  // make it 64 times slower.
  const ratio = timeOf(64, 1, 2 ** 26) / timeOf(1, 64, 2 ** 26)
  t.ok(ratio < 20, `one line of 64 MiB took ${ratio.toFixed(1)} times as long as 64 of 1 MiB`)
})

t.test('so does a longer one that is thrown away', async (t) => {
  const ratio = timeOf(16, 1, 2 ** 20) / timeOf(4, 4, 2 ** 20)
  t.ok(ratio < 2, `one line of 16 MiB took ${ratio.toFixed(1)} times as long as four of 4 MiB`)
})

t.test('of a line that is thrown away nothing is held', async (t) => {
  const reader = new LineReader(100)
  const chunk = Buffer.alloc(64, 0x61)
  const held: number[] = []
  for (let i = 0; i < 5; i++) {
    reader.push(chunk, () => {})
    held.push(reader.held)
  }
  t.same(held, [64, 0, 0, 0, 0])
  const lines: Seen[] = []
  reader.push(Buffer.from('\n{}\npart'), (line) => lines.push(seen(line)))
  t.same(lines, [{ overlongBytes: 320, idText: undefined }, '{}'])
  t.equal(reader.held, 4)
})

t.test('an unfinished line costs about its length, however small the pieces it comes in', async (t) => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const used = (): number => {
    collect()
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    return heapUsed + arrayBuffers
  }
  const pieces: Record<string, readonly number[]> = {
    'of one byte': [1],
    'of 100 bytes': [100],
    'small and large ones in turn': [1, 4096],
    'large ones': [65_536],
  }
  for (const [name, lengths] of Object.entries(pieces)) {
    const reader = new LineReader(2 ** 26)
    const before = used()
    for (let i = 0; reader.held < 2 ** 20 && i < 100_000; i++) {
      // As from a pipe: each piece has memory of its own.
      reader.push(Buffer.from(new ArrayBuffer(lengths[i % lengths.length] as number)), () => {})
    }
    const grown = used() - before
    t.ok(grown < 2 * reader.held + 300_000, `${name}: ${reader.held} bytes cost ${grown}`)
  }
})
