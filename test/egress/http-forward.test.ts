import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import type { EgressChild } from '../../src/core/sandbox.ts'
import { until } from '../support/launcher.ts'
import {
  allow,
  basic,
  closedPort,
  startEgress,
  startTcp,
  type Teardown,
  type TestEgress,
  toLoopback,
  Wire,
} from './support.ts'

async function startHttp(t: Teardown, serve: RequestListener): Promise<number> {
  const server = createServer(serve).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  return (server.address() as AddressInfo).port
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = ''
  for await (const part of request) text += part
  return text
}

/** Says what it got. */
const mirror: RequestListener = (request, response) => {
  const { method, url, rawHeaders } = request
  textOf(request).then(
    (body) => response.end(JSON.stringify({ method, url, rawHeaders, body })),
    () => response.destroy(),
  )
}

interface Setup {
  readonly proxy: TestEgress
  readonly child: EgressChild
  readonly port: number
  /** Sends a request with the child's token in place of `TOKEN`. */
  send(request: string): Wire
}

async function setup(t: Teardown, serve: RequestListener = mirror): Promise<Setup> {
  const port = await startHttp(t, serve)
  const proxy = await startEgress(t)
  for (const name of ['a.example.com', 'b.example.com']) proxy.names.set(name, ['127.0.0.1'])
  const child = proxy.egress.admit(allow({ hosts: ['a.example.com', 'b.example.com'], cidrs: toLoopback }), {
    name: 'p',
  })
  return {
    proxy,
    child,
    port,
    send: (request) =>
      new Wire(proxy.egress.port).write(request.replaceAll('TOKEN', `Proxy-Authorization: ${basic(child)}`)),
  }
}

/** A whole response with a length or in chunks. */
async function response(wire: Wire): Promise<{ status: number; head: string; body: string }> {
  const head = await wire.until('\r\n\r\n')
  const status = Number(head.split(' ')[1])
  const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1]
  if (length !== undefined) return { status, head, body: (await wire.take(Number(length))).toString() }
  let body = ''
  if (/\r\ntransfer-encoding: chunked/i.test(head)) {
    for (;;) {
      const size = Number.parseInt(await wire.until('\r\n'), 16)
      body += (await wire.take(size)).toString()
      await wire.until('\r\n')
      if (size === 0) break
    }
  }
  return { status, head, body }
}

t.test('a request is passed on with the Host of its target, without what is for the proxy', async (t) => {
  const { proxy, port, send } = await setup(t)
  const wire = send(
    [
      `GET http://A.example.com:${port}/path?x=%20y HTTP/1.1`,
      'Host: evil.example.com',
      'TOKEN',
      'Proxy-Connection: keep-alive',
      'Connection: keep-alive, X-Secret',
      'X-Secret: 1',
      'Keep-Alive: timeout=5',
      'TE: trailers',
      'Upgrade: websocket',
      'Mcp-Sidecar-Broker: early',
      'Cookie: a=b',
      '\r\n',
    ].join('\r\n'),
  )
  const { status, body } = await response(wire)
  t.equal(status, 200)
  const { method, url, rawHeaders } = JSON.parse(body)
  t.same({ method, url }, { method: 'GET', url: '/path?x=%20y' })
  t.same(rawHeaders, [
    'Host',
    `a.example.com:${port}`,
    'Cookie',
    'a=b',
    'Via',
    '1.1 mcp-sidecar',
    'Connection',
    'close',
  ])
  t.match(proxy.verdicts, [
    { allowed: true, protocol: 'http', host: 'a.example.com', port, address: '127.0.0.1' },
  ])
  t.match(proxy.ends, [{ child: 'p', host: 'a.example.com' }])
  wire.close()
})

t.test('each request of a connection is judged for itself', async (t) => {
  const { proxy, port, send } = await setup(t)
  const head = (host: string): string =>
    `GET http://${host}:${port}/${host} HTTP/1.1\r\nHost: a.example.com\r\nTOKEN\r\n\r\n`
  const wire = send(
    head('a.example.com') + head('b.example.com') + head('c.example.com') + head('a.example.com'),
  )
  t.match(await response(wire), { status: 200, body: /"url":"\/a.example.com".*"a.example.com:\d+"/ })
  t.match(await response(wire), { status: 200, body: /"url":"\/b.example.com".*"b.example.com:\d+"/ })
  t.equal((await response(wire)).status, 403)
  t.equal(await wire.end(), 'end')
  t.same(
    proxy.verdicts.map(({ allowed, host }) => `${allowed} ${host}`),
    ['true a.example.com', 'true b.example.com', 'false c.example.com'],
  )
})

t.test('each request needs the token of the same child', async (t) => {
  const { proxy, port, send } = await setup(t)
  const other = proxy.egress.admit(allow({ hosts: ['a.example.com'], cidrs: toLoopback }), { name: 'other' })
  for (const second of ['', `Proxy-Authorization: ${basic(other)}\r\n`]) {
    const wire = send(
      `GET http://a.example.com:${port}/ HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\nGET http://a.example.com:${port}/ HTTP/1.1\r\nHost: a\r\n${second}\r\n`,
    )
    t.equal((await response(wire)).status, 200)
    t.equal((await response(wire)).status, 407)
    wire.close()
  }
})

t.test('bodies arrive whole, by length and in chunks, with what follows them still a request', async (t) => {
  const { port, send } = await setup(t)
  const post = (framing: string): string =>
    `POST http://a.example.com:${port}/ HTTP/1.1\r\nHost: a\r\nTOKEN\r\n${framing}`
  const wire = send(
    post('Content-Length: 5\r\n\r\nhello') +
      post(
        'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n00A;x=y\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n',
      ) +
      post('Content-Length: 0\r\n\r\n') +
      post('\r\n'),
  )
  for (const body of ['hello', 'abc0123456789', '', ''])
    t.equal(JSON.parse((await response(wire)).body).body, body)
  wire.close()
  const large = 'x'.repeat(3 << 20)
  const slow = send(post(`Content-Length: ${large.length}\r\n\r\n${large}`))
  t.equal(JSON.parse((await response(slow)).body).body.length, large.length)
  slow.close()
})

t.test('responses come with their framing, whatever the upstream used', async (t) => {
  const { port, send } = await setup(t, (request, response) => {
    if (request.url === '/chunks') {
      response.write('first ')
      response.end('second')
    } else if (request.url === '/none') response.writeHead(204).end()
    else if (request.url === '/cached') response.writeHead(304, { etag: '"x"' }).end()
    else if (request.url === '/sized') response.writeHead(200, { 'content-length': 5 }).end('sized')
    else if (request.url === '/old') {
      response.shouldKeepAlive = false
      response.useChunkedEncodingByDefault = false
      response.end('until the end')
    }
  })
  const get = (path: string, method = 'GET', version = '1.1'): string =>
    `${method} http://a.example.com:${port}${path} HTTP/${version}\r\nHost: a\r\nTOKEN\r\n\r\n`
  const wire = send(
    get('/chunks') +
      get('/none') +
      get('/sized') +
      get('/sized', 'HEAD') +
      get('/cached') +
      get('/old') +
      get('/sized'),
  )
  t.match(await response(wire), { status: 200, body: 'first second', head: /transfer-encoding: chunked/i })
  t.match(await wire.until('\r\n\r\n'), /^HTTP\/1.1 204/)
  t.match(await response(wire), { body: 'sized', head: /content-length: 5/i })
  t.match(await wire.until('\r\n\r\n'), /content-length: 5/i)
  t.match(await wire.until('\r\n\r\n'), /^HTTP\/1.1 304/)
  t.match(await response(wire), { body: 'until the end' })
  t.match(await response(wire), { body: 'sized' })
  wire.close()
  const old = send(get('/chunks', 'GET', '1.0'))
  const head = await old.until('\r\n\r\n')
  t.notMatch(head, /chunked/i)
  t.match(head, /connection: close/i)
  t.equal(await old.until('second'), 'first second')
  t.equal(await old.end(), 'end')
})

t.test('a response that is cut off is reset, and does not look complete', async (t) => {
  const port = await startTcp(t, (socket) =>
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this')),
  )
  const { send } = await setup(t)
  const wire = send(`GET http://a.example.com:${port}/ HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n`)
  t.equal(await wire.status(), 200)
  t.equal(await wire.end(), 'ECONNRESET')
})

t.test('what is no HTTP response, or an upgrade nobody asked for, is 502', async (t) => {
  const { send } = await setup(t)
  for (const text of [
    'SSH-2.0-OpenSSH\r\n',
    '',
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
  ]) {
    const port = await startTcp(t, (socket) => socket.once('data', () => socket.end(text)))
    const wire = send(`GET http://a.example.com:${port}/ HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n`)
    t.equal(await wire.status(), 502, JSON.stringify(text))
    wire.close()
  }
  const wire = send(`GET http://a.example.com:${await closedPort()}/ HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n`)
  t.equal(await wire.status(), 502)
  wire.close()
})

t.test('100-continue is passed back, other expectations are refused', async (t) => {
  const { port, send } = await setup(t)
  const wire = send(
    `PUT http://a.example.com:${port}/ HTTP/1.1\r\nHost: a\r\nTOKEN\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n`,
  )
  t.equal(await wire.status(), 100)
  wire.write('ok')
  t.equal(JSON.parse((await response(wire)).body).body, 'ok')
  wire.close()
  const other = send(
    `PUT http://a.example.com:${port}/ HTTP/1.1\r\nHost: a\r\nTOKEN\r\nExpect: miracles\r\n\r\n`,
  )
  t.equal(await other.status(), 417)
  other.close()
})

t.test('of 100-continue one is passed back, to a client that expects it, however many come', async (t) => {
  const many = 50_000
  const port = await startTcp(t, (socket) => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 100 Continue\r\n\r\n'.repeat(many))
      socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
  })
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ cidrs: toLoopback }), { name: 'p' })
  for (const [version, header, expected] of [
    ['1.1', '', 0],
    ['1.1', 'Expect: 100-continue\r\n', 1],
    ['1.0', 'Expect: 100-continue\r\n', 0],
  ] as const) {
    // It reads nothing until the proxy is done.
    const wire = new Wire(proxy.egress.port)
    wire.socket.pause()
    wire.write(
      `GET http://127.0.0.1:${port}/ HTTP/${version}\r\nHost: a\r\nProxy-Authorization: ${basic(child)}\r\n${header}\r\n`,
    )
    const before = proxy.ends.length
    await until(() => proxy.ends.length > before, 'the whole response has been passed on')
    wire.socket.resume()
    const text = await wire.until('\r\n\r\nok')
    t.equal(text.split('100 Continue').length - 1, expected, `HTTP/${version} ${header}`)
    wire.close()
  }
})

t.test(
  'requests that two parsers could read in two ways are refused before anything is dialled',
  async (t) => {
    let dialled = 0
    const { proxy, child } = await setup(t)
    const port = await startTcp(t, () => void dialled++)
    const line = `POST http://a.example.com:${port}/ HTTP/1.1`
    const token = `Proxy-Authorization: ${basic(child)}`
    const host = 'Host: a.example.com'
    const heads: Record<string, string> = {
      'length and chunks': `${line}\r\n${host}\r\n${token}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n`,
      'two lengths': `${line}\r\n${host}\r\n${token}\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n`,
      'a list of lengths': `${line}\r\n${host}\r\n${token}\r\nContent-Length: 4, 4\r\n\r\n`,
      'a signed length': `${line}\r\n${host}\r\n${token}\r\nContent-Length: +4\r\n\r\n`,
      'a hexadecimal length': `${line}\r\n${host}\r\n${token}\r\nContent-Length: 0x4\r\n\r\n`,
      'an endless length': `${line}\r\n${host}\r\n${token}\r\nContent-Length: 99999999999999999999\r\n\r\n`,
      'an empty length': `${line}\r\n${host}\r\n${token}\r\nContent-Length:\r\n\r\n`,
      'another coding': `${line}\r\n${host}\r\n${token}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n`,
      'two codings': `${line}\r\n${host}\r\n${token}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n`,
      'a hidden coding': `${line}\r\n${host}\r\n${token}\r\nTransfer-Encoding: \x0bchunked\r\n\r\n`,
      'chunks in HTTP/1.0': `${line.replace('1.1', '1.0')}\r\n${token}\r\nTransfer-Encoding: chunked\r\n\r\n`,
      'two hosts': `${line}\r\n${host}\r\nHost: b.example.com\r\n${token}\r\n\r\n`,
      'no host': `${line}\r\n${token}\r\n\r\n`,
      'a folded host': `${line}\r\nHost: a\r\n .example.com\r\n${token}\r\n\r\n`,
      'a folded header': `${line}\r\n${host}\r\nX: a\r\n\tb\r\n${token}\r\n\r\n`,
      'a blank before the colon': `${line}\r\nHost : a\r\n${token}\r\n\r\n`,
      'no colon': `${line}\r\n${host}\r\nhello\r\n${token}\r\n\r\n`,
      'an empty name': `${line}\r\n${host}\r\n: hello\r\n${token}\r\n\r\n`,
      'bare line feeds': `${line}\n${host}\n${token}\n\n`,
      'one bare line feed': `${line}\r\n${host}\nX: y\r\n${token}\r\n\r\n`,
      'a bare carriage return': `${line}\r\n${host}\rX: y\r\n${token}\r\n\r\n`,
      'a NUL': `${line}\r\n${host}\r\nX: a\0b\r\n${token}\r\n\r\n`,
      'HTTP/0.9': `GET http://a.example.com:${port}/\r\n`,
      'HTTP/2': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      'HTTP/1.2': `${line.replace('1.1', '1.2')}\r\n${host}\r\n${token}\r\n\r\n`,
      'two blanks': `${line.replace(' http', '  http')}\r\n${host}\r\n${token}\r\n\r\n`,
      'a blank in the target': `GET http://a.example.com:${port}/a b HTTP/1.1\r\n${host}\r\n${token}\r\n\r\n`,
      'a tab': `GET\thttp://a.example.com:${port}/ HTTP/1.1\r\n${host}\r\n${token}\r\n\r\n`,
      'bytes that are not ASCII': `GET http://a.example.com:${port}/\xe4 HTTP/1.1\r\n${host}\r\n${token}\r\n\r\n`,
      'a leading line': `\r\n${line}\r\n${host}\r\n${token}\r\n\r\n`,
      'a path': `GET / HTTP/1.1\r\n${host}\r\n${token}\r\n\r\n`,
      'another scheme': `GET https://a.example.com:${port}/ HTTP/1.1\r\n${host}\r\n${token}\r\n\r\n`,
      userinfo: `GET http://a.example.com@127.0.0.1:${port}/ HTTP/1.1\r\n${host}\r\n${token}\r\n\r\n`,
      'userinfo in CONNECT': `CONNECT a.example.com@b.example.com:${port} HTTP/1.1\r\n${host}\r\n${token}\r\n\r\n`,
      'percent-encoding': `GET http://%61.example.com:${port}/ HTTP/1.1\r\n${host}\r\n${token}\r\n\r\n`,
      'a body for CONNECT': `CONNECT a.example.com:${port} HTTP/1.1\r\n${host}\r\n${token}\r\nContent-Length: 3\r\n\r\nabc`,
      'CONNECT without a port': `CONNECT a.example.com HTTP/1.1\r\n${host}\r\n${token}\r\n\r\n`,
      'CONNECT with a URL': `CONNECT http://a.example.com:${port}/ HTTP/1.1\r\n${host}\r\n${token}\r\n\r\n`,
      TLS: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
      SOCKS4: '\x04\x01\x00\x50\x7f\x00\x00\x01child\x00',
    }
    for (const [what, head] of Object.entries(heads)) {
      const wire = new Wire(proxy.egress.port).write(head)
      t.equal(await wire.status(), 400, what)
      t.ok(await wire.end(), 'and the connection ends')
      wire.close()
    }
    for (const [what, head] of Object.entries({
      'a long line': `GET http://a.example.com/${'x'.repeat(17_000)} HTTP/1.1\r\n${host}\r\n\r\n`,
      'many headers': `${line}\r\n${host}\r\n${'X: y\r\n'.repeat(200)}\r\n`,
      'no end': `${line}\r\nX: ${'y'.repeat(20_000)}`,
    })) {
      const wire = new Wire(proxy.egress.port).write(head)
      t.equal(await wire.status(), 431, what)
      wire.close()
    }
    t.equal(dialled, 0)
    t.ok(proxy.verdicts.every(({ allowed, rule }) => !allowed && rule === 'bad-request'))
  },
)

t.test('a verdict names the host of a wrong target, and nothing that may be secret', async (t) => {
  const { proxy, child, send } = await setup(t)
  for (const [request, host] of [
    [
      'GET http://user:secret@a.example.com/secret?secret HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n',
      'a.example.com',
    ],
    ['GET http://a.example.com/secret?secret#secret HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n', 'a.example.com'],
    ['GET http://a.example.com/secret?secret HTTP/1.1\r\nHost: a\r\n\r\n', 'a.example.com'],
    ['GET /secret HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n', ''],
    ['CONNECT user:secret@a.example.com:1 HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n', 'a.example.com:1'],
  ] as const) {
    const wire = send(request)
    t.ok([400, 407].includes(await wire.status()), request)
    wire.close()
    t.equal(proxy.verdicts.at(-1)?.host, host, request)
  }
  t.notMatch(JSON.stringify(proxy.verdicts), 'secret')
  t.notMatch(JSON.stringify(proxy.verdicts), child.token.reveal())
})

t.test('chunks that are wrong end the request, and nothing behind them is one', async (t) => {
  const { proxy, port, send } = await setup(t)
  const start = `POST http://a.example.com:${port}/ HTTP/1.1\r\nHost: a\r\nTOKEN\r\nTransfer-Encoding: chunked\r\n\r\n`
  const hidden = `GET http://b.example.com:${port}/ HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n`
  for (const body of [
    ...[
      'x\r\n',
      '-1\r\n',
      '0x3\r\nabc\r\n',
      '3\nabc\n0\n\n',
      '3\r\nabcd\r\n0\r\n\r\n',
      '3\r\nab\r\n0\r\n\r\n',
      ' 3\r\nabc\r\n',
    ],
    ...[
      '3;\x01\r\nabc\r\n',
      `${'0'.repeat(20)}\r\n\r\n`,
      `1${'0'.repeat(12)}\r\n`,
      '3\rabc',
      `0\r\n${'X: y\r\n'.repeat(500)}\r\n`,
    ],
    ...['0\r\nX\nY\r\n\r\n', `3;${'x'.repeat(2000)}\r\nabc\r\n`],
  ]) {
    const wire = send(`${start}${body}${hidden}`)
    t.equal(await wire.status(), 400, JSON.stringify(body.slice(0, 40)))
    wire.close()
  }
  t.notOk(proxy.verdicts.some(({ host, allowed }) => allowed && host === 'b.example.com'))
  t.same(proxy.warnings, [])
})

t.test('a head is read in whatever pieces it comes, up to its limit', async (t) => {
  const { port, send } = await setup(t)
  const path = 'x'.repeat(15_000)
  const wire = send(`GET http://a.example.com:${port}/${path} HTTP/1.1\r\nHost: a\r\n`)
  wire.write('')
  for (const part of ['TOKEN\r\n', '\r', '\n']) {
    await new Promise((resolve) => setImmediate(resolve))
    wire.write(part === 'TOKEN\r\n' ? `Proxy-Authorization: x\r\n` : part)
  }
  t.equal(await wire.status(), 407)
  wire.close()
  const right = send(`GET http://a.example.com:${port}/${path} HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n`)
  t.equal((await response(right)).status, 200)
  right.close()
})

t.test('a Connection header takes no framing away, in either direction', async (t) => {
  const { port, send } = await setup(t, (request, response) => {
    const named = 'close, Content-Length, Transfer-Encoding, X-Hop'
    textOf(request).then(
      (body) => {
        const text = JSON.stringify({ rawHeaders: request.rawHeaders, body })
        const sized = request.url === '/chunks' ? {} : { 'Content-Length': text.length }
        response.writeHead(200, { ...sized, Connection: named, 'X-Hop': '1', 'X-Kept': '2' }).end(text)
      },
      () => response.destroy(),
    )
  })
  const head = (path: string, more = ''): string =>
    `POST http://a.example.com:${port}${path} HTTP/1.1\r\nHost: a\r\nTOKEN\r\n${more}`
  const wire = send(
    head('/sized', 'Connection: Content-Length, Host\r\nContent-Length: 5\r\n\r\nfirst') +
      head(
        '/chunks',
        'Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n',
      ) +
      head('/sized', 'Content-Length: 0\r\n\r\n'),
  )
  for (const [body, framing] of [
    ['first', /\r\nContent-Length: \d+\r\n/],
    ['second', /\r\nTransfer-Encoding: chunked\r\n/],
  ] as const) {
    const answer = await response(wire)
    t.match(answer, { status: 200, head: framing })
    t.match(answer.head, /x-kept: 2/i)
    t.notMatch(answer.head, /x-hop/i)
    const heard = JSON.parse(answer.body)
    t.equal(heard.body, body)
    t.ok(heard.rawHeaders.includes('Host'))
  }
  t.match(await response(wire), { status: 200 }, 'and the connection goes on where it should')
  wire.close()
})
