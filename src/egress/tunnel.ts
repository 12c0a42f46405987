import type { Socket } from 'node:net'
import type { Child } from './child.ts'
import { type ClientHello, HelloError, readClientHello } from './client-hello.ts'
import type { ClientConnection, Front } from './connection.ts'
import type { Decision, Protocol } from './connector.ts'
import { relay } from './relay.ts'
import type { Ruling } from './rules.ts'

const tlsPort = 443
/** From the answer that a tunnel is open to the end of the ClientHello. Milliseconds. */
const helloMs = 10_000

/** Passes bytes between a client and what it asked for, until both have closed. Tells the verdict: one for each connection. */
export async function tunnel(
  connection: ClientConnection,
  { socket: upstream, address }: { readonly socket: Socket; readonly address: string },
  {
    child,
    protocol,
    decision,
    front,
  }: { child: Child; protocol: Protocol; decision: Decision; front: Front },
): Promise<void> {
  const { socket, reader } = connection
  if (child.checkSni && decision.port === tlsPort && decision.name !== undefined) {
    connection.endAfter(helloMs)
    const ruling = await judgeHello(connection, decision.name)
    if (ruling !== undefined) {
      front.connector.tell(child, protocol, decision, ruling, { address })
      upstream.destroy()
      socket.resetAndDestroy()
      return
    }
  }
  front.connector.connected(child, protocol, decision, address)
  connection.endAfter(child.limits.idleMs)
  const { host, port } = decision
  const bytes = await relay(socket, upstream, reader.release(), connection.touch)
  front.ended({ child: child.name, host, port, ...bytes })
}

/** Undefined when the client asks for the name that the connection is for; nothing has been sent on yet. */
async function judgeHello({ reader }: ClientConnection, name: string): Promise<Ruling | undefined> {
  const deny = (reason: string): Ruling => ({ allowed: false, rule: 'sni', reason })
  let hello: ClientHello | undefined
  try {
    for (;;) {
      hello = readClientHello(reader.held)
      if (hello !== undefined) break
      if (!(await reader.more())) return deny('the connection ended before its ClientHello')
    }
  } catch (cause) {
    if (cause instanceof HelloError) return deny(cause.message)
    throw cause
  }
  if (hello.serverName === name) return undefined
  const asked = hello.serverName === undefined ? 'no server name' : `the server name ${hello.serverName}`
  // Nobody who keeps to the stub's answers has keys for an encrypted one, and one that only pretends to has the name outside.
  return deny(`the ${hello.encrypted ? 'encrypted ' : ''}ClientHello has ${asked}`)
}
