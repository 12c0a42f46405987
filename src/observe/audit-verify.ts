/**
 * Checks the hash chain of audit logs. Found: lines that were changed, taken out, put in or moved, wherever a later line
 * is still there. Not found without something that was kept elsewhere: lines missing at the end, and a chain that was
 * computed anew from the change on.
 */
import { createReadStream } from 'node:fs'
import { chainStart, type Link, lineHash, type Place, placeOf } from './audit-chain.ts'

export interface VerifyOptions {
  /** A line that somebody saw, or kept, before: one with this number, this hash, or both has to be there. */
  readonly expectSeq?: number | undefined
  /** `sha256:` and 64 hex digits. */
  readonly expectHash?: string | undefined
  /** Chains may begin anew, as on standard output, where each start of the sidecar begins one. */
  readonly restarts?: boolean | undefined
}

export interface VerifyProblem {
  /** The file, or `-`. */
  readonly file: string
  /** From 1. */
  readonly line: number
  readonly message: string
}

export interface Verified {
  readonly ok: boolean
  readonly lines: number
  /** The first 100. */
  readonly problems: readonly VerifyProblem[]
  /** How many there are in all. */
  readonly problemCount: number
  /** What is no fault, but worth a look: lines that a crash cut off. The first 100. */
  readonly notes: readonly VerifyProblem[]
  /** What the first line refers to: of a file that was rotated, the last line of the file before. */
  readonly first: { readonly seq: number; readonly prev: string } | undefined
  /** To be kept elsewhere, and expected the next time. */
  readonly last: Link | undefined
}

/** A file, or what is read from standard input. */
export type VerifySource = string | { readonly name: string; readonly bytes: AsyncIterable<Buffer> }

const maxShown = 100
/** No event is longer. */
const maxLine = 32 * 1024 * 1024

/**
 * @param sources files of one chain, the oldest first
 * @throws the error of the file system for what cannot be read
 */
export async function verifyAudit(
  sources: VerifySource | readonly VerifySource[],
  options: VerifyOptions = {},
): Promise<Verified> {
  const walk = new ChainWalk(options)
  for (const source of Array.isArray(sources)
    ? (sources as readonly VerifySource[])
    : [sources as VerifySource]) {
    const name = typeof source === 'string' ? source : source.name
    const bytes =
      typeof source === 'string' ? createReadStream(source, { highWaterMark: 262_144 }) : source.bytes
    walk.begin(name)
    for await (const line of linesOf(bytes as AsyncIterable<Buffer>)) walk.line(line.bytes, line.whole)
  }
  return walk.end()
}

/** What `audit verify` prints; it ends with 0 when `ok`, and otherwise with 1. */
export function auditVerifyReport(verified: Verified): string[] {
  const { lines, problems, problemCount, notes, first, last, ok } = verified
  const at = ({ file, line, message }: VerifyProblem): string => `${file}:${line}: ${message}`
  const text = [...notes.map((note) => `note: ${at(note)}`), ...problems.map(at)]
  if (problemCount > problems.length) text.push(`and ${problemCount - problems.length} more`)
  if (first !== undefined && first.prev !== chainStart)
    text.push(`the first line is number ${first.seq} and follows a line elsewhere: ${first.prev}`)
  if (last !== undefined) text.push(`the last line is number ${last.seq}: ${last.hash}`)
  text.push(ok ? `${lines} lines, the chain is whole` : `${lines} lines, ${counted(problemCount, 'problem')}`)
  return text
}

/** Goes along the lines. */
class ChainWalk {
  readonly #options: VerifyOptions
  readonly #problems: VerifyProblem[] = []
  readonly #notes: VerifyProblem[] = []
  #problemCount = 0
  #lines = 0
  #file = ''
  #line = 0
  #first: Verified['first']
  /** The line before. */
  #seq = 0
  #hash: string | undefined
  /** A line that is none; whether a crash explains it shows in the next one. */
  #broken:
    | { readonly at: Omit<VerifyProblem, 'message'>; readonly hash: string; readonly whole: boolean }
    | undefined
  #seen: boolean

  constructor(options: VerifyOptions) {
    this.#options = options
    this.#seen = options.expectSeq === undefined && options.expectHash === undefined
  }

  begin(file: string): void {
    this.#file = file
    this.#line = 0
  }

  /** @param whole false for what follows the last line break of a file */
  line(bytes: Buffer, whole: boolean): void {
    this.#line++
    this.#lines++
    const hash = lineHash(bytes)
    const place = placeOf(bytes.toString('utf8'))
    if (place === undefined) {
      this.#blame()
      this.#broken = { at: this.#here(), hash, whole }
      return
    }
    this.#judge(place)
    this.#seq = place.seq
    this.#hash = hash
    this.#first ??= { seq: place.seq, prev: place.prev }
    this.#expect(hash)
  }

  end(): Verified {
    const { expectSeq, expectHash } = this.#options
    if (this.#broken?.whole === false) this.#note(this.#broken.at, 'the file ends in the middle of a line')
    else this.#blame()
    if (!this.#seen) {
      const what = [expectSeq === undefined ? [] : `number ${expectSeq}`, expectHash ?? []].flat().join(', ')
      this.#problem(this.#here(), `the line that was expected is not there: ${what}`)
    }
    if (this.#lines === 0) this.#note(this.#here(), 'there is nothing in it')
    return {
      ok: this.#problemCount === 0,
      lines: this.#lines,
      problems: this.#problems,
      problemCount: this.#problemCount,
      notes: this.#notes,
      first: this.#first,
      last: this.#hash === undefined ? undefined : { seq: this.#seq, hash: this.#hash },
    }
  }

  #judge({ seq, prev, type }: Place): void {
    const broken = this.#broken
    this.#broken = undefined
    const begins = prev === chainStart && seq === 1
    if (broken !== undefined) {
      const explained = type === 'chain_resumed' && prev === broken.hash && seq === this.#seq + 1
      if (explained) {
        this.#note(broken.at, 'a crash cut this line off')
        return
      }
      // Rotated in the middle of a line, all of which then stands in the next file.
      if (!broken.whole && this.#line === 1) this.#note(broken.at, 'the file ends in the middle of a line')
      else this.#problem(broken.at, 'this is no audit event, or it was changed')
    }
    if (this.#hash === undefined) {
      if ((prev === chainStart) !== (seq === 1) && broken === undefined)
        this.#problem(this.#here(), `number ${seq} cannot follow ${prev}`)
    } else if (begins) {
      if (this.#options.restarts !== true)
        this.#problem(this.#here(), 'a new chain begins here; what ended the one before is not to be seen')
    } else if (seq !== this.#seq + 1) this.#problem(this.#here(), outOfOrder(seq, this.#seq))
    else if (prev !== this.#hash && (broken === undefined || !broken.whole))
      this.#problem(
        this.#here(),
        'the line before is not the one that this one was written after: one was changed',
      )
  }

  #expect(hash: string): void {
    if (this.#seen) return
    const { expectSeq, expectHash } = this.#options
    this.#seen =
      (expectSeq === undefined || expectSeq === this.#seq) &&
      (expectHash === undefined || expectHash === hash)
  }

  #blame(): void {
    if (this.#broken === undefined) return
    this.#problem(this.#broken.at, 'this is no audit event, or it was changed')
    this.#broken = undefined
  }

  #here(): Omit<VerifyProblem, 'message'> {
    return { file: this.#file, line: this.#line }
  }

  #problem(at: Omit<VerifyProblem, 'message'>, message: string): void {
    this.#problemCount++
    if (this.#problems.length < maxShown) this.#problems.push({ ...at, message })
  }

  #note(at: Omit<VerifyProblem, 'message'>, message: string): void {
    if (this.#notes.length < maxShown) this.#notes.push({ ...at, message })
  }
}

function outOfOrder(seq: number, before: number): string {
  if (seq > before) return `number ${seq} follows ${before}: ${counted(seq - before - 1, 'line')} missing`
  return `number ${seq} follows ${before}: lines were moved, repeated or put in`
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}

/** The lines of a stream; of one that is far too long, what fits, which is then no event. */
async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<{ bytes: Buffer; whole: boolean }> {
  let parts: Buffer[] = []
  let held = 0
  const keep = (part: Buffer): void => {
    const kept = part.subarray(0, maxLine - held)
    held += kept.length
    if (kept.length > 0) parts.push(kept)
  }
  for await (const chunk of stream) {
    let at = 0
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, at)) {
      keep(chunk.subarray(at, end))
      yield { bytes: parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts), whole: true }
      parts = []
      held = 0
      at = end + 1
    }
    if (at < chunk.length) keep(chunk.subarray(at))
  }
  if (held > 0) yield { bytes: Buffer.concat(parts), whole: false }
}
