/** Writes DER (ITU-T X.690), as much as certificates and revocation lists need. */

/** One value: its tag, its length, its content. */
export function tlv(tag: number, ...content: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(content)
  const length: number[] = []
  for (let rest = body.length; rest > 0; rest = Math.floor(rest / 256)) length.unshift(rest % 256)
  const head = body.length < 128 ? [tag, body.length] : [tag, 0x80 + length.length, ...length]
  return Buffer.concat([Buffer.from(head), body])
}

export const sequence = (...content: readonly Uint8Array[]): Buffer => tlv(0x30, ...content)
export const setOf = (...content: readonly Uint8Array[]): Buffer => tlv(0x31, ...content)
export const octets = (content: Uint8Array): Buffer => tlv(0x04, content)
export const truth = (): Buffer => Buffer.from([0x01, 0x01, 0xff])
export const nothing = (): Buffer => Buffer.from([0x05, 0x00])
export const utf8 = (text: string): Buffer => tlv(0x0c, Buffer.from(text))
/** A number or the hexadecimal digits of a larger one. */
export function integer(value: number | string): Buffer {
  const hex = typeof value === 'number' ? value.toString(16) : value
  const bytes = Buffer.from(hex.length % 2 === 0 ? hex : `0${hex}`, 'hex')
  return tlv(0x02, ...((bytes[0] ?? 0) >= 0x80 ? [Buffer.from([0])] : []), bytes)
}
export const bits = (content: Uint8Array, unused = 0): Buffer => tlv(0x03, Buffer.from([unused]), content)
/** A context-specific tag around other values. */
export const tagged = (number: number, ...content: readonly Uint8Array[]): Buffer =>
  tlv(0xa0 + number, ...content)

/** `1.2.840.113549`. */
export function oid(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const arcs = [first * 40 + second, ...rest].flatMap((arc) => {
    const groups = [arc % 128]
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      groups.unshift(0x80 + (left % 128))
    return groups
  })
  return tlv(0x06, Buffer.from(arcs))
}

/** UTCTime to 2049, GeneralizedTime from 2050 (RFC 5280 section 4.1.2.5). */
export function time(ms: number): Buffer {
  const text = `${new Date(ms).toISOString().replace(/[-:T]/g, '').slice(0, 14)}Z`
  return ms < Date.UTC(2050, 0) ? tlv(0x17, Buffer.from(text.slice(2))) : tlv(0x18, Buffer.from(text))
}

export function pem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}
