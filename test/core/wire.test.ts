import fc from 'fast-check'
import t from 'tap'
import { type Message, readMessages, type Span } from '../../src/core/jsonrpc.ts'
import {
  binary,
  type Edit,
  type Wire,
  wireBuffers,
  wireLength,
  wireOf,
  wireOfText,
} from '../../src/core/wire.ts'
import { messageText } from '../support/messages.ts'
import { holds, idText } from '../support/property.ts'

const bytesOf = (wire: Wire): Buffer => Buffer.concat(wireBuffers(wire))

/** The bytes with spans replaced, computed the simple way. */
function replaced(bytes: Buffer, edits: readonly Edit[]): Buffer {
  let at = 0
  const pieces: Buffer[] = []
  for (const { start, end, text } of edits) {
    pieces.push(bytes.subarray(at, start), Buffer.from(text, 'latin1'))
    at = end
  }
  return Buffer.concat([...pieces, bytes.subarray(at)])
}

/** What the sidecar puts its own in for, in order. */
function mapped({ id, progressToken }: Message): Span[] {
  const spans = [id, progressToken].flatMap((span) => (span === undefined ? [] : [span]))
  return spans.toSorted((a, b) => a.start - b.start)
}

const small = fc.uint8Array({ maxLength: 60 }).map((some) => Buffer.from(some))
/** Larger than what is copied in one piece. */
const large = fc
  .tuple(fc.uint8Array({ maxLength: 60 }), fc.integer({ min: 64 * 1024, max: 65 * 1024 }))
  .map(([some, length]) => Buffer.concat([some, Buffer.alloc(length)]))

const edited = fc
  .oneof({ weight: 4, arbitrary: small }, { weight: 1, arbitrary: large })
  .chain((bytes) =>
    fc.record({
      bytes: fc.constant(bytes),
      cuts: fc.array(fc.nat(bytes.length), { maxLength: 8 }),
      texts: fc.array(fc.uint8Array({ maxLength: 6 }), { minLength: 4, maxLength: 4 }),
    }),
  )
  .map(({ bytes, cuts, texts }) => {
    const sorted = cuts.toSorted((a, b) => a - b)
    const edits: Edit[] = []
    for (let i = 0; i + 1 < sorted.length; i += 2) {
      const text = binary(Buffer.from(texts[i / 2] as Uint8Array))
      edits.push({ start: sorted[i] as number, end: sorted[i + 1] as number, text })
    }
    return { bytes, edits }
  })

t.test('the spans are replaced and not another byte, whatever the size', async (t) => {
  holds(
    t,
    fc.property(edited, ({ bytes, edits }) =>
      bytesOf(wireOf(bytes, ...edits)).equals(replaced(bytes, edits)),
    ),
    500,
  )
})

t.test('its length is counted in bytes', async (t) => {
  holds(
    t,
    fc.property(edited, ({ bytes, edits }) => {
      const wire = wireOf(bytes, ...edits)
      return wireLength(wire) === bytesOf(wire).length
    }),
  )
  t.equal(wireLength(wireOfText('\u00e9\u{1f600}')), 6)
})

t.test('a text of our own goes out as UTF-8', async (t) => {
  holds(
    t,
    fc.property(fc.string({ unit: 'binary' }), (text) => bytesOf(wireOfText(text)).toString() === text),
  )
})

t.test('an id and a token replaced, and put back, leave the message as it was', async (t) => {
  holds(
    t,
    fc.property(messageText, idText, fc.boolean(), (text, mine, big) => {
      const padded = big ? text.replace('{', `{${' '.repeat(70_000)}`) : text
      const message = readMessages(Buffer.from(padded)).messages[0]
      if (message === undefined) return false
      const before = Buffer.from(message.bytes)
      const edits = mapped(message).map((span) => ({ ...span, text: binary(Buffer.from(mine)) }))
      const there = bytesOf(wireOf(message.bytes, ...edits))
      const outward = readMessages(Buffer.from(there)).messages[0]
      if (outward === undefined || !message.bytes.equals(before)) return false
      if (message.id !== undefined && outward.idText !== mine) return false
      const own = mapped(message).map((span) => message.binary(span))
      const editsBack = mapped(outward).map((span, i) => ({ ...span, text: own[i] ?? '' }))
      return bytesOf(wireOf(outward.bytes, ...editsBack)).equals(before)
    }),
    300,
  )
})

t.test('a span of a message in binary is its bytes', async (t) => {
  const message = readMessages(Buffer.from('{"jsonrpc":"2.0","id":"\u00e9\u{1f600}","method":"a"}'))
    .messages[0]
  if (message?.id === undefined) throw new Error('no id')
  t.equal(message.binary(message.id), Buffer.from('"\u00e9\u{1f600}"').toString('latin1'))
  t.same(bytesOf(message.wire), message.bytes)
})

t.test('a small message is one string, a large one is not copied', async (t) => {
  const few = Buffer.alloc(64 * 1024, 0x20)
  const many = Buffer.alloc(64 * 1024 + 1, 0x20)
  t.type(wireOf(few), 'string')
  const wire = wireOf(many, { start: 5, end: 6, text: 'x' })
  if (typeof wire === 'string') throw new Error('it was copied')
  t.same(
    wire.map((piece) => piece.buffer === many.buffer),
    [true, false, true],
  )
})
