import { SidecarError } from '../core/errors.ts'
import type { Message } from '../core/jsonrpc.ts'
import { localRequest } from '../core/local.ts'
import { latestLegacyVersion, latestModernVersion, modernVersions } from '../core/mcp.ts'
import { metaPrefix } from '../core/message.ts'
import type { DiscoverResult, Timer } from '../core/types.ts'
import { Link, type LinkOptions } from './link.ts'
import type { ProcessContext, ServerCommand } from './process.ts'

export type ProbeResult =
  | {
      readonly era: 'modern'
      readonly discovered: DiscoverResult
      /**
       * The process that answered, running and without a handler: a modern server keeps nothing of what it was asked.
       * Undefined if initialize was sent to it meanwhile, which may have settled its era.
       */
      readonly link: Link | undefined
    }
  | {
      readonly era: 'legacy'
      /** For the log. */
      readonly reason: string
      /** It has answered something. False for one that ended or was silent, which tells little of a server's era. */
      readonly certain: boolean
    }

export interface ProbeOptions extends LinkOptions {
  /** `log` where no other process will say the same; default: `discard`. */
  readonly stderr?: 'log' | 'discard'
  readonly startTimeoutMs: number
  /** The sidecar's own version, for `clientInfo`. */
  readonly version: string
}

export interface Probe {
  /** Never rejects. */
  readonly result: Promise<ProbeResult>
  /** Ends the process, one that was handed over, too. Resolves when it is gone. */
  stop(): Promise<void>
}

/** How long a server may leave discover unanswered before it is offered initialize as well. Milliseconds. */
const silenceMs = 1000
/** How much longer than the answer to initialize the one to discover may take. Milliseconds. */
const overtakenMs = 200
/** Text of the server in a reason. Characters. */
const maxQuote = 200
/** More versions, or longer ones, are no answer that was meant seriously. */
const maxVersions = 100
const maxVersionLength = 100

/** UnsupportedProtocolVersion; only servers of the modern era know it. */
const unsupportedVersion = -32022

/**
 * Finds out whether a server speaks the modern era, on a process of its own: some servers of the handshake era
 * end, or never say anything again, when their first message is not initialize. For those, only a process that is
 * thrown away may be asked.
 */
export function probe(command: ServerCommand, context: ProcessContext, options: ProbeOptions): Probe {
  return new RunningProbe(command, context, options)
}

class RunningProbe implements Probe {
  readonly result: Promise<ProbeResult>
  readonly #context: ProcessContext
  readonly #options: ProbeOptions
  readonly #end: number
  #resolve: ((result: ProbeResult) => void) | undefined
  #link: Link | undefined
  #timer: Timer | undefined
  #initialize: 'not sent' | 'sent' | 'answered' = 'not sent'

  constructor(command: ServerCommand, context: ProcessContext, options: ProbeOptions) {
    this.#context = context
    this.#options = options
    this.#end = context.clock.now() + options.startTimeoutMs
    this.result = new Promise((resolve) => {
      this.#resolve = resolve
    })
    try {
      // If this is a legacy server, the process that serves will say the same again.
      this.#link = new Link({ ...command, stderr: options.stderr ?? 'discard' }, context, options)
    } catch (thrown) {
      this.#legacy(`it could not be started: ${SidecarError.from(thrown).detail}`, false)
      return
    }
    this.#discover(latestModernVersion, true)
    this.#timer = context.clock.after(silenceMs, () => this.#offerInitialize())
  }

  async stop(): Promise<void> {
    this.#legacy('stopped', false)
    await this.#link?.stop()
  }

  #discover(version: string, mayRetry: boolean): void {
    const params = {
      _meta: {
        [`${metaPrefix}protocolVersion`]: version,
        [`${metaPrefix}clientInfo`]: { name: 'mcp-sidecar', version: this.#options.version },
        [`${metaPrefix}clientCapabilities`]: {},
      },
    }
    this.#ask('server/discover', params, {
      answer: (message) => this.#discovered(message, mayRetry),
      fail: ({ code, detail }) => {
        const answered = code === 'ERR_UPSTREAM_MESSAGE' || this.#initialize === 'answered'
        if (code !== 'ERR_TIMEOUT') this.#legacy(quote(detail ?? code), answered)
        else this.#legacy(answered ? ignores : 'it was silent', answered)
      },
    })
  }

  #discovered(message: Message, mayRetry: boolean): void {
    if (this.#resolve === undefined) return
    const { result, error } = message.parsed() as { result?: unknown; error?: unknown }
    if (!message.isError) {
      const discovered = readDiscoverResult(result)
      if (typeof discovered === 'string') this.#legacy(discovered)
      else if (mutualVersion(discovered.supportedVersions) !== undefined) this.#modern(discovered)
      else this.#legacy(only(discovered.supportedVersions))
      return
    }
    const refusal = isObject(error) ? error : {}
    const { code } = refusal
    const supported =
      code === unsupportedVersion && isObject(refusal['data'])
        ? readVersions(refusal['data']['supported'])
        : undefined
    if (supported === undefined) {
      const what = typeof code === 'number' ? `error ${code}` : 'an error without a code'
      const text = refusal['message']
      const said = typeof text === 'string' && text !== '' ? ` (${quote(text)})` : ''
      this.#legacy(`it answered server/discover with ${what}${said}`)
      return
    }
    const version = mutualVersion(supported)
    if (version === undefined) this.#legacy(only(supported))
    else if (!mayRetry) this.#legacy(`it refuses version ${version}, which it says it supports`)
    else {
      // A server that knows this error is no legacy one that waits for initialize.
      this.#timer?.cancel()
      this.#discover(version, false)
    }
  }

  /**
   * A slow start looks like silence. A server that ignores what it does not know, as some do before initialize,
   * shows by an answer to this that it is up.
   */
  #offerInitialize(): void {
    this.#initialize = 'sent'
    const answered = (): void => {
      if (this.#resolve === undefined) return
      this.#initialize = 'answered'
      this.#timer = this.#context.clock.after(overtakenMs, () => this.#legacy(ignores))
    }
    const params = {
      protocolVersion: latestLegacyVersion,
      capabilities: {},
      clientInfo: { name: 'mcp-sidecar', version: this.#options.version },
    }
    this.#ask('initialize', params, {
      answer: answered,
      fail: ({ code }) => {
        // The end of the process, or of the time, is what the call of discover tells.
        if (code === 'ERR_UPSTREAM_MESSAGE') answered()
      },
    })
  }

  #ask(
    method: string,
    params: object,
    then: { answer(message: Message): void; fail(error: SidecarError): void },
  ): void {
    const left = Math.max(0, this.#end - this.#context.clock.now())
    const deadline = { timeoutMs: left, maxMs: left, inputMs: left }
    const message = localRequest(method, params)
    this.#link?.call({ message, deadline, reachable: false, progress: () => {}, ...then }, undefined)
  }

  #modern(discovered: DiscoverResult): void {
    const link = this.#initialize === 'not sent' ? this.#link : undefined
    if (link === undefined) void this.#link?.stop()
    else link.process.stderr = 'log'
    this.#settle({ era: 'modern', discovered, link })
  }

  #legacy(reason: string, certain = true): void {
    if (this.#resolve === undefined) return
    void this.#link?.stop()
    this.#settle({ era: 'legacy', reason, certain })
  }

  #settle(result: ProbeResult): void {
    this.#timer?.cancel()
    this.#resolve?.(result)
    this.#resolve = undefined
  }
}

const ignores = 'it ignores server/discover'

function only(versions: readonly string[]): string {
  const names = versions.length === 0 ? 'no versions' : `versions ${quote(versions.join(', '))} only`
  return `it answers server/discover with ${names}`
}

function quote(text: string): string {
  return text.length <= maxQuote ? text : `${text.slice(0, maxQuote)}…`
}

function mutualVersion(offered: readonly string[]): string | undefined {
  return modernVersions.find((version) => offered.includes(version))
}

/** @returns what is wrong with it if it is no DiscoverResult */
function readDiscoverResult(result: unknown): DiscoverResult | string {
  if (!isObject(result)) return wrong('a result that is no object')
  const { resultType = 'complete', capabilities, instructions, _meta = {} } = result
  if (resultType !== 'complete') return wrong('a result that is not complete')
  const supportedVersions = readVersions(result['supportedVersions'])
  if (supportedVersions === undefined) return wrong('no usable supportedVersions')
  if (!isObject(capabilities)) return wrong('no usable capabilities')
  if (instructions !== undefined && typeof instructions !== 'string') return wrong('unusable instructions')
  if (!isObject(_meta)) return wrong('an unusable _meta')
  return { ...result, supportedVersions, capabilities }
}

const wrong = (what: string): string => `it answered server/discover with ${what}`

function readVersions(value: unknown): string[] | undefined {
  if (!Array.isArray(value) || value.length > maxVersions) return undefined
  const plausible = (each: unknown): boolean => typeof each === 'string' && each.length <= maxVersionLength
  return value.every(plausible) ? (value as string[]) : undefined
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
