/** Reads DER (ITU-T X.690), as far as X.509 needs it: what is not plainly DER is refused, nothing is guessed. */

export interface Element {
  readonly tag: number
  readonly content: Buffer
  /** With tag and length. */
  readonly whole: Buffer
}

/** Not DER, or not what was expected in this place. */
export class DerError extends Error {
  override readonly name = 'DerError'
}

export const tags = {
  boolean: 0x01,
  integer: 0x02,
  bits: 0x03,
  octets: 0x04,
  oid: 0x06,
  utf8: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/**
 * One element that fills the bytes.
 *
 * @throws DerError
 */
export function readElement(bytes: Buffer, tag: number): Element {
  const element = elementAt(bytes, 0)
  if (element.whole.length !== bytes.length) throw new DerError('bytes follow the end')
  return expectTag(element, tag)
}

/**
 * What a constructed element holds.
 *
 * @throws DerError
 */
export function childrenOf(element: Element): Element[] {
  const children: Element[] = []
  for (let at = 0; at < element.content.length; ) {
    const child = elementAt(element.content, at)
    children.push(child)
    at += child.whole.length
  }
  return children
}

/** @throws DerError when it is missing or of another tag */
export function expectTag(element: Element | undefined, tag: number): Element {
  if (element?.tag !== tag) throw new DerError(`tag ${element?.tag ?? 'none'} stands in the place of ${tag}`)
  return element
}

/** An OBJECT IDENTIFIER as `1.2.840.113549`. @throws DerError */
export function oidOf(element: Element | undefined): string {
  const { content } = expectTag(element, tags.oid)
  const arcs: number[] = []
  let arc = 0
  for (const [i, byte] of content.entries()) {
    // A leading zero group, a number beyond what is exact, or an end in the middle of one.
    if ((arc === 0 && byte === 0x80) || arc > 2 ** 40 || (byte >= 0x80 && i === content.length - 1))
      throw new DerError('malformed object identifier')
    arc = arc * 128 + (byte & 0x7f)
    if (byte >= 0x80) continue
    const first = Math.min(2, Math.floor(arc / 40))
    arcs.push(...(arcs.length === 0 ? [first, arc - first * 40] : [arc]))
    arc = 0
  }
  if (arcs.length === 0) throw new DerError('empty object identifier')
  return arcs.join('.')
}

/** An INTEGER as the hexadecimal digits of its two's complement. @throws DerError */
export function integerOf(element: Element | undefined): string {
  const { content } = expectTag(element, tags.integer)
  if (content.length === 0) throw new DerError('empty integer')
  return content.toString('hex')
}

/** The bytes of a BIT STRING; of its last one some bits may not count. @throws DerError */
export function bitsOf(element: Element | undefined): Buffer {
  const { content } = expectTag(element, tags.bits)
  if ((content[0] ?? 8) > 7) throw new DerError('malformed bit string')
  return content.subarray(1)
}

/** A BIT STRING of whole bytes, as signatures are. @throws DerError */
export function signatureOf(element: Element | undefined): Buffer {
  if (element?.content[0] !== 0) throw new DerError('malformed signature')
  return bitsOf(element)
}

/** UTCTime or GeneralizedTime as RFC 5280 section 4.1.2.5 has them, in milliseconds since 1970. @throws DerError */
export function timeOf(element: Element | undefined): number {
  const text = element?.content.toString('latin1') ?? ''
  const short = element?.tag === tags.utcTime
  if (!short) expectTag(element, tags.generalizedTime)
  const match = (short ? /^(\d\d)(\d{10})Z$/ : /^(\d{4})(\d{10})Z$/).exec(text)
  if (match === null) throw new DerError('malformed time')
  const given = Number(match[1])
  const year = short ? given + (given < 50 ? 2000 : 1900) : given
  const [month = 0, day = 0, hour = 0, minute = 0, second = 0] = (match[2]?.match(/\d\d/g) ?? []).map(Number)
  const time = new Date(Date.UTC(2000, month - 1, day, hour, minute, second))
  time.setUTCFullYear(year)
  // Dates that do not exist roll over to others.
  if (time.getUTCMonth() !== month - 1 || time.getUTCHours() !== hour || minute > 59 || second > 59)
    throw new DerError('malformed time')
  return time.getTime()
}

function elementAt(bytes: Buffer, start: number): Element {
  const tag = bytes[start]
  const first = bytes[start + 1]
  if (tag === undefined || first === undefined) throw new DerError('it ends too early')
  if ((tag & 0x1f) === 0x1f) throw new DerError('a tag of several bytes')
  let length = first
  let head = 2
  if (first >= 0x80) {
    const count = first - 0x80
    if (count === 0 || count > 4) throw new DerError('a length that is indefinite or beyond measure')
    head += count
    if (start + head > bytes.length) throw new DerError('it ends too early')
    length = bytes.readUIntBE(start + 2, count)
    if (length < 0x80 || bytes[start + 2] === 0)
      throw new DerError('a length that is not written as short as it can be')
  }
  const end = start + head + length
  if (end > bytes.length) throw new DerError('it ends too early')
  return { tag, content: bytes.subarray(start + head, end), whole: bytes.subarray(start, end) }
}
