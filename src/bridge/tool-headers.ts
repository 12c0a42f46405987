import type { Handler, Layer } from '../core/pipeline.ts'
import { Throttle } from '../core/throttle.ts'
import type { Admitted } from '../core/types.ts'
import { checkParameterHeaders } from '../era/headers.ts'
import { noParameters, withoutInvalidTools } from '../era/tool-parameters.ts'
import { type ToolList, type ToolListContext, type View, youngMs } from './tool-list.ts'

/**
 * Compares the `Mcp-Param-*` headers of a tool call with its arguments. Which ones a tool has is known from the
 * server's own list of tools, asked for before the first call. Where there is no list no rules apply: the
 * headers speak to others on the way, and the body alone decides what is done.
 */
export class ToolHeaders {
  readonly #list: ToolList
  readonly #context: ToolListContext
  readonly #toolWarnings = new Throttle(5)

  constructor(list: ToolList, context: ToolListContext) {
    this.#list = list
    this.#context = context
  }

  readonly #warnOfTool = (tool: string, rule: string): void => {
    const suppressed = this.#toolWarnings.take(this.#context.clock.now())
    if (suppressed !== false) {
      this.#context.log.warn(
        { tool: tool.slice(0, 100), rule },
        'a tool is hidden: its x-mcp-header is invalid',
      )
    }
  }

  /** @throws ERR_HEADER_MISMATCH */
  readonly check: Layer<Admitted, Admitted> = (admitted, next) => {
    const { era, transport, message } = admitted
    if (era !== 'modern' || transport !== 'streamable-http') return next(admitted)
    if (message.method === 'tools/list') {
      // HTTP clients must not use such tools, so they need not see them.
      admitted.exchange.onAnswer((list) => withoutInvalidTools(list, this.#warnOfTool))
    }
    if (message.method !== 'tools/call' || message.kind !== 'request') return next(admitted)
    const name = message.paramString('name')
    if (name === undefined) return next(admitted)
    const view = this.#list.view(admitted.principal)
    const now = this.#context.clock.now()
    const parameters = view.tools?.get(name)?.parameters
    const young = now - view.fetchedAt < youngMs
    if (view.failed) {
      // Only the first call waits for a server that does not answer.
      if (now >= view.staleAt) void this.#fetched(view, admitted)
    } else if (now >= view.staleAt || (parameters === undefined && !young)) {
      return this.#checkLater(view, name, admitted, next)
    }
    if (parameters !== undefined && parameters.length > 0) {
      try {
        checkParameterHeaders(message, admitted.headers, parameters)
      } catch (thrown) {
        // The client may know of a change that nobody has told us.
        if (young || view.failed) throw thrown
        return this.#checkLater(view, name, admitted, next)
      }
    }
    return next(admitted)
  }

  async #checkLater(view: View, name: string, admitted: Admitted, next: Handler<Admitted>): Promise<void> {
    const { exchange, message, headers } = admitted
    await this.#fetched(view, admitted)
    if (exchange.settled) return
    if (!exchange.attached) {
      // Nobody behind this would learn of it: the client has gone already.
      exchange.finish('cancelled')
      return
    }
    checkParameterHeaders(message, headers, view.tools?.get(name)?.parameters ?? noParameters)
    await next(admitted)
  }

  #fetched(view: View, { principal, deadline }: Admitted): Promise<void> {
    return this.#list.fetched(view, principal, deadline.timeoutMs)
  }
}
