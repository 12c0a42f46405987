/**
 * A modern client's call on a legacy server, through the questions that the server asks during it. The server waits for
 * its answers on stdio; the client gets them as an `input_required` result and comes back with a retry. A pure state
 * machine: what happens comes in as an event, what is to be done goes out as effects, in order.
 */
import type { Capabilities } from '../core/envelope.ts'
import { SidecarError } from '../core/errors.ts'
import { type Message, valueKey } from '../core/jsonrpc.ts'
import { maxQuestions, missingCapability, type Question } from './questions.ts'

export interface ParkedCall {
  /**
   * `running`: a request of the client waits for the answer. `asking`: the same, and the server has asked something; more
   * questions may follow at once. `parked`: the client has been asked, no request of it waits.
   */
  readonly phase: 'running' | 'asking' | 'parked' | 'done'
  /** How often the client has been asked. */
  readonly round: number
  /** Questions so far, for their keys. */
  readonly questions: number
  /** Not answered yet. */
  readonly open: readonly Question[]
  /** Keys that the client was shown last; it cannot answer others. */
  readonly shown: readonly string[]
  /** What the client declared with its last request. */
  readonly declared: Capabilities
  /** The server's last word, which came while no request of the client waited. */
  readonly held: Ending | undefined
}

/** How the server's call ended. */
export type Ending = { readonly message: Message } | { readonly error: SidecarError }

export type ParkedEvent =
  /** The question has the key {@link nextKey}. */
  | { readonly type: 'asked'; readonly question: Question }
  | { readonly type: 'withdrawn'; readonly idKey: string }
  | { readonly type: 'windowOver' }
  | {
      readonly type: 'retried'
      readonly answers: ReadonlyMap<string, string>
      readonly declared: Capabilities
    }
  | { readonly type: 'ended'; readonly ending: Ending }
  /** The client has left the request that waits. */
  | { readonly type: 'left' }
  | { readonly type: 'expired' }

export type ParkedEffect =
  | { readonly do: 'openWindow' }
  /** Answer the client's request with the questions. Starts the time to expiry. */
  | { readonly do: 'ask'; readonly questions: readonly Question[]; readonly round: number }
  | { readonly do: 'tell'; readonly idText: string; readonly result: string }
  | { readonly do: 'refuse'; readonly idText: string }
  /** Give up the server's call. */
  | { readonly do: 'cancel'; readonly reason: string }
  | { readonly do: 'deliver'; readonly ending: Ending }
  /** The process is not needed any more. */
  | { readonly do: 'release' }
  /** No retry can come any more. */
  | { readonly do: 'forget' }

type Step = readonly [ParkedCall, readonly ParkedEffect[]]

/** Rounds after which a call fails; a server that asks for ever would hold a process for ever. */
export const maxRounds = 50

export function startParked(declared: Capabilities): ParkedCall {
  return { phase: 'running', round: 0, questions: 0, open: [], shown: [], declared, held: undefined }
}

/** The key for the call's next question. */
export function nextKey({ questions }: ParkedCall): string {
  return `q${questions + 1}`
}

export function step(state: ParkedCall, event: ParkedEvent): Step {
  if (state.phase === 'done') return [state, []]
  switch (event.type) {
    case 'asked':
      return asked(state, event.question)
    case 'withdrawn':
      return withdrawn(state, event.idKey)
    case 'windowOver':
      return state.phase === 'asking' ? ask(state) : [state, []]
    case 'retried':
      return state.phase === 'parked' ? retried(state, event.answers, event.declared) : [state, []]
    case 'ended':
      return ended(state, event.ending)
    case 'left':
      return state.phase === 'parked' ? [state, []] : giveUp(state, 'the client closed the stream', undefined)
    case 'expired':
      return state.phase === 'parked'
        ? giveUp(state, 'the client did not come back in time', undefined)
        : [state, []]
  }
}

function asked(state: ParkedCall, question: Question): Step {
  const { idText } = question
  // A server may not use an id twice, nor ask without end; it gets an error for it, not the client.
  const twice = idText !== undefined && state.open.some((each) => isAskedAs(each, valueKey(idText)))
  if (state.open.length >= maxQuestions || twice) {
    return [state, idText === undefined ? [] : [{ do: 'refuse', idText }]]
  }
  const next = { ...state, questions: state.questions + 1, open: [...state.open, question] }
  // Whether the next request of the client will declare what this needs is not known yet.
  if (state.phase === 'parked') return [next, []]
  const missing = missingCapability(question.needs, state.declared)
  if (missing !== undefined) return lacking(next, missing)
  if (state.phase === 'asking') return [next, []]
  return [{ ...next, phase: 'asking' }, [{ do: 'openWindow' }]]
}

/** Ids are the same however they are spelled. */
function isAskedAs({ idText }: Question, idKey: string): boolean {
  return idText !== undefined && valueKey(idText) === idKey
}

function withdrawn(state: ParkedCall, idKey: string): Step {
  const open = state.open.filter((each) => !isAskedAs(each, idKey))
  const phase = state.phase === 'asking' && open.length === 0 ? 'running' : state.phase
  return [{ ...state, phase, open }, []]
}

function ask(state: ParkedCall): Step {
  const round = state.round + 1
  if (round > maxRounds) return giveUp(state, 'too many rounds', new SidecarError('ERR_ROUNDS'))
  return [
    { ...state, phase: 'parked', round, shown: state.open.map(({ key }) => key) },
    [{ do: 'ask', questions: state.open, round }],
  ]
}

function retried(before: ParkedCall, answers: ReadonlyMap<string, string>, declared: Capabilities): Step {
  const state = { ...before, declared }
  // The server has given up waiting, so the answers come too late.
  if (state.held !== undefined)
    return [{ ...done(state) }, [{ do: 'deliver', ending: state.held }, { do: 'forget' }]]
  const told: ParkedEffect[] = []
  const open: Question[] = []
  for (const question of state.open) {
    const result = state.shown.includes(question.key) ? answers.get(question.key) : undefined
    if (result === undefined || question.idText === undefined) open.push(question)
    else told.push({ do: 'tell', idText: question.idText, result })
  }
  const next: ParkedCall = { ...state, open }
  if (open.length === 0) return [{ ...next, phase: 'running' }, told]
  for (const { needs } of open) {
    const missing = missingCapability(needs, declared)
    if (missing === undefined) continue
    const [last, effects] = lacking(next, missing)
    return [last, [...told, ...effects]]
  }
  const [last, effects] = ask(next)
  return [last, [...told, ...effects]]
}

function ended(state: ParkedCall, ending: Ending): Step {
  const refusals = refuseAll(state.open)
  if (state.phase !== 'parked') {
    return [done(state), [...refusals, { do: 'release' }, { do: 'deliver', ending }, { do: 'forget' }]]
  }
  // A process that died has nothing to tell that a client could use: it starts over.
  if ('error' in ending && ending.error.code === 'ERR_UPSTREAM_EXIT') {
    return [done(state), [{ do: 'release' }, { do: 'forget' }]]
  }
  // Its last word, kept from now on, holds no process.
  if (state.held !== undefined) return [state, []]
  return [{ ...state, open: [], held: ending }, [...refusals, { do: 'release' }]]
}

function lacking(state: ParkedCall, requiredCapabilities: Capabilities): Step {
  const error = new SidecarError('ERR_CAPABILITY', {
    detail: `it needs ${JSON.stringify(requiredCapabilities)}`,
    data: { requiredCapabilities },
  })
  return giveUp(state, 'the client lacks a capability', error)
}

/** @param error for the request of the client that waits */
function giveUp(state: ParkedCall, reason: string, error: SidecarError | undefined): Step {
  const effects: ParkedEffect[] = [...refuseAll(state.open)]
  if (state.held === undefined) effects.push({ do: 'cancel', reason }, { do: 'release' })
  if (error !== undefined) effects.push({ do: 'deliver', ending: { error } })
  effects.push({ do: 'forget' })
  return [done(state), effects]
}

function refuseAll(open: readonly Question[]): ParkedEffect[] {
  return open.flatMap(({ idText }) => (idText === undefined ? [] : [{ do: 'refuse' as const, idText }]))
}

function done(state: ParkedCall): ParkedCall {
  return { ...state, phase: 'done', open: [], held: undefined }
}
