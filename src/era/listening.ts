/**
 * A session's subscriptions to resources as a state machine: modern servers take all of them in one
 * `subscriptions/listen`, so each change takes a new stream, and the old one ends only when the new one is acknowledged:
 * nothing is missed and nothing comes twice.
 *
 * Pure: {@link step} takes a state and what happened, and returns the next state and what is to be done, in order.
 */
import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'

export const maxSubscriptions = 1000
/** A stream that has lasted this long was a good one; the next pause is short again. Milliseconds. */
const goodMs = 60_000
const firstPauseMs = 1000
const maxPauseMs = 60_000

/** One wish of the client, answered when it has been fulfilled. */
interface Wish {
  readonly wish: number
  readonly uri: string
  readonly on: boolean
}

interface Opening {
  readonly listen: number
  readonly wishes: readonly Wish[]
  readonly uris: ReadonlySet<string>
}

export interface ListenState {
  /** Resources of which the client has been told that it will hear. */
  readonly uris: ReadonlySet<string>
  /** The stream that delivers. */
  readonly active: number | undefined
  /** The stream that is to follow it. */
  readonly opening: Opening | undefined
  /** To be fulfilled by the stream after that. */
  readonly wishes: readonly Wish[]
  /** Streams there have been. */
  readonly listens: number
  /** Streams in a row that did not last. */
  readonly failures: number
  readonly pausing: boolean
  readonly closed: boolean
}

export type ListenEvent =
  | { readonly type: 'wish'; readonly wish: number; readonly uri: string; readonly on: boolean }
  /** Nobody waits for the answer any more. */
  | { readonly type: 'forget'; readonly wish: number }
  /** @param uris those that the server will tell about */
  | { readonly type: 'acknowledged'; readonly listen: number; readonly uris: readonly string[] }
  | { readonly type: 'notified'; readonly listen: number; readonly message: Message }
  /** No acknowledgement came in time. */
  | { readonly type: 'silent'; readonly listen: number }
  /** The server, or the way to it, ended the stream. */
  | {
      readonly type: 'ended'
      readonly listen: number
      readonly error: SidecarError
      /** Since its acknowledgement. Milliseconds. */
      readonly lastedMs: number
      /** There is no point in trying again. */
      readonly final: boolean
    }
  | { readonly type: 'resumed' }
  | { readonly type: 'closed' }

export type ListenEffect =
  | {
      readonly type: 'open'
      readonly listen: number
      readonly uris: readonly string[]
      /** Who waits for it. */
      readonly wishes: readonly number[]
    }
  | { readonly type: 'cancel'; readonly listen: number }
  | { readonly type: 'done'; readonly wish: number }
  | { readonly type: 'refuse'; readonly wish: number; readonly error: SidecarError }
  | { readonly type: 'deliver'; readonly message: Message }
  /** `resumed` follows so much later. */
  | { readonly type: 'wait'; readonly ms: number }
  | { readonly type: 'drop'; readonly what: string }

export interface ListenStep {
  readonly state: ListenState
  readonly effects: readonly ListenEffect[]
}

export function silence(): ListenState {
  return {
    uris: new Set(),
    active: undefined,
    opening: undefined,
    wishes: [],
    listens: 0,
    failures: 0,
    pausing: false,
    closed: false,
  }
}

export function step(state: ListenState, event: ListenEvent): ListenStep {
  if (state.closed) return { state, effects: [] }
  switch (event.type) {
    case 'wish': {
      const { wish, uri, on } = event
      return advance({ ...state, wishes: [...state.wishes, { wish, uri, on }] })
    }
    case 'forget':
      return { state: forget(state, event.wish), effects: [] }
    case 'acknowledged':
      return acknowledged(state, event.listen, new Set(event.uris))
    case 'notified': {
      const { listen, message } = event
      if (listen === state.active) return { state, effects: [{ type: 'deliver', message }] }
      return { state, effects: [{ type: 'drop', what: 'late_subscription' }] }
    }
    case 'silent': {
      const { listen } = event
      if (listen !== state.opening?.listen) return { state, effects: [] }
      const error = new SidecarError('ERR_TIMEOUT', { detail: 'subscriptions/listen was not acknowledged' })
      const { state: next, effects } = ended(state, listen, error, 0, false)
      return { state: next, effects: [{ type: 'cancel', listen }, ...effects] }
    }
    case 'ended':
      return ended(state, event.listen, event.error, event.lastedMs, event.final)
    case 'resumed': {
      const next = { ...state, pausing: false }
      return isWanting(next) ? open(next, next.uris, []) : { state: next, effects: [] }
    }
    case 'closed': {
      const { active, opening } = state
      const effects = [active, opening?.listen].flatMap((listen): ListenEffect[] =>
        listen === undefined ? [] : [{ type: 'cancel', listen }],
      )
      return { state: { ...silence(), closed: true }, effects }
    }
  }
}

/** Something should be heard of, and no stream brings it or is about to. */
function isWanting({ uris, active, opening }: ListenState): boolean {
  return active === undefined && opening === undefined && uris.size > 0
}

function open(state: ListenState, uris: ReadonlySet<string>, wishes: readonly Wish[]): ListenStep {
  const listen = state.listens + 1
  const effect: ListenEffect = {
    type: 'open',
    listen,
    uris: [...uris],
    wishes: wishes.map(({ wish }) => wish),
  }
  return { state: { ...state, listens: listen, opening: { listen, wishes, uris } }, effects: [effect] }
}

function forget(state: ListenState, wish: number): ListenState {
  const others = (wishes: readonly Wish[]): readonly Wish[] => wishes.filter((each) => each.wish !== wish)
  const { opening } = state
  return {
    ...state,
    wishes: others(state.wishes),
    opening: opening === undefined ? undefined : { ...opening, wishes: others(opening.wishes) },
  }
}

/** Sets out to fulfil all wishes at once, when no stream is being opened. */
function advance(state: ListenState): ListenStep {
  if (state.opening !== undefined || state.wishes.length === 0) return { state, effects: [] }
  const uris = new Set(state.uris)
  const refused: ListenEffect[] = []
  const wishes = state.wishes.filter(({ wish, uri, on }) => {
    if (!on) uris.delete(uri)
    else if (uris.size < maxSubscriptions || uris.has(uri)) uris.add(uri)
    else {
      const error = new SidecarError('ERR_OVERLOADED', { detail: 'too many subscriptions' })
      refused.push({ type: 'refuse', wish, error })
      return false
    }
    return true
  })
  const rest: ListenState = { ...state, wishes: [] }
  const unchanged = uris.size === state.uris.size && [...uris].every((uri) => state.uris.has(uri))
  if (unchanged || uris.size === 0) {
    // Nothing new is to be heard of: it takes no stream, or none any more.
    const { state: next, effects } = settle({ ...rest, uris })
    return { state: next, effects: [...refused, ...effects, ...done(wishes)] }
  }
  const { state: next, effects } = open(rest, uris, wishes)
  return { state: next, effects: [...refused, ...effects] }
}

const done = (wishes: readonly Wish[]): ListenEffect[] => wishes.map(({ wish }) => ({ type: 'done', wish }))

/** Ends a stream that brings nothing any more. */
function settle(state: ListenState): ListenStep {
  const { active, uris } = state
  if (active === undefined || uris.size > 0) return { state, effects: [] }
  return { state: { ...state, active: undefined }, effects: [{ type: 'cancel', listen: active }] }
}

function acknowledged(state: ListenState, listen: number, honoured: ReadonlySet<string>): ListenStep {
  const { opening, active } = state
  if (opening?.listen !== listen) return { state, effects: [] }
  // One that the server used to tell about stays wanted; it may do so again.
  const uris = new Set([...opening.uris].filter((uri) => state.uris.has(uri) || honoured.has(uri)))
  const effects: ListenEffect[] = active === undefined ? [] : [{ type: 'cancel', listen: active }]
  for (const { wish, uri, on } of opening.wishes) {
    if (!on || uris.has(uri) || !opening.uris.has(uri)) effects.push({ type: 'done', wish })
    else {
      const error = new SidecarError('ERR_PARAMS', { detail: 'the server does not tell about this resource' })
      effects.push({ type: 'refuse', wish, error })
    }
  }
  const settled = settle({ ...state, active: listen, opening: undefined, uris })
  const next = advance(settled.state)
  return { state: next.state, effects: [...effects, ...settled.effects, ...next.effects] }
}

function ended(
  state: ListenState,
  listen: number,
  error: SidecarError,
  lastedMs: number,
  final: boolean,
): ListenStep {
  const { opening } = state
  const wasOpening = opening?.listen === listen
  if (!wasOpening && listen !== state.active) return { state, effects: [] }
  const effects: ListenEffect[] = wasOpening
    ? opening.wishes.map(({ wish }) => ({ type: 'refuse', wish, error }))
    : []
  const failures = lastedMs >= goodMs ? 1 : state.failures + 1
  const rest: ListenState = wasOpening
    ? { ...state, opening: undefined, failures }
    : { ...state, active: undefined, failures }
  const next = advance(rest)
  effects.push(...next.effects)
  if (next.state.pausing || final || !isWanting(next.state)) return { state: next.state, effects }
  const ms = Math.min(maxPauseMs, firstPauseMs * 2 ** (failures - 1))
  return { state: { ...next.state, pausing: true }, effects: [...effects, { type: 'wait', ms }] }
}
