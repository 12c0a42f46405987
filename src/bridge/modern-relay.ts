import { declaresExtension } from '../core/envelope.ts'
import { SidecarError } from '../core/errors.ts'
import { elements, member } from '../core/json.ts'
import type { Message, Span } from '../core/jsonrpc.ts'
import { isModernVersion, tasksExtension } from '../core/mcp.ts'
import { listenedFor } from '../core/operation.ts'
import type {
  CallHandle,
  Clock,
  Deadline,
  Metrics,
  ModernCall,
  Principal,
  Seal,
  StatelessServer,
} from '../core/types.ts'
import { binary } from '../core/wire.ts'
import { acceptState, refusedState, requestDigest } from '../era/request-state.ts'
import type { TaskOwners } from './task-owners.ts'

export interface RelayContext {
  readonly clock: Clock
  readonly metrics: Metrics
  readonly seal: Seal
  readonly tasks: TaskOwners
}

/** How long a client may take to come back with a server's requestState. Milliseconds. */
const wrappedMs = 60 * 60 * 1000

/** They are remembered. Characters. */
const maxTaskId = 1024

const noHandle: CallHandle = Object.freeze({ cancel: () => {}, waitForInput: () => {} })

/**
 * A modern client in front of a modern server. Everything passes as it is but two kinds of handles: a requestState is
 * wrapped, so that only the principal it was given to can bring it back, with the same request; and a task is known
 * only to the principal that started it.
 */
export class ModernRelay implements StatelessServer {
  readonly #server: StatelessServer
  readonly #context: RelayContext

  constructor(server: StatelessServer, context: RelayContext) {
    this.#server = server
    this.#context = context
  }

  queuedBytesOf(principal: Principal): number {
    return this.#server.queuedBytesOf(principal)
  }

  call(call: ModernCall): CallHandle {
    try {
      return this.#server.call(new RelayedCall(call, this.#forwarded(call), this.#context))
    } catch (thrown) {
      queueMicrotask(() => call.fail(SidecarError.from(thrown)))
      return noHandle
    }
  }

  /** The request as the server gets it. @throws ERR_REQUEST_STATE, ERR_TASK_UNKNOWN, ERR_PARAMS */
  #forwarded({ message, principal }: ModernCall): Message {
    const { method } = message
    if (method.startsWith('tasks/')) {
      const id = message.paramString('taskId')
      // A server that looks tasks up by it may take `["t"]`, or 7, for the task of that name.
      if (id === undefined && message.paramSpans.taskId !== undefined)
        throw new SidecarError('ERR_PARAMS', { detail: `${method}: its taskId is no text` })
      if (id !== undefined) this.#checkTask(id, message, principal)
    } else if (method === 'subscriptions/listen') {
      for (const id of listenedFor(message, 'taskIds')) this.#checkTask(id, message, principal)
    }
    const at = message.paramSpans.requestState
    if (at === undefined) return message
    const { seal, clock } = this.#context
    const opened = seal.open(message.string(at) ?? '')
    const state = acceptState(opened, message, principal.id, clock.epoch())
    if (state.kind !== 'wrapped') throw refusedState('of another kind')
    return message.edited({ ...at, text: binary(Buffer.from(state.state)) })
  }

  #checkTask(id: string, message: Message, principal: Principal): void {
    if (!declaresExtension(message, tasksExtension)) throw needsTasks('a method of tasks')
    if (!this.#context.tasks.owns(id, principal.id)) throw new SidecarError('ERR_TASK_UNKNOWN')
  }
}

class RelayedCall implements ModernCall {
  readonly message: Message
  readonly principal: Principal
  readonly deadline: Deadline
  readonly logLevel: string | undefined
  readonly #call: ModernCall
  readonly #context: RelayContext

  constructor(call: ModernCall, message: Message, context: RelayContext) {
    this.message = message
    this.principal = call.principal
    this.deadline = call.deadline
    this.logLevel = call.logLevel
    this.#call = call
    this.#context = context
  }

  get reachable(): boolean {
    return this.#call.reachable
  }

  progress(message: Message): void {
    this.#call.progress(message)
  }

  notify(message: Message): void {
    this.#call.notify(message)
  }

  fail(error: SidecarError): void {
    this.#call.fail(error)
  }

  answer(message: Message): void {
    // Almost all results are spelled like this, and need not be read any further.
    const span = message.resultSpans?.resultType
    const type = span === undefined || message.text(span) === '"complete"' ? undefined : message.string(span)
    if (type === 'input_required') this.#answerWrapped(message)
    else if (type === 'task') this.#answerTask(message)
    else if (this.message.method === 'server/discover') this.#call.answer(ourVersions(message))
    else this.#call.answer(message)
  }

  #answerWrapped(message: Message): void {
    let wrapped: Message
    try {
      wrapped = this.#wrapped(message)
    } catch (thrown) {
      this.#call.fail(SidecarError.from(thrown))
      return
    }
    this.#call.answer(wrapped)
  }

  #wrapped(message: Message): Message {
    const at = message.resultSpans?.requestState
    if (at === undefined) return message
    const { seal, clock } = this.#context
    const text = seal.seal({
      kind: 'wrapped',
      principal: this.principal.id,
      digest: requestDigest(this.message),
      expires: clock.epoch() + wrappedMs,
      state: message.text(at),
    })
    return message.edited({ ...at, text: JSON.stringify(text) })
  }

  #answerTask(message: Message): void {
    if (!declaresExtension(this.message, tasksExtension)) {
      this.#call.fail(needsTasks('the server made a task'))
      return
    }
    const id = message.string(member(message.bytes, message.result, 'taskId'))
    if (id === undefined || id.length > maxTaskId) {
      this.#call.fail(new SidecarError('ERR_UPSTREAM_MESSAGE', { detail: 'a task without a usable taskId' }))
      return
    }
    this.#context.tasks.add(id, this.principal.id)
    this.#call.answer(message)
  }
}

function needsTasks(detail: string): SidecarError {
  const requiredCapabilities = { extensions: { [tasksExtension]: {} } }
  return new SidecarError('ERR_CAPABILITY', { detail, data: { requiredCapabilities } })
}

/** Only versions that are served here: one that is listed invites requests that claim it. */
function ourVersions(message: Message): Message {
  const at = member(message.bytes, message.result, 'supportedVersions')
  if (at === undefined) return message
  const ours = elements(message.bytes, at).filter((each: Span) => isModernVersion(message.string(each) ?? ''))
  return message.edited({ ...at, text: `[${ours.map((each) => message.text(each)).join(',')}]` })
}
