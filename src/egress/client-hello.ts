/** The server name of a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3), without decrypting anything. */

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
const handshakeRecord = 22
const clientHelloType = 1
const extensionTypes = { serverName: 0, encryptedClientHello: 0xfe0d }

/**
 * @param bytes all that a client has sent
 * @returns undefined until it is complete
 * @throws HelloError
 */
export function readClientHello(bytes: Buffer): ClientHello | undefined {
  const { message, cut } = handshakeOf(bytes)
  if (message.length > 0 && message[0] !== clientHelloType)
    throw new HelloError('the first TLS message is no ClientHello')
  const end = message.length < 4 ? Number.POSITIVE_INFINITY : 4 + message.readUIntBE(1, 3)
  if (message.length >= end) return parse(new Fields(message.subarray(4, end)))
  if (bytes.length >= longestHello || (end > longestHello && Number.isFinite(end)))
    throw new HelloError('the ClientHello is too long')
  if (cut) throw new HelloError('the ClientHello is in too many pieces')
  return undefined
}

/** What the handshake records at the start hold, the last one as far as it has come. */
function handshakeOf(bytes: Buffer): { message: Buffer; cut: boolean } {
  const parts: Buffer[] = []
  let at = 0
  for (; at < bytes.length && parts.length < mostRecords; ) {
    if (bytes[at] !== handshakeRecord) throw new HelloError('this is no TLS handshake')
    if (at + 1 < bytes.length && bytes[at + 1] !== 3) throw new HelloError('this is no TLS')
    if (at + 5 > bytes.length) break
    const size = bytes.readUInt16BE(at + 3)
    if (size === 0 || size > 2 ** 14) throw new HelloError('a TLS record has a wrong length')
    parts.push(bytes.subarray(at + 5, at + 5 + size))
    at += 5 + size
  }
  return { message: Buffer.concat(parts), cut: at <= bytes.length && parts.length === mostRecords }
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
