import { pino } from 'pino'
import type { Logger } from '../core/types.ts'
import { systemClock } from './clock.ts'
import { isoTimes } from './iso-time.ts'
import { descriptor, LineWriter } from './line-writer.ts'

const maxHeldBytes = 16 * 1024 * 1024

export interface LogOptions {
  readonly level: string
  /** `auto` is readable text on a terminal and JSON elsewhere. */
  readonly format: 'auto' | 'json' | 'pretty'
}

export interface LogOutput {
  readonly isTTY?: boolean | undefined
  write(text: string): unknown
  on?(event: 'error', listener: () => void): unknown
}

export interface SidecarLogger extends Logger {
  setLevel(level: string): void
  /** Writes what is buffered; to be called before the process ends. */
  flush(): Promise<void>
  /** Where JSON lines go: others that write lines to standard output do so through it, so that none stands in another. */
  readonly stdout?: LineWriter | undefined
}

/** A reader of the log that takes nothing is waited for no longer than this. Milliseconds. */
const flushMs = 1000

/**
 * JSON lines buffered up to 32 KiB and for at most 250 ms, so that a call does not wait for a write of its log line.
 * Where nobody takes them, lines are lost beyond 16 MiB rather than calls held up.
 *
 * @param output where readable text goes; JSON goes to the file descriptor behind stdout
 */
export function createLogger(options: LogOptions, output: LogOutput): SidecarLogger {
  const pretty = options.format === 'pretty' || (options.format === 'auto' && output.isTTY === true)
  const iso = isoTimes()
  const base = {
    level: options.level,
    base: null,
    timestamp: () => `,"time":"${iso(Date.now())}"`,
    formatters: { level: (label: string) => ({ level: label }) },
  }
  if (pretty) {
    // A terminal that was closed fails every write; the sidecar goes on without it.
    output.on?.('error', () => {})
    const logger = pino(base, { write: (line: string) => output.write(readable(line)) })
    return wrap(logger, () => Promise.resolve())
  }
  const stdout = new LineWriter(descriptor(1), systemClock)
  const lane = stdout.lane({ delayMs: 250, batchBytes: 32_768, maxBytes: maxHeldBytes })
  const logger = pino(base, { write: (line: string) => void lane.push(line) })
  return wrap(logger, () => lane.flush(flushMs).then(() => {}), stdout)
}

function wrap(logger: pino.Logger, flush: () => Promise<void>, stdout?: LineWriter): SidecarLogger {
  return {
    debug: (fields, text) => logger.debug(fields, text),
    info: (fields, text) => logger.info(fields, text),
    warn: (fields, text) => logger.warn(fields, text),
    error: (fields, text) => logger.error(fields, text),
    setLevel: (level) => {
      logger.level = level
    },
    flush,
    stdout,
  }
}

/** One JSON log line as text: time, level, message, then the other members. */
export function readable(line: string): string {
  const { time, level, msg, stderr, ...fields } = JSON.parse(line) as Record<string, unknown>
  const clock = String(time).slice(11, 19)
  const rest = Object.entries(fields)
    .map(([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join('')
  const text = stderr === undefined ? `${String(msg)}${rest}` : `server: ${String(stderr)}`
  return `${clock} ${String(level).padEnd(5)} ${printable(text)}\n`
}

/** What servers and clients wrote must not move the cursor or recolour a terminal. */
export function printable(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\u2028\u2029]/gu,
    (c) => `\\x${(c.codePointAt(0) as number).toString(16).padStart(2, '0')}`,
  )
}
