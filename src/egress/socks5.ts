/** SOCKS5 (RFC 1928) with user name and password (RFC 1929): CONNECT alone, no BIND, no UDP. */
import { EndedEarly } from './byte-reader.ts'
import type { Child } from './child.ts'
import { type ClientConnection, endWith, type Front } from './connection.ts'
import type { Refusal } from './connector.ts'
import { canonicalHost, type Host, hostText, type Target, TargetError } from './target.ts'
import { tunnel } from './tunnel.ts'

const version = 5
const loginVersion = 1
const passwordMethod = 2
const noMethod = 0xff
const connectCommand = 1
const addressTypes = { ipv4: 1, name: 3, ipv6: 4 }

/** RFC 1928 section 6. */
const replies: Readonly<Record<'granted' | 'command' | 'type' | 'bad' | Refusal, number>> = {
  granted: 0,
  bad: 1,
  busy: 1,
  denied: 2,
  timeout: 4,
  unreachable: 5,
  command: 7,
  type: 8,
}

export async function serveSocks5(connection: ClientConnection, front: Front): Promise<void> {
  const { socket } = connection
  try {
    const child = await login(connection, front)
    if (child === undefined) return
    connection.endAfter(child.limits.idleMs)
    const target = await readRequest(connection)
    if (typeof target === 'string') {
      refuse(connection, target)
      front.connector.tell(
        child,
        'socks5',
        { host: '', port: 0 },
        { allowed: false, rule: 'bad-request', reason: target },
      )
      return
    }
    const startedAt = front.clock.now()
    const decision = await front.connector.decide(child, target, connection.gone)
    const opened = await front.connector.open(child, 'socks5', decision, startedAt, connection.gone)
    if (opened.refusal !== undefined) {
      refuse(connection, opened.refusal)
      return
    }
    socket.write(reply('granted'))
    await tunnel(connection, opened, { child, protocol: 'socks5', decision, front })
  } catch (cause) {
    if (!(cause instanceof EndedEarly || cause instanceof TargetError)) throw cause
    const reason = cause instanceof TargetError ? cause.message : 'the connection ended early'
    const { child } = connection
    front.connector.tell(
      child,
      'socks5',
      { host: '', port: 0 },
      { allowed: false, rule: 'bad-request', reason },
    )
    if (cause instanceof TargetError) refuse(connection, 'denied')
    else socket.destroy()
  }
}

async function login(connection: ClientConnection, front: Front): Promise<Child | undefined> {
  const { reader, socket } = connection
  const nothing = { host: '', port: 0 }
  const [, methodCount = 0] = await reader.take(2)
  const methods = await reader.take(methodCount)
  if (!methods.includes(passwordMethod)) {
    front.connector.tell(undefined, 'socks5', nothing, {
      allowed: false,
      rule: 'token',
      reason: 'no password offered',
    })
    endWith(connection, String.fromCharCode(version, noMethod))
    return undefined
  }
  socket.write(Buffer.from([version, passwordMethod]))
  const [spoken] = await reader.take(1)
  const [userLength = 0] = await reader.take(1)
  await reader.take(userLength)
  const [passwordLength = 0] = await reader.take(1)
  const password = (await reader.take(passwordLength)).toString('latin1')
  const admission =
    spoken === loginVersion ? front.admit(connection, password) : { refusal: 'token' as const }
  if ('refusal' in admission) {
    if (admission.refusal === 'token')
      front.connector.tell(undefined, 'socks5', nothing, { allowed: false, rule: 'token' })
    endWith(connection, String.fromCharCode(loginVersion, 1))
    return undefined
  }
  socket.write(Buffer.from([loginVersion, 0]))
  return admission.child
}

async function readRequest({ reader }: ClientConnection): Promise<Target | 'bad' | 'command' | 'type'> {
  const [spoken, command, reserved, type] = await reader.take(4)
  if (spoken !== version || reserved !== 0) return 'bad'
  if (command !== connectCommand) return 'command'
  let host: Host
  switch (type) {
    case addressTypes.ipv4:
      host = { kind: 'address', address: [...(await reader.take(4))].join('.') }
      break
    case addressTypes.ipv6: {
      const groups = (await reader.take(16)).toString('hex').match(/.{4}/g) as string[]
      host = canonicalHost(`[${groups.join(':')}]`)
      break
    }
    case addressTypes.name: {
      const [length = 0] = await reader.take(1)
      const bytes = await reader.take(length)
      const text = bytes.toString('utf8')
      if (!Buffer.from(text).equals(bytes)) throw new TargetError('a name is in UTF-8')
      host = canonicalHost(text)
      break
    }
    default:
      return 'type'
  }
  const port = (await reader.take(2)).readUInt16BE()
  if (port === 0) throw new TargetError(`port 0 of ${hostText(host)}`)
  return { host, port }
}

function reply(code: keyof typeof replies): Buffer {
  return Buffer.from([version, replies[code], 0, addressTypes.ipv4, 0, 0, 0, 0, 0, 0])
}

function refuse(connection: ClientConnection, code: keyof typeof replies): void {
  endWith(connection, reply(code).toString('latin1'))
}
