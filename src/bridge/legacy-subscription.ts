import type { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localRequest, messageOf } from '../core/local.ts'
import type {
  CallHandle,
  CallLease,
  CallPool,
  Deadline,
  InitializeResult,
  ModernCall,
  Principal,
  UpstreamCall,
  UpstreamOwner,
} from '../core/types.ts'
import { acknowledgement, type Filter, honoured, listensFor, tagged } from '../era/discovery.ts'

/** A `subscriptions/listen` of a modern client, served from the notifications of all processes of its principal. */
export class LegacySubscription implements UpstreamCall, UpstreamOwner, CallHandle {
  readonly principal: Principal
  readonly deadline: Deadline
  /** Answered, in the server's name, once there is a process. */
  readonly message = localRequest('initialize', {})
  readonly reachable = false
  readonly #call: ModernCall
  readonly #lease: CallLease
  readonly #handle: CallHandle
  #filter: Filter | undefined
  #over = false

  constructor(call: ModernCall, pool: CallPool) {
    this.principal = call.principal
    this.deadline = call.deadline
    this.#call = call
    this.#lease = pool.lease(this, { use: 'listening' })
    this.#handle = this.#lease.call(this)
  }

  answer(message: Message): void {
    if (this.#over) return
    const { result } = message.parsed() as { result: InitializeResult }
    const filter = honoured(this.#call.message, result.capabilities)
    this.#filter = filter
    this.#call.notify(messageOf(acknowledgement(filter, this.#id)))
    this.#lease.watch(filter.resourceSubscriptions ?? [])
  }

  fail(error: SidecarError): void {
    this.#lease.release()
    this.#call.fail(error)
  }

  cancel(reason: string | undefined): void {
    this.#over = true
    this.#handle.cancel(reason)
    this.#lease.release()
  }

  onNotification(message: Message): void {
    if (this.#filter !== undefined && listensFor(this.#filter, message.method)) {
      this.#call.notify(tagged(message, this.#id))
    }
  }

  /** The server is being stopped for good. */
  onEnd(error: SidecarError): void {
    this.fail(error)
  }

  progress(): void {}
  waitForInput(): void {}
  onRequest(): void {}

  get #id(): string {
    return this.#call.message.idText as string
  }
}
