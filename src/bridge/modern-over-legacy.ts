import { randomBytes } from 'node:crypto'
import { clientCapabilities } from '../core/envelope.ts'
import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localRequest, trustedResult } from '../core/local.ts'
import { isInteractive, mayAsk } from '../core/mcp.ts'
import type {
  CallHandle,
  CallLease,
  CallPool,
  Clock,
  InitializeResult,
  Metrics,
  ModernCall,
  Principal,
  Seal,
  StatelessServer,
} from '../core/types.ts'
import { discoverResult } from '../era/discovery.ts'
import { asLegacyRequest } from '../era/legacy-request.ts'
import { type Additions, additionsOf, asksForUrls, asModernResult } from '../era/modern-result.ts'
import type { Ending } from '../era/parked-call.ts'
import {
  allNeeds,
  answersOf,
  inputRequired,
  isAccepted,
  missingCapability,
  type Question,
  urlQuestion,
  urlQuestions,
} from '../era/questions.ts'
import { acceptState, type ReissueState, refusedState, requestDigest } from '../era/request-state.ts'
import { InteractiveCall, type InteractiveHome, inputError } from './interactive-call.ts'
import { LegacySubscription } from './legacy-subscription.ts'
import { PlainCall } from './plain-call.ts'
import { UsedOnce } from './used-once.ts'

export interface LegacyContext {
  readonly clock: Clock
  readonly metrics: Metrics
  readonly seal: Seal
  /** How long a client may take for its answers. Milliseconds. */
  readonly inputMs: number
}

/** A call that a legacy server ends again and again because of some URL is given up. */
const maxReissues = 10

const noHandle: CallHandle = Object.freeze({ cancel: () => {}, waitForInput: () => {} })

/**
 * A modern client in front of a legacy server. Each call gets a share in the processes of its principal; what the server
 * asks during it goes to the client as `input_required` while the call stays open towards the server.
 */
export class LegacyBehindModern implements StatelessServer, InteractiveHome {
  readonly clock: Clock
  readonly metrics: Metrics
  readonly inputMs: number
  readonly #pool: CallPool
  readonly #context: LegacyContext
  readonly #parked = new Map<string, InteractiveCall>()
  readonly #names = new WeakMap<InteractiveCall, string>()
  readonly #reissues = new WeakMap<InteractiveCall, number>()
  readonly #used: UsedOnce
  readonly #additions = new WeakMap<InitializeResult, Additions>()

  constructor(pool: CallPool, context: LegacyContext) {
    this.#pool = pool
    this.#context = context
    this.clock = context.clock
    this.metrics = context.metrics
    this.inputMs = context.inputMs
    this.#used = new UsedOnce(context.clock)
  }

  queuedBytesOf(principal: Principal): number {
    return this.#pool.queuedBytesOf(principal)
  }

  /** Calls whose clients have been asked and have not come back. */
  get parked(): number {
    return this.#parked.size
  }

  call(call: ModernCall): CallHandle {
    try {
      return this.#route(call)
    } catch (thrown) {
      queueMicrotask(() => call.fail(SidecarError.from(thrown)))
      return noHandle
    }
  }

  #route(call: ModernCall): CallHandle {
    const { method, paramSpans } = call.message
    if (method === 'server/discover') return this.#discover(call)
    if (method === 'subscriptions/listen') {
      return new LegacySubscription(call, this.#pool)
    }
    // The dialects of tasks cannot be told apart by a server that knows one of them.
    if (method.startsWith('tasks/')) throw new SidecarError('ERR_METHOD_UNKNOWN', { detail: method })
    if (!mayAsk(method))
      return new PlainCall(call, this.#pool, (answer, server) => this.#result(answer, call, server))
    if (paramSpans.requestState !== undefined && isInteractive(method)) return this.#retry(call)
    return this.#begin(call, 0, undefined)
  }

  #begin(call: ModernCall, reissues: number, instance: string | undefined): CallHandle {
    const interactive = new InteractiveCall(call, asLegacyRequest(call.message), this)
    if (reissues > 0) this.#reissues.set(interactive, reissues)
    const { logLevel } = call
    // Log messages, too, are certain only on a process that nobody else uses.
    const alone = canBeAsked(call.message) || logLevel !== undefined
    const use = alone ? 'exclusive' : 'unasked'
    return interactive.start(this.#pool.lease(interactive, { use, logLevel, instance }))
  }

  #discover(call: ModernCall): CallHandle {
    const translate = (answer: Message): Message => {
      const { result } = answer.parsed() as { result: InitializeResult }
      return trustedResult('0', JSON.stringify(discoverResult(result)))
    }
    return new PlainCall(call, this.#pool, translate, localRequest('initialize', {}))
  }

  /** @throws ERR_REQUEST_STATE */
  #retry(call: ModernCall): CallHandle {
    const { seal, clock } = this.#context
    const { message, principal } = call
    const opened = seal.open(message.paramString('requestState') ?? '')
    const state = acceptState(opened, message, principal.id, clock.epoch())
    if (state.kind === 'wrapped') throw refusedState('of another kind')
    if (state.kind === 'reissue') return this.#reissue(call, state)
    const parked = this.#parked.get(state.call)
    if (parked === undefined) throw refusedState('of a call that is over')
    if (parked.state.phase !== 'parked' || parked.state.round !== state.round)
      throw refusedState('used before')
    return parked.retry(call)
  }

  /** What stood in the call's way has been done, so it is made once more. */
  #reissue(call: ModernCall, state: ReissueState): CallHandle {
    if (!this.#used.take(state.nonce, this.inputMs)) throw refusedState('used before')
    const asked = state.questions.map(({ key, text }) => urlQuestion(key, text))
    const answers = answersOf(call.message, asked)
    if ([...answers.values()].some((answer) => !isAccepted(answer))) {
      const ending = inputError(call.message.method, 'What the server asked the user to do was not done.')
      queueMicrotask(() => this.#end(call, ending, undefined))
      return noHandle
    }
    const left = asked.filter(({ key }) => !answers.has(key))
    if (left.length === 0) return this.#begin(call, state.round, state.instance)
    queueMicrotask(() => this.#askToVisit(call, left, state.round, state.instance))
    return noHandle
  }

  park(call: InteractiveCall, round: number): string {
    const name = this.#names.get(call) ?? randomBytes(18).toString('base64url')
    this.#names.set(call, name)
    this.#parked.set(name, call)
    return this.#context.seal.seal({
      kind: 'parked',
      principal: call.principal.id,
      digest: requestDigest(call.request),
      expires: this.clock.epoch() + this.inputMs,
      call: name,
      round,
    })
  }

  forget(call: InteractiveCall): void {
    const name = this.#names.get(call)
    if (name !== undefined) this.#parked.delete(name)
  }

  deliver(call: InteractiveCall, to: ModernCall, ending: Ending): void {
    if ('message' in ending && isInteractive(to.message.method) && asksForUrls(ending.message)) {
      this.#askForUrls(call, to, ending.message)
      return
    }
    this.#end(to, ending, call.lease)
  }

  #askForUrls(call: InteractiveCall, to: ModernCall, error: Message): void {
    const questions = urlQuestions(error)
    const round = (this.#reissues.get(call) ?? 0) + 1
    if (questions === undefined || round > maxReissues) {
      to.fail(new SidecarError(questions === undefined ? 'ERR_UPSTREAM_MESSAGE' : 'ERR_ROUNDS'))
      return
    }
    this.#askToVisit(to, questions, round, call.instance)
  }

  #askToVisit(to: ModernCall, questions: readonly Question[], round: number, instance: string): void {
    const requiredCapabilities = allNeeds(questions)
    if (missingCapability(requiredCapabilities, clientCapabilities(to.message)) !== undefined) {
      to.fail(new SidecarError('ERR_CAPABILITY', { data: { requiredCapabilities } }))
      return
    }
    const requestState = this.#context.seal.seal({
      kind: 'reissue',
      principal: to.principal.id,
      digest: requestDigest(to.message),
      expires: this.clock.epoch() + this.inputMs,
      nonce: randomBytes(18).toString('base64url'),
      round,
      instance,
      questions: questions.map(({ key, text }) => ({ key, text })),
    })
    to.answer(trustedResult('0', inputRequired(questions, requestState)))
  }

  #end(to: ModernCall, ending: Ending, lease: CallLease | undefined): void {
    if ('error' in ending) {
      to.fail(ending.error)
      return
    }
    const result = this.#result(ending.message, to, lease?.server)
    if (result === undefined) {
      to.fail(new SidecarError('ERR_UPSTREAM_MESSAGE', { detail: 'a result that is no object' }))
    } else to.answer(result)
  }

  #result(
    answer: Message,
    { message }: ModernCall,
    server: InitializeResult | undefined,
  ): Message | undefined {
    let additions = server === undefined ? noAdditions : this.#additions.get(server)
    if (additions === undefined) {
      additions = additionsOf(server?.serverInfo)
      if (server !== undefined) this.#additions.set(server, additions)
    }
    return asModernResult(answer, message, additions)
  }
}

/** The client has declared something that a server could ask it for. */
function canBeAsked(message: Message): boolean {
  const span = message.metaSpans?.clientCapabilities
  if (span === undefined || span.end - span.start === 2) return false
  const declared = clientCapabilities(message)
  return ['sampling', 'elicitation', 'roots'].some((name) => declared[name] !== undefined)
}

const noAdditions = additionsOf(undefined)
