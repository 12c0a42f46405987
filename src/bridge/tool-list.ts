import { localEnvelope } from '../core/envelope.ts'
import { SidecarError } from '../core/errors.ts'
import { elements, member } from '../core/json.ts'
import type { Message, Span } from '../core/jsonrpc.ts'
import { localRequest } from '../core/local.ts'
import { Throttle } from '../core/throttle.ts'
import { hintsOf, noHints, type ToolHints } from '../core/tool-hints.ts'
import type { Clock, Deadline, Logger, Principal, StatelessServer } from '../core/types.ts'
import {
  asWritten,
  mayAnnotate,
  noParameters,
  type ToolParameters,
  toolName,
  toolParameters,
} from '../era/tool-parameters.ts'

export interface ToolListContext {
  readonly clock: Clock
  readonly log: Logger
}

export interface ToolListOptions {
  /** The sidecar's own version, for `clientInfo`. */
  readonly version: string
  /** All principals see the same tools. */
  readonly shared?: boolean
}

/** The server that is asked. */
export interface ListedServer extends StatelessServer {
  /** To be waited for before anything is asked; undefined, or not there, when there is no need to. */
  readonly known?: Promise<void> | undefined
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
export const youngMs = 10_000

/** What a list says of one tool. */
export interface Tool {
  /** What it demands of headers; of tools with one name, the last counts. */
  readonly parameters: ToolParameters
  /** Undefined where it is not clear: the name, or the annotations, stand twice. */
  readonly hints: ToolHints | undefined
}

/** The tools of one principal. */
export interface View {
  /** Who lists them. */
  readonly server: ListedServer
  /** Every tool of the list; undefined before there was one. */
  tools: ReadonlyMap<string, Tool> | undefined
  fetchedAt: number
  staleAt: number
  /** The list could not be had when it was last asked for; the tools are older. */
  failed: boolean
  /** Never rejects. */
  fetching: Promise<void> | undefined
}

/** One page of a list, as far as it is read here. */
interface Page {
  readonly tools: readonly (readonly [name: string, tool: Tool])[]
  readonly next: string | undefined
  readonly ttlMs: unknown
}

/**
 * What the server's own list says of its tools: asked for when somebody needs to know, remembered for each principal
 * until it changes or gets old.
 */
export class ToolList {
  readonly #server: () => ListedServer
  readonly #context: ToolListContext
  readonly #options: ToolListOptions
  /** By principal, the most recent last. */
  readonly #views = new Map<string, View>()
  #latest: View | undefined
  readonly #warnings = new Throttle(1)

  /** @param server the one of the moment */
  constructor(server: () => ListedServer, context: ToolListContext, options: ToolListOptions) {
    this.#server = server
    this.#context = context
    this.#options = options
  }

  /** The server of the moment. */
  get server(): ListedServer {
    return this.#server()
  }

  /** What is known of the tools of this principal, fresh or not. What another server has said is forgotten. */
  view(principal: Principal): View {
    const server = this.#server()
    const key = this.#options.shared === true ? '' : principal.id
    const views = this.#views
    let view = views.get(key)
    if (view?.server !== server) view = undefined
    if (view !== undefined && view === this.#latest) return view
    // Taken out before it is put in: the most recent stands last.
    if (!views.delete(key) && views.size >= maxViews) views.delete(views.keys().next().value as string)
    view ??= unknownTools(server)
    views.set(key, view)
    this.#latest = view
    return view
  }

  /**
   * Asks for the list anew; all who ask meanwhile wait for the same one. Never rejects: whether it could be had, the view
   * says.
   *
   * @param timeoutMs the longest it may take, where that is less than ten seconds
   */
  fetched(view: View, principal: Principal, timeoutMs: number): Promise<void> {
    view.fetching ??= this.#fetch(view, principal, timeoutMs)
    return view.fetching
  }

  /** Forgets the tools of a principal, or of all: the list has changed. */
  invalidate(principalId?: string): void {
    if (principalId === undefined || this.#options.shared === true) this.#views.clear()
    else this.#views.delete(principalId)
    this.#latest = undefined
  }

  async #fetch(view: View, principal: Principal, timeoutMs: number): Promise<void> {
    const { clock } = this.#context
    try {
      // Before its era is known nothing can be asked; that has a limit of its own.
      while (view.server.known !== undefined) await view.server.known
      const { tools, ttlMs } = await this.#list(view.server, principal, timeoutMs)
      view.tools = tools
      view.staleAt = clock.now() + ttlMs
      view.failed = false
    } catch (thrown) {
      const { code, detail } = SidecarError.from(thrown)
      this.#warn(
        { code, detail },
        'tools/list failed, so nothing is known of the tools but what was known before',
      )
      view.tools ??= new Map()
      view.staleAt = clock.now() + youngMs
      view.failed = true
    }
    view.fetchedAt = clock.now()
    view.fetching = undefined
  }

  /** All pages. */
  async #list(
    server: ListedServer,
    principal: Principal,
    timeoutMs: number,
  ): Promise<{ tools: ReadonlyMap<string, Tool>; ttlMs: number }> {
    const { clock } = this.#context
    const end = clock.now() + Math.min(timeoutMs, maxListMs)
    const tools = new Map<string, Tool>()
    let ttlMs = Number.POSITIVE_INFINITY
    let cursor: string | undefined
    for (let pages = 0; pages < maxPages; pages++) {
      const left = end - clock.now()
      if (left <= 0) throw new SidecarError('ERR_TIMEOUT', { detail: 'the list has too many pages' })
      const page = await this.#page(server, principal, cursor, {
        timeoutMs: left,
        maxMs: left,
        inputMs: left,
      })
      if (typeof page.ttlMs === 'number' && page.ttlMs > 0) ttlMs = Math.min(ttlMs, page.ttlMs)
      for (const [name, tool] of page.tools) {
        if (tools.size >= maxTools) break
        // Nobody knows which of them the server would call.
        tools.set(name, tools.has(name) ? { ...tool, hints: undefined } : tool)
      }
      cursor = page.next
      if (cursor === undefined || tools.size >= maxTools) break
    }
    if (cursor !== undefined)
      this.#warn({ tools: tools.size }, 'the list of tools is too long to be read whole')
    return { tools, ttlMs: Number.isFinite(ttlMs) ? Math.max(ttlMs, minFreshMs) : freshMs }
  }

  #page(
    server: ListedServer,
    principal: Principal,
    cursor: string | undefined,
    deadline: Deadline,
  ): Promise<Page> {
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
      server.call({
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

function unknownTools(server: ListedServer): View {
  const never = Number.NEGATIVE_INFINITY
  return { server, tools: undefined, fetchedAt: never, staleAt: never, failed: false, fetching: undefined }
}

/** Shared by all tools of which nothing special is said. */
const plain: Tool = Object.freeze({ parameters: noParameters, hints: noHints })

/** A tool that breaks the rules has none to be kept: clients leave it out of their lists. */
function parametersOf(tool: unknown): ToolParameters {
  const parameters = toolParameters(tool)
  return typeof parameters === 'string' ? noParameters : parameters
}

function pageOf(answered: Message): Page {
  const message = asWritten(answered)
  const { result, error } = message.parsed() as {
    readonly result?: { readonly tools?: unknown; readonly nextCursor?: unknown; readonly ttlMs?: unknown }
    readonly error?: { readonly message?: unknown }
  }
  if (message.isError) {
    const detail = `the server refused: ${String(error?.message).slice(0, 200)}`
    throw new SidecarError('ERR_UPSTREAM_MESSAGE', { detail })
  }
  const tools: unknown = result?.tools
  if (!Array.isArray(tools))
    throw new SidecarError('ERR_UPSTREAM_MESSAGE', { detail: 'a result without tools' })
  const { bytes } = message
  const spans = elements(bytes, member(bytes, message.result, 'tools') as Span)
  const annotated = mayAnnotate(bytes)
  const next = typeof result?.nextCursor === 'string' ? result.nextCursor : undefined
  return {
    tools: tools.flatMap((tool: unknown, i): [string, Tool][] => {
      const name = toolName(tool)
      if (name === undefined) return []
      const parameters = annotated ? parametersOf(tool) : noParameters
      const hints = hintsOf(message, spans[i] as Span)
      return [[name, parameters === noParameters && hints === noHints ? plain : { parameters, hints }]]
    }),
    next,
    ttlMs: result?.ttlMs,
  }
}
