import { X509Certificate } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { Agent } from 'node:https'
import type { KubernetesMethod } from '../core/policy.ts'
import { Credential } from '../core/secret.ts'
import { type Answered, boundedRequest } from './bounded-request.ts'
import type { JsonObject } from './fetching.ts'
import { sentenceOf } from './service-account.ts'
import { own } from './token-format.ts'
import { messageOf, readFile, shown, type TokenDeps, TokenMethodError } from './token-method.ts'

/** Why the API server gave no answer that can be used; for the log, holds no token. */
export class ApiError extends Error {
  override readonly name = 'ApiError'
}

/** Of one API server at a time; more wait, not longer than their timeout. */
const maxSockets = 16
const maxAnswerBytes = 1024 * 1024
/** What was read from the files is used so long: the kubelet replaces both well before their end. Milliseconds. */
const rereadMs = 5000

interface OwnFiles {
  readonly token: Credential
  readonly ca: string
}

/**
 * Asks the API server on behalf of this process, with the token and CA bundle that the kubelet writes. Nothing is
 * followed, no redirect either.
 */
export class KubernetesApi {
  readonly #method: KubernetesMethod
  readonly #deps: Pick<TokenDeps, 'clock' | 'readText'>
  readonly #agent = new Agent({ maxSockets })
  #files: OwnFiles
  #readAt: number

  /** @throws TokenMethodError for an address that is not https, or files that cannot be read or hold nothing usable */
  constructor(method: KubernetesMethod, deps: Pick<TokenDeps, 'clock' | 'readText'>) {
    const { apiServer } = method
    const url = URL.canParse(apiServer) ? new URL(apiServer) : undefined
    if (
      url?.protocol !== 'https:' ||
      url.username !== '' ||
      url.password !== '' ||
      url.search !== '' ||
      url.hash !== ''
    )
      throw new TokenMethodError('apiServer must be an https URL without credentials, query and fragment')
    this.#method = method
    this.#deps = deps
    this.#files = this.#read()
    this.#readAt = deps.clock.now()
  }

  /**
   * @param path below the API server's address
   * @param what this is for, when it is not permitted: `create tokenreviews (ClusterRole system:auth-delegator)`
   * @returns the JSON object of an answer of status 200 or 201
   * @throws ApiError
   */
  async ask(path: string, what: string, body?: string): Promise<JsonObject> {
    const url = this.#method.apiServer.replace(/\/$/, '') + path
    const verb = body === undefined ? 'GET' : 'POST'
    try {
      const { answer, text } = await this.#send(url, verb, body)
      return this.#jsonOf(answer, text, what)
    } catch (cause) {
      throw new ApiError(`${verb} ${url}: ${messageOf(cause)}`, { cause })
    }
  }

  close(): void {
    this.#agent.destroy()
  }

  #read(): OwnFiles {
    const { tokenFile, caFile } = this.#method
    const token = readFile(tokenFile, 'the token of this process', this.#deps).trim()
    if (!/^[\x21-\x7e]+$/.test(token))
      throw new TokenMethodError(`the token file ${tokenFile} holds no token`)
    const ca = readFile(caFile, 'the CA file of the API server', this.#deps)
    try {
      new X509Certificate(ca)
    } catch (cause) {
      throw new TokenMethodError(`the CA file ${caFile} holds no certificate in PEM`, { cause })
    }
    return { token: new Credential(token), ca }
  }

  /** As they are now, or a few seconds ago; the last good ones while they cannot be read, in the middle of a change. */
  #current(): OwnFiles {
    const now = this.#deps.clock.now()
    if (now - this.#readAt < rereadMs) return this.#files
    this.#readAt = now
    try {
      this.#files = this.#read()
    } catch {
      // What is wrong with them shows when the API server refuses the old ones.
    }
    return this.#files
  }

  #send(url: string, method: string, body: string | undefined): Promise<Answered> {
    const { token, ca } = this.#current()
    const headers = {
      accept: 'application/json',
      'accept-encoding': 'identity',
      'user-agent': 'mcp-sidecar',
      authorization: `Bearer ${token.reveal()}`,
      ...(body === undefined
        ? {}
        : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) }),
    }
    const bounds = {
      clock: this.#deps.clock,
      timeoutMs: this.#method.timeoutMs,
      maxBytes: maxAnswerBytes,
    }
    return boundedRequest(new URL(url), { method, agent: this.#agent, ca, headers }, body, bounds)
  }

  #jsonOf(answer: IncomingMessage, text: string, what: string): JsonObject {
    const status = answer.statusCode ?? 0
    const value = jsonObject(text)
    if (status === 200 || status === 201) {
      if (value !== undefined) return value
      const type = shown((answer.headers['content-type'] ?? 'no media type').slice(0, 60))
      throw new ApiError(
        `it answered with ${/^\s*</.test(text) ? 'HTML or XML' : 'what is no JSON object'} (${type})`,
      )
    }
    // A `Status` of the API server says why, in a sentence for people.
    const reason = value === undefined ? undefined : sentenceOf(own(value, 'message'))
    const said = reason === undefined ? '' : `: ${reason}`
    if (status === 401) {
      // Another one may be there already.
      this.#readAt = Number.NEGATIVE_INFINITY
      throw new ApiError(
        `it does not accept the token of this process, ${this.#method.tokenFile} (401)${said}`,
      )
    }
    if (status === 403)
      throw new ApiError(`the service account of this process must be allowed to ${what} (403)${said}`)
    if (status >= 300 && status < 400)
      throw new ApiError(`it answered with a redirect (${status}), and none is followed`)
    throw new ApiError(`it answered with status ${status}${said}`)
  }
}

function jsonObject(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as JsonObject)
      : undefined
  } catch {
    return undefined
  }
}
