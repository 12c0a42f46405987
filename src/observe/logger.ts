import { pino } from 'pino'
import type { Logger } from '../core/types.ts'

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
}

/**
 * JSON lines buffered up to 32 KiB and for at most 250 ms, so that a call does not wait for a write of its log line.
 * Where nobody takes them, lines are lost beyond 16 MiB rather than calls held up.
 *
 * @param output where readable text goes; JSON goes to the file descriptor behind stdout
 */
/** A reader of the log that takes nothing is waited for no longer than this. Milliseconds. */
const flushMs = 1000

export function createLogger(options: LogOptions, output: LogOutput): SidecarLogger {
  const pretty = options.format === 'pretty' || (options.format === 'auto' && output.isTTY === true)
  const base = {
    level: options.level,
    base: null,
    timestamp: isoTimestamps(),
    formatters: { level: (label: string) => ({ level: label }) },
  }
  if (pretty) {
    // A terminal that was closed fails every write; the sidecar goes on without it.
    output.on?.('error', () => {})
    const logger = pino(base, { write: (line: string) => output.write(readable(line)) })
    return wrap(logger, () => Promise.resolve())
  }
  const destination = pino.destination({
    fd: 1,
    sync: false,
    minLength: 32_768,
    maxWrite: 65_536,
    maxLength: maxHeldBytes,
    periodicFlush: 250,
  })
  destination.on('error', () => {})
  // Not flushSync: where nobody reads any more it tries for ever.
  const flush = (): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, flushMs)
      destination.flush(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  return wrap(pino(base, destination), flush)
}

/** `,"time":"2026-01-02T03:04:05.678Z"`; a date is formatted once a second only. */
function isoTimestamps(): () => string {
  let second = -1
  let prefix = ''
  return () => {
    const now = Date.now()
    const ms = now % 1000
    if (now - ms !== second) {
      second = now - ms
      prefix = `,"time":"${new Date(second).toISOString().slice(0, 20)}`
    }
    return `${prefix}${String(ms).padStart(3, '0')}Z"`
  }
}

function wrap(logger: pino.Logger, flush: () => Promise<void>): SidecarLogger {
  return {
    debug: (fields, text) => logger.debug(fields, text),
    info: (fields, text) => logger.info(fields, text),
    warn: (fields, text) => logger.warn(fields, text),
    error: (fields, text) => logger.error(fields, text),
    setLevel: (level) => {
      logger.level = level
    },
    flush,
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
