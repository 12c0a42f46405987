/** Checks the wire of every sidecar that a test starts, and fails the test for what the official schemas forbid. */
import { readFileSync } from 'node:fs'
import type { Test } from 'tap'
import { listenToWire, type Seen } from './wire-tap.ts'
import { describe, WireWatch } from './wire-watch.ts'

/** Checking while messages pass would change the timing that tests are about, keeping everything the memory. Bytes. */
const maxWaiting = 4 * 1024 * 1024

/** Why the wire of this sidecar is not checked; begins with `unchecked because`. */
export type WireOptOut = `unchecked because ${string}`

class CheckedSidecar {
  readonly watch = new WireWatch()
  readonly command: string
  port: number | undefined
  #waiting: Seen[] = []
  #bytes = 0

  constructor(command: readonly string[]) {
    this.command = JSON.stringify(command)
  }

  note(seen: Seen): void {
    this.#waiting.push(seen)
    if ('text' in seen) this.#bytes += seen.text.length
    if (this.#bytes > maxWaiting) this.check()
  }

  check(): void {
    const waiting = this.#waiting
    this.#waiting = []
    this.#bytes = 0
    for (const seen of waiting) this.watch.note(seen)
  }
}

/** Oldest first. */
const running: CheckedSidecar[] = []
/** Which of them an exchange or a process belongs to, by its number. */
const owners = new Map<number, CheckedSidecar | undefined>()

function ownerOf(seen: Seen): CheckedSidecar | undefined {
  if (seen.kind === 'refusal') return running.findLast(({ port }) => port === seen.port)
  const number = seen.kind === 'frame' ? seen.socket : seen.kind === 'pipe' ? seen.process : seen.exchange
  if (owners.has(number)) return owners.get(number)
  const owner =
    seen.kind === 'pipe'
      ? // After a reload the command is another one.
        (running.findLast(({ command }) => command === JSON.stringify(seen.command)) ?? running.at(-1))
      : 'port' in seen
        ? running.findLast(({ port }) => port === seen.port)
        : undefined
  owners.set(number, owner)
  return owner
}

let listening = false

export interface WireChecks {
  /** To be told once it is known. */
  listensOn(port: number): void
  /** What has been found so far. */
  verdict(): Pick<WireWatch, 'checked' | 'faults'>
  /** When the sidecar has stopped. @throws for what is ill-formed */
  finish(): void
}

export function checkWireOf(t: Test, command: readonly string[], optOut: WireOptOut | undefined): WireChecks {
  if (!listening) listenToWire((seen) => ownerOf(seen)?.note(seen))
  listening = true
  const sidecar = new CheckedSidecar(command)
  running.push(sidecar)
  return {
    listensOn: (port) => {
      sidecar.port = port
    },
    verdict: () => {
      sidecar.check()
      return sidecar.watch
    },
    finish: () => {
      running.splice(running.indexOf(sidecar), 1)
      if (optOut !== undefined) t.comment(`wire ${optOut}`)
      else {
        sidecar.check()
        requireSound(t, sidecar.watch)
      }
    },
  }
}

/** The same for a sidecar in a process of its own, from what was recorded there. */
export function checkRecordedWire(
  t: Test,
  file: string,
  port: number | undefined,
  optOut: WireOptOut | undefined,
): void {
  if (optOut !== undefined) {
    t.comment(`wire ${optOut}`)
    return
  }
  const watch = new WireWatch((seen) => !('port' in seen) || seen.port === port)
  // A process that was killed may have left half a line.
  const lines = readFileSync(file, 'utf8').split('\n').slice(0, -1)
  for (const line of lines) watch.note(JSON.parse(line) as Seen)
  requireSound(t, watch)
}

/** @throws after saying what is wrong: a test that is being torn down can no longer fail in another way */
function requireSound(t: Test, { faults }: WireWatch): void {
  if (faults.length === 0) return
  const shown = [...new Set(faults.map(describe))]
  const more = shown.length > 10 ? `\n… and ${shown.length - 10} more` : ''
  console.error(
    `${t.fullname}: messages of the sidecar are ill-formed\n${shown.slice(0, 10).join('\n')}${more}`,
  )
  throw new Error(`${faults.length} messages of the sidecar are ill-formed; the first: ${shown[0]}`)
}
