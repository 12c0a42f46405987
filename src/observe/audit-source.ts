/** Where a request came from, in an audit event, and which trace it belongs to. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Message } from '../core/jsonrpc.ts'
import type { Received } from '../core/types.ts'
import { bounded, quoted, quotedList, quotedUpTo } from './ascii-json.ts'
import { Memo } from './memo.ts'
import type { Redactor } from './redact.ts'

const max = { address: 64, userAgent: 256, id: 128, forwarded: 200 }
const maxForwarded = 10

type Origin = Pick<Received, 'requestId' | 'remoteAddress' | 'clientAddress' | 'headers'>

export class Sources {
  readonly #agents: Memo

  constructor({ mask }: Pick<Redactor, 'mask'>) {
    this.#agents = new Memo(256, 256, (agent) => quoted(mask(bounded(agent, max.userAgent))))
  }

  /** `,"source":{...}`. */
  textOf({ requestId, remoteAddress, clientAddress, headers }: Origin): string {
    let extra = `"request_id":${quotedUpTo(requestId, max.id)}`
    const agent = headers['user-agent']
    if (agent !== undefined) extra += `,"user_agent":${this.#agents.of(agent)}`
    if (remoteAddress !== clientAddress) extra += `,"peer":${quotedUpTo(remoteAddress, max.address)}`
    const forwarded = forwardedBy(headers)
    if (forwarded !== undefined) extra += `,"forwarded":${quotedList(forwarded, maxForwarded, max.forwarded)}`
    return `,"source":{"type":"network","value":${quotedUpTo(clientAddress, max.address)},"extra":{${extra}}}`
  }
}

/** What the request says of its way here, believed or not. */
function forwardedBy(headers: IncomingHttpHeaders): string[] | undefined {
  const chain = headers['forwarded'] ?? headers['x-forwarded-for']
  if (chain === undefined) return undefined
  const text = typeof chain === 'string' ? chain : chain.join(',')
  return text
    .slice(0, maxForwarded * max.forwarded)
    .split(',', maxForwarded + 1)
    .map((hop) => hop.trim())
}

const traceparent = /^[\da-f]{2}-([\da-f]{32})-([\da-f]{16})-[\da-f]{2}/
const inMeta = /"traceparent"\s{0,8}:\s{0,8}"[\da-f]{2}-([\da-f]{32})-([\da-f]{16})-[\da-f]{2}/
/** Of `_meta`, so much is looked through. Bytes. */
const maxMeta = 8192

/** `,"trace_id":...,"span_id":...` of the caller: `params._meta` before the header (SEP-414, W3C Trace Context). */
export function traceText(message: Message | undefined, headers: IncomingHttpHeaders | undefined): string {
  const found = ofMeta(message) ?? ofHeader(headers?.['traceparent'])
  return found === undefined ? '' : `,"trace_id":"${found[1]}","span_id":"${found[2]}"`
}

function ofHeader(header: string | string[] | undefined): RegExpExecArray | undefined {
  return typeof header === 'string' ? (traceparent.exec(header) ?? undefined) : undefined
}

// Not read as JSON: callers name their trace as they like, so nobody gains from hiding another in it.
function ofMeta(message: Message | undefined): RegExpExecArray | undefined {
  const meta = message?.paramSpans._meta
  if (message === undefined || meta === undefined) return undefined
  const text = message.bytes.toString('latin1', meta.start, Math.min(meta.end, meta.start + maxMeta))
  return text.includes('traceparent') ? (inMeta.exec(text) ?? undefined) : undefined
}
