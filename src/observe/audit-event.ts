/**
 * Audit events as JSON text: who, what, from where, decided how, ended how (NIST SP 800-53 AU-3). The shape is ToolHive's
 * (pkg/audit/event.go) with more in it. Joined by hand, since every call waits for it.
 */
import { randomUUID } from 'node:crypto'
import { clientInfoOf } from '../core/client-info.ts'
import { errorTable, type SidecarError } from '../core/errors.ts'
import { canonical } from '../core/json.ts'
import type { Message } from '../core/jsonrpc.ts'
import type { Operation } from '../core/operation.ts'
import type { AuditPolicy } from '../core/policy.ts'
import { fingerprint, sha256 } from '../core/secret.ts'
import type { Permit, Principal, Received } from '../core/types.ts'
import { bounded, quoted, quotedList, quotedUpTo, quotedWithin } from './ascii-json.ts'
import { nobody, PrincipalTexts } from './audit-principal.ts'
import { Sources, traceText } from './audit-source.ts'
import type { AuditOutcome, AuditType, ChainEventType } from './audit-type.ts'
import { isoTimes } from './iso-time.ts'
import { Memo } from './memo.ts'
import { type Redactor, redactor } from './redact.ts'

/** Of a request as it arrived; a Received, and whatever the stages made of it, fits. */
export type AuditedRequest = Pick<
  Received,
  'requestId' | 'transport' | 'remoteAddress' | 'clientAddress' | 'httpMethod' | 'path' | 'headers'
>

/** What happened. Everything that is not known, or makes no sense for the type, is left out. */
export interface AuditInput {
  readonly type: AuditType
  readonly outcome: AuditOutcome
  /** Undefined for what no request of a client caused. */
  readonly request?: AuditedRequest | undefined
  /** Undefined while nobody has been authenticated. */
  readonly principal?: Principal | undefined
  /** The client's message: gives the method, the id, the trace and, where it says so, the client's name. */
  readonly message?: Message | undefined
  readonly operation?: Operation | undefined
  readonly permit?: Permit | undefined
  /** What refused or ended it: gives code, detail, and the verdict of a refusal. */
  readonly error?: SidecarError | undefined
  /** The session's id itself; only its fingerprint is written. */
  readonly sessionId?: string | undefined
  /** Of clients that introduced themselves once, in their initialize: that `clientInfo`, as JSON text. */
  readonly clientInfo?: string | undefined
  /** Of the HTTP response; without it, that of `error` on Streamable HTTP. */
  readonly status?: number | undefined
  /** `error.code` of a JSON-RPC error that the server answered with. */
  readonly rpcCode?: number | undefined
  readonly durationMs?: number | undefined
  readonly responseBytes?: number | undefined
  /** `params.arguments`, else `params`, as JSON text; asked for only where the configuration wants it. */
  readonly arguments?: (() => Buffer | undefined) | undefined
  /** `result` or `error` of the answer, as JSON text; the same. */
  readonly answer?: (() => Buffer | undefined) | undefined
  /** What the type is about and no other member has: the exit code of a process. At most 32. */
  readonly details?: Readonly<Record<string, string | number | boolean | undefined>> | undefined
}

/** Where this process is, for people who read the logs of many. */
export interface AuditPlace {
  readonly listener: string
  readonly pod?: string | undefined
  readonly namespace?: string | undefined
  readonly node?: string | undefined
}

/** Most characters of what peers choose. */
const max = { method: 100, name: 256, uri: 2048, id: 128, path: 512, detail: 500, client: 100, rule: 256 }
/** Of requests of strangers, who cause as many lines as they like. Bytes of the log. */
const maxOfStranger = { path: 64, detail: 500 }
const maxTargets = 32
const maxRules = 32
const maxErrors = 4
const maxDetails = 32

/** Makes the JSON text of events, without the closing brace, to which the chain adds its link. */
export class AuditEvents {
  readonly #policy: AuditPolicy
  readonly #component: string
  readonly #place: string
  readonly #configDigest: () => string
  readonly #redactor: Redactor
  readonly #principals = new PrincipalTexts()
  /** Hashing them anew for each message would make an event a third dearer. */
  readonly #sessions = new Memo(4096, 128, (id) => `sha256:${fingerprint(id)}`)
  readonly #clients = new Memo(1024, 512, clientInfoText)
  readonly #resources: Memo
  readonly #sources: Sources
  readonly #iso = isoTimes()

  constructor(policy: AuditPolicy, place: AuditPlace, configDigest: () => string) {
    this.#policy = policy
    this.#component = quotedUpTo(policy.component, max.name)
    this.#configDigest = configDigest
    this.#redactor = redactor(policy.redact)
    this.#sources = new Sources(this.#redactor)
    this.#resources = new Memo(1024, 512, (uri) => this.#redactor.mask(bounded(uri, max.uri)))
    let text = `"listener":${quotedUpTo(place.listener, max.name)}`
    for (const name of ['namespace', 'pod', 'node'] as const) {
      const value = place[name]
      if (value !== undefined) text += `,"${name}":${quotedUpTo(value, max.name)}`
    }
    this.#place = text
  }

  /** @param epoch milliseconds since 1970 */
  text(input: AuditInput, epoch: number): string {
    const { request, message, principal } = input
    let text = this.#head(input.type, epoch, extraText(input))
    text += this.#targetText(input)
    text += request === undefined ? localSource : this.#sources.textOf(request)
    text += `,"outcome":"${input.outcome}"${resultText(input, this.#redactor)}`
    const who = principal === undefined ? nobody : this.#principals.textsOf(principal)
    text += `,"subjects":{${(who.identity + this.#clientText(input)).slice(1)}}${who.auth}`
    text += this.#decisionText(input)
    if (input.sessionId !== undefined) text += `,"session":"${this.#sessions.of(input.sessionId)}"`
    if (message?.id !== undefined) text += `,"jsonrpc_id":${quotedUpTo(message.idText as string, max.id)}`
    text += traceText(message, request?.headers)
    if (input.details !== undefined) text += this.#detailsText(input.details)
    text += this.#dataText(input)
    return text
  }

  /** An event of the log itself. */
  chainText(
    type: ChainEventType,
    epoch: number,
    outcome: AuditOutcome,
    details: Readonly<Record<string, string | number>>,
  ): string {
    const head = `${this.#head(type, epoch, '')},"target":{"type":"audit"}${localSource}`
    return `${head},"outcome":"${outcome}","subjects":{}${this.#detailsText(details)}`
  }

  #head(type: string, epoch: number, extra: string): string {
    return (
      `{"metadata":{"auditId":"${randomUUID()}","extra":{${extra}}},"type":"${type}",` +
      `"loggedAt":"${this.#iso(epoch)}","component":${this.#component},"place":{${this.#place}}`
    )
  }

  #targetText(input: AuditInput): string {
    const { request, message, operation } = input
    let text = ''
    if (request !== undefined) {
      const path =
        request.path.length > 32 ? this.#redactor.mask(bounded(request.path, max.path)) : request.path
      const endpoint = ofStranger(input) ? quotedWithin(path, maxOfStranger.path) : quoted(path)
      text = `"endpoint":${endpoint},"http_method":${quotedUpTo(request.httpMethod, max.method)}`
    }
    if (message !== undefined && message.method !== '')
      text += `${text === '' ? '' : ','}"method":${quotedUpTo(message.method, max.method)}`
    const targets = operation?.targets
    const target = targets?.[0]
    if (targets === undefined || target === undefined) return `,"target":{${text}}`
    const nameOf = ({ type, name }: { readonly type: string; readonly name: string }): string =>
      type === 'resource' ? this.#resources.of(name) : bounded(name, max.name)
    text += `,"type":"${target.type}","name":${quoted(nameOf(target))}`
    if (targets.length > 1) text += `,"names":${quotedList(targets.map(nameOf), maxTargets, max.uri + 100)}`
    return `,"target":{${text}}`
  }

  /** As the client calls itself: in this message (2026-07-28, or initialize), else when it opened its session. */
  #clientText({ message, clientInfo }: AuditInput): string {
    const info = (message === undefined ? undefined : clientInfoOf(message)) ?? clientInfo
    return info === undefined ? '' : this.#clients.of(info)
  }

  #decisionText({ outcome, permit, error }: AuditInput): string {
    const refused = error?.verdict !== undefined || outcome === 'denied' || outcome === 'rate_limited'
    if (!refused && permit === undefined) return ''
    const verdicts = error?.verdict !== undefined ? [error.verdict] : refused ? [] : (permit?.verdicts ?? [])
    let text = refused ? '"effect":"deny"' : '"effect":"allow"'
    const [only] = verdicts
    if (only !== undefined && verdicts.length === 1) {
      text += `,"layer":${quotedUpTo(only.layer, max.rule)},"policies":${quotedList(only.ids, maxRules, max.rule)}`
    } else if (verdicts.length > 1) {
      // Each layer has to permit: who reads one of them alone still finds every rule.
      const layers = verdicts.map(({ layer }) => layer).join(',')
      const ids = verdicts.flatMap((verdict) => verdict.ids)
      text += `,"layer":${quotedUpTo(layers, max.rule)},"policies":${quotedList(ids, maxRules, max.rule)},"verdicts":[`
      let comma = ''
      for (const { layer, ids } of verdicts.slice(0, maxRules)) {
        text += `${comma}{"layer":${quotedUpTo(layer, max.rule)},"policies":${quotedList(ids, maxRules, max.rule)}}`
        comma = ','
      }
      text += ']'
    }
    const errors = error?.verdict?.errors ?? []
    if (errors.length > 0) text += `,"errors":${quotedList(errors, maxErrors, max.detail)}`
    return `,"decision":{${text},"config":${quoted(this.#configDigest())}}`
  }

  #detailsText(details: Readonly<Record<string, string | number | boolean | undefined>>): string {
    let text = ''
    let count = 0
    for (const name in details) {
      const value = details[name]
      if (value === undefined) continue
      if (++count > maxDetails) break
      const shown =
        typeof value === 'string'
          ? quotedUpTo(this.#redactor.maskShapes(value), max.detail)
          : numberText(value)
      text += `${text === '' ? '' : ','}${quotedUpTo(name, max.name)}:${shown}`
    }
    return `,"details":{${text}}`
  }

  #dataText(input: AuditInput): string {
    const { includeRequestData, includeResponseData, maxDataBytes } = this.#policy
    if (!includeRequestData && !includeResponseData) return ''
    const request = includeRequestData ? input.arguments?.() : undefined
    const response = includeResponseData ? input.answer?.() : undefined
    let text = ''
    if (request !== undefined) text += dataMember('request', request, maxDataBytes, this.#redactor)
    if (response !== undefined)
      text += `${text === '' ? '' : ','}${dataMember('response', response, maxDataBytes, this.#redactor)}`
    return text === '' ? '' : `,"data":{${text}}${request === undefined ? '' : this.#hashText(request)}`
  }

  /**
   * The hash of all arguments, for who has them elsewhere and wants to show that it was these. Without the members that
   * are hidden: who guesses a password could otherwise see from the hash that the guess was right.
   */
  #hashText(request: Buffer): string {
    try {
      const text = canonical(request, { start: 0, end: request.length }, (key) => this.#redactor.hides(key))
      return `,"args_sha256":"${sha256(text).toString('hex')}"`
    } catch {
      return ''
    }
  }
}

const localSource = ',"source":{"type":"local","value":"mcp-sidecar"}'

function extraText({ durationMs, responseBytes, request }: AuditInput): string {
  let text = ''
  if (durationMs !== undefined) text = `"duration_ms":${numberText(Math.round(durationMs * 1000) / 1000)}`
  if (request !== undefined) text += `${text === '' ? '' : ','}"transport":"${request.transport}"`
  if (responseBytes !== undefined)
    text += `${text === '' ? '' : ','}"response_size_bytes":${numberText(responseBytes)}`
  return text
}

function resultText(input: AuditInput, { maskShapes }: Redactor): string {
  const { status, error, rpcCode, request, message } = input
  // Elsewhere the status was that of the connection, long before.
  const told =
    status ??
    (error !== undefined && request?.transport === 'streamable-http'
      ? error.httpStatus(message?.id !== undefined)
      : undefined)
  const rpc = rpcCode ?? (error === undefined ? undefined : errorTable[error.code].rpc)
  let text = told === undefined ? '' : `,"status":${numberText(told)}`
  if (error !== undefined) text += `,"code":"${error.code}"`
  if (rpc !== undefined) text += `,"jsonrpc_code":${numberText(rpc)}`
  if (error?.detail !== undefined) {
    const detail = maskShapes(bounded(error.detail, max.detail))
    text += `,"detail":${ofStranger(input) ? quotedWithin(detail, maxOfStranger.detail) : quoted(detail)}`
  }
  return text === '' ? '' : `,"result":{${text.slice(1)}}`
}

function ofStranger({ request, principal }: AuditInput): boolean {
  return request !== undefined && principal === undefined
}

/** A client's name for itself, as JSON text of an Implementation. */
function clientInfoText(json: string): string {
  const info: unknown = JSON.parse(json)
  if (typeof info !== 'object' || info === null) return ''
  const { name, version } = info as { readonly name?: unknown; readonly version?: unknown }
  let text = ''
  if (typeof name === 'string') text += `,"client_name":${quotedUpTo(name, max.client)}`
  if (typeof version === 'string') text += `,"client_version":${quotedUpTo(version, max.client)}`
  return text
}

function dataMember(name: string, bytes: Buffer, maxBytes: number, { json }: Redactor): string {
  const { text, truncated } = json(bytes, maxBytes)
  return `"${name}":${quoted(text)}${truncated ? `,"${name}_truncated":true,"${name}_bytes":${bytes.length}` : ''}`
}

/** JSON has no NaN. */
function numberText(value: number | boolean): string {
  return typeof value === 'number' && !Number.isFinite(value) ? 'null' : String(value)
}
