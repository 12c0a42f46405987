import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import type {
  CallHandle,
  Clock,
  Deadline,
  Metrics,
  ModernCall,
  Principal,
  StatelessServer,
  Timer,
  UpstreamCall,
} from '../core/types.ts'
import { enveloped } from '../era/envelope.ts'
import {
  type CallContext,
  type CallEffect,
  type CallEvent,
  type CallState,
  type Step,
  start,
  step,
} from '../era/legacy-over-modern.ts'
import { settled } from '../era/splice.ts'

/** What a call needs of the session's lease. */
export interface RoundsHome {
  readonly server: StatelessServer
  readonly clock: Clock
  readonly metrics: Metrics
  readonly principal: Principal
  /** Of the moment: the client may change its log level between two rounds. */
  readonly envelope: readonly string[]
  readonly logLevel: string | undefined
  ask(request: Message, rounds: Rounds): void
  withdraw(id: number, reason: string, rounds: Rounds): void
  /** A log message that belongs to the call. */
  log(message: Message, rounds: Rounds): void
  ended(rounds: Rounds): void
}

/** The longest wait that timers can hold. Milliseconds. */
const longest = 2 ** 31 - 1

/** Carries out what the state machine of one call decides (era/legacy-over-modern). */
export class Rounds implements CallHandle {
  readonly call: UpstreamCall
  readonly #request: Message
  readonly #home: RoundsHome
  /** When the whole call is given up. */
  readonly #end: number
  #state: CallState | undefined
  /** The attempt that the server has, or had last. */
  #handle: CallHandle | undefined
  #pause: Timer | undefined
  #limit: Timer | undefined
  /** What happens while effects are carried out waits until they are. */
  #events: CallEvent[] | undefined

  constructor(call: UpstreamCall, home: RoundsHome) {
    this.call = call
    this.#request = settled(call.message)
    this.#home = home
    this.#end = home.clock.now() + call.deadline.maxMs
  }

  begin(context: CallContext): void {
    this.#take(start(context))
  }

  respond(id: number, message: Message): void {
    this.feed({ type: 'response', id, message })
  }

  cancel(reason: string | undefined): void {
    this.feed({ type: 'cancelled', reason })
  }

  // While the client is asked, the server has nothing of this call that could time out.
  waitForInput(): void {}

  feed(event: CallEvent): void {
    // Nothing may follow a cancellation, not even what was about to happen.
    if (event.type === 'cancelled') this.#events?.unshift(event)
    else this.#events?.push(event)
    if (this.#events === undefined && this.#state !== undefined) this.#take(step(this.#state, event))
  }

  #take(first: Step): void {
    const events: CallEvent[] = []
    this.#events = events
    try {
      let current = first
      for (;;) {
        this.#state = current.state
        if (current.state.phase === 'done') this.#over()
        for (const effect of current.effects) this.#perform(effect)
        const event = events.shift()
        if (event === undefined) break
        current = step(current.state, event)
      }
    } finally {
      this.#events = undefined
    }
  }

  #perform(effect: CallEffect): void {
    const home = this.#home
    switch (effect.type) {
      case 'send':
        this.#send(effect.attempt, enveloped(this.#request, home.envelope, effect.retry))
        return
      case 'abandon':
        this.#handle?.cancel(effect.reason)
        return
      case 'ask':
        this.#watch()
        home.ask(effect.request, this)
        return
      case 'withdraw':
        home.withdraw(effect.id, effect.reason, this)
        return
      case 'wait':
        this.#watch()
        this.#pause = home.clock.after(effect.ms, () => this.feed({ type: 'resumed' }))
        return
      case 'progress':
        this.call.progress(effect.message)
        return
      case 'log':
        home.log(effect.message, this)
        return
      case 'drop':
        home.metrics.dropped(effect.what)
        return
      case 'answer':
        this.call.answer(effect.message)
        return
      case 'fail':
        this.call.fail(effect.error)
    }
  }

  #send(attempt: number, message: Message): void {
    const { server, clock } = this.#home
    const left = Math.max(0, this.#end - clock.now())
    const { timeoutMs, inputMs } = this.call.deadline
    const deadline = { timeoutMs: Math.min(timeoutMs, left), maxMs: left, inputMs }
    try {
      this.#handle = server.call(new Attempt(attempt, message, deadline, this, this.#home))
    } catch (thrown) {
      this.feed({ type: 'failed', attempt, error: SidecarError.from(thrown) })
    }
  }

  /** Between attempts nobody else keeps the time. */
  #watch(): void {
    const { clock } = this.#home
    const left = Math.min(longest, this.#end - clock.now())
    this.#limit ??= clock.after(left, () => this.feed({ type: 'expired' }))
  }

  #over(): void {
    this.#pause?.cancel()
    this.#limit?.cancel()
    this.#home.ended(this)
  }
}

/** One round as the server sees it: a call of its own. */
class Attempt implements ModernCall {
  readonly message: Message
  readonly deadline: Deadline
  readonly principal: Principal
  readonly logLevel: string | undefined
  readonly #attempt: number
  readonly #rounds: Rounds
  readonly #metrics: Metrics

  constructor(attempt: number, message: Message, deadline: Deadline, rounds: Rounds, home: RoundsHome) {
    this.message = message
    this.deadline = deadline
    this.principal = home.principal
    this.logLevel = home.logLevel
    this.#attempt = attempt
    this.#rounds = rounds
    this.#metrics = home.metrics
  }

  get reachable(): boolean {
    return this.#rounds.call.reachable
  }

  progress(message: Message): void {
    this.#rounds.feed({ type: 'progress', attempt: this.#attempt, message })
  }

  notify(message: Message): void {
    if (message.method !== 'notifications/message') this.#metrics.dropped('unattributable')
    else this.#rounds.feed({ type: 'log', attempt: this.#attempt, message, level: this.logLevel })
  }

  answer(message: Message): void {
    this.#rounds.feed({ type: 'answer', attempt: this.#attempt, message })
  }

  fail(error: SidecarError): void {
    this.#rounds.feed({ type: 'failed', attempt: this.#attempt, error })
  }
}
