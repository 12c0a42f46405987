/** The DNS stub: names that the profile allows get an address that only this child's proxy understands. */
import { isIP } from 'node:net'
import { EndedEarly } from './byte-reader.ts'
import type { Child } from './child.ts'
import { type ClientConnection, type Front, written } from './connection.ts'
import { answerTo, faultAnswer, parseQuery, type Query, rcodes } from './dns-message.ts'
import type { Ending } from './ending.ts'
import type { LookupError } from './lookups.ts'
import type { Ruling } from './rules.ts'

const port = 53
/** Between two queries on one connection. Milliseconds. */
const idleMs = 30_000
/** Of a query; a question, with EDNS, needs a quarter of it. Bytes. */
const longestQuery = 2048

/** Answers the queries of one connection (RFC 7766: each behind its length) until it ends. */
export async function serveDns(connection: ClientConnection, child: Child, front: Front): Promise<void> {
  const { reader, socket } = connection
  connection.endAfter(idleMs)
  for (;;) {
    try {
      const length = (await reader.take(2)).readUInt16BE()
      const query = length > longestQuery ? undefined : parseQuery(await reader.take(length))
      // Whoever sends what is no query would not understand an answer.
      if (query === undefined) {
        socket.destroy()
        return
      }
      connection.touch()
      const reply = 'rcode' in query ? faultAnswer(query) : await answer(query, child, front, connection.gone)
      const framed = Buffer.alloc(2 + reply.length)
      framed.writeUInt16BE(reply.length)
      framed.set(reply, 2)
      await written(socket, framed)
    } catch (cause) {
      if (socket.destroyed) return
      if (!(cause instanceof EndedEarly)) throw cause
      socket.end()
      return
    }
  }
}

async function answer(query: Query, child: Child, front: Front, gone: Ending): Promise<Buffer> {
  const { name, type } = query.question
  const tell = (ruling: Ruling, outcome?: 'failed'): void =>
    front.connector.tell(child, 'dns', { host: name ?? '', port }, ruling, { outcome })
  if (!child.queries.take()) {
    tell({ allowed: false, rule: 'limit:queries' })
    return answerTo(query, rcodes.refused)
  }
  // A name that reads as an address is none.
  const ruling: Ruling =
    name === undefined || isIP(name) !== 0
      ? { allowed: false, rule: 'no-rule', reason: 'not the name of a host' }
      : child.rules.lookup(name)
  if (name === undefined || !ruling.allowed) {
    tell(ruling)
    return answerTo(query, rcodes.noName)
  }
  if (!child.synthetic.has(name) && (ruling.rule.startsWith('host:*') || ruling.rule === 'open')) {
    const over = front.connector.wildcardLimit(child, name, ruling)
    if (over !== undefined) {
      tell(over)
      return answerTo(query, over.rule === 'limit:name-length' ? rcodes.noName : rcodes.refused)
    }
    const missing = await missingCode(child, name, front, gone)
    if (missing !== undefined) {
      tell({ ...ruling, reason: 'the name could not be resolved' }, 'failed')
      return answerTo(query, missing)
    }
  }
  const address = child.synthetic.addressOf(name)
  if (address === undefined) {
    tell({ allowed: false, rule: 'limit:names' })
    return answerTo(query, rcodes.refused)
  }
  if (type === 'A') tell(ruling)
  return type === 'A' ? answerTo(query, rcodes.ok, address) : answerTo(query, rcodes.ok)
}

/**
 * A wildcard also matches what a resolver makes of a name with its search list (`db.example.com.ns.svc.cluster.local`). Were
 * those given addresses, nobody would ever ask for the name itself; so names that only a wildcard allows must exist.
 */
async function missingCode(
  child: Child,
  name: string,
  { connector, clock }: Front,
  gone: Ending,
): Promise<number | undefined> {
  if (child.missing.has(name, clock.now())) return rcodes.noName
  try {
    // With the dot at its end it is the whole name: our own search list has no part in it.
    await connector.find(child, `${name}.`, gone)
    return undefined
  } catch (cause) {
    if ((cause as LookupError).fault !== 'none') return rcodes.failure
    child.missing.add(name, clock.now())
    return rcodes.noName
  }
}
