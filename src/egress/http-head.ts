/** The head of a request, by the letter of RFC 9112: two parsers that read it differently are how requests are smuggled. */
import type { ByteReader } from './byte-reader.ts'

/** The status that a request gets which is not understood, and why. */
export class HeadError extends Error {
  override readonly name = 'HeadError'
  readonly status: number

  constructor(status: number, text: string) {
    super(text)
    this.status = status
  }
}

export interface RequestHead {
  readonly method: string
  readonly target: string
  /** HTTP/1.`minor`. */
  readonly minor: 0 | 1
  /** As they arrived; names and values are valid. */
  readonly headers: readonly Header[]
  /** `none`, a number of bytes, or chunks. */
  readonly body: 'none' | 'chunked' | number
}

export type Header = readonly [name: string, value: string]

const mostHeaders = 128
const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const requestLine = new RegExp(`^(${token}) ([!-~]+) HTTP/1\\.([01])$`)
const headerLine = new RegExp(`^(${token}):([^\\x00-\\x08\\x0a-\\x1f\\x7f]*)$`)

const lf = 0x0a
const cr = 0x0d

/**
 * Reads a head; what follows it stays in the reader.
 *
 * @returns undefined when the other side ended before its first byte
 * @throws HeadError
 */
export async function readHead(reader: ByteReader, maxBytes: number): Promise<RequestHead | undefined> {
  let from = 0
  let lines = 0
  for (;;) {
    const { held } = reader
    for (let at = held.indexOf(lf, from); at >= 0; at = held.indexOf(lf, from)) {
      if (at > maxBytes) break
      if (at === 0 || held[at - 1] !== cr) throw new HeadError(400, 'a line ends with CR LF')
      const start = lines === 0 ? 0 : from
      from = at + 1
      // Its first line shows whether this is HTTP at all; whoever speaks something else waits for no more.
      if (lines++ === 0) parseRequestLine(held.toString('latin1', 0, at - 1))
      else if (at - 1 === start) return parseHead(reader.takeNow(at + 1).toString('latin1', 0, at - 3))
    }
    if (held.length > maxBytes) throw new HeadError(431, `a head has at most ${maxBytes} bytes`)
    if (held.length > 0 && !/^[!-~]/.test(String.fromCharCode(held[0] as number)))
      throw new HeadError(400, 'this is no HTTP')
    if (!(await reader.more())) {
      if (held.length === 0) return undefined
      throw new HeadError(400, 'the head has no end')
    }
  }
}

/** @param text without the empty line */
export function parseHead(text: string): RequestHead {
  const [first = '', ...lines] = text.split('\r\n')
  const { method, target, minor } = parseRequestLine(first)
  if (lines.length > mostHeaders) throw new HeadError(431, `a head has at most ${mostHeaders} headers`)
  const headers = lines.map((line): Header => {
    const match = headerLine.exec(line)
    if (match === null) throw new HeadError(400, 'a header is NAME: VALUE on one line')
    return [match[1] as string, trimmed(match[2] as string)]
  })
  const hosts = valuesOf(headers, 'host')
  if (hosts.length > 1 || (hosts.length === 0 && minor === 1))
    throw new HeadError(400, 'a request has one Host')
  return { method, target, minor, headers, body: bodyOf(headers, minor) }
}

/** All values of a header. @param name in lower case */
export function valuesOf(headers: readonly Header[], name: string): string[] {
  return headers.filter(([each]) => each.toLowerCase() === name).map(([, value]) => value)
}

/** Without blanks around it, in linear time whatever the text. */
function trimmed(text: string): string {
  let [start, end] = [0, text.length]
  while (start < end && isBlank(text[start])) start++
  while (end > start && isBlank(text[end - 1])) end--
  return text.slice(start, end)
}

function isBlank(character: string | undefined): boolean {
  return character === ' ' || character === '\t'
}

function parseRequestLine(line: string): Pick<RequestHead, 'method' | 'target' | 'minor'> {
  const match = requestLine.exec(line)
  if (match === null) throw new HeadError(400, 'a request line is METHOD TARGET HTTP/1.1')
  return { method: match[1] as string, target: match[2] as string, minor: match[3] === '0' ? 0 : 1 }
}

function bodyOf(headers: readonly Header[], minor: 0 | 1): RequestHead['body'] {
  const lengths = valuesOf(headers, 'content-length')
  const codings = valuesOf(headers, 'transfer-encoding')
  if (codings.length > 0) {
    if (lengths.length > 0)
      throw new HeadError(400, 'a body has Content-Length or Transfer-Encoding, not both')
    if (minor === 0) throw new HeadError(400, 'HTTP/1.0 has no Transfer-Encoding')
    if (codings.length > 1 || codings[0]?.toLowerCase() !== 'chunked')
      throw new HeadError(400, 'the only Transfer-Encoding is chunked')
    return 'chunked'
  }
  if (lengths.length === 0) return 'none'
  const [length = ''] = lengths
  if (lengths.length > 1 || !/^\d{1,15}$/.test(length))
    throw new HeadError(400, 'Content-Length is one number')
  return Number(length)
}
