import { mayAsk } from '../core/mcp.ts'
import type { PendingCall, Suspect } from './pending.ts'

/**
 * Which call a request or log message of a legacy server belongs to. The wire does not say, so on a process that
 * serves one session alone the latest interactive call is taken (a wrong guess stays within that session).
 */
export function latestCall(pending: Iterable<PendingCall>): PendingCall | undefined {
  let only: PendingCall | undefined
  let latest: PendingCall | undefined
  let count = 0
  for (const each of pending) {
    only = each
    count++
    if (mayAsk(each.call.message.method)) latest = later(latest, each)
  }
  return latest ?? (count === 1 ? only : undefined)
}

/** A client that has left one of its calls is asked on another one. */
function later(before: PendingCall | undefined, after: PendingCall): PendingCall {
  return before?.call.reachable === true && !after.call.reachable ? before : after
}

/**
 * The same on a process that several sessions share: an answer only if every interactive call that may be running
 * belongs to one session. Guessing would show one user's question to another.
 *
 * @param suspects calls given up on; they count like running ones
 * @param cleared whether a suspect can no longer matter to this owner
 */
export function exactCall(
  pending: Iterable<PendingCall>,
  suspects: Iterable<Suspect>,
  cleared: (suspect: Suspect, owner: unknown) => boolean,
): PendingCall | 'nobody' | 'ambiguous' {
  let latest: PendingCall | undefined
  for (const each of pending) {
    if (!mayAsk(each.call.message.method)) continue
    if (latest !== undefined && latest.owner !== each.owner) return 'ambiguous'
    latest = later(latest, each)
  }
  if (latest === undefined) return 'nobody'
  for (const suspect of suspects) {
    if (suspect.owner !== latest.owner && !cleared(suspect, latest.owner)) return 'ambiguous'
  }
  return latest
}
