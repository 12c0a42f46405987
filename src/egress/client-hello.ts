/**
 * The server name of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3), and whether it offers an encrypted one
 * (RFC 9849 section 5), without decrypting anything.
 */

export interface ClientHello {
  /** In lower case; undefined when none is named. */
  readonly serverName: string | undefined
  /** It offers Encrypted ClientHello, so that the name outside may not be the one meant. */
  readonly encrypted: boolean
}

/** This is no ClientHello, or a wrong one. */
export class HelloError extends Error {
  override readonly name = 'HelloError'
}

/** With its records. Bytes. */
export const longestHello = 16 * 1024

/** A client that cuts its hello into more has something to hide, or costs us something. */
const mostRecords = 16
const longestRecord = 2 ** 14
const handshakeRecord = 22
const clientHelloType = 1
const extensionTypes = { serverName: 0, encryptedClientHello: 0xfe0d }
const outerHello = 0

/**
 * @param bytes all that a client has sent
 * @returns undefined until it is complete
 * @throws HelloError
 */
export function readClientHello(bytes: Buffer): ClientHello | undefined {
  const parts: Buffer[] = []
  let length = 0
  let end = Number.POSITIVE_INFINITY
  for (let at = 0; ; ) {
    if (length >= 4 && end === Number.POSITIVE_INFINITY) end = endOf(Buffer.concat(parts))
    if (length >= end) return parse(new Fields(Buffer.concat(parts).subarray(4, end)))
    if (at < bytes.length && bytes[at] !== handshakeRecord) throw new HelloError('this is no TLS handshake')
    if (at + 1 < bytes.length && bytes[at + 1] !== 3) throw new HelloError('this is no TLS')
    if (at >= longestHello) throw new HelloError('the ClientHello is too long')
    if (at + 5 > bytes.length) return undefined
    if (parts.length === mostRecords) throw new HelloError('the ClientHello is in too many pieces')
    const size = bytes.readUInt16BE(at + 3)
    if (size === 0 || size > longestRecord) throw new HelloError('a TLS record has a wrong length')
    const part = bytes.subarray(at + 5, at + 5 + size)
    parts.push(part)
    length += part.length
    at += 5 + size
  }
}

/** Of the message, with its type and length. @param start at least so much of it */
function endOf(start: Buffer): number {
  if (start[0] !== clientHelloType) throw new HelloError('the first TLS message is no ClientHello')
  const end = 4 + start.readUIntBE(1, 3)
  if (end > longestHello) throw new HelloError('the ClientHello is too long')
  return end
}

function parse(hello: Fields): ClientHello {
  hello.skip(2 + 32)
  if (hello.block(1).length > 32) throw new HelloError('a session id has at most 32 bytes')
  hello.block(2)
  hello.block(1)
  if (hello.empty) return { serverName: undefined, encrypted: false }
  const extensions = new Fields(hello.block(2))
  if (!hello.empty) throw new HelloError('the ClientHello has a tail')
  const seen = new Set<number>()
  let serverName: string | undefined
  while (!extensions.empty) {
    const type = extensions.number(2)
    const body = extensions.block(2)
    if (seen.has(type)) throw new HelloError('an extension stands twice')
    seen.add(type)
    if (type === extensionTypes.serverName) serverName = nameOf(new Fields(body))
    if (type === extensionTypes.encryptedClientHello) checkOuter(new Fields(body))
  }
  return { serverName, encrypted: seen.has(extensionTypes.encryptedClientHello) }
}

function nameOf(extension: Fields): string {
  const list = new Fields(extension.block(2))
  const type = list.number(1)
  const name = list.block(2).toString('latin1')
  if (!extension.empty || !list.empty || type !== 0 || !/^[A-Za-z0-9_.-]+$/.test(name))
    throw new HelloError('the server name is no single host name')
  return name.toLowerCase()
}

/**
 * What a client sends has a payload, be it random (GREASE, as browsers send to everybody). Anything else offers nothing: the
 * empty kind is what a front server passes on to the one behind it, and would excuse a wrong name for free.
 */
function checkOuter(extension: Fields): void {
  const type = extension.number(1)
  if (type !== outerHello) throw new HelloError('the encrypted ClientHello is none of a client')
  // Cipher suite and configuration id.
  extension.skip(2 + 2 + 1)
  extension.block(2)
  if (extension.block(2).length === 0 || !extension.empty)
    throw new HelloError('the encrypted ClientHello is not well-formed')
}

/** Fields one after the other; whoever reads past the end gets an error. */
class Fields {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  get empty(): boolean {
    return this.#at === this.#bytes.length
  }

  skip(bytes: number): void {
    if (this.#at + bytes > this.#bytes.length) throw new HelloError('the ClientHello is cut off')
    this.#at += bytes
  }

  number(bytes: 1 | 2): number {
    this.skip(bytes)
    return this.#bytes.readUIntBE(this.#at - bytes, bytes)
  }

  /** Preceded by its length. */
  block(lengthBytes: 1 | 2): Buffer {
    const length = this.number(lengthBytes)
    this.skip(length)
    return this.#bytes.subarray(this.#at - length, this.#at)
  }
}
