/**
 * Writes lines to a file descriptor in batches, one write at a time, for several sources in turn: what two of them write
 * to standard output never stands inside one another's lines.
 */
import { fstatSync, write, writeSync } from 'node:fs'
import type { Clock, Timer } from '../core/types.ts'

/** What batches are written to. */
export interface Destination {
  /**
   * Writes what follows `from`, or the beginning of it. Calls back once, later, with the position up to which the bytes
   * stand there now; one before `from` has them written again from there.
   */
  write(bytes: Buffer, from: number, done: (error: Error | undefined, position: number) => void): void
  /** The same at the end of the process, when nothing can be waited for. @throws what the system says */
  writeSync(bytes: Buffer, from: number): number
  /** How many bytes it takes at the end of the process without making it wait for somebody else. */
  bytesAtEnd(): number
}

/** What an empty pipe takes at once on Linux. */
const pipeBytes = 64 * 1024

/** A descriptor that somebody else has opened: 1 is standard output. */
export function descriptor(fd: number): Destination {
  return {
    write(bytes, from, done) {
      write(fd, bytes, from, bytes.length - from, null, (error, written) => {
        if (error === null) done(undefined, from + written)
        else done(error, from)
      })
    },
    writeSync: (bytes, from) => from + writeSync(fd, bytes, from),
    bytesAtEnd: () => (fstatSync(fd).isFile() ? Number.POSITIVE_INFINITY : pipeBytes),
  }
}

export interface LaneOptions {
  /** How long a line waits for others to be written with it. Milliseconds. */
  readonly delayMs: number
  /** From this many bytes on lines wait no longer; about the size of one write. */
  readonly batchBytes: number
  /** Held at most, what is being written included. */
  readonly maxBytes: number
  /** After each write that failed, whoever's it was. */
  readonly onFailed?: (error: Error) => void
  /** After a failure: everything that was held at the time has been written. */
  readonly onRecovered?: () => void
}

/** Between attempts after a failure, doubled each time. Milliseconds. */
const firstRetryMs = 50
const lastRetryMs = 1000
/** The same while a pipe is full and says so: that is waiting, not failing. */
const firstPollMs = 5
const lastPollMs = 100

/** Written at once where a slow destination has made them wait. */
const maxBatches = 16

/** The lines of one source. */
export class Lane {
  readonly #options: LaneOptions
  readonly #writer: LineWriter
  readonly #clock: Clock
  /** Batches that are full, and then the one that grows. */
  readonly #full: string[] = []
  #growing = ''
  #growingBytes = 0
  #timer: Timer | undefined
  #due = false
  #pushed = 0
  #written = 0
  #failure: Error | undefined
  /** What had been pushed when the last write failed. */
  #mark = 0
  #waiting: (() => void)[] = []

  constructor(writer: LineWriter, clock: Clock, options: LaneOptions) {
    this.#writer = writer
    this.#clock = clock
    this.#options = options
  }

  /** Bytes that have not been written yet. */
  get held(): number {
    return this.#pushed - this.#written
  }

  /** Why writing fails; undefined once everything that was held at the time has been written. */
  get failure(): Error | undefined {
    return this.#failure
  }

  /**
   * @param line with its line break
   * @returns false: there is no room for it, and it was not taken
   */
  push(line: string): boolean {
    const bytes = Buffer.byteLength(line)
    if (this.held + bytes > this.#options.maxBytes) return false
    this.#pushed += bytes
    if (this.#growingBytes > 0 && this.#growingBytes + bytes > this.#options.batchBytes) this.#close()
    this.#growing += line
    this.#growingBytes += bytes
    if (this.#growingBytes >= this.#options.batchBytes) this.#close()
    if (this.#full.length > 0) this.#writer.pump()
    if (this.#growingBytes > 0 && !this.#due) {
      this.#timer ??= this.#clock.after(this.#options.delayMs, () => {
        this.#timer = undefined
        this.urge()
      })
    }
    return true
  }

  /** Resolves with true when all that was pushed before has been written, or with false after `timeoutMs`. */
  flush(timeoutMs: number): Promise<boolean> {
    const until = this.#pushed
    if (this.#written >= until) return Promise.resolve(true)
    return new Promise((resolve) => {
      const check = (): void => {
        if (this.#written < until) {
          this.#waiting.push(check)
          return
        }
        timer.cancel()
        clearInterval(alive)
        resolve(true)
      }
      const timer = this.#clock.after(timeoutMs, () => {
        clearInterval(alive)
        resolve(false)
      })
      // Timers of the clock do not keep the process alive, and between two attempts there may be nothing else.
      const alive = setInterval(() => {}, 1000)
      this.#waiting.push(check)
      this.urge()
    })
  }

  /** Nothing waits for company any more. */
  urge(): void {
    if (this.held === 0) return
    this.#due = true
    this.#writer.pump()
  }

  /** The next batch to be written, if one is due. */
  take(all = false): Buffer | undefined {
    if (this.#full.length === 0) {
      if ((!this.#due && !all) || this.#growingBytes === 0) {
        this.#due = false
        return undefined
      }
      this.#close()
    }
    // Where they have piled up, more at a time.
    const batch = Buffer.from(this.#full.splice(0, maxBatches).join(''))
    if (this.#full.length === 0 && this.#growingBytes === 0) {
      this.#due = false
      this.#timer?.cancel()
      this.#timer = undefined
    }
    return batch
  }

  wrote(bytes: number): void {
    this.#written += bytes
    if (this.#waiting.length === 0) return
    const waiting = this.#waiting
    this.#waiting = []
    for (const check of waiting) check()
  }

  failed(error: Error): void {
    this.#failure = error
    this.#mark = this.#pushed
    this.#options.onFailed?.(error)
  }

  succeeded(): void {
    if (this.#failure === undefined || this.#written < this.#mark) return
    this.#failure = undefined
    this.#options.onRecovered?.()
  }

  #close(): void {
    this.#full.push(this.#growing)
    this.#growing = ''
    this.#growingBytes = 0
  }
}

/** One file descriptor and those who write lines to it. */
export class LineWriter {
  readonly #destination: Destination
  readonly #clock: Clock
  readonly #lanes: Lane[] = []
  #turn = 0
  #current: { readonly lane: Lane; readonly bytes: Buffer; at: number } | undefined
  #writing = false
  #pause: Timer | undefined
  #pauseMs = 0
  /** When the current batch was begun, or last got on. */
  #progressAt = 0

  constructor(destination: Destination, clock: Clock) {
    this.#destination = destination
    this.#clock = clock
    flushAtExit(this)
  }

  lane(options: LaneOptions): Lane {
    const lane = new Lane(this, this.#clock, options)
    this.#lanes.push(lane)
    return lane
  }

  /** How long the current batch has not got on. Milliseconds; 0 when nothing is to be written. */
  get stalledMs(): number {
    return this.#current === undefined ? 0 : this.#clock.now() - this.#progressAt
  }

  /** Starts the next write, if one is due and none is under way. */
  pump(): void {
    if (this.#writing || this.#pause !== undefined) return
    this.#current ??= this.#next()
    const current = this.#current
    if (current === undefined) return
    this.#writing = true
    this.#destination.write(current.bytes, current.at, (error, position) => {
      this.#writing = false
      this.#moveTo(current, position)
      if (error === undefined) this.#succeeded()
      else this.#failed(error)
      this.pump()
    })
  }

  /** Forgets a lane that has nothing to write any more, and with the last one the writer. */
  remove(lane: Lane): void {
    const at = this.#lanes.indexOf(lane)
    if (at >= 0) this.#lanes.splice(at, 1)
    if (this.#lanes.length > 0) return
    this.#pause?.cancel()
    open.delete(this)
  }

  /**
   * Writes what it can when nothing can be waited for any more. Where a write is under way, nobody knows how far it has
   * come; it is then left alone, which also keeps a reader that takes nothing from holding up the end of the process.
   */
  writeRest(): void {
    if (this.#writing) return
    try {
      let left = this.#destination.bytesAtEnd()
      while (left > 0) {
        this.#current ??= this.#next(true)
        if (this.#current === undefined) return
        const { bytes, at } = this.#current
        const position = this.#destination.writeSync(bytes.subarray(0, at + left), at)
        if (position <= at) return
        left -= position - at
        this.#moveTo(this.#current, position)
      }
    } catch {
      // The process ends, and whoever would be told with it.
    }
  }

  #next(all = false): { readonly lane: Lane; readonly bytes: Buffer; at: number } | undefined {
    for (let tried = 0; tried < this.#lanes.length; tried++) {
      this.#turn = (this.#turn + 1) % this.#lanes.length
      const lane = this.#lanes[this.#turn] as Lane
      const bytes = lane.take(all)
      if (bytes === undefined) continue
      this.#progressAt = this.#clock.now()
      return { lane, bytes, at: 0 }
    }
    return undefined
  }

  #moveTo(current: { readonly lane: Lane; readonly bytes: Buffer; at: number }, position: number): void {
    if (position > current.at) this.#progressAt = this.#clock.now()
    current.lane.wrote(position - current.at)
    current.at = position
    if (position >= current.bytes.length) this.#current = undefined
  }

  #succeeded(): void {
    this.#pauseMs = 0
    for (const lane of this.#lanes) lane.succeeded()
  }

  #failed(error: Error): void {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EINTR') return
    const polling = code === 'EAGAIN'
    if (polling) this.#pauseMs = Math.min(Math.max(this.#pauseMs * 2, firstPollMs), lastPollMs)
    else this.#pauseMs = Math.min(Math.max(this.#pauseMs * 2, firstRetryMs), lastRetryMs)
    // First, so that a line about the failure does not start the next attempt.
    this.#pause = this.#clock.after(this.#pauseMs, () => {
      this.#pause = undefined
      this.pump()
    })
    if (polling) return
    for (const lane of this.#lanes) lane.failed(error)
  }
}

const open = new Set<LineWriter>()

function flushAtExit(writer: LineWriter): void {
  if (open.size === 0) {
    process.off('exit', writeRests)
    process.on('exit', writeRests)
  }
  open.add(writer)
}

function writeRests(): void {
  for (const writer of open) writer.writeRest()
}
