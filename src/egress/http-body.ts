import { type ByteReader, EndedEarly } from './byte-reader.ts'
import { HeadError, type RequestHead } from './http-head.ts'

/** Of a chunk's size line, extensions included, and of all trailers together. Bytes. */
const longestLine = 1024

/**
 * The bytes of a request body, without their framing.
 *
 * @throws HeadError for framing that is wrong, EndedEarly
 */
export async function* bodyBytes(
  reader: ByteReader,
  framing: RequestHead['body'],
): AsyncGenerator<Buffer, void> {
  if (framing === 'none') return
  if (framing !== 'chunked') {
    yield* exactly(reader, framing)
    return
  }
  for (;;) {
    const line = await readLine(reader)
    const size = /^([0-9a-fA-F]{1,12})(?:[ \t]*;[!-~ \t]*)?$/.exec(line)?.[1]
    if (size === undefined) throw new HeadError(400, 'a chunk starts with its size')
    const bytes = Number.parseInt(size, 16)
    if (bytes === 0) break
    yield* exactly(reader, bytes)
    if ((await readLine(reader)) !== '') throw new HeadError(400, 'a chunk ends with its size')
  }
  // Trailers are dropped: what they say may matter to whoever believes them.
  for (let left = longestLine; ; ) {
    const line = await readLine(reader)
    if (line === '') return
    left -= line.length
    if (left < 0) throw new HeadError(400, 'too many trailers')
  }
}

async function* exactly(reader: ByteReader, bytes: number): AsyncGenerator<Buffer, void> {
  for (let left = bytes; left > 0; ) {
    await reader.atLeast(1)
    const part = reader.takeNow(left)
    left -= part.length
    yield part
  }
}

async function readLine(reader: ByteReader): Promise<string> {
  for (;;) {
    const { held } = reader
    const end = held.indexOf(0x0a)
    if (end > longestLine || (end < 0 && held.length > longestLine))
      throw new HeadError(400, 'a line is too long')
    if (end >= 0) {
      const line = reader.takeNow(end + 1).toString('latin1', 0, end)
      const text = line.slice(0, -1)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is kept out
      if (!line.endsWith('\r') || /[\0-\x08\x0a-\x1f\x7f]/.test(text))
        throw new HeadError(400, 'a line ends with CR LF')
      return text
    }
    if (!(await reader.more())) throw new EndedEarly()
  }
}
