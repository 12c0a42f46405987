/** Asks issuers for documents, without trusting what answers, nor what a document sends us on to. */
import { X509Certificate } from 'node:crypto'
import { Agent as HttpAgent, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, type RequestOptions } from 'node:https'
import type { Fetching } from '../core/policy.ts'
import { type Answered, boundedRequest, FetchError } from './bounded-request.ts'
import { createDestinations } from './destinations.ts'
import { messageOf, readFile, type TokenDeps, TokenMethodError } from './token-method.ts'

export { FetchError } from './bounded-request.ts'

export type JsonObject = Record<string, unknown>

export interface Asking {
  readonly method?: 'GET' | 'POST'
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** Of the answer. Default 1 MiB. */
  readonly maxBytes?: number
}

export interface Fetcher {
  /** @throws TokenMethodError for a URL of the configuration that must not be asked; `what` names it */
  check(url: string, what: string): void
  /**
   * The JSON object that a URL answers with, whatever media type it claims. Nothing is followed, no redirect either.
   *
   * @throws FetchError when there is none: not allowed, not reachable, late, too large, not 200, not JSON
   */
  json(url: string, asking?: Asking): Promise<JsonObject>
  /** Ends what is under way. */
  close(): void
}

/** Of one fetcher at a time; more wait, not longer than their timeout. */
const maxSockets = 16
const defaultMaxBytes = 1024 * 1024

/**
 * Fetches within the bounds of `fetching`: https with verified certificates, or http to this machine where allowed; to
 * public addresses, or any where allowed. The addresses that are checked are those that are dialled, so that a name
 * cannot lead elsewhere in between (DNS rebinding).
 *
 * @throws TokenMethodError for a CA file that cannot be read or holds no certificate
 */
export function createFetcher(
  fetching: Fetching,
  deps: Pick<TokenDeps, 'clock' | 'readText' | 'resolve'>,
): Fetcher {
  const { clock } = deps
  const ca = trustOf(fetching.caFile, deps)
  ca()
  const agents = { 'http:': new HttpAgent({ maxSockets }), 'https:': new HttpsAgent({ maxSockets }) }

  const destinations = createDestinations(fetching, deps.resolve)

  const send = (url: URL, asking: Asking): Promise<Answered> => {
    const { method = 'GET', headers = {}, body, maxBytes = defaultMaxBytes } = asking
    const roots = ca()
    const options: RequestOptions = {
      method,
      headers: {
        accept: 'application/json',
        'user-agent': 'mcp-sidecar',
        ...headers,
        'accept-encoding': 'identity',
      },
      agent: url.protocol === 'http:' ? agents['http:'] : agents['https:'],
      lookup: destinations.lookup(url.protocol),
      ...(roots === undefined ? {} : { ca: roots }),
    }
    return boundedRequest(url, options, body, { clock, timeoutMs: fetching.timeoutMs, maxBytes })
  }

  return {
    check: (url, what) => {
      const fault = destinations.faultOf(url)
      if (fault !== undefined) throw new TokenMethodError(`${what} ${shownUrl(url)}: ${fault}`)
    },
    json: async (url, asking = {}) => {
      const name = `${asking.method ?? 'GET'} ${shownUrl(url)}`
      const fault = destinations.faultOf(url)
      if (fault !== undefined) throw new FetchError(`${name}: ${fault}`)
      try {
        const { answer, text } = await send(new URL(url), asking)
        return jsonOf(answer, text)
      } catch (cause) {
        const { answered = false, refused = false } = cause instanceof FetchError ? cause : {}
        throw new FetchError(`${name}: ${messageOf(cause)}`, { cause, answered, refused })
      }
    },
    close: () => {
      for (const agent of Object.values(agents)) agent.destroy()
    },
  }
}

function shownUrl(text: string): string {
  if (!URL.canParse(text)) return JSON.stringify(text.slice(0, 100))
  const { origin, pathname } = new URL(text)
  return `${origin}${pathname}`.slice(0, 200)
}

function jsonOf(answer: IncomingMessage, text: string): JsonObject {
  const status = answer.statusCode ?? 0
  if (status >= 300 && status < 400) throw wrong(`a redirect (${status}), and none is followed`)
  if (status !== 200) throw wrong(`status ${status}`, status === 400)
  const encoding = answer.headers['content-encoding']
  if (encoding !== undefined && encoding !== 'identity') throw wrong('an encoding that was not asked for')
  const type = (answer.headers['content-type'] ?? 'no media type').slice(0, 60)
  if (/^\s*</.test(text)) throw wrong(`HTML or XML (${type}), not JSON`)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    throw wrong(`what is not JSON (${type})`)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw wrong('JSON that is not an object')
  }
  return value as JsonObject
}

function wrong(what: string, refused = false): FetchError {
  return new FetchError(`it answered with ${what}`, { answered: true, refused })
}

/** The trust anchors of the moment: a bundle that is replaced takes effect, one that is broken meanwhile does not. */
function trustOf(file: string | undefined, deps: Pick<TokenDeps, 'readText'>): () => string | undefined {
  if (file === undefined) return () => undefined
  let good: string | undefined
  return () => {
    try {
      const text = readFile(file, 'the CA file', deps)
      if (text !== good) new X509Certificate(text)
      good = text
    } catch (cause) {
      if (good !== undefined) return good
      if (cause instanceof TokenMethodError) throw cause
      throw new TokenMethodError(`the CA file ${file} holds no certificate in PEM: ${messageOf(cause)}`, {
        cause,
      })
    }
    return good
  }
}
