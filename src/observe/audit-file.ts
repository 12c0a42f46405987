/** The file of an audit log: opened with suspicion, appended to, opened anew when it is rotated or has gone. */
import {
  close,
  closeSync,
  constants,
  fchmodSync,
  fstat,
  fstatSync,
  fsync,
  openSync,
  readSync,
  type Stats,
  write,
  writeSync,
} from 'node:fs'
import type { Logger } from '../core/types.ts'
import { type Link, lineHash, lineStart, placeOf } from './audit-chain.ts'
import type { Destination } from './line-writer.ts'

/** An audit log that cannot be written as it is configured; for the operator. */
export class AuditError extends Error {
  override readonly name = 'AuditError'
}

/** How the file ended when it was opened. */
export interface Tail {
  /** Undefined in a new file. */
  readonly last: Link | undefined
  /** The bytes after the last line break: a crash cut them off. Their hash is that of {@link last}. */
  readonly torn: { readonly bytes: number } | undefined
}

/** No line is longer: it is one event with its data capped. */
const maxLine = 32 * 1024 * 1024
const blockBytes = 64 * 1024
// Nothing waits for the other end of a fifo, and no terminal becomes the controlling one, before it is known what it is.
const flags =
  constants.O_RDWR |
  constants.O_APPEND |
  constants.O_CREAT |
  constants.O_NOFOLLOW |
  constants.O_NONBLOCK |
  constants.O_NOCTTY

interface Opened {
  readonly fd: number
  readonly stats: Stats
}

export class AuditFile implements Destination {
  readonly #path: string
  readonly #log: Logger
  readonly tail: Tail
  #fd: number
  /** What it has if nobody else touched it. Bytes. */
  #size: number
  #busy = false
  #wanted = false
  /** What was written of a line stands in another file: the line begins anew in this one. */
  #fresh = false

  /** @throws AuditError for what is no file that only we write, or holds something else */
  constructor(path: string, log: Logger) {
    this.#path = path
    this.#log = log
    const { fd, stats } = open(path)
    this.tail = tailOf(fd, stats.size, path)
    this.#fd = fd
    this.#size = stats.size
  }

  /** Opens the path anew, now or when the write under way is done: the file was renamed by who rotates it. */
  reopen(): void {
    if (this.#busy) this.#wanted = true
    else this.#reopenOrStay()
  }

  write(bytes: Buffer, from: number, done: (error: Error | undefined, position: number) => void): void {
    this.#busy = true
    const finish = (error: Error | undefined, position: number): void => {
      this.#busy = false
      if (this.#wanted) this.#reopenOrStay()
      done(error, position)
    }
    fstat(this.#fd, (failed, stats) => {
      if (failed !== null) return finish(failed, from)
      try {
        this.#look(stats)
      } catch (thrown) {
        return finish(thrown as Error, from)
      }
      const start = this.#fresh ? lineStartBefore(bytes, from) : from
      write(this.#fd, bytes, start, bytes.length - start, null, (error, written) => {
        if (error !== null) return finish(error, from)
        this.#fresh = false
        this.#size += written
        finish(undefined, start + written)
      })
    })
  }

  writeSync(bytes: Buffer, from: number): number {
    return from + writeSync(this.#fd, bytes, this.#fresh ? lineStartBefore(bytes, from) : from)
  }

  bytesAtEnd(): number {
    return Number.POSITIVE_INFINITY
  }

  /** Hands what was written to the disk, and closes. */
  close(): Promise<void> {
    // Its number could be another file's before the write under way is done.
    if (this.#busy) return Promise.resolve()
    return new Promise((resolve) => {
      fsync(this.#fd, () => close(this.#fd, () => resolve()))
    })
  }

  /** @throws when the file has gone and there cannot be another */
  #look(stats: Stats): void {
    if (stats.nlink === 0) {
      // Written on, it would hold lines that nobody ever sees.
      this.#reopen()
      this.#log.error({ file: this.#path }, 'the audit log was removed; it goes on in a new file')
    } else if (stats.size !== this.#size) {
      const fields = { file: this.#path, bytes: stats.size, expected: this.#size }
      this.#log.warn(fields, 'somebody else has changed the audit log, or cut it off')
      this.#size = stats.size
    }
  }

  #reopenOrStay(): void {
    this.#wanted = false
    try {
      this.#reopen()
    } catch (thrown) {
      const reason = thrown instanceof Error ? thrown.message : String(thrown)
      this.#log.error({ file: this.#path, reason }, 'the audit log was not opened anew; the old file is used')
    }
  }

  #reopen(): void {
    const { fd, stats } = open(this.#path)
    const old = fstatSync(this.#fd)
    if (stats.ino === old.ino && stats.dev === old.dev) {
      closeSync(fd)
      return
    }
    const { last, torn } = tailOf(fd, stats.size, this.#path)
    if (torn !== undefined) {
      closeSync(fd)
      throw new AuditError(`${this.#path} ends in the middle of a line`)
    }
    if (last !== undefined)
      this.#log.warn({ file: this.#path }, 'the audit log goes on in a file that holds other events')
    const before = this.#fd
    this.#fd = fd
    this.#size = stats.size
    this.#fresh = true
    fsync(before, () => close(before, () => {}))
  }
}

function lineStartBefore(bytes: Buffer, position: number): number {
  return position === 0 ? 0 : bytes.lastIndexOf(0x0a, position - 1) + 1
}

/** @throws AuditError */
function open(path: string): Opened {
  let fd: number
  try {
    fd = openSync(path, flags, 0o600)
  } catch (thrown) {
    throw new AuditError(`${path}: ${openProblem(thrown as NodeJS.ErrnoException)}`, { cause: thrown })
  }
  try {
    const stats = fstatSync(fd)
    const problem = fileProblem(stats)
    if (problem !== undefined) throw new AuditError(`${path} ${problem}`)
    // As Kubernetes leaves files on volumes of an fsGroup; nobody but us has to write here.
    if ((stats.mode & 0o020) !== 0) fchmodSync(fd, stats.mode & 0o7755)
    return { fd, stats }
  } catch (thrown) {
    throw closedAfter(fd, thrown, path)
  }
}

/** How an open file ends; closes it when it throws. @throws AuditError */
function tailOf(fd: number, size: number, path: string): Tail {
  try {
    return readTail(fd, size, path)
  } catch (thrown) {
    throw closedAfter(fd, thrown, path)
  }
}

function closedAfter(fd: number, thrown: unknown, path: string): AuditError {
  closeSync(fd)
  return thrown instanceof AuditError ? thrown : new AuditError(`${path}: ${(thrown as Error).message}`)
}

function openProblem({ code, message }: NodeJS.ErrnoException): string {
  if (code === 'ELOOP') return 'is a symbolic link; name the file itself'
  if (code === 'EISDIR') return 'is a folder; name a file in it'
  if (code === 'ENOENT') return 'its folder does not exist'
  if (code === 'EACCES' || code === 'EPERM') return 'this user may not read and write it'
  return message
}

/** Why a file cannot be trusted with evidence. */
function fileProblem(stats: Stats): string | undefined {
  if (stats.isDirectory()) return 'is a folder; name a file in it'
  if (!stats.isFile()) return 'is not a regular file; for standard output say stdout'
  if ((stats.mode & 0o002) !== 0) return 'may be written by every user; make it 0600'
  const self = process.geteuid?.()
  const owned = stats.uid === self
  if (!owned && stats.uid !== 0) return `belongs to user ${stats.uid}, who can change it; it has to be ours`
  if (!owned && (stats.mode & 0o020) !== 0) return 'may be written by its group; make it 0600'
  return undefined
}

/** @throws AuditError when it does not end with a line of an audit log */
function readTail(fd: number, size: number, path: string): Tail {
  if (size === 0) return { last: undefined, torn: undefined }
  // The last line and, where that one is torn, the one before.
  let block = Buffer.alloc(0)
  let start = size
  let breaks: number[] = []
  while (start > 0 && breaks.length < 2 && block.length < maxLine) {
    const length = Math.min(Math.max(blockBytes, block.length), start)
    start -= length
    block = Buffer.concat([readAt(fd, start, length), block])
    breaks = lastBreaks(block)
  }
  const [last = -1, before = -1] = breaks
  const torn = block.subarray(last + 1)
  const whole = last < 0 || (before < 0 && start > 0) ? undefined : block.subarray(before + 1, last)
  const place = whole === undefined ? undefined : placeOf(whole.toString('latin1'))
  if (torn.length === 0) {
    if (place === undefined || whole === undefined) throw notAudit(path)
    return { last: { seq: place.seq, hash: lineHash(whole) }, torn: undefined }
  }
  const first = last < 0 && start === 0 && isStart(torn)
  if (place === undefined && !first) throw notAudit(path)
  // All of the line may be there, and only its line break be missing.
  const own = placeOf(torn.toString('latin1'))
  return {
    last: { seq: own?.seq ?? place?.seq ?? 0, hash: lineHash(torn) },
    torn: { bytes: torn.length },
  }
}

function notAudit(path: string): AuditError {
  return new AuditError(`${path} does not end with an audit event; name a new file, or move this one away`)
}

/** Positions of the last two line breaks, the last one first. */
function lastBreaks(block: Buffer): number[] {
  const last = block.lastIndexOf(0x0a)
  if (last < 0) return []
  const before = last === 0 ? -1 : block.lastIndexOf(0x0a, last - 1)
  return before < 0 ? [last] : [last, before]
}

function isStart(torn: Buffer): boolean {
  const text = torn.toString('latin1', 0, lineStart.length)
  return lineStart.startsWith(text)
}

function readAt(fd: number, position: number, length: number): Buffer {
  const block = Buffer.alloc(length)
  let at = 0
  while (at < length) {
    const read = readSync(fd, block, at, length - at, position + at)
    if (read === 0) break
    at += read
  }
  return block.subarray(0, at)
}
