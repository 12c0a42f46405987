import { type Capabilities, clientCapabilities } from '../core/envelope.ts'
import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localRefusal, messageOf, trustedResult } from '../core/local.ts'
import { isInteractive, isLoggedAt } from '../core/mcp.ts'
import type {
  CallHandle,
  CallLease,
  Clock,
  Deadline,
  Metrics,
  ModernCall,
  Principal,
  Timer,
  UpstreamCall,
  UpstreamOwner,
} from '../core/types.ts'
import {
  type Ending,
  nextKey,
  type ParkedCall,
  type ParkedEffect,
  type ParkedEvent,
  startParked,
  step,
} from '../era/parked-call.ts'
import { answersOf, inputRequired, type Question, questionOf } from '../era/questions.ts'

/** What a call needs of the translator it belongs to. */
export interface InteractiveHome {
  readonly clock: Clock
  readonly metrics: Metrics
  /** How long a client may take for its answers. Milliseconds. */
  readonly inputMs: number
  /** Keeps the call for a retry. @returns the requestState that names it */
  park(call: InteractiveCall, round: number): string
  forget(call: InteractiveCall): void
  /** Answers a request of the client with what the server said. */
  deliver(call: InteractiveCall, to: ModernCall, ending: Ending): void
}

/** Questions that a server puts one right after the other belong into one answer. Milliseconds. */
const windowMs = 25

/** Drives one {@link ParkedCall}: a call of a modern client on a legacy server, through all its rounds. */
export class InteractiveCall implements UpstreamCall, UpstreamOwner {
  readonly principal: Principal
  readonly deadline: Deadline
  /** As the server gets it. */
  readonly message: Message
  /** The client's first request, unchanged. */
  readonly request: Message
  readonly #home: InteractiveHome
  #lease: CallLease | undefined
  #handle: CallHandle | undefined
  #state: ParkedCall
  /** The client's request that waits. */
  #caller: ModernCall | undefined
  #timer: Timer | undefined
  /** Of the progress that the client was told last. */
  #progress = Number.NEGATIVE_INFINITY

  constructor(caller: ModernCall, message: Message, home: InteractiveHome) {
    this.principal = caller.principal
    this.deadline = caller.deadline
    this.request = caller.message
    this.message = message
    this.#caller = caller
    this.#home = home
    this.#state = startParked(undeclared)
  }

  get state(): ParkedCall {
    return this.#state
  }

  /** The process that serves it. */
  get instance(): string {
    return this.#lease?.instance ?? ''
  }

  get lease(): CallLease | undefined {
    return this.#lease
  }

  get reachable(): boolean {
    return this.#caller?.reachable === true
  }

  /** @returns what the client can do about its first request */
  start(lease: CallLease): CallHandle {
    this.#lease = lease
    this.#handle = lease.call(this)
    return this.#handleOf(this.#caller)
  }

  /** Of one request of the client: once that has been answered, its handle does nothing to the next one. */
  #handleOf(caller: ModernCall | undefined): CallHandle {
    return {
      cancel: () => {
        if (caller !== undefined && this.#caller === caller) this.#take({ type: 'left' })
      },
      // Waiting is the translator's own affair.
      waitForInput: () => {},
    }
  }

  /** The client has come back. */
  retry(caller: ModernCall): CallHandle {
    this.#timer?.cancel()
    this.#caller = caller
    if (this.#lease !== undefined) this.#lease.parked = false
    this.#handle?.waitForInput(false)
    this.#lease?.log(caller.logLevel)
    const answers = answersOf(caller.message, this.#state.open)
    this.#take({ type: 'retried', answers, declared: clientCapabilities(caller.message) })
    return this.#handleOf(caller)
  }

  progress(message: Message): void {
    const caller = this.#caller
    const span = message.params === undefined ? undefined : message.paramSpans.progress
    const value = span === undefined ? Number.NaN : Number(message.text(span))
    // Progress of one call only increases, whatever round it is in (basic/patterns/progress).
    if (caller?.message.progressToken === undefined || !(value > this.#progress)) {
      this.#home.metrics.dropped('late_progress')
      return
    }
    this.#progress = value
    caller.progress(message)
  }

  answer(message: Message): void {
    this.#take({ type: 'ended', ending: { message } })
  }

  fail(error: SidecarError): void {
    this.#take({ type: 'ended', ending: { error } })
  }

  /** The server asks during this call. */
  onRequest(message: Message): void {
    // Parsed only now: most calls are never asked anything.
    if (this.#state.declared === undeclared && this.#caller !== undefined) {
      this.#state = { ...this.#state, declared: clientCapabilities(this.#caller.message) }
    }
    const question = isInteractive(this.message.method)
      ? questionOf(message, nextKey(this.#state))
      : undefined
    // Servers ask for roots when they have just started, whatever runs; a call whose client has none goes on.
    const needless = question?.kind === 'roots' && this.#state.declared['roots'] === undefined
    if (question === undefined || needless) {
      this.#lease?.send(localRefusal(message.idText as string, -32601, 'ERR_NO_CLIENT'))
      return
    }
    this.#home.metrics.asked(message.method, this.principal)
    this.#take({ type: 'asked', question })
  }

  onNotification(message: Message): void {
    if (message.method === 'notifications/cancelled') {
      const key = message.paramKey('requestId')
      if (key !== undefined) this.#take({ type: 'withdrawn', idKey: key })
      return
    }
    if (message.method !== 'notifications/message') return
    if (isLoggedAt(this.#caller?.logLevel, message.paramString('level'))) this.#caller?.notify(message)
    else this.#home.metrics.dropped('log_message')
  }

  /** The link has failed the call already, if it had been made. */
  onEnd(): void {}

  #take(event: ParkedEvent): void {
    const [state, effects] = step(this.#state, event)
    this.#state = state
    for (const effect of effects) this.#do(effect)
  }

  #do(effect: ParkedEffect): void {
    const lease = this.#lease
    switch (effect.do) {
      case 'openWindow':
        this.#timer = this.#home.clock.after(windowMs, () => this.#take({ type: 'windowOver' }))
        return
      case 'ask':
        this.#ask(effect.questions, effect.round)
        return
      case 'tell':
        lease?.send(trustedResult(effect.idText, effect.result))
        return
      case 'refuse':
        lease?.send(localRefusal(effect.idText, -32603, 'ERR_NO_CLIENT'))
        return
      case 'cancel':
        this.#handle?.cancel(effect.reason)
        return
      case 'deliver': {
        const caller = this.#caller
        this.#caller = undefined
        if (caller !== undefined) this.#home.deliver(this, caller, effect.ending)
        return
      }
      case 'release':
        lease?.release()
        return
      case 'forget':
        this.#timer?.cancel()
        this.#home.forget(this)
        return
    }
  }

  #ask(questions: readonly Question[], round: number): void {
    const caller = this.#caller
    this.#caller = undefined
    const requestState = this.#home.park(this, round)
    this.#handle?.waitForInput(true)
    if (this.#lease !== undefined) this.#lease.parked = true
    this.#timer = this.#home.clock.after(this.#home.inputMs, () => this.#take({ type: 'expired' }))
    const result = inputRequired(questions, requestState)
    caller?.answer(trustedResult('0', result))
  }
}

/** Before anybody looked. */
const undeclared: Capabilities = Object.freeze({})

/** An error by which a call of its own kind ends: of tools as a result that says so, of others as an error. */
export function inputError(method: string, text: string): Ending {
  if (method !== 'tools/call') return { error: new SidecarError('ERR_INPUT', { detail: text }) }
  const result = { content: [{ type: 'text', text }], isError: true }
  return { message: messageOf(JSON.stringify({ jsonrpc: '2.0', id: 0, result })) }
}
