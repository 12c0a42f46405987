/** The HTTP side of the proxy: CONNECT, and requests with an absolute http:// URL (RFC 9110 sections 7.6, 9.3.6). */
import { EndedEarly } from './byte-reader.ts'
import type { Child } from './child.ts'
import { tokenUser } from './child.ts'
import { type ClientConnection, endWith, type Front } from './connection.ts'
import type { Decision, Refusal } from './connector.ts'
import { serveDns } from './dns.ts'
import { forward } from './http-forward.ts'
import { HeadError, type RequestHead, readHead, valuesOf } from './http-head.ts'
import { defaultLimits } from './limits.ts'
import { authority, type Target, TargetError } from './target.ts'
import { tunnel } from './tunnel.ts'

/** Between two requests on one connection. Milliseconds. */
const keepAliveMs = 60_000
/** For a head, once its connection has shown a token. Milliseconds. */
const headMs = 10_000
/** How long an early verdict waits for the resolver: the whole event loop of the child waits with it. Milliseconds. */
const earlyMs = 250

const statusOf: Readonly<Record<Refusal, number>> = { denied: 403, unreachable: 502, timeout: 504, busy: 503 }

const sentences: Readonly<Record<number, readonly [reason: string, text: string]>> = {
  400: ['Bad Request', 'the request was not understood'],
  403: ['Forbidden', 'the permission profile does not allow this target'],
  407: ['Proxy Authentication Required', 'the token of this server is missing or wrong'],
  417: ['Expectation Failed', 'nothing but 100-continue can be expected'],
  431: ['Request Header Fields Too Large', 'the request head is too large'],
  502: ['Bad Gateway', 'the target could not be reached'],
  503: ['Service Unavailable', 'a limit of this server has been reached'],
  504: ['Gateway Timeout', 'the target did not answer in time'],
}

/** Serves requests until one of them ends the connection. */
export async function serveHttp(connection: ClientConnection, front: Front): Promise<void> {
  const { connector } = front
  for (;;) {
    let shown = { host: '', port: 0 }
    let protocol: 'connect' | 'http' = 'connect'
    try {
      const head = await readHead(
        connection.reader,
        connection.child?.limits.headerBytes ?? defaultLimits.headerBytes,
      )
      if (head === undefined) {
        connection.socket.end()
        return
      }
      shown = { host: shownHost(head.target), port: 0 }
      protocol = head.method === 'CONNECT' ? 'connect' : 'http'
      const admission = front.admit(connection, tokenOf(head))
      if ('refusal' in admission) {
        if (admission.refusal === 'token')
          connector.tell(undefined, protocol, shown, { allowed: false, rule: 'token' })
        answer(connection, admission.refusal === 'token' ? 407 : 503)
        return
      }
      const { child } = admission
      connection.endAfter(child.limits.idleMs)
      if (head.method === 'CONNECT') {
        await serveConnect(connection, head, child, front)
        return
      }
      const status = await forward(connection, head, child, front)
      if (typeof status === 'string') answer(connection, statusOf[status])
      if (status !== true) return
      connection.endAfter(connection.reader.held.length > 0 ? headMs : keepAliveMs)
    } catch (cause) {
      if (cause instanceof EndedEarly) {
        connection.socket.destroy()
        return
      }
      if (!(cause instanceof HeadError || cause instanceof TargetError)) throw cause
      const status = cause instanceof HeadError ? cause.status : 400
      connector.tell(connection.child, protocol, shown, {
        allowed: false,
        rule: 'bad-request',
        reason: cause.message,
      })
      answer(connection, status)
      return
    }
  }
}

async function serveConnect(
  connection: ClientConnection,
  head: RequestHead,
  child: Child,
  front: Front,
): Promise<void> {
  const { socket, gone } = connection
  const { connector, clock } = front
  if (head.body !== 'none') throw new HeadError(400, 'CONNECT has no body')
  const target = authority(head.target)
  if (isStub(target)) {
    socket.write(established)
    await serveDns(connection, child, front)
    return
  }
  const [broker] = valuesOf(head.headers, 'mcp-sidecar-broker')
  const protocol = broker === undefined ? 'connect' : 'broker'
  const startedAt = clock.now()
  const deciding = connector.decide(child, target, gone)
  const early = broker === 'early' ? await within(deciding, earlyMs, front) : undefined
  const answered = broker === 'early' && early?.refusal === undefined
  if (answered) socket.write(established)
  const decision = early ?? (await deciding)
  const opened = await connector.open(child, protocol, decision, startedAt, gone)
  if (opened.refusal !== undefined) {
    if (answered) socket.resetAndDestroy()
    else answer(connection, statusOf[opened.refusal])
    return
  }
  if (!answered) socket.write(established)
  await tunnel(connection, opened, { child, protocol, decision, front })
}

/** Of a target that may be wrong; without what may be secret: user information, path and query. */
function shownHost(target: string): string {
  return /^(?:[a-z][a-z0-9+.-]*:\/\/)?(?:[^/?#]*@)?([^/?#@]*)/i.exec(target)?.[1] ?? ''
}

/** The broker sends every connection to port 53 here. */
function isStub({ host, port }: Target): boolean {
  return host.kind === 'name' && host.name === 'dns' && port === 53
}

const established = 'HTTP/1.1 200 Connection established\r\n\r\n'

/** Undefined when it takes longer. */
function within(deciding: Promise<Decision>, ms: number, { clock }: Front): Promise<Decision | undefined> {
  return new Promise((resolve) => {
    const timer = clock.after(ms, () => resolve(undefined))
    void deciding.then((decision) => {
      timer.cancel()
      resolve(decision)
    })
  })
}

/** Bearer from the broker, Basic from whoever has the proxy's URL. @throws HeadError */
function tokenOf({ headers }: RequestHead): string | undefined {
  const values = valuesOf(headers, 'proxy-authorization')
  if (values.length > 1) throw new HeadError(400, 'a request has one Proxy-Authorization')
  const [, scheme = '', credentials = ''] =
    /^(Bearer|Basic) +([A-Za-z0-9+/=_-]{1,512})$/i.exec(values[0] ?? '') ?? []
  if (scheme.toLowerCase() !== 'basic') return credentials === '' ? undefined : credentials
  const text = Buffer.from(credentials, 'base64').toString('latin1')
  return text.startsWith(`${tokenUser}:`) ? text.slice(tokenUser.length + 1) : undefined
}

function answer(connection: ClientConnection, status: number): void {
  const [reason, text] = sentences[status] ?? ['Bad Request', '']
  const body = `mcp-sidecar: ${text}\n`
  const lines = [
    `HTTP/1.1 ${status} ${reason}`,
    'Content-Type: text/plain',
    `Content-Length: ${body.length}`,
    'Connection: close',
    ...(status === 407 ? ['Proxy-Authenticate: Basic realm="mcp-sidecar"'] : []),
  ]
  endWith(connection, `${lines.join('\r\n')}\r\n\r\n${body}`)
}
