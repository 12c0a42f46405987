import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { isLoggedAt } from '../core/mcp.ts'
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
import { asLegacyRequest } from '../era/legacy-request.ts'

/** A call of a modern client during which a legacy server does not ask. */
export class PlainCall implements UpstreamCall, UpstreamOwner, CallHandle {
  readonly principal: Principal
  readonly deadline: Deadline
  readonly message: Message
  readonly #call: ModernCall
  readonly #translate: (answer: Message, server: InitializeResult | undefined) => Message | undefined
  readonly #lease: CallLease
  readonly #handle: CallHandle

  /**
   * @param translate the server's answer into the client's; undefined if that cannot be
   * @param message what the server is sent; default: the client's request
   */
  constructor(
    call: ModernCall,
    pool: CallPool,
    translate: (answer: Message, server: InitializeResult | undefined) => Message | undefined,
    message = asLegacyRequest(call.message),
  ) {
    this.principal = call.principal
    this.deadline = call.deadline
    this.message = message
    this.#call = call
    this.#translate = translate
    this.#lease = pool.lease(this, { use: 'shared', logLevel: call.logLevel })
    this.#handle = this.#lease.call(this)
  }

  get reachable(): boolean {
    return this.#call.reachable
  }

  progress(message: Message): void {
    this.#call.progress(message)
  }

  answer(message: Message): void {
    const { server } = this.#lease
    this.#lease.release()
    const answer = this.#translate(message, server)
    if (answer !== undefined) this.#call.answer(answer)
    else this.#call.fail(new SidecarError('ERR_UPSTREAM_MESSAGE', { detail: 'a result that is no object' }))
  }

  fail(error: SidecarError): void {
    this.#lease.release()
    this.#call.fail(error)
  }

  onNotification(message: Message): void {
    if (message.method !== 'notifications/message') return
    if (isLoggedAt(this.#call.logLevel, message.paramString('level'))) this.#call.notify(message)
  }

  cancel(reason: string | undefined): void {
    this.#handle.cancel(reason)
    this.#lease.release()
  }

  waitForInput(): void {}
  onRequest(): void {}
  onEnd(): void {}
}
