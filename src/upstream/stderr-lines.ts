import { type Line, LineReader, type Overlong } from '../core/framing.ts'
import { Throttle } from '../core/throttle.ts'
import type { Clock, Logger, Metrics } from '../core/types.ts'

const lineBytes = 16 * 1024
const linesPerSecond = 200

export interface StderrContext {
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Pick<Metrics, 'dropped'>
}

/** What a server writes to stderr, line by line into the log; a flood is cut. */
export class StderrLines {
  /** Where lines go from now on. */
  to: 'log' | 'discard'
  readonly #context: StderrContext
  readonly #pid: () => number | undefined
  readonly #reader = new LineReader(lineBytes)
  readonly #throttle = new Throttle(linesPerSecond)

  constructor(to: 'log' | 'discard', context: StderrContext, pid: () => number | undefined) {
    this.to = to
    this.#context = context
    this.#pid = pid
  }

  /** @returns how many bytes it took, which is all but beyond so many lines */
  push(chunk: Buffer, most?: number): number {
    const { clock, log, metrics } = this.#context
    const onLine = (line: Line | Overlong): void => {
      if (this.to === 'discard') return
      const suppressed = this.#throttle.take(clock.now())
      if (suppressed === false) {
        metrics.dropped('stderr_line')
        return
      }
      const pid = this.#pid()
      if (suppressed > 0) log.warn({ pid, suppressed }, 'stderr lines of the server were dropped')
      if ('bytes' in line) log.info({ pid, stderr: line.bytes.toString() }, 'server')
      else log.warn({ pid, bytes: line.overlongBytes }, 'an overlong stderr line was dropped')
    }
    return this.#reader.push(chunk, onLine, most)
  }
}
