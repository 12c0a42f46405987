/** Checks the wire of every sidecar that a test starts, and fails the test for what the official schemas forbid. */
import { readFileSync } from 'node:fs'
import type { Test } from 'tap'
import { listenToWire, type Seen } from './wire-tap.ts'
import { describe, WireWatch } from './wire-watch.ts'

/** Checking while messages pass would change the timing that tests are about, keeping everything the memory. Bytes. */
const maxWaiting = 4 * 1024 * 1024

/** Why the wire of this sidecar is not checked; begins with `unchecked because`. */
export type WireOptOut = `unchecked because ${string}`

interface CheckedSidecar {
  readonly watch: WireWatch
  readonly command: string
  port: number | undefined
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
/** In the order in which it passed, whoever it belongs to: sidecars with the same command share their processes here. */
let waiting: { readonly owner: CheckedSidecar; readonly seen: Seen }[] = []
let waitingBytes = 0
const illFormed = new Set<string>()

function note(seen: Seen): void {
  const owner = ownerOf(seen)
  if (owner === undefined) return
  waiting.push({ owner, seen })
  if ('text' in seen) waitingBytes += seen.text.length
  if (waitingBytes > maxWaiting) checkWaiting()
}

function checkWaiting(): void {
  const all = waiting
  waiting = []
  waitingBytes = 0
  for (const { owner, seen } of all) owner.watch.note(seen)
}

export interface WireChecks {
  /** To be told once it is known. */
  listensOn(port: number): void
  /** What has been found so far. */
  verdict(): Pick<WireWatch, 'checked' | 'faults'>
  /** When the sidecar has stopped. @throws for what is ill-formed */
  finish(): void
}

export function checkWireOf(t: Test, command: readonly string[], optOut: WireOptOut | undefined): WireChecks {
  if (!listening) listenToWire(note)
  listening = true
  const sidecar: CheckedSidecar = {
    watch: new WireWatch(undefined, illFormed),
    command: JSON.stringify(command),
    port: undefined,
  }
  running.push(sidecar)
  return {
    listensOn: (port) => {
      sidecar.port = port
    },
    verdict: () => {
      checkWaiting()
      return sidecar.watch
    },
    finish: () => {
      running.splice(running.indexOf(sidecar), 1)
      if (optOut !== undefined) t.comment(`wire ${optOut}`)
      else {
        checkWaiting()
        requireSound(sidecar.watch)
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
  requireSound(watch)
}

/** @throws for a test that is being torn down can no longer fail in another way */
function requireSound({ faults }: WireWatch): void {
  if (faults.length === 0) return
  const shown = [...new Set(faults.map(describe))]
  const more = shown.length > 10 ? `\n… and ${shown.length - 10} more` : ''
  const count = faults.length === 1 ? '1 message' : `${faults.length} messages`
  throw new Error(`${count} of the sidecar ill-formed:\n${shown.slice(0, 10).join('\n')}${more}`)
}
