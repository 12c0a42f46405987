import { once } from 'node:events'
import { connect as connectTcp, createServer, type Socket } from 'node:net'
import {
  type ConnectionOptions,
  connect as connectTls,
  createServer as createTlsServer,
  type TLSSocket,
} from 'node:tls'
import fc from 'fast-check'
import t from 'tap'
import { readClientHello } from '../../src/egress/client-hello.ts'
import { authority } from '../support/pki.ts'
import { holds } from '../support/property.ts'
import { allow, connectHead, startEgress, startTcp, type Teardown, type TestEgress, Wire } from './support.ts'

/** What a real client sends first. */
async function realHello(options: ConnectionOptions): Promise<Buffer> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const client = connectTls({ ...options, port, host: '127.0.0.1' }).on('error', () => {})
  const [socket] = (await once(server, 'connection')) as [Socket]
  const [first] = (await once(socket, 'data')) as [Buffer]
  client.destroy()
  server.close()
  return first
}

const u16 = (n: number): number[] => [n >> 8, n & 255]
const block = (bytes: number[]): number[] => [...u16(bytes.length), ...bytes]
const extension = (type: number, body: number[]): number[] => [...u16(type), ...block(body)]
const sni = (name: string, type = 0): number[] =>
  extension(0, block([type, ...block([...Buffer.from(name)])]))

function hello(extensions: number[], records: number[] = []): Buffer {
  const body = [3, 3, ...Array<number>(32).fill(7), 0, ...block([0x13, 1]), 1, 0, ...block(extensions)]
  const handshake = [1, 0, ...block(body)]
  const parts: number[][] = []
  let at = 0
  for (const size of records) {
    parts.push(handshake.slice(at, at + size))
    at += size
  }
  parts.push(handshake.slice(at))
  return Buffer.from(parts.filter((part) => part.length > 0).flatMap((part) => [22, 3, 1, ...block(part)]))
}

t.test('the server name of real clients is found, however the hello is cut', async (t) => {
  for (const options of [{}, { minVersion: 'TLSv1.3' }, { maxVersion: 'TLSv1.2' }] as ConnectionOptions[]) {
    const bytes = await realHello({ ...options, servername: 'Db.Example.com' })
    t.same(readClientHello(bytes), { serverName: 'db.example.com', encrypted: false })
    for (let end = 0; end < bytes.length; end++) t.equal(readClientHello(bytes.subarray(0, end)), undefined)
    t.same(readClientHello(Buffer.concat([bytes, Buffer.from('more')])), {
      serverName: 'db.example.com',
      encrypted: false,
    })
  }
  t.same(readClientHello(await realHello({})), { serverName: undefined, encrypted: false })
})

t.test('a hello in several records is one', async (t) => {
  for (const records of [[1], [3, 1], [4], [10, 10, 10], [50]]) {
    t.match(readClientHello(hello(sni('a.example.com'), records)), { serverName: 'a.example.com' })
  }
  t.throws(() => readClientHello(hello(sni('a.example.com'), Array<number>(40).fill(1))), {
    name: 'HelloError',
  })
})

t.test('a hello that is wrong, doubtful or too long is none', async (t) => {
  const wrong: Record<string, Buffer> = {
    'plain HTTP': Buffer.from('GET / HTTP/1.1\r\n'),
    'another record': Buffer.from([23, 3, 3, 0, 5, 1, 2, 3, 4, 5]),
    'another message': Buffer.from([22, 3, 3, 0, 4, 2, 0, 0, 0]),
    'SSL 2': Buffer.from([0x80, 0x2e, 1, 0, 2]),
    'an empty record': Buffer.from([22, 3, 1, 0, 0]),
    'a record that is too long': Buffer.from([22, 3, 1, 0x7f, 0xff]),
    'a message that is too long': Buffer.from([22, 3, 1, 0x40, 0, 1, 1, 0, 0]),
    'two names': hello([...sni('a.example.com'), ...sni('b.example.com')]),
    'two names in one': hello(extension(0, block([0, ...block([97]), 0, ...block([98])]))),
    'a name that is none': hello(sni('a\0b')),
    'a blank': hello(sni('a b')),
    'an empty name': hello(sni('')),
    'another kind of name': hello(sni('a', 1)),
    'lengths that do not fit': hello([...sni('a'), 0]),
    'a tail': (() => {
      const bytes = hello(sni('a.example.com'))
      return Buffer.concat([
        Buffer.from([22, 3, 1, ...u16(bytes.length - 5 + 1)]),
        Buffer.from([1, 0, ...u16(bytes.length - 9 + 1)]),
        bytes.subarray(9),
        Buffer.from([0]),
      ])
    })(),
  }
  for (const [what, bytes] of Object.entries(wrong))
    t.throws(() => readClientHello(bytes), { name: 'HelloError' }, what)
  holds(
    t,
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(), fc.nat(255), (noise, at, byte) => {
      const bytes = hello(sni('a.example.com'))
      bytes[at % bytes.length] = byte
      for (const each of [
        bytes,
        Buffer.concat([hello(sni('x')).subarray(0, 50), noise]),
        Buffer.from(noise),
      ]) {
        try {
          readClientHello(each)
        } catch (cause) {
          if ((cause as Error).name !== 'HelloError') return false
        }
      }
      return true
    }),
    3000,
  )
})

interface TlsSetup extends TestEgress {
  readonly ca: string
  readonly heard: string[]
}

/** Everything on port 443 leads to one TLS server. */
async function tlsSetup(t: Teardown): Promise<TlsSetup> {
  const root = authority('Test CA')
  const issued = root.issue({
    cn: 'ok.example.com',
    dns: ['ok.example.com', 'other.example.com'],
    usage: 'server',
  })
  const heard: string[] = []
  const server = createTlsServer({ cert: issued.chain, key: issued.key }, (socket) => {
    heard.push((socket as TLSSocket & { servername?: string }).servername ?? '')
    socket.on('error', () => {})
    socket.pipe(socket)
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  const proxy = await startEgress(t, {
    dial: (address, at) => connectTcp({ host: address, port: at === 443 ? port : at, allowHalfOpen: true }),
  })
  proxy.names.set('ok.example.com', ['127.0.0.1'])
  return { ...proxy, ca: root.certificate, heard }
}

const policy = allow({ hosts: ['ok.example.com'], cidrs: ['127.0.0.1/32'], checkSni: true })

async function secure(proxy: TlsSetup, servername: string, target: string, checked = true): Promise<string> {
  const child = proxy.egress.admit({ ...policy, checkSni: checked }, { name: 'p' })
  const wire = new Wire(proxy.egress.port).write(connectHead(child, target))
  await wire.status()
  wire.socket.removeAllListeners('data')
  const socket = connectTls({
    socket: wire.socket,
    servername,
    ca: proxy.ca,
    checkServerIdentity: () => undefined,
  })
  return new Promise((resolve) => {
    socket.on('secureConnect', () => socket.write('hello'))
    socket.on('data', (data) => {
      resolve(data.toString())
      socket.destroy()
    })
    socket.on('error', (cause: NodeJS.ErrnoException) => resolve(cause.code ?? cause.message))
    socket.on('close', () => resolve('closed'))
  })
}

t.test('with checkSni the name in the handshake must be the one that was asked for', async (t) => {
  const proxy = await tlsSetup(t)
  t.equal(await secure(proxy, 'ok.example.com', 'ok.example.com:443'), 'hello')
  t.equal(await secure(proxy, 'OK.example.com', 'ok.example.com:443'), 'hello')
  t.match(await secure(proxy, 'other.example.com', 'ok.example.com:443'), /ECONNRESET|closed/)
  t.match(await secure(proxy, '', 'ok.example.com:443'), /ECONNRESET|closed/)
  t.same(proxy.heard, ['ok.example.com', 'OK.example.com'], 'the others have not reached the server')
  const address = '127.0.0.1'
  const denied = {
    allowed: false,
    rule: 'sni',
    host: 'ok.example.com',
    port: 443,
    address,
    outcome: undefined,
  }
  t.match(
    proxy.verdicts,
    [
      { allowed: true, outcome: 'connected' },
      { allowed: true, outcome: 'connected' },
      { ...denied, reason: /other\.example\.com/ },
      { ...denied, reason: /no server name/ },
    ],
    'one for each connection',
  )
  t.equal(proxy.verdicts.length, 4)
  t.equal(
    await secure(proxy, 'other.example.com', '127.0.0.1:443'),
    'hello',
    'an address has no name to compare',
  )
  t.equal(
    await secure(proxy, 'other.example.com', 'ok.example.com:443', false),
    'hello',
    'nor is it compared unasked',
  )
})

t.test('with checkSni nothing but TLS passes on port 443, and other ports are open', async (t) => {
  const proxy = await tlsSetup(t)
  const other = await startTcp(t, (socket) => void socket.pipe(socket))
  const child = proxy.egress.admit(policy, { name: 'p' })
  const wire = new Wire(proxy.egress.port).write(connectHead(child, 'ok.example.com:443'))
  t.equal(await wire.status(), 200)
  // Behind the answer, since libuv takes a reset right behind data for an end.
  wire.write('GET / HTTP/1.1\r\n\r\n')
  t.equal(await wire.end(), 'ECONNRESET')
  const ended = new Wire(proxy.egress.port).write(connectHead(child, 'ok.example.com:443'))
  await ended.status()
  ended.socket.end()
  t.ok(await ended.end())
  const plain = new Wire(proxy.egress.port).write(`${connectHead(child, `ok.example.com:${other}`)}hello`)
  t.equal(await plain.status(), 200)
  t.equal((await plain.take(5)).toString(), 'hello')
  plain.close()
  t.same(proxy.warnings, [])
})

const encryptedHello = 0xfe0d
/** A suite, a configuration, an encapsulated key and a payload, as clients send it. */
const outer = (key = [1, 2, 3], payload = [4, 5]): number[] => [
  ...[0, 0, 1, 0, 1, 42],
  ...block(key),
  ...block(payload),
]

t.test('what only looks like an encrypted hello excuses no other name', async (t) => {
  t.match(readClientHello(hello([...sni('a.example.com'), ...extension(encryptedHello, outer())])), {
    serverName: 'a.example.com',
    encrypted: true,
  })
  const wrong: Record<string, number[]> = {
    empty: [],
    'of the inner kind': [1],
    'of an unknown kind': [2, ...outer().slice(1)],
    'cut off': [0, 1, 2],
    'without a payload': outer([1, 2, 3], []),
    'with a tail': [...outer(), 0],
    'with a wrong length': outer().slice(0, -1),
  }
  const proxy = await tlsSetup(t)
  const child = proxy.egress.admit(policy, { name: 'p' })
  for (const [what, body] of Object.entries(wrong)) {
    const bytes = hello([...sni('ok.example.com'), ...extension(encryptedHello, body)])
    t.throws(() => readClientHello(bytes), { name: 'HelloError' }, what)
    const wire = new Wire(proxy.egress.port).write(connectHead(child, 'ok.example.com:443'))
    await wire.status()
    wire.write(hello([...sni('public.example.net'), ...extension(encryptedHello, body)]))
    t.equal(await wire.end(), 'ECONNRESET', what)
    t.match(proxy.verdicts.at(-1), { allowed: false, rule: 'sni' }, what)
  }
  t.same(proxy.heard, [])
})

t.test('an encrypted hello under another name is refused; one under the right name passes', async (t) => {
  const proxy = await tlsSetup(t)
  const child = proxy.egress.admit(policy, { name: 'p' })
  const say = async (name: string): Promise<Wire> => {
    const wire = new Wire(proxy.egress.port).write(connectHead(child, 'ok.example.com:443'))
    t.equal(await wire.status(), 200)
    return wire.write(hello([...sni(name), ...extension(encryptedHello, outer())]))
  }
  const passed = await say('ok.example.com')
  await passed.take(1)
  passed.close()
  t.match(proxy.verdicts.at(-1), { allowed: true, rule: 'host' })
  const refused = await say('public.example.net')
  t.equal(await refused.end(), 'ECONNRESET')
  t.match(proxy.verdicts.at(-1), { allowed: false, rule: 'sni', reason: /encrypted.*public\.example\.net/ })
})
