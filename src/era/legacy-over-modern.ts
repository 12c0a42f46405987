/**
 * One call of a client of the handshake era to a modern server, as a state machine. Such a server asks by ending the
 * call with `input_required`; the client is asked in requests of its own, and the call is made anew with its answers.
 *
 * Pure: {@link step} takes a state and what happened, and returns the next state and what is to be done, in order.
 */
import { SidecarError } from '../core/errors.ts'
import { member } from '../core/json.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localResult } from '../core/local.ts'
import { isInteractive, logLevels } from '../core/mcp.ts'
import { errorCode, legacyError, legacyResult } from './downgrade.ts'
import type { LegacyClient, Retry } from './envelope.ts'
import { type InputMethod, maxQuestions, readInputRequired } from './input-requests.ts'
import { isObjectAt, settled } from './splice.ts'

export const maxRounds = 10
/** Ids of requests to the client that one call may use. */
export const idsPerCall = maxRounds * maxQuestions
/** Before a call is made anew for which the server asked nothing. Milliseconds. */
export const pauseMs = 250

export interface CallContext {
  readonly method: string
  readonly client: LegacyClient
  /** The first of {@link idsPerCall} ids. */
  readonly firstId: number
  /** Begins each elicitationId; unique among all sessions. */
  readonly elicitations: string
}

interface Question {
  readonly id: number
  /** As the server spelled it. */
  readonly key: string
  readonly method: InputMethod
  /** The client's result as JSON text, once there is one. */
  readonly response: string | undefined
}

export interface CallState {
  readonly context: CallContext
  /** running: the server has it; asking: the client has questions; pausing: neither; done: nothing follows. */
  readonly phase: 'running' | 'asking' | 'pausing' | 'done'
  /** Which attempt the server has, or had last. */
  readonly attempt: number
  readonly rounds: number
  /** Ids that have been used. */
  readonly asked: number
  readonly questions: readonly Question[]
  /** JSON text, for the next attempt. */
  readonly requestState: string | undefined
  /** The highest that the client has been told. */
  readonly progress: number
}

export type CallEvent =
  | { readonly type: 'answer'; readonly attempt: number; readonly message: Message }
  | { readonly type: 'failed'; readonly attempt: number; readonly error: SidecarError }
  | { readonly type: 'progress'; readonly attempt: number; readonly message: Message }
  /** @param level what the attempt wanted to hear of */
  | {
      readonly type: 'log'
      readonly attempt: number
      readonly message: Message
      readonly level: string | undefined
    }
  /** A response of the client to the request with this id. */
  | { readonly type: 'response'; readonly id: number; readonly message: Message }
  | { readonly type: 'resumed' }
  /** The time for the whole call is over. */
  | { readonly type: 'expired' }
  /** Nobody wants the answer any more. */
  | { readonly type: 'cancelled'; readonly reason: string | undefined }

export type CallEffect =
  /** Makes the call, anew if there is a retry. */
  | { readonly type: 'send'; readonly attempt: number; readonly retry: Retry | undefined }
  /** Cancels the attempt that is running. */
  | { readonly type: 'abandon'; readonly attempt: number; readonly reason: string | undefined }
  | { readonly type: 'ask'; readonly id: number; readonly request: Message }
  | { readonly type: 'withdraw'; readonly id: number; readonly reason: string }
  /** `resumed` follows so much later. */
  | { readonly type: 'wait'; readonly ms: number }
  | { readonly type: 'progress'; readonly message: Message }
  | { readonly type: 'log'; readonly message: Message }
  | { readonly type: 'answer'; readonly message: Message }
  | { readonly type: 'fail'; readonly error: SidecarError }
  | { readonly type: 'drop'; readonly what: string }

export interface Step {
  readonly state: CallState
  readonly effects: readonly CallEffect[]
}

export function start(context: CallContext): Step {
  const state: CallState = {
    context,
    phase: 'running',
    attempt: 1,
    rounds: 0,
    asked: 0,
    questions: [],
    requestState: undefined,
    progress: Number.NEGATIVE_INFINITY,
  }
  return { state, effects: [{ type: 'send', attempt: 1, retry: undefined }] }
}

export function step(state: CallState, event: CallEvent): Step {
  if ('attempt' in event && (state.phase !== 'running' || event.attempt !== state.attempt)) {
    return same(state, { type: 'drop', what: `late_${event.type}` })
  }
  switch (event.type) {
    case 'answer':
      return answered(state, settled(event.message))
    case 'failed':
      return end(state, { type: 'fail', error: event.error })
    case 'progress':
      return progressed(state, event.message)
    case 'log': {
      const { message, level } = event
      if (isHeard(message, level)) return same(state, { type: 'log', message })
      return same(state, { type: 'drop', what: 'unwanted_log' })
    }
    case 'response':
      return responded(state, event.id, settled(event.message))
    case 'resumed':
      return state.phase === 'pausing' ? retry(state) : same(state)
    case 'expired': {
      if (state.phase === 'done') return same(state)
      const error = new SidecarError('ERR_TIMEOUT', { detail: `no answer to ${state.context.method}` })
      return end(state, ...leave(state, 'the deadline passed'), { type: 'fail', error })
    }
    case 'cancelled':
      if (state.phase === 'done') return same(state)
      return end(state, ...leave(state, event.reason))
  }
}

const same = (state: CallState, ...effects: CallEffect[]): Step => ({ state, effects })

function end(state: CallState, ...effects: CallEffect[]): Step {
  return { state: { ...state, phase: 'done', questions: [], requestState: undefined }, effects }
}

/** What is open, upstream or at the client, is given up. */
function leave(state: CallState, reason: string | undefined): CallEffect[] {
  if (state.phase === 'running') return [{ type: 'abandon', attempt: state.attempt, reason }]
  return withdrawals(state.questions, reason ?? 'cancelled')
}

function withdrawals(questions: readonly Question[], reason: string): CallEffect[] {
  return questions
    .filter(({ response }) => response === undefined)
    .map(({ id }): CallEffect => ({ type: 'withdraw', id, reason }))
}

function answered(state: CallState, message: Message): Step {
  const { context } = state
  if (message.isError) return refused(state, message)
  if (!isObjectAt(message.bytes, message.result)) return unusable(state, 'a result that is no object')
  const isTyped = message.resultSpans?.resultType !== undefined
  const resultType = isTyped ? message.resultString('resultType') : 'complete'
  if (resultType === 'complete') {
    return end(state, { type: 'answer', message: legacyResult(message, context.method) })
  }
  if (resultType !== 'input_required') return unusable(state, 'a result of another type')
  if (!isInteractive(context.method)) return unusable(state, 'input_required where it is not allowed')
  return ask(state, message)
}

/** Modern codes that a client of the handshake era would take for something else. */
const missingCapability = -32021
const unsupportedVersion = -32022

function refused(state: CallState, message: Message): Step {
  const { method } = state.context
  switch (errorCode(message)) {
    case missingCapability:
      return end(state, noInput(method, 'It needs a capability that this client did not declare.'))
    case unsupportedVersion:
      return unusable(state, 'a refusal of the version it had named')
    default:
      return end(state, { type: 'answer', message: legacyError(message, method) })
  }
}

function unusable(state: CallState, what: string): Step {
  const error = new SidecarError('ERR_UPSTREAM_MESSAGE', { detail: `${state.context.method}: ${what}` })
  return end(state, { type: 'fail', error })
}

/** The call cannot go on without input: a model learns so from the result of its tool, others from an error. */
function noInput(method: string, sentence: string): CallEffect {
  if (method !== 'tools/call')
    return { type: 'fail', error: new SidecarError('ERR_INPUT', { detail: sentence }) }
  const content = [{ type: 'text', text: `The tool could not finish. ${sentence}` }]
  return { type: 'answer', message: localResult('0', { content, isError: true }) }
}

const called: Readonly<Record<InputMethod, string>> = {
  'elicitation/create': 'input of the user',
  'sampling/createMessage': 'sampling',
  'roots/list': 'roots',
}

/** What a server is told of an elicitation that nobody saw or answered. */
const dismissed = '{"action":"cancel"}'

function ask(state: CallState, message: Message): Step {
  const { context, rounds } = state
  if (rounds >= maxRounds) {
    const detail = `${context.method}: input_required more than ${maxRounds} times`
    return end(state, { type: 'fail', error: new SidecarError('ERR_ROUNDS', { detail }) })
  }
  const naming = { firstId: context.firstId + state.asked, elicitations: context.elicitations }
  let input: ReturnType<typeof readInputRequired>
  try {
    input = readInputRequired(message, context.client, naming)
  } catch (thrown) {
    return end(state, { type: 'fail', error: SidecarError.from(thrown) })
  }
  const { requests, requestState } = input
  const impossible = requests.find(({ possible, method }) => !possible && method !== 'elicitation/create')
  if (impossible !== undefined) {
    const sentence = `It asked for ${called[impossible.method]}, which this client does not offer.`
    return end(state, noInput(context.method, sentence))
  }
  const next: CallState = {
    ...state,
    rounds: rounds + 1,
    asked: state.asked + requests.length,
    requestState,
    questions: requests.map(({ id, key, method, possible }) => {
      return { id, key, method, response: possible ? undefined : dismissed }
    }),
  }
  if (requests.length === 0) {
    return { state: { ...next, phase: 'pausing' }, effects: [{ type: 'wait', ms: pauseMs }] }
  }
  const asking = requests.filter(({ possible }) => possible)
  if (asking.length === 0) return retry(next)
  const effects = asking.map(({ id, request }): CallEffect => ({ type: 'ask', id, request }))
  return { state: { ...next, phase: 'asking' }, effects }
}

function responded(state: CallState, id: number, message: Message): Step {
  const question = state.questions.find((each) => each.id === id && each.response === undefined)
  if (state.phase !== 'asking' || question === undefined) {
    return same(state, { type: 'drop', what: 'unexpected_response' })
  }
  const { result } = message
  let response: string
  if (isObjectAt(message.bytes, result)) response = message.text(result)
  else if (question.method === 'elicitation/create') response = dismissed
  else {
    const others = withdrawals(
      state.questions.filter((each) => each !== question),
      'the call has failed',
    )
    const sentence = `It asked for ${called[question.method]}, which this client refused.`
    return end(state, ...others, noInput(state.context.method, sentence))
  }
  const questions = state.questions.map((each) => (each === question ? { ...each, response } : each))
  const next = { ...state, questions }
  return questions.every((each) => each.response !== undefined) ? retry(next) : same(next)
}

/** The same request again, with the answers and the state that the server gave us to keep. */
function retry(state: CallState): Step {
  const { questions, requestState } = state
  const attempt = state.attempt + 1
  const answers = questions.map(({ key, response }) => `${key}:${response}`)
  const inputResponses = questions.length === 0 ? undefined : `{${answers.join(',')}}`
  const next: CallState = { ...state, phase: 'running', attempt, questions: [], requestState: undefined }
  return { state: next, effects: [{ type: 'send', attempt, retry: { inputResponses, requestState } }] }
}

/** The rounds of a call are one call to its client: progress must not begin anew with each. */
function progressed(state: CallState, message: Message): Step {
  const { bytes, params } = message
  const at = member(bytes, params, 'progress')
  const progress = at === undefined ? Number.NaN : Number(bytes.toString('utf8', at.start, at.end))
  if (!(progress > state.progress)) return same(state, { type: 'drop', what: 'stale_progress' })
  return { state: { ...state, progress }, effects: [{ type: 'progress', message }] }
}

function isHeard(message: Message, level: string | undefined): boolean {
  const levels: readonly (string | undefined)[] = logLevels
  return level !== undefined && levels.indexOf(message.paramString('level')) >= levels.indexOf(level)
}
