import fc from 'fast-check'
import t from 'tap'
import { FrameError, FrameReader, frame, inputFrames, maxPayloadBytes } from '../../src/upstream/frames.ts'
import { frameOf } from '../support/scripted-launcher.ts'

/** What was said in all, however it was cut: whole reports and exits, and each stream in one piece. */
function read(pieces: readonly Buffer[]): { whole: string[]; output: string; errors: string } {
  const reader = new FrameReader()
  const found = { whole: [] as string[], output: '', errors: '' }
  for (const piece of pieces)
    reader.push(piece, (type, bytes) => {
      if (type === 'O') found.output += bytes.toString('latin1')
      else if (type === 'E') found.errors += bytes.toString('latin1')
      else found.whole.push(`${type} ${bytes.toString('latin1')}`)
    })
  return found
}

const said = Buffer.concat([
  frameOf('R', '{"event":"report"}'),
  frameOf('O', 'one\n'),
  frameOf('E', 'two'),
  frameOf('O', 'three\n'),
  frameOf('O'),
  frameOf('R', '{"event":"file"}'),
  frameOf('X', '{"event":"exit","code":0}'),
])
const meant = {
  whole: ['R {"event":"report"}', 'R {"event":"file"}', 'X {"event":"exit","code":0}'],
  output: 'one\nthree\n',
  errors: 'two',
}

t.test('frames are read wherever the stream is cut', async (t) => {
  for (let at = 0; at <= said.length; at++)
    t.strictSame(read([said.subarray(0, at), said.subarray(at)]), meant, `cut at ${at}`)
  t.strictSame(read([...said].map((byte) => Buffer.of(byte))), meant, 'byte by byte')
})

t.test('an empty frame is told once', async (t) => {
  const lengths: number[] = []
  new FrameReader().push(Buffer.concat([frameOf('O', 'ab'), frameOf('O')]), (_, bytes) => {
    lengths.push(bytes.length)
  })
  t.strictSame(lengths, [2, 0])
})

t.test('a frame as large as allowed is read, a larger one and an unknown one are not', async (t) => {
  t.equal(read([frameOf('O', 'x'.repeat(maxPayloadBytes))]).output.length, maxPayloadBytes)
  const none = (): void => {
    t.fail('it was read')
  }
  const tooLarge = Buffer.concat([Buffer.from('O'), Buffer.of(0, 1, 0, 1)])
  t.throws(() => new FrameReader().push(tooLarge, none), FrameError)
  t.throws(() => new FrameReader().push(frameOf('P', 'v 1'), none), /unknown type 0x50/)
  t.throws(() => new FrameReader().push(frameOf('\u0000'), none), FrameError)
})

t.test('stdin of any shape arrives as it was written', async (t) => {
  const shapes = fc.array(fc.nat(3 * maxPayloadBytes), { maxLength: 5 })
  fc.assert(
    fc.property(shapes, (lengths) => {
      const pieces = lengths.map((length, index) => Buffer.alloc(length, index + 1))
      const bytes = Buffer.concat(inputFrames(pieces))
      const payloads: Buffer[] = []
      for (let at = 0; at < bytes.length; ) {
        const length = bytes.readUInt32BE(at + 1)
        if (bytes[at] !== 0x49 || length === 0 || length > maxPayloadBytes) return false
        payloads.push(bytes.subarray(at + 5, at + 5 + length))
        at += 5 + length
      }
      return Buffer.concat(payloads).equals(Buffer.concat(pieces))
    }),
    { numRuns: 100 },
  )
  t.strictSame(frame('C'), frameOf('C'))
  t.strictSame(frame('K', Buffer.of(15)), frameOf('K', Buffer.of(15)))
})
