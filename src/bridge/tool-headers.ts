import { localEnvelope } from '../core/envelope.ts'
import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localRequest } from '../core/local.ts'
import type { Handler, Layer } from '../core/pipeline.ts'
import { Throttle } from '../core/throttle.ts'
import type { Admitted, Clock, Deadline, Logger, Principal, StatelessServer } from '../core/types.ts'
import { checkParameterHeaders } from '../era/headers.ts'
import {
  mayAnnotate,
  noParameters,
  type ToolParameters,
  toolName,
  toolParameters,
  withoutInvalidTools,
} from '../era/tool-parameters.ts'

export interface ToolHeadersContext {
  readonly clock: Clock
  readonly log: Logger
}

export interface ToolHeadersOptions {
  /** The sidecar's own version, for `clientInfo`. */
  readonly version: string
  /** All principals see the same tools. */
  readonly shared?: boolean
}

/** Principals whose tools are remembered; beyond them the least recent is forgotten. */
const maxViews = 1000
/** What is read of a list; of tools behind that nothing is known. */
const maxPages = 50
const maxTools = 10_000
/** How long a list without a word about it stays good. Milliseconds. */
const freshMs = 5 * 60 * 1000
/** The shortest of a server's own wishes that is heeded: a list for each call would be half of its work. Milliseconds. */
const minFreshMs = 1000
/** A server that does not tell its tools holds its calls up no longer than this. Milliseconds. */
const maxListMs = 10_000
/** A list that is younger is not asked for again because it failed, lacks a tool or refuses a call. Milliseconds. */
const youngMs = 10_000

/** What one principal's tools demand of headers. */
interface View {
  /** Every tool of the list; undefined before there was one. */
  tools: ReadonlyMap<string, ToolParameters> | undefined
  fetchedAt: number
  staleAt: number
  /** The list could not be had when it was last asked for. */
  failed: boolean
  /** Never rejects. */
  fetching: Promise<void> | undefined
}

/** One page of a list, as far as it is read here. */
interface Page {
  readonly tools: readonly unknown[]
  readonly annotated: boolean
  readonly next: string | undefined
  readonly ttlMs: unknown
}

/**
 * Compares the `Mcp-Param-*` headers of a tool call with its arguments. Which ones a tool has is known from the
 * server's own list of tools, asked for before the first call. Where there is no list no rules apply: the
 * headers speak to others on the way, and the body alone decides what is done.
 */
export class ToolHeaders {
  readonly #server: () => StatelessServer
  readonly #context: ToolHeadersContext
  readonly #options: ToolHeadersOptions
  /** By principal, the most recent last. */
  readonly #views = new Map<string, View>()
  #latest: View | undefined
  readonly #warnings = new Throttle(1)
  readonly #toolWarnings = new Throttle(5)

  /** @param server the one of the moment */
  constructor(server: () => StatelessServer, context: ToolHeadersContext, options: ToolHeadersOptions) {
    this.#server = server
    this.#context = context
    this.#options = options
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
    const view = this.#view(admitted.principal)
    const now = this.#context.clock.now()
    const parameters = view.tools?.get(name)
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

  /** Forgets the tools of a principal, or of all: the list has changed. */
  invalidate(principalId?: string): void {
    if (principalId === undefined || this.#options.shared === true) this.#views.clear()
    else this.#views.delete(principalId)
    this.#latest = undefined
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
    checkParameterHeaders(message, headers, view.tools?.get(name) ?? noParameters)
    await next(admitted)
  }

  #view(principal: Principal): View {
    const key = this.#options.shared === true ? '' : principal.id
    const views = this.#views
    let view = views.get(key)
    if (view !== undefined && view === this.#latest) return view
    if (view === undefined) {
      const never = Number.NEGATIVE_INFINITY
      view = { tools: undefined, fetchedAt: never, staleAt: never, failed: false, fetching: undefined }
      if (views.size >= maxViews) views.delete(views.keys().next().value as string)
    } else views.delete(key)
    views.set(key, view)
    this.#latest = view
    return view
  }

  /** All who ask meanwhile wait for the same list. */
  #fetched(view: View, { principal, deadline }: Admitted): Promise<void> {
    view.fetching ??= this.#fetch(view, principal, deadline)
    return view.fetching
  }

  async #fetch(view: View, principal: Principal, deadline: Deadline): Promise<void> {
    const { clock } = this.#context
    try {
      const { tools, ttlMs } = await this.#list(principal, deadline)
      view.tools = tools
      view.staleAt = clock.now() + ttlMs
      view.failed = false
    } catch (thrown) {
      const { code, detail } = SidecarError.from(thrown)
      this.#warn({ code, detail }, 'tools/list failed, so Mcp-Param-* headers are not compared')
      // What was known goes on to apply; the client has nothing newer either.
      view.tools ??= new Map()
      view.staleAt = clock.now() + youngMs
      view.failed = true
    }
    view.fetchedAt = clock.now()
    view.fetching = undefined
  }

  /** All pages, in less time than a call may take. */
  async #list(
    principal: Principal,
    deadline: Deadline,
  ): Promise<{ tools: ReadonlyMap<string, ToolParameters>; ttlMs: number }> {
    const { clock } = this.#context
    const end = clock.now() + Math.min(deadline.timeoutMs, maxListMs)
    const tools = new Map<string, ToolParameters>()
    let ttlMs = Number.POSITIVE_INFINITY
    let cursor: string | undefined
    for (let pages = 0; pages < maxPages; pages++) {
      const left = end - clock.now()
      if (left <= 0) throw new SidecarError('ERR_TIMEOUT', { detail: 'the list has too many pages' })
      const page = await this.#page(principal, cursor, { timeoutMs: left, maxMs: left, inputMs: left })
      if (typeof page.ttlMs === 'number' && page.ttlMs > 0) ttlMs = Math.min(ttlMs, page.ttlMs)
      for (const tool of page.tools) {
        if (tools.size >= maxTools) break
        const name = toolName(tool)
        if (name !== undefined) tools.set(name, page.annotated ? parametersOf(tool) : noParameters)
      }
      cursor = page.next
      if (cursor === undefined || tools.size >= maxTools) break
    }
    if (cursor !== undefined)
      this.#warn({ tools: tools.size }, 'the list of tools is too long to be read whole')
    return { tools, ttlMs: Number.isFinite(ttlMs) ? Math.max(ttlMs, minFreshMs) : freshMs }
  }

  #page(principal: Principal, cursor: string | undefined, deadline: Deadline): Promise<Page> {
    const _meta = localEnvelope(this.#options.version)
    const message = localRequest('tools/list', { ...(cursor === undefined ? {} : { cursor }), _meta })
    return new Promise((resolve, reject) => {
      const answer = (answered: Message): void => {
        try {
          resolve(pageOf(answered))
        } catch (thrown) {
          reject(SidecarError.from(thrown))
        }
      }
      const ignore = (): void => {}
      this.#server().call({
        ...{ message, principal, deadline, logLevel: undefined, reachable: false },
        ...{ answer, fail: reject, progress: ignore, notify: ignore },
      })
    })
  }

  #warn(fields: object, text: string): void {
    const suppressed = this.#warnings.take(this.#context.clock.now())
    if (suppressed === false) return
    this.#context.log.warn(suppressed === 0 ? fields : { ...fields, suppressed }, text)
  }
}

/** A tool that breaks the rules has none to be kept: clients leave it out of their lists. */
function parametersOf(tool: unknown): ToolParameters {
  const parameters = toolParameters(tool)
  return typeof parameters === 'string' ? noParameters : parameters
}

function pageOf(message: Message): Page {
  const { result, error } = message.parsed() as {
    readonly result?: { readonly tools?: unknown; readonly nextCursor?: unknown; readonly ttlMs?: unknown }
    readonly error?: { readonly message?: unknown }
  }
  if (message.isError) {
    const detail = `the server refused: ${String(error?.message).slice(0, 200)}`
    throw new SidecarError('ERR_UPSTREAM_MESSAGE', { detail })
  }
  const tools = result?.tools
  if (!Array.isArray(tools))
    throw new SidecarError('ERR_UPSTREAM_MESSAGE', { detail: 'a result without tools' })
  const next = typeof result?.nextCursor === 'string' ? result.nextCursor : undefined
  return { tools, annotated: mayAnnotate(message.bytes), next, ttlMs: result?.ttlMs }
}
