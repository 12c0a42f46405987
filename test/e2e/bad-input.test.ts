import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import t from 'tap'
import { RawConnection, rawAnswers } from '../support/raw.ts'
import { refused } from '../support/refusal.ts'
import { startTestSidecar, until } from '../support/sidecar.ts'
import { openSocket, openSse, upgradeAnswer } from '../support/streams.ts'
import {
  accept,
  call,
  collect,
  held,
  initialize,
  open,
  openSession,
  post,
  type RawResponse,
  released,
  send,
} from '../support/wire.ts'

type Headers = Record<string, string | string[]>

const bodyLimit = 64 * 1024
const { url, base, metric } = await startTestSidecar(t, {
  config: { listen: { webSocket: true }, limits: { requestBodyBytes: bodyLimit, inFlightPerPrincipal: 10 } },
  flags: { allowHost: ['named.example', 'ported.example:9999'], allowOrigin: ['https://app.example'] },
})
const port = Number(new URL(url).port)
const host = `127.0.0.1:${port}`
const session = await openSession(url)
const quickServer = fileURLToPath(new URL('../fixtures/quick-server.sh', import.meta.url))

// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
const textOf = (answer: any): any => {
  const text = answer.result.content[0].text
  return /^[[{]/.test(text) ? JSON.parse(text) : text
}
const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}
/** Sockets of this process: the sidecar's and ours. */
const openSockets = (): number =>
  process.getActiveResourcesInfo().filter((type) => type === 'TCPSocketWrap').length
const types = { 'Content-Type': 'application/json', Accept: accept }
/** A POST as it stands on the wire. */
const raw = (message: unknown, headers: Headers = {}): string => {
  const body = typeof message === 'string' ? message : JSON.stringify(message)
  const all = { Host: host, ...types, ...headers, 'Content-Length': String(Buffer.byteLength(body)) }
  const lines = Object.entries(all).flatMap(([name, value]) =>
    [value].flat().map((each) => `${name}: ${each}`),
  )
  return ['POST /mcp HTTP/1.1', ...lines, '', body].join('\r\n')
}

// After every attack a session that was there before is served, and every now and then a new one.
let attacks = 0
t.afterEach(async (t) => {
  const answer = await post(url, call('after', 'echo', { text: 'alive' }), session)
  if (textOf(answer.json) !== 'alive') throw new Error(`the old session after "${t.name}": ${answer.body}`)
  if (++attacks % 5 > 0) return
  const next = await openSession(url)
  await send(url, 'DELETE', next)
})

t.test('what is not JSON is refused', async (t) => {
  for (const body of [
    '',
    ' ',
    '{',
    '{"jsonrpc":"2.0","id":1,"method":"ping"',
    '{"jsonrpc":"2.0","id":1,"method":"ping"}}',
    '{"jsonrpc":"2.0","id":1,"method":"ping"} x',
    "{'jsonrpc':'2.0'}",
    '{"jsonrpc":"2.0",}',
    '{"jsonrpc":"2.0","id":01,"method":"ping"}',
    '{"jsonrpc":"2.0","id":1.,"method":"ping"}',
    '{"jsonrpc":"2.0","id":NaN,"method":"ping"}',
    '{"jsonrpc":"2.0","id":1,"method":"pi\nng"}',
    '{"jsonrpc":"2.0","id":1,"method":"ping\\u12"}',
    '{"jsonrpc":"2.0","id":1,"method":"\\x"}',
    '{"jsonrpc":"2.0","id":1,"method":"ping","params":tru}',
    '\ufeff{"jsonrpc":"2.0","id":1,"method":"ping"}',
    'jsonrpc=2.0&id=1&method=ping',
    '<?xml version="1.0"?><methodCall/>',
    '{"jsonrpc":"2.0","id":1,"method":"ping"}\0',
  ]) {
    refused(t, await post(url, body, session), 400, 'ERR_PARSE')
  }
  for (const bytes of ['ff', '7b22a9223a317d', 'c080', 'eda080', 'fffe7b007d00']) {
    refused(t, await post(url, Buffer.from(bytes, 'hex'), session), 400, 'ERR_PARSE')
  }
})

t.test('JSON that is no message is refused', async (t) => {
  for (const body of [
    'null',
    '1',
    '"x"',
    'true',
    '{}',
    '{"id":1,"method":"ping"}',
    '{"jsonrpc":"1.0","id":1,"method":"ping"}',
    '{"jsonrpc":2.0,"id":1,"method":"ping"}',
    '{"jsonrpc":"2.0"}',
    '{"jsonrpc":"2.0","id":1}',
    '{"jsonrpc":"2.0","id":null,"method":"ping"}',
    '{"jsonrpc":"2.0","id":true,"method":"ping"}',
    '{"jsonrpc":"2.0","id":[1],"method":"ping"}',
    '{"jsonrpc":"2.0","id":{},"method":"ping"}',
    '{"jsonrpc":"2.0","id":1,"method":1}',
    '{"jsonrpc":"2.0","id":1,"method":null}',
    '{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}',
    '{"jsonrpc":"2.0","id":1,"method":"ping","params":1}',
    '{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}',
    '{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}',
    '{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}',
    '{"jsonrpc":"2.0","result":{}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":{}}}}',
  ]) {
    refused(t, await post(url, body, session), 400, 'ERR_INVALID_REQUEST')
  }
})

t.test('members that the sidecar decides by may not stand twice, nor in another letter case', async (t) => {
  const lines = async (): Promise<string[]> => textOf((await post(url, call(1, 'lines'), session)).json)
  const before = (await lines()).length
  for (const body of [
    '{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}',
    '{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}',
    '{"jsonrpc":"2.0","id":1,"method":"ping","meth\\u006fd":"tools/call"}',
    '{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}',
    '{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"tools/call"}',
    '{"jsonrpc":"2.0","ID":1,"method":"ping"}',
    '{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}',
    '{"jsonrpc":"2.0","JsonRPC":"2.0","id":1,"method":"ping"}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"},"params":{"name":"crash"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","name":"crash"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","Name":"crash"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","n\\u0061me":"crash"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","paramſ":{"name":"echo"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","param\\u017f":{"name":"echo"}}',
    '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{},"_META":{}}}',
    '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1,"progressToken":2}}}',
    '{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1,"progressto\\u212aen":2}}}',
    '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"requestid":2}}',
    '{"jsonrpc":"2.0","id":1,"result":{},"Error":{}}',
  ]) {
    refused(t, await post(url, body, session), 400, 'ERR_INVALID_REQUEST')
  }
  t.equal((await lines()).length, before + 1, 'the server has read none of them')
})

t.test('nesting without end is refused at once, nesting of a reasonable depth passes', async (t) => {
  const deep = (n: number) =>
    `{"jsonrpc":"2.0","id":1,"method":"x/reflect","params":{"x":${'['.repeat(n)}${']'.repeat(n)}}}`
  for (const body of [deep(30_000), '{"a":'.repeat(10_000), deep(300)]) {
    const start = performance.now()
    refused(t, await post(url, body, session), 400, 'ERR_PARSE')
    t.ok(performance.now() - start < 10_000)
  }
  t.match((await post(url, deep(100), session)).json, { id: 1, result: { params: { x: [] } } })
})

t.test('a body over the limit is refused by its Content-Length, before any of it was sent', async (t) => {
  const headers = [
    'POST /mcp HTTP/1.1',
    `Host: ${host}`,
    'Content-Type: application/json',
    `Accept: ${accept}`,
  ]
  for (const size of [bodyLimit + 1, 2 ** 40, Number.MAX_SAFE_INTEGER]) {
    const connection = new RawConnection(port).write(
      [...headers, `Content-Length: ${size}`, '', ''].join('\r\n'),
    )
    refused(t, await connection.answer(), 413, 'ERR_TOO_LARGE')
    await until(() => connection.ended, 'the connection ends: nobody waits for the body')
    connection.close()
  }
})

t.test('a chunked body over the limit is refused as soon as it is over', async (t) => {
  const head = raw('', { 'Transfer-Encoding': 'chunked' }).replace(/Content-Length: 0\r\n/, '')
  const connection = new RawConnection(port).write(head)
  const chunk = `${(8192).toString(16)}\r\n${' '.repeat(8192)}\r\n`
  for (let sent = 0; sent <= bodyLimit; sent += 8192) connection.write(chunk)
  refused(t, await connection.answer(), 413, 'ERR_TOO_LARGE')
  connection.close()
})

t.test('a body of exactly the limit is served', async (t) => {
  const message = JSON.stringify(call('exact', 'echo', { text: 'x' }))
  const answer = await post(url, message.padEnd(bodyLimit), session)
  t.match(answer.json, { id: 'exact', result: {} })
  refused(t, await post(url, message.padEnd(bodyLimit + 1), session), 413, 'ERR_TOO_LARGE')
})

t.test('a client that is still sending when it is refused can read why', async (t) => {
  const big = Buffer.alloc(3_000_000, 0x20)
  for (let i = 0; i < 10; i++) {
    refused(t, await post(url, big, session), 413, 'ERR_TOO_LARGE')
    refused(t, await post(url, big, { ...session, 'Content-Type': 'text/plain' }), 415, 'ERR_CONTENT_TYPE')
    refused(t, await post(url, big, { Host: 'evil.example' }), 403, 'ERR_HOST')
  }
  const response = await fetch(url, { method: 'POST', headers: types, body: new Uint8Array(big) })
  t.equal(response.status, 413, 'fetch too')
  await response.text()
})

t.test('a body of another type is refused', async (t) => {
  for (const type of [
    'text/plain',
    'application/json5',
    'application/jsonrequest',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'text/plain; application/json',
    'text/plain, application/json',
    'application/xml',
    'json',
    '',
    ';',
  ]) {
    const answer = await post(url, call(1, 'echo'), { ...session, 'Content-Type': type })
    refused(t, answer, 415, 'ERR_CONTENT_TYPE')
  }
  const { 'Content-Type': _, ...none } = types
  refused(
    t,
    await send(url, 'POST', { ...none, ...session }, JSON.stringify(call(1, 'echo'))),
    415,
    'ERR_CONTENT_TYPE',
  )
  for (const type of [
    'application/json; charset=utf-8',
    'Application/JSON',
    'application/json;charset="utf-8"',
  ]) {
    t.equal((await post(url, call(1, 'echo'), { ...session, 'Content-Type': type })).status, 200, type)
  }
})

t.test('a compressed body is refused', async (t) => {
  const body = gzipSync(JSON.stringify(call(1, 'echo')))
  const answer = await post(url, body, { ...session, 'Content-Encoding': 'gzip' })
  refused(t, answer, 415, 'ERR_CONTENT_TYPE')
  const plain = JSON.stringify(call(1, 'echo'))
  refused(t, await post(url, plain, { ...session, 'Content-Encoding': 'gzip' }), 415, 'ERR_CONTENT_TYPE')
  t.equal((await post(url, plain, { ...session, 'Content-Encoding': 'identity' })).status, 200)
  t.equal((await post(url, plain, { ...session, 'Content-Encoding': '' })).status, 200, 'it names none')
})

t.test('a client that does not accept what it would get is refused', async (t) => {
  for (const value of [
    'application/json',
    'text/event-stream',
    'text/html',
    'application/*',
    'text/event-streams, application/json',
    '',
    'garbage',
  ]) {
    refused(t, await post(url, call(1, 'echo'), { ...session, Accept: value }), 406, 'ERR_ACCEPT')
  }
  const none = await send(url, 'POST', { 'Content-Type': 'application/json', ...session }, '{}')
  refused(t, none, 406, 'ERR_ACCEPT')
  refused(t, await send(url, 'GET', { ...session, Accept: 'application/json' }), 406, 'ERR_ACCEPT')
  refused(t, await send(url, 'GET', session), 406, 'ERR_ACCEPT')
  for (const value of [
    '*/*',
    'application/json;q=0.9,text/event-stream ; q=0.1',
    'Text/Event-Stream, APPLICATION/JSON',
    'application/*, text/*',
  ]) {
    t.equal((await post(url, call(1, 'echo'), { ...session, Accept: value })).status, 200, value)
  }
})

t.test('a session must be named, and exist', async (t) => {
  refused(t, await post(url, call(1, 'echo')), 400, 'ERR_SESSION_MISSING', 1)
  refused(
    t,
    await post(url, { jsonrpc: '2.0', method: 'notifications/initialized' }),
    400,
    'ERR_SESSION_MISSING',
  )
  refused(t, await post(url, { jsonrpc: '2.0', id: 1, result: {} }), 400, 'ERR_SESSION_MISSING')
  refused(t, await send(url, 'DELETE'), 400, 'ERR_SESSION_MISSING')
  refused(t, await send(url, 'GET', { Accept: 'text/event-stream' }), 400, 'ERR_SESSION_MISSING')
  const own = session['Mcp-Session-Id'] as string
  for (const id of [
    'x',
    own.slice(1),
    `${own}x`,
    own.toUpperCase(),
    `${own}, ${own}`,
    '__proto__',
    '../',
    'é',
  ]) {
    const headers = { 'Mcp-Session-Id': id }
    refused(t, await post(url, call('s', 'echo'), headers), 404, 'ERR_SESSION_UNKNOWN', 's')
    refused(t, await post(url, initialize(), headers), 404, 'ERR_SESSION_UNKNOWN', 0)
    refused(t, await send(url, 'DELETE', headers), 404, 'ERR_SESSION_UNKNOWN')
    refused(
      t,
      await send(url, 'GET', { ...headers, Accept: 'text/event-stream' }),
      404,
      'ERR_SESSION_UNKNOWN',
    )
  }
  refused(t, await post(url, call(1, 'echo'), { 'Mcp-Session-Id': '' }), 400, 'ERR_SESSION_MISSING', 1)
  const inQuery = `${url}?Mcp-Session-Id=${own}&sessionId=${own}`
  refused(t, await post(inQuery, call(1, 'echo')), 400, 'ERR_SESSION_MISSING', 1)
})

t.test('a response to nothing is accepted and dropped', async (t) => {
  const dropped = () => metric('mcp_sidecar_dropped_messages_total{reason="unexpected_response"}')
  const before = await dropped()
  for (const id of ['1', '"1"', '0', '-1', '1e999']) {
    t.equal((await post(url, `{"jsonrpc":"2.0","id":${id},"result":{}}`, session)).status, 202)
    t.equal(
      (await post(url, `{"jsonrpc":"2.0","id":${id},"error":{"code":1,"message":""}}`, session)).status,
      202,
    )
  }
  t.equal(
    (await post(url, '{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}', session)).status,
    202,
  )
  t.equal((await post(url, '{"jsonrpc":"2.0","error":{"code":1,"message":""}}', session)).status, 202)
  t.equal((await dropped()) - before, 12)
  const heard = textOf((await post(url, call(1, 'lines'), session)).json)
  t.notOk(
    heard.some((line: string) => line.includes('"error"')),
    'the server has seen none',
  )
})

t.test('initialize twice is refused, and the session goes on', async (t) => {
  refused(
    t,
    await post(url, initialize('2025-11-25', {}, 'again'), session),
    400,
    'ERR_INVALID_REQUEST',
    'again',
  )
})

t.test('an initialize without what it must have gets an answer, not a crash', async (t) => {
  for (const params of [
    undefined,
    {},
    { protocolVersion: 1 },
    { protocolVersion: '2025-11-25', capabilities: 1 },
  ]) {
    const answer = await post(url, { jsonrpc: '2.0', id: 'i', method: 'initialize', params })
    t.equal(answer.status, 200)
    t.equal(answer.json.id, 'i')
    const id = answer.headers['mcp-session-id']
    if (typeof id === 'string') await send(url, 'DELETE', { 'Mcp-Session-Id': id })
  }
})

t.test('a request whose id is in flight is refused, and the first is answered', async (t) => {
  const first = post(url, held('twice'), session)
  await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 1, 'the first is in flight')
  refused(t, await post(url, call('twice', 'echo'), session), 400, 'ERR_INVALID_REQUEST', 'twice')
  await post(url, released('twice'), session)
  t.match(textOf((await first).json), { call: 'twice' })
  t.match((await post(url, call('twice', 'echo'), session)).json, { result: {} }, 'then it is free again')
})

t.test(
  'the ids 1, "1" and 1.5 are three, 1 and 1.0 one, and each comes back as it was spelled',
  async (t) => {
    const begin = (id: string) => {
      const params = JSON.stringify(held(id).params)
      return post(url, `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":${params}}`, session)
    }
    const different = ['1', '"1"', '1.5', '-1', '""', '"\\u0031 "']
    const waiting = different.map((id) => begin(id))
    await until(
      async () => (await metric('mcp_sidecar_calls_in_flight')) === different.length,
      'all are in flight',
    )
    for (const id of ['1.0', '1e0', '"\\u0031"', '0.1e1']) {
      const answer = await begin(id)
      t.equal(answer.status, 400)
      t.ok(answer.body.includes(`"id":${id},`), id)
      t.match(answer.json, { error: { data: { reason: 'ERR_INVALID_REQUEST' } } })
    }
    for (const id of different) await post(url, released(id), session)
    const answers = await Promise.all(waiting)
    for (const [i, id] of different.entries()) t.ok(answers[i]?.body.includes(`"id":${id},`), id)
    for (const id of ['1.0', '1e0', '100000000000000000000', '-0', '1E+2', '"\\ud83d\\ude00"', '"😀"']) {
      const answer = await post(url, `{"jsonrpc":"2.0","id":${id},"method":"ping"}`, session)
      t.equal(answer.status, 200)
      t.ok(answer.body.includes(`"id":${id},`), id)
    }
  },
)

t.test('big integer ids that differ in their last digit are different', async (t) => {
  const ids = ['9007199254740992', '9007199254740993', '1152921504606846976', '1152921504606846977']
  const answers = await Promise.all(
    ids.map((id) =>
      post(
        url,
        `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{"name":"sleep","arguments":{"ms":60}}}`,
        session,
      ),
    ),
  )
  for (const [i, id] of ids.entries()) {
    t.equal(answers[i]?.status, 200, id)
    t.ok(answers[i]?.body.includes(`"id":${id},`), id)
  }
})

t.test('numbers, unknown members and odd spellings survive both directions', async (t) => {
  const args =
    '{"big":123456789012345678901234567890,"f":1.0,"e":1E400,"z":-0,"s":"\\u0041\\/","d":1,"d":2,"Method":"m","id":null,"nested":{"jsonrpc":"1.0"},"__proto__":{"a":1}}'
  const body = `{"x-first":[1,{"a":2.50}],"jsonrpc":"2.0","id":"n","method":"tools/call","params":{"unknown":0.10,"name":"lines","arguments":${args},"_meta":{"vendor/key":12345678901234567890}},"z":"\\u00e9"}`
  const lines: string[] = textOf((await post(url, body, session)).json)
  const sent = lines.find((line) => line.includes('x-first')) ?? ''
  t.equal(sent.replace(/"id":\d+/, '"id":"n"'), body, 'to the server')

  const result = `{"big":98765432109876543210,"f":2.0,"content":[],"Extra":{"e":1e-7},"id":7,"_meta":{"a/b":1.10}}`
  const line = `{"zzz":1.0,"result":${result},"id":$ID,"jsonrpc":"2.0","extension":{"k":"\\u0041"}}`
  const answer = await post(url, call('back', 'raw', { line }), session)
  t.equal(answer.body, line.replace('$ID', '"back"'), 'to the client')
})

t.test('a body over several lines reaches the server as one', async (t) => {
  const message = call('pretty', 'echo', { text: 'a\nb\r\nc', list: [1, { two: 2 }] })
  for (const body of [
    JSON.stringify(message, undefined, 2),
    JSON.stringify(message, undefined, '\t').replaceAll('\n', '\r\n'),
    `\n\r\n ${JSON.stringify(message)}\n\n`,
    JSON.stringify(message, undefined, 1).replaceAll('\n', '\r'),
  ]) {
    const answer = await post(url, body, session)
    t.match(answer.json, { id: 'pretty', result: { content: [{ text: 'a\nb\r\nc' }] } })
  }
  const pretty = JSON.stringify(message, undefined, 2)
  const both = await rawAnswers(port, raw(pretty, session) + raw(pretty, session), 2)
  t.same(
    both.map(({ json }) => json.id),
    ['pretty', 'pretty'],
  )
})

t.test(
  'in flight are no more than allowed, the next is asked to come back, notifications pass',
  async (t) => {
    const ids = Array.from({ length: 10 }, (_, i) => `w${i}`)
    const waiting = ids.map((id) => post(url, held(id), session))
    await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 10, 'ten are in flight')
    const late = await post(url, call('late', 'echo'), session)
    refused(t, late, 503, 'ERR_OVERLOADED', 'late')
    t.match(late.headers['retry-after'], /^\d+$/)
    t.equal(late.json.error.data.retryAfterSeconds, Number(late.headers['retry-after']))
    for (const id of ids) t.equal((await post(url, released(id), session)).status, 202)
    for (const { status } of await Promise.all(waiting)) t.equal(status, 200)
  },
)

// Host and Origin, on every way in.

const evilHosts = [
  'evil.example',
  `evil.example:${port}`,
  '127.0.0.1.evil.example',
  'localhost.evil.example',
  'evil.example#127.0.0.1',
  '127.0.0.1@evil.example',
  'user:x@127.0.0.1',
  '10.0.0.1',
  '0.0.0.0',
  '127.1',
  '2130706433',
  '0x7f000001',
  '[::]',
  '[::2]',
  '[fe80::1]',
  '::1',
  '[::1',
  'localhost:port',
  'localhost:123456',
  '127.0.0.1/mcp',
  '127.0.0.1, evil.example',
  'ported.example:1',
  'named.example.evil.example',
]
const goodHosts = [
  host,
  '127.0.0.1',
  '127.0.0.1:1',
  'localhost',
  `LOCALHOST:${port}`,
  'localhost.',
  `[::1]:${port}`,
  '[::1]',
  '[::ffff:127.0.0.1]:80',
  '127.8.9.10:65535',
  'named.example',
  'Named.Example:443',
  'ported.example:9999',
]
const evilOrigins = [
  'https://evil.example',
  `http://evil.example:${port}`,
  'http://127.0.0.1.evil.example',
  'http://localhost.evil.example',
  'http://localhost@evil.example',
  'http://localhost:1@evil.example',
  'http://localhost/',
  'http://localhost/path',
  'null',
  'NULL',
  '',
  'file://',
  'chrome-extension://abcdefgh',
  'ws://localhost',
  'localhost',
  'http://10.0.0.1',
  'http://[::2]',
  'http://app.example',
  'https://app.example:444',
  'https://app.example.evil.example',
  'https://app.example, https://evil.example',
  'http://localhost http://evil.example',
]
const goodOrigins = [
  `http://127.0.0.1:${port}`,
  'http://localhost',
  'http://localhost:3000',
  'https://localhost:8443',
  'http://[::1]:5173',
  'http://127.0.0.1:1',
  'https://app.example',
]
/** Each way in, and what it answers to one who may come in; none of it starts a process. */
const waysIn: Record<
  string,
  { knock: (headers: Record<string, string>) => Promise<RawResponse>; inside: number }
> = {
  'POST /mcp': { knock: (headers) => post(url, '[]', headers), inside: 400 },
  'GET /mcp': {
    knock: (headers) => send(url, 'GET', { Accept: 'text/event-stream', ...headers }),
    inside: 400,
  },
  'DELETE /mcp': { knock: (headers) => send(url, 'DELETE', headers), inside: 400 },
  'POST /messages': { knock: (headers) => post(`${base}/messages?sessionId=x`, '[]', headers), inside: 404 },
  'GET /sse': {
    knock: async (headers) => {
      const response = await open(`${base}/sse`, 'GET', { Accept: 'text/event-stream', ...headers })
      if (response.statusCode !== 200) return collect(response)
      response.destroy()
      return { status: 200, headers: response.headers, body: '', json: undefined, messages: [] }
    },
    inside: 200,
  },
  'a WebSocket upgrade': { knock: (headers) => upgradeAnswer(base, headers), inside: 101 },
  'an unknown path': { knock: (headers) => send(`${base}/admin`, 'GET', headers), inside: 404 },
}

for (const [name, { knock, inside }] of Object.entries(waysIn)) {
  t.test(
    `${name}: a foreign Host or Origin is refused, one of this machine or an allowed one is served`,
    async (t) => {
      for (const Host of evilHosts) refused(t, await knock({ Host }), 403, 'ERR_HOST')
      for (const Origin of evilOrigins) {
        const answer = await knock({ Origin })
        refused(t, answer, 403, 'ERR_ORIGIN')
        t.equal(answer.headers['access-control-allow-origin'], undefined, 'and the page may not read why')
      }
      refused(t, await knock({ Host: 'evil.example', Origin: 'http://evil.example' }), 403, 'ERR_HOST')
      for (const Host of goodHosts) t.equal((await knock({ Host })).status, inside, `Host ${Host}`)
      for (const Origin of goodOrigins) t.equal((await knock({ Origin })).status, inside, `Origin ${Origin}`)
    },
  )
}

t.test('on the IPv6 loopback address it is the same', async (t) => {
  const { url, base } = await startTestSidecar(t, {
    flags: { host: '::1' },
    config: { server: { warmSpares: 0 } },
  })
  t.match(url, /^http:\/\/\[::1\]:\d+\/mcp$/)
  t.equal((await post(url, '[]')).status, 400)
  for (const Host of ['localhost', '127.0.0.1', '[::1]:1'])
    t.equal((await post(url, '[]', { Host })).status, 400)
  refused(t, await post(url, '[]', { Host: '[::2]' }), 403, 'ERR_HOST')
  refused(t, await post(url, '[]', { Origin: 'http://[::2]' }), 403, 'ERR_ORIGIN')
  t.equal((await post(`${base}/mcp`, '[]', { Origin: 'http://[::1]:3000' })).status, 400)
})

t.test('a request without Host, or with two, is refused', async (t) => {
  const body = JSON.stringify(call(1, 'echo'))
  const post = (...hosts: string[]) =>
    [
      'POST /mcp HTTP/1.1',
      ...hosts,
      'Content-Type: application/json',
      `Accept: ${accept}`,
      `Mcp-Session-Id: ${session['Mcp-Session-Id']}`,
      `Content-Length: ${body.length}`,
      '',
      body,
    ].join('\r\n')
  const [none] = await rawAnswers(port, post())
  t.ok(none !== undefined)
  if (none !== undefined) refused(t, none, 403, 'ERR_HOST')
  const [old] = await rawAnswers(port, post().replace('HTTP/1.1', 'HTTP/1.0'))
  if (old !== undefined) refused(t, old, 403, 'ERR_HOST')
  const [empty] = await rawAnswers(port, post('Host:'))
  t.ok(empty !== undefined)
  if (empty !== undefined) refused(t, empty, 403, 'ERR_HOST')
  for (const pair of [
    ['Host: evil.example', `Host: ${host}`],
    [`Host: ${host}`, 'Host: evil.example'],
    [`Host: ${host}`, `Host: ${host}`],
  ]) {
    const [answer] = await rawAnswers(port, post(...pair))
    t.ok([400, 403].includes(answer?.status ?? 0), `${pair.join(' and ')}: ${answer?.status}`)
  }
})

t.test('an absolute URL does not stand for the Host', async (t) => {
  for (const target of [`http://evil.example/mcp`, `http://${host}/mcp`]) {
    const [answer] = await rawAnswers(port, raw(call(1, 'echo'), session).replace(' /mcp ', ` ${target} `))
    t.ok([200, 404].includes(answer?.status ?? 0))
    t.type(answer?.json, 'object')
  }
  const [evil] = await rawAnswers(
    port,
    raw(call(1, 'echo'), { ...session, Host: 'evil.example' }).replace(' /mcp ', ` http://${host}/mcp `),
  )
  t.equal(evil?.status, 403)
})

t.test('every other path is refused, whatever is asked for', async (t) => {
  for (const path of [
    '/',
    '/mcp/',
    '//mcp',
    '/MCP',
    '/mcp%2f',
    '/%6dcp',
    '/mcp/../mcp',
    '/favicon.ico',
    '/metrics',
    '/healthz',
    '/.env',
    '/mcp;x',
  ]) {
    for (const method of ['GET', 'POST', 'DELETE', 'PUT']) {
      const [answer] = await rawAnswers(port, raw('{}').replace('POST /mcp', `${method} ${path}`))
      t.ok(answer !== undefined, path)
      if (answer !== undefined) refused(t, answer, 404, 'ERR_NOT_FOUND')
    }
  }
  t.equal((await post(`${url}?a=b#c`, call(1, 'echo'), session)).status, 200, 'a query changes nothing')
})

// HTTP itself.

const tlsHello = Buffer.concat([Buffer.from('16030100c8010000c40303', 'hex'), randomBytes(193)])
const garbage: Record<string, string | Buffer> = {
  'a TLS handshake': tlsHello,
  'random bytes': Buffer.concat([Buffer.from([0]), randomBytes(500)]),
  'an HTTP/2 preface': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  'a JSON-RPC message without HTTP': '{"jsonrpc":"2.0","id":1,"method":"ping"}\n',
  'an unknown version': `GET /mcp HTTP/9.9\r\nHost: ${host}\r\n\r\n`,
  'an unknown method': `BREW /mcp HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
  'a method in lower case': `post /mcp HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
  'a header without a name': `GET /mcp HTTP/1.1\r\nHost: ${host}\r\n: x\r\n\r\n`,
  'a blank in a header name': `GET /mcp HTTP/1.1\r\nHost: ${host}\r\nX Y: x\r\n\r\n`,
  'a blank before the colon': `GET /mcp HTTP/1.1\r\nHost : ${host}\r\n\r\n`,
  'a folded header': `GET /mcp HTTP/1.1\r\nHost: ${host}\r\nX-A: x\r\n y\r\n\r\n`,
  'a control character in a header': `GET /mcp HTTP/1.1\r\nHost: ${host}\r\nX-A: \u0000\r\n\r\n`,
  'a bare CR in a header': `GET /mcp HTTP/1.1\r\nHost: ${host}\r\nX-A: a\rX-B: b\r\n\r\n`,
  'a length that is no number': `POST /mcp HTTP/1.1\r\nHost: ${host}\r\nContent-Length: x\r\n\r\n`,
  'a negative length': `POST /mcp HTTP/1.1\r\nHost: ${host}\r\nContent-Length: -1\r\n\r\n`,
  'two lengths': `POST /mcp HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx`,
  'a list of lengths': `POST /mcp HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 1, 2\r\n\r\nxx`,
  'a length beyond all numbers': `POST /mcp HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 99999999999999999999999\r\n\r\n`,
  'length and chunks': `POST /mcp HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
  'chunked but not last': `POST /mcp HTTP/1.1\r\nHost: ${host}\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n`,
  'an unknown transfer encoding': `POST /mcp HTTP/1.1\r\nHost: ${host}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`,
}

t.test('what is not HTTP is refused as JSON, and the connection ends', async (t) => {
  for (const [name, bytes] of Object.entries(garbage)) {
    const connection = new RawConnection(port).write(bytes)
    t.comment(name)
    refused(t, await connection.answer(), 400, 'ERR_HTTP')
    await until(() => connection.ended, 'the sidecar has ended its side')
    connection.close()
  }
})

t.test('no connection is held for a client that was refused and does not close', async (t) => {
  const upgrade = 'Connection: Upgrade\r\nUpgrade: websocket'
  const refusedOnes = {
    garbage: 'NONSENSE\r\n\r\n',
    'huge headers': `GET /mcp HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
    'a foreign Host': raw('x', { Host: 'evil.example', 'Content-Length': '1000' }),
    'a body over the limit': raw('x').replace('Content-Length: 1', 'Content-Length: 9999999'),
    'an upgrade': `GET /mcp HTTP/1.1\r\nHost: ${host}\r\n${upgrade}\r\n\r\n`,
  }
  const count = 30
  for (const [name, text] of Object.entries(refusedOnes)) {
    const before = openSockets()
    const connections = Array.from({ length: count }, () => new RawConnection(port).write(text))
    await until(() => connections.every(({ ended }) => ended), 'the sidecar has ended its sides')
    // Ours stay open; those of the sidecar, which runs in this process too, should not.
    const kept = (): number => openSockets() - before - count
    try {
      await until(() => kept() < count / 2, name)
      t.pass(name)
    } catch {
      t.fail(`${name}: ${kept()} of ${count} connections are held`)
    }
    for (const connection of connections) connection.close()
    await until(() => openSockets() <= before, 'all are gone')
  }
})

t.test('a chunk that is none is refused, and nothing of it is carried out', async (t) => {
  const head = raw('', { ...session, 'Transfer-Encoding': 'chunked' }).replace(/Content-Length: 0\r\n/, '')
  for (const chunks of [
    'x\r\n',
    '-1\r\n',
    'fffffffffffffffff\r\n',
    '4\r\nabcdefgh\r\n',
    '2\r\n{}0\r\n\r\n',
  ]) {
    const connection = new RawConnection(port).write(head + chunks)
    const answer = await connection.answer()
    t.equal(answer.status, 400)
    t.match(answer.json, { jsonrpc: '2.0', error: { data: { source: 'mcp-sidecar' } } })
    connection.close()
  }
})

t.test('garbage after a request on the same connection does not pass for its answer', async (t) => {
  const slow = raw(call('slow', 'sleep', { ms: 100 }), session)
  const connection = new RawConnection(port).write(`${slow}NONSENSE\r\n\r\n`)
  await until(() => connection.ended || connection.closed, 'the connection ends')
  const [first] = connection.answers
  t.ok(
    first === undefined || first.json.id === 'slow',
    `the first answer is the first request's: ${first?.body}`,
  )
  connection.close()
})

t.test(
  'garbage on the connection of an open stream ends it, without a second status line in it',
  async (t) => {
    const connection = new RawConnection(port).write(
      `GET /sse HTTP/1.1\r\nHost: ${host}\r\nAccept: text/event-stream\r\n\r\n`,
    )
    await until(() => connection.text.includes('endpoint'), 'the stream is open')
    connection.write('NONSENSE\r\n\r\n')
    await until(() => connection.ended || connection.closed, 'the connection ends')
    t.equal(connection.text.match(/HTTP\/1\.1/g)?.length, 1)
    connection.close()
  },
)

t.test('headers beyond 16 KiB are refused with 431', async (t) => {
  const start = `GET /mcp HTTP/1.1\r\nHost: ${host}\r\n`
  for (const headers of [
    `X-Big: ${'x'.repeat(20_000)}\r\n\r\n`,
    `${'X'.repeat(20_000)}: x\r\n\r\n`,
    `${'abcdef: ghijk\r\n'.repeat(2000)}\r\n`,
    `Mcp-Session-Id: ${'x'.repeat(1_000_000)}`,
  ]) {
    const connection = new RawConnection(port).write(start + headers)
    refused(t, await connection.answer(), 431, 'ERR_HEADERS')
    connection.close()
  }
  const connection = new RawConnection(port).write(`GET /${'x'.repeat(20_000)} HTTP/1.1\r\n`)
  const answer = await connection.answer()
  t.ok([400, 414, 431].includes(answer.status))
  t.match(answer.json, { error: { data: { source: 'mcp-sidecar' } } })
  connection.close()
})

t.test('no number of headers hides one from the checks', async (t) => {
  const many = 'a:\r\n'.repeat(2500)
  const message = raw(call(1, 'echo'), { ...session, Origin: 'https://evil.example' })
  const [answer] = await rawAnswers(port, message.replace('Origin:', `${many}Origin:`))
  t.ok([403, 431].includes(answer?.status ?? 0), `the answer is ${answer?.status}`)
})

t.test('a client that asks for 100-continue is told to go on, or refused without it', async (t) => {
  const good = raw(call('c', 'echo', { text: 'x' }), { ...session, Expect: '100-continue' })
  const split = good.indexOf('\r\n\r\n') + 4
  const connection = new RawConnection(port).write(good.slice(0, split))
  await until(() => connection.text.startsWith('HTTP/1.1 100 Continue\r\n\r\n'), '100 Continue')
  connection.write(good.slice(split))
  t.match((await connection.answer(1)).json, { id: 'c', result: {} })
  connection.close()
  for (const [headers, status, reason] of [
    [{ 'Content-Length': String(bodyLimit + 1) }, 413, 'ERR_TOO_LARGE'],
    [{ Host: 'evil.example' }, 403, 'ERR_HOST'],
    [{ 'Content-Type': 'text/plain' }, 415, 'ERR_CONTENT_TYPE'],
    [{ Accept: 'text/html' }, 406, 'ERR_ACCEPT'],
  ] as const) {
    const request = raw('x', { ...session, Expect: '100-continue', ...headers })
    const head = request
      .slice(0, request.indexOf('\r\n\r\n') + 4)
      .replace('Content-Length: 1\r\n', 'Content-Length: 99999\r\n')
    const refusedOne = new RawConnection(port).write(head)
    refused(t, await refusedOne.answer(), status, reason)
    t.notMatch(refusedOne.text, '100 Continue')
    refusedOne.close()
  }
})

t.test('another expectation is refused as JSON', async (t) => {
  const [answer] = await rawAnswers(port, raw(call(1, 'echo'), { ...session, Expect: 'the-moon' }))
  t.ok([400, 417].includes(answer?.status ?? 0), String(answer?.status))
  t.match(answer?.json, { jsonrpc: '2.0', error: { data: { source: 'mcp-sidecar' } } })
})

t.test('CONNECT opens nothing', async (t) => {
  const connection = new RawConnection(port).write(`CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
  await until(() => connection.ended || connection.closed, 'the connection ends')
  t.match(connection.text, /^HTTP\/1\.1 400 .*ERR_HTTP/s)
  connection.close()
})

t.test('an offer to speak HTTP/2 is not taken, and the request is served', async (t) => {
  const { url } = await startTestSidecar(t)
  const headers = {
    Connection: 'Upgrade, HTTP2-Settings',
    Upgrade: 'h2c',
    'HTTP2-Settings': 'AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA',
  }
  const answer = await post(url, initialize(), headers)
  t.equal(answer.status, 200, answer.body)
  t.match(answer.json, { id: 0, result: {} })
})

t.test('pipelined requests are answered in their order', async (t) => {
  const requests = [
    raw(call('slow', 'sleep', { ms: 80 }), session),
    raw(call('fast', 'echo', { text: 'x' }), session),
    raw({ jsonrpc: '2.0', method: 'x/y' }, session),
    raw('nonsense', session),
    raw(call('progress', 'progress', { count: 3 }, { progressToken: 1 }), session),
    raw(call('last', 'echo', { text: 'y' }), session),
  ]
  const answers = await rawAnswers(port, requests.join(''), requests.length)
  t.same(
    answers.map(({ status }) => status),
    [200, 200, 202, 400, 200, 200],
  )
  t.equal(answers[0]?.json.id, 'slow')
  t.equal(answers[1]?.json.id, 'fast')
  t.equal(answers[4]?.headers['content-type'], 'text/event-stream')
  t.match(answers[4]?.body, '"id":"progress"')
  t.equal(answers[5]?.json.id, 'last')
})

t.test('a refusal of a whole request leaves the connection usable', async (t) => {
  const answers = await rawAnswers(
    port,
    [
      raw('nonsense', session),
      raw(call(1, 'x'), { 'Mcp-Session-Id': 'x' }),
      raw(call(2, 'echo'), session),
    ].join(''),
    3,
  )
  t.same(
    answers.map(({ status }) => status),
    [400, 404, 200],
  )
})

t.test('so does a refusal of a request without a body', async (t) => {
  const get = `GET /mcp HTTP/1.1\r\nHost: ${host}\r\n\r\n`
  const answers = await rawAnswers(port, get + get + raw(call(2, 'echo'), session), 3)
  t.same(
    answers.map(({ status }) => status),
    [406, 406, 200],
  )
})

t.test('a body shorter than announced, and then nothing, is carried out by nobody', async (t) => {
  const whole = raw(call('cut', 'notify', { method: 'x' }), session)
  for (const end of [whole.length - 1, whole.length - 40, whole.indexOf('\r\n\r\n') + 5]) {
    const connection = new RawConnection(port).write(whole.slice(0, end))
    await new Promise((resolve) => connection.socket.once('connect', resolve))
    connection.socket.end()
    await until(() => connection.ended || connection.closed, 'the connection ends')
    connection.close()
  }
  const lines: string[] = textOf((await post(url, call(1, 'lines'), session)).json)
  t.notOk(lines.some((line) => line.includes('notify"')))
  t.equal(await metric('mcp_sidecar_calls_in_flight'), 0)
})

t.test(
  'hundreds of half-open requests are given up in time, and another client is served meanwhile',
  async (t) => {
    const { url, metric } = await startTestSidecar(t, {
      // It holds for the other client, too, while this whole process may stand still for a moment.
      config: { limits: { headerTimeoutMs: 2000, bodyTimeoutMs: 800 } },
    })
    const port = Number(new URL(url).port)
    const session = await openSession(url)
    const head = `POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nAccept: ${accept}\r\n`
    const before = openSockets()
    const attackers = Array.from({ length: 400 }, (_, i) => {
      const connection = new RawConnection(port)
      if (i % 4 === 0) connection.write(head)
      if (i % 4 === 1) connection.write(`${head}Content-Length: 1000\r\n\r\n`)
      if (i % 4 === 2) connection.write(`${head}Transfer-Encoding: chunked\r\n\r\n`)
      return connection
    })
    // A byte now and then, as slow-loris attackers send it.
    const trickle = setInterval(() => {
      for (const [i, connection] of attackers.entries()) {
        if (connection.ended || connection.closed) continue
        if (i % 4 === 0) connection.write('X')
        if (i % 4 === 1) connection.write(' ')
        if (i % 4 === 2) connection.write('1\r\n \r\n')
      }
    }, 100)
    t.teardown(() => clearInterval(trickle))
    const took: number[] = []
    const gone = (): boolean => attackers.every(({ ended, closed }) => ended || closed)
    const end = performance.now() + 20_000
    while (!gone() && performance.now() < end) {
      const start = performance.now()
      const answer = await post(url, call(took.length, 'echo', { text: 'x' }), session)
      if (answer.status === 200) took.push(performance.now() - start)
      else t.fail(`the other client got ${answer.status}`)
    }
    clearInterval(trickle)
    t.ok(gone(), 'all of them are given up')
    t.ok(took.length > 20, `${took.length} calls were served meanwhile`)
    // Not the slowest: any one of them may meet a moment in which this whole process stands still.
    const usual = took.toSorted((a, b) => a - b)[took.length >> 1] ?? 0
    t.ok(usual < 500, `half of them took more than ${Math.round(usual)} ms`)
    for (const i of [0, 1, 2, 3]) {
      const answer = attackers[i]?.answers[0]
      t.ok(answer !== undefined, `kind ${i} gets an answer`)
      if (answer !== undefined) refused(t, answer, 408, 'ERR_SLOW')
    }
    const kept = (): number => openSockets() - before - attackers.length
    await until(() => kept() < 40, 'no connection is held for them').catch(() =>
      t.fail(`${kept()} connections are held for them`),
    )
    t.equal(await metric('mcp_sidecar_refusals_total{code="ERR_SLOW"}'), 400, 'each is counted')
    t.equal(await metric('mcp_sidecar_refusals_total{code="ERR_HTTP"}'), 0, 'and counted once')
    for (const each of attackers) each.close()
  },
)

t.test('a body may have less time than the headers', async (t) => {
  const { url } = await startTestSidecar(t, {
    config: { limits: { headerTimeoutMs: 60_000, bodyTimeoutMs: 20_000 } },
  })
  t.equal((await post(url, initialize())).status, 200)
})

t.test('hundreds of aborted initializes leave no process, session or call behind', async (t) => {
  const pidFile = join(t.testdir(), 'pids')
  const { url, metric } = await startTestSidecar(t, {
    command: [quickServer, pidFile],
    config: { limits: { processes: 100 }, server: { warmSpares: 1 } },
  })
  const port = Number(new URL(url).port)
  const message = initialize()
  const slow = { ...message, params: { ...message.params, clientInfo: { name: 'slow', version: '1' } } }
  const headers = { ...types, Host: '127.0.0.1' }
  const body = JSON.stringify(slow)
  // No file: no process has started yet.
  const pids = (): number[] =>
    existsSync(pidFile) ? readFileSync(pidFile, 'utf8').trim().split('\n').map(Number) : []
  for (let round = 0; round < 7; round++) {
    const connections = Array.from({ length: 30 }, () => new RawConnection(port))
    const abort = (i: number): void => {
      if (i % 2 === 0) connections[i]?.close()
      else connections[i]?.socket.resetAndDestroy()
    }
    const started = pids().length
    for (const [i, connection] of connections.entries()) {
      await until(() => connection.socket.readyState === 'open', 'a connection')
      // Some cut their own request short, some go as soon as it is sent, most when processes have started.
      connection.write(raw(body, headers).slice(0, i % 10 === 0 ? -10 : undefined))
      if (i % 5 === 0) abort(i)
    }
    await until(() => pids().length >= started + 10, 'processes for them')
    for (const i of connections.keys()) abort(i)
  }
  const living = (): number => pids().filter((pid) => !isGone(pid)).length
  const left = async (): Promise<number> =>
    (await metric('mcp_sidecar_sessions ')) + (await metric('mcp_sidecar_calls_in_flight'))
  await until(async () => (await left()) === 0, 'no session and no call is left')
  await until(() => living() <= 1, 'only the spare is left')
  t.ok(pids().length > 50, `${pids().length} processes were started`)
  await until(async () => (await metric('mcp_sidecar_processes ')) <= 1, 'and counted')
  const session = await openSession(url)
  t.match((await post(url, call(1, 'any'), session)).json, { id: 1, result: {} })
})

t.test('initializes behind an open stream on the same connection leave nothing behind either', async (t) => {
  const pidFile = join(t.testdir(), 'pids')
  const { url, metric } = await startTestSidecar(t, {
    command: [quickServer, pidFile],
    config: { server: { warmSpares: 0, era: 'legacy' } },
  })
  const port = Number(new URL(url).port)
  await until(async () => (await metric('mcp_sidecar_process_starts_total')) === 1, 'the probe')
  const message = initialize()
  for (const name of ['slow', 'quick']) {
    const params = { ...message.params, clientInfo: { name, version: '1' } }
    const each = raw({ ...message, params }, { Host: '127.0.0.1' })
    const stream = 'GET /sse HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n'
    const connection = new RawConnection(port).write(stream + each.repeat(5))
    const started = name === 'slow' ? 6 : 11
    await until(async () => (await metric('mcp_sidecar_process_starts_total')) === started, 'five processes')
    connection.close()
    const left = async (): Promise<string> =>
      `${await metric('mcp_sidecar_sessions ')} sessions, ${await metric('mcp_sidecar_calls_in_flight')} calls`
    try {
      await until(async () => (await left()) === '0 sessions, 0 calls', 'nothing is left')
      t.pass(name)
    } catch {
      t.fail(`${name}: there are still ${await left()}`)
    }
  }
})

t.test('aborted initializes on the other transports leave nothing behind', async (t) => {
  const pidFile = join(t.testdir(), 'pids')
  const { base, metric } = await startTestSidecar(t, {
    command: [quickServer, pidFile],
    config: { server: { warmSpares: 0 }, listen: { webSocket: true } },
  })
  const message = initialize()
  const slow = { ...message, params: { ...message.params, clientInfo: { name: 'slow', version: '1' } } }
  const one = async (i: number): Promise<void> => {
    if (i % 2 === 0) {
      const client = await openSse(base)
      await client.send(slow)
      client.cut()
    } else {
      const client = await openSocket(base)
      client.send(slow)
      if (i % 4 === 1) client.socket.terminate()
      else client.close()
    }
  }
  for (let i = 0; i < 60; i += 20) await Promise.all(Array.from({ length: 20 }, (_, j) => one(i + j)))
  await until(async () => (await metric('mcp_sidecar_sessions ')) === 0, 'no session is left')
  const living = () =>
    readFileSync(pidFile, 'utf8')
      .trim()
      .split('\n')
      .filter((pid) => !isGone(Number(pid)))
  await until(() => living().length === 0, 'no process is left')
  t.equal(await metric('mcp_sidecar_calls_in_flight'), 0)
})

t.test(
  'sessions beyond the number of processes replace idle ones, and are refused when none is idle',
  async (t) => {
    const pidFile = join(t.testdir(), 'pids')
    const { url } = await startTestSidecar(t, {
      command: [quickServer, pidFile],
      config: { limits: { processes: 3 }, server: { warmSpares: 0 } },
    })
    const sessions = []
    for (let i = 0; i < 4; i++) sessions.push(await openSession(url))
    const [first, ...others] = sessions as [Record<string, string>, ...Record<string, string>[]]
    refused(t, await post(url, call(1, 'x'), first), 404, 'ERR_SESSION_UNKNOWN', 1)
    const streams = await Promise.all(
      others.map((each) => open(url, 'GET', { ...each, Accept: 'text/event-stream' })),
    )
    const none = await post(url, initialize())
    refused(t, none, 503, 'ERR_OVERLOADED', 0)
    t.match(none.headers['retry-after'], /^\d+$/)
    for (const each of others) t.equal((await post(url, call(1, 'x'), each)).status, 200)
    streams[0]?.destroy()
    await until(async () => (await post(url, initialize())).status === 200, 'one is idle again')
    for (const stream of streams) stream.destroy()
  },
)

t.test('hundreds of requests cut at a random place do no harm', async (t) => {
  const whole = raw(call('cut', 'echo', { text: 'x'.repeat(300) }), session)
  for (let i = 0; i < 500; i += 100) {
    await Promise.all(
      Array.from({ length: 100 }, async (_, j) => {
        const connection = new RawConnection(port)
        await new Promise((resolve) => connection.socket.once('connect', resolve))
        connection.write(whole.slice(0, ((i + j) * 7919) % whole.length))
        if (j % 2 === 0) connection.socket.resetAndDestroy()
        else connection.close()
      }),
    )
  }
  await until(async () => (await metric('mcp_sidecar_calls_in_flight')) === 0, 'nothing is in flight')
  t.equal(await metric('mcp_sidecar_refusals_total{code="ERR_INTERNAL"}'), 0)
})

t.test('a client that uploads without end and never stops is cut off', async (t) => {
  const outgoing = request(url, {
    method: 'POST',
    headers: { ...types, ...session, 'Transfer-Encoding': 'chunked' },
  })
  outgoing.on('error', () => {})
  const answered = new Promise<number>((resolve) => {
    outgoing.on('response', (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
  })
  const chunk = Buffer.alloc(16_384, 0x20)
  let sent = 0
  const pump = (): void => {
    while (!outgoing.destroyed && sent < 50_000_000 && outgoing.write(chunk)) sent += chunk.length
  }
  outgoing.on('drain', pump)
  pump()
  t.equal(await answered, 413)
  await until(() => outgoing.destroyed || sent >= 50_000_000, 'the upload ends')
  t.ok(sent < 20_000_000, `after ${sent} bytes`)
  outgoing.destroy()
})

t.test('nothing of all this was an error of the sidecar itself', async (t) => {
  t.equal(await metric('mcp_sidecar_refusals_total{code="ERR_INTERNAL"}'), 0)
})
