/** Where a request came from, in an audit event, and which trace it belongs to. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Message } from '../core/jsonrpc.ts'
import type { Received } from '../core/types.ts'
import { bounded, quotedUpTo, quotedWithin } from './ascii-json.ts'
import { Memo } from './memo.ts'
import type { Redactor } from './redact.ts'

/** In bytes of the log: strangers cause as many lines as they like, and must not fill the disk with a few. */
const max = { address: 64, userAgent: 128, id: 128, forwarded: 64 }
const maxForwarded = 3
/** Of a user agent, so many characters are looked at. */
const maxAgentRead = 256

type Origin = Pick<Received, 'requestId' | 'remoteAddress' | 'clientAddress' | 'headers'>

export class Sources {
  readonly #agents: Memo

  constructor({ mask }: Pick<Redactor, 'mask'>) {
    this.#agents = new Memo(256, 256, (agent) =>
      quotedWithin(mask(bounded(agent, maxAgentRead)), max.userAgent),
    )
  }

  /** `,"source":{...}`. */
  textOf({ requestId, remoteAddress, clientAddress, headers }: Origin): string {
    let extra = `"request_id":${quotedUpTo(requestId, max.id)}`
    const agent = headers['user-agent']
    if (agent !== undefined) extra += `,"user_agent":${this.#agents.of(agent)}`
    if (remoteAddress !== clientAddress) extra += `,"peer":${quotedUpTo(remoteAddress, max.address)}`
    const forwarded = forwardedBy(headers)
    if (forwarded !== undefined) {
      extra += `,"forwarded":[${forwarded.map((hop) => quotedWithin(hop, max.forwarded)).join(',')}]`
    }
    return `,"source":{"type":"network","value":${quotedUpTo(clientAddress, max.address)},"extra":{${extra}}}`
  }
}

/** What the request says of the last part of its way here, believed or not; the first is `…` where more is left out. */
function forwardedBy(headers: IncomingHttpHeaders): string[] | undefined {
  const chain = headers['forwarded'] ?? headers['x-forwarded-for']
  if (chain === undefined) return undefined
  const text = typeof chain === 'string' ? chain : chain.join(',')
  // From the end: each proxy appends, so that those near to us stand there.
  const hops: string[] = []
  let end = text.length
  while (hops.length < maxForwarded) {
    const comma = end === 0 ? -1 : text.lastIndexOf(',', end - 1)
    hops.unshift(text.slice(comma + 1, end).trim())
    if (comma < 0) return hops
    end = comma
  }
  return ['\u2026', ...hops]
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
