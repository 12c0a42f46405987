import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { messageOf } from '../core/local.ts'
import type {
  CallHandle,
  Clock,
  Metrics,
  ModernCall,
  Principal,
  StatelessServer,
  Timer,
  UpstreamCall,
} from '../core/types.ts'
import { errorCode, legacyNotification } from '../era/downgrade.ts'
import { listenRequest } from '../era/envelope.ts'
import { type ListenEffect, type ListenEvent, type ListenState, silence, step } from '../era/listening.ts'

/** What a stream needs of the session's lease. */
export interface ListeningHome {
  readonly server: StatelessServer
  readonly clock: Clock
  readonly metrics: Metrics
  readonly principal: Principal
  /** Without a log level: no log message belongs to a subscription. */
  readonly listenEnvelope: readonly string[]
  notified(message: Message): void
  /** A stream has ended that was not given up. */
  lost(error: SidecarError): void
}

/** How long a stream that nobody waits for may go without an acknowledgement. Milliseconds. */
const acknowledgeMs = 60_000

const forever = {
  timeoutMs: Number.POSITIVE_INFINITY,
  maxMs: Number.POSITIVE_INFINITY,
  inputMs: Number.POSITIVE_INFINITY,
}

const methodNotFound = -32601
const invalidParams = -32602

interface Stream {
  handle: CallHandle | undefined
  /** Until it is acknowledged. */
  timer: Timer | undefined
  acknowledgedAt: number | undefined
}

/** Carries out what the state machine of a session's resource subscriptions decides (era/listening). */
export class Listening {
  readonly #home: ListeningHome
  #state: ListenState = silence()
  /** Subscribe and unsubscribe requests of the client, by number. */
  readonly #wishes = new Map<number, { readonly call: UpstreamCall; done(): void }>()
  readonly #streams = new Map<number, Stream>()
  #lastWish = 0
  #pause: Timer | undefined
  /** What happens while effects are carried out waits until they are. */
  #events: ListenEvent[] | undefined

  constructor(home: ListeningHome) {
    this.#home = home
  }

  /** @param done calls when it is as the client wants it; else the call fails */
  wish(call: UpstreamCall, uri: string, on: boolean, done: () => void): CallHandle {
    const wish = ++this.#lastWish
    this.#wishes.set(wish, { call, done })
    this.feed({ type: 'wish', wish, uri, on })
    return {
      cancel: () => {
        if (this.#wishes.delete(wish)) this.feed({ type: 'forget', wish })
      },
      waitForInput: () => {},
    }
  }

  close(): void {
    this.#wishes.clear()
    this.feed({ type: 'closed' })
    this.#pause?.cancel()
  }

  feed(event: ListenEvent): void {
    if (this.#events !== undefined) {
      this.#events.push(event)
      return
    }
    const events = [event]
    this.#events = events
    try {
      for (let next = events.shift(); next !== undefined; next = events.shift()) {
        const { state, effects } = step(this.#state, next)
        this.#state = state
        for (const effect of effects) this.#perform(effect)
      }
    } finally {
      this.#events = undefined
    }
  }

  notify(listen: number, message: Message): void {
    switch (message.method) {
      case 'notifications/subscriptions/acknowledged': {
        const stream = this.#streams.get(listen)
        if (stream === undefined) return
        stream.timer?.cancel()
        stream.acknowledgedAt ??= this.#home.clock.now()
        this.feed({ type: 'acknowledged', listen, uris: honoured(message) })
        return
      }
      case 'notifications/resources/updated':
        this.feed({ type: 'notified', listen, message })
        return
      default:
        this.#home.metrics.dropped('unwanted_notification')
    }
  }

  answered(listen: number, message: Message): void {
    const code = message.isError ? errorCode(message) : undefined
    const detail =
      code === undefined ? 'the server ended the subscription' : `subscriptions/listen: error ${code}`
    const reason = code === invalidParams ? 'ERR_PARAMS' : 'ERR_UPSTREAM_MESSAGE'
    this.ended(listen, new SidecarError(reason, { detail }), code === methodNotFound)
  }

  ended(listen: number, error: SidecarError, final = false): void {
    const stream = this.#streams.get(listen)
    if (stream === undefined) return
    this.#forget(listen, stream)
    this.#home.lost(error)
    const now = this.#home.clock.now()
    const lastedMs = now - (stream.acknowledgedAt ?? now)
    this.feed({ type: 'ended', listen, error, lastedMs, final })
  }

  #perform(effect: ListenEffect): void {
    switch (effect.type) {
      case 'open':
        this.#open(effect.listen, effect.uris, effect.wishes)
        return
      case 'cancel': {
        const stream = this.#streams.get(effect.listen)
        if (stream === undefined) return
        this.#forget(effect.listen, stream)
        stream.handle?.cancel('not needed any more')
        return
      }
      case 'done': {
        const wish = this.#wishes.get(effect.wish)
        this.#wishes.delete(effect.wish)
        wish?.done()
        return
      }
      case 'refuse': {
        const wish = this.#wishes.get(effect.wish)
        this.#wishes.delete(effect.wish)
        wish?.call.fail(effect.error)
        return
      }
      case 'deliver':
        this.#home.notified(legacyNotification(effect.message))
        return
      case 'wait':
        this.#pause = this.#home.clock.after(effect.ms, () => this.feed({ type: 'resumed' }))
        return
      case 'drop':
        this.#home.metrics.dropped(effect.what)
    }
  }

  #open(listen: number, uris: readonly string[], wishes: readonly number[]): void {
    const { clock, server } = this.#home
    const stream: Stream = { handle: undefined, timer: undefined, acknowledgedAt: undefined }
    this.#streams.set(listen, stream)
    const patience = wishes.map((wish) => this.#wishes.get(wish)?.call.deadline.timeoutMs ?? acknowledgeMs)
    stream.timer = clock.after(Math.min(acknowledgeMs, ...patience), () =>
      this.feed({ type: 'silent', listen }),
    )
    try {
      // What a client declares may be too deep to stand in an envelope.
      const message = messageOf(listenRequest(this.#home.listenEnvelope, { resourceSubscriptions: uris }))
      stream.handle = server.call(new ListenCall(listen, message, this, this.#home.principal))
    } catch (thrown) {
      this.ended(listen, SidecarError.from(thrown))
    }
  }

  #forget(listen: number, stream: Stream): void {
    this.#streams.delete(listen)
    stream.timer?.cancel()
  }
}

/** The resources that an acknowledgement names. */
function honoured(message: Message): string[] {
  const { params } = message.parsed() as {
    params?: { notifications?: { resourceSubscriptions?: unknown } | null }
  }
  const uris = params?.notifications?.resourceSubscriptions
  return Array.isArray(uris) ? uris.filter((uri) => typeof uri === 'string') : []
}

class ListenCall implements ModernCall {
  readonly message: Message
  readonly principal: Principal
  readonly deadline = forever
  readonly logLevel = undefined
  readonly reachable = true
  readonly #listen: number
  readonly #listening: Listening

  constructor(listen: number, message: Message, listening: Listening, principal: Principal) {
    this.message = message
    this.principal = principal
    this.#listen = listen
    this.#listening = listening
  }

  progress(): void {}

  notify(message: Message): void {
    this.#listening.notify(this.#listen, message)
  }

  answer(message: Message): void {
    this.#listening.answered(this.#listen, message)
  }

  fail(error: SidecarError): void {
    this.#listening.ended(this.#listen, error)
  }
}
