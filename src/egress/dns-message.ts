/** DNS messages (RFC 1035 section 4), as much of them as the stub needs. */

export const rcodes = { ok: 0, format: 1, failure: 2, noName: 3, notImplemented: 4, refused: 5 }

const headerBytes = 12
const longestName = 255
const longestLabel = 63
const types = { a: 1, aaaa: 28 }
const internet = 1
/** Seconds. */
const ttl = 5

export interface Question {
  /** In lower case, without a trailing dot; undefined when no host has such a name. */
  readonly name: string | undefined
  readonly type: 'A' | 'AAAA' | 'other'
  /** From the name to the class, to be repeated in the answer. */
  readonly bytes: Buffer
}

export interface Query {
  readonly id: number
  readonly recursionDesired: boolean
  readonly question: Question
}

/** What is not answered with data. `id` as far as there is one. */
export interface BadQuery {
  readonly id: number
  readonly rcode: number
}

/** @returns undefined for what is no query at all, and deserves no answer */
export function parseQuery(message: Buffer): Query | BadQuery | undefined {
  if (message.length < headerBytes) return undefined
  const id = message.readUInt16BE(0)
  const flags = message.readUInt16BE(2)
  if ((flags & 0x8000) !== 0) return undefined
  if (((flags >> 11) & 15) !== 0) return { id, rcode: rcodes.notImplemented }
  const [questions, answers, authorities, additional] = [4, 6, 8, 10].map((at) => message.readUInt16BE(at))
  // An additional record is EDNS, which is not used.
  if (questions !== 1 || answers !== 0 || authorities !== 0 || (additional ?? 0) > 2)
    return { id, rcode: rcodes.format }
  const question = parseQuestion(message)
  if (question === undefined) return { id, rcode: rcodes.format }
  if (message.readUInt16BE(headerBytes + question.bytes.length - 2) !== internet)
    return { id, rcode: rcodes.refused }
  return { id, recursionDesired: (flags & 0x0100) !== 0, question }
}

function parseQuestion(message: Buffer): Question | undefined {
  const labels: string[] = []
  let at = headerBytes
  for (;;) {
    const length = message[at]
    // Longer ones are pointers, of which a question needs none.
    if (length === undefined || length > longestLabel || at + 1 + length > message.length) return undefined
    if (at + 1 - headerBytes > longestName) return undefined
    labels.push(message.toString('latin1', at + 1, at + 1 + length))
    at += 1 + length
    if (length === 0) break
  }
  if (at + 4 > message.length || at - headerBytes > longestName) return undefined
  const name = labels.slice(0, -1).join('.').toLowerCase()
  const type = message.readUInt16BE(at)
  return {
    name:
      /^[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/.test(name) && labels.slice(0, -1).every(isHostLabel)
        ? name
        : undefined,
    type: type === types.a ? 'A' : type === types.aaaa ? 'AAAA' : 'other',
    bytes: message.subarray(headerBytes, at + 4),
  }
}

/** A dot inside a label would make two of it. */
function isHostLabel(label: string): boolean {
  return /^[A-Za-z0-9_-]+$/.test(label)
}

/** @param address in an A record; undefined: none */
export function answerTo({ id, recursionDesired, question }: Query, rcode: number, address?: string): Buffer {
  const header = headerOf(id, rcode, {
    recursionDesired,
    questions: 1,
    answers: address === undefined ? 0 : 1,
  })
  if (address === undefined) return Buffer.concat([header, question.bytes])
  const record = Buffer.alloc(16)
  // The name is that of the question, at the end of the header.
  record.writeUInt16BE(0xc000 | headerBytes, 0)
  record.writeUInt16BE(types.a, 2)
  record.writeUInt16BE(internet, 4)
  record.writeUInt32BE(ttl, 6)
  record.writeUInt16BE(4, 10)
  record.set(address.split('.').map(Number), 12)
  return Buffer.concat([header, question.bytes, record])
}

export function faultAnswer({ id, rcode }: BadQuery): Buffer {
  return headerOf(id, rcode, { recursionDesired: false, questions: 0, answers: 0 })
}

function headerOf(
  id: number,
  rcode: number,
  { recursionDesired, questions, answers }: { recursionDesired: boolean; questions: number; answers: number },
): Buffer {
  const header = Buffer.alloc(headerBytes)
  header.writeUInt16BE(id, 0)
  // A response, recursion available.
  header.writeUInt16BE(0x8080 | (recursionDesired ? 0x0100 : 0) | rcode, 2)
  header.writeUInt16BE(questions, 4)
  header.writeUInt16BE(answers, 6)
  return header
}
