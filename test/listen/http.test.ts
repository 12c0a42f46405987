import { createServer, type IncomingMessage, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import type { Logger, Metrics } from '../../src/core/types.ts'
import {
  type HttpIo,
  mediaTypes,
  Refusals,
  requireAccept,
  requireJson,
  writeError,
} from '../../src/listen/http.ts'
import { holds, shown } from '../support/property.ts'
import { send } from '../support/wire.ts'

/** A server that answers each request with `handle`; its URL. */
async function serve(t: Test, handle: (io: HttpIo) => void): Promise<string> {
  const server = createServer((request, response) => handle({ request, response }))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

t.test('an error is a JSON-RPC answer with the status of its code', async (t) => {
  const error = new SidecarError('ERR_RATE_LIMITED', { detail: 'hunter2', headers: { 'Retry-After': '3' } })
  const url = await serve(t, (io) => writeError({ ...io, requestId: 'r1' }, error, '"a"'))
  const { status, headers, json, body } = await send(url, 'GET')
  t.equal(status, 429)
  t.match(headers, { 'content-type': 'application/json', 'x-request-id': 'r1', 'retry-after': '3' })
  t.equal(headers['content-length'], String(Buffer.byteLength(body)))
  t.match(json, { jsonrpc: '2.0', id: 'a', error: { data: { reason: 'ERR_RATE_LIMITED', requestId: 'r1' } } })
  t.notMatch(body, 'hunter2')
})

t.test('an answer in band is 200 once the id is known, and its own status before', async (t) => {
  const error = new SidecarError('ERR_TIMEOUT')
  const url = await serve(t, (io) =>
    writeError({ ...io, requestId: 'r' }, error, io.request.url === '/known' ? '1' : undefined),
  )
  t.equal((await send(`${url}known`, 'GET')).status, 200)
  t.equal((await send(url, 'GET')).status, 504)
})

t.test('whose body was not read has its connection closed; others keep it', async (t) => {
  const url = await serve(t, (io) => {
    const { url } = io.request
    const code = url === '/stranger' ? 'ERR_AUTH_INVALID' : 'ERR_DENIED'
    const answer = (): void => writeError({ ...io, requestId: 'r' }, new SidecarError(code))
    if (url !== '/') io.request.resume().on('end', answer)
    else answer()
  })
  const connection = (path: string, body: string): Promise<string | undefined> =>
    new Promise((resolve, reject) => {
      const outgoing = request(
        `${url}${path}`,
        { method: 'POST', headers: { Connection: 'keep-alive', 'Content-Length': 9 } },
        (response: IncomingMessage) => {
          response.resume()
          resolve(response.headers.connection)
        },
      )
      outgoing.on('error', reject)
      outgoing.write(body)
      if (body.length === 9) outgoing.end()
    })
  t.equal(await connection('', 'part'), 'close')
  t.equal(await connection('read', 'the whole'), 'keep-alive')
  t.equal(await connection('stranger', 'the whole'), 'close', 'how long he was looked at does not show')
})

t.test(
  'after the head has been sent the connection is cut, so that nobody takes half an answer for a whole',
  async (t) => {
    const url = await serve(t, (io) => {
      io.response.writeHead(200, { 'Content-Type': 'application/json' })
      io.response.write('{"half":')
      setImmediate(() => writeError({ ...io, requestId: 'r' }, new SidecarError('ERR_INTERNAL')))
    })
    await t.rejects(send(url, 'GET'))
  },
)

interface Noted {
  readonly codes: string[]
  readonly lines: [string, Record<string, unknown>, string][]
  readonly refusals: Refusals
}

function noting(): Noted {
  const codes: string[] = []
  const lines: Noted['lines'] = []
  const at = (level: string) => (fields: object, text: string) => {
    lines.push([level, { ...fields }, text])
  }
  const log: Logger = { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
  const metrics = { refused: (code: string) => codes.push(code) } as unknown as Metrics
  return { codes, lines, refusals: new Refusals(log, metrics, () => {}) }
}

const from = { requestId: 'r', remoteAddress: '::1' }

t.test('every refusal is counted and logged with what the client was not told', async (t) => {
  const { codes, lines, refusals } = noting()
  refusals.note(new SidecarError('ERR_HOST', { detail: 'Host "evil.example"' }), from)
  t.same(codes, ['ERR_HOST'])
  t.same(lines, [['warn', { ...from, code: 'ERR_HOST', detail: 'Host "evil.example"' }, 'request refused']])
})

t.test('a mistake of ours is logged as an error with its cause', async (t) => {
  const { codes, lines, refusals } = noting()
  const cause = new TypeError('oops')
  refusals.note(SidecarError.from(cause), from)
  t.same(codes, ['ERR_INTERNAL'])
  t.equal(lines[0]?.[0], 'error')
  t.equal(lines[0]?.[1]['err'], cause)
})

t.test('whatever is thrown is answered, and noted once', async (t) => {
  const { codes, refusals } = noting()
  const url = await serve(t, (io) => refusals.refuse(new Error('a secret path'), { ...io, ...from }))
  const { status, body } = await send(url, 'GET')
  t.equal(status, 500)
  t.notMatch(body, /secret|Error:|at /)
  t.same(codes, ['ERR_INTERNAL'])
})

const withHeaders = (headers: Record<string, string | undefined>): IncomingMessage =>
  ({ headers }) as unknown as IncomingMessage

t.test('a body is JSON only if it says so', async (t) => {
  for (const type of [
    'application/json',
    'application/json; charset=utf-8',
    'Application/JSON',
    ' application/json ;a=b',
    'application/json;',
  ])
    requireJson(withHeaders({ 'content-type': type }))
  const others = [
    ...[
      undefined,
      '',
      'text/plain',
      'text/plain; application/json',
      'text/plain;x=application/json',
      'application/jsonp',
    ],
    ...[
      'application/json-patch+json',
      'application/x-www-form-urlencoded',
      'multipart/form-data; boundary=application/json',
    ],
    ...[
      'text/plain, application/json',
      'application/*',
      '*/*',
      'json',
      'application/ json',
      'text/json',
      ',application/json',
    ],
  ]
  for (const type of others)
    t.throws(
      () => requireJson(withHeaders({ 'content-type': type })),
      { code: 'ERR_CONTENT_TYPE' },
      shown(String(type)),
    )
})

t.test('types that a page may send without a preflight are never taken for JSON', async (t) => {
  const simple = fc.constantFrom('text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data')
  const rest = fc.oneof(
    fc.string(),
    fc.constantFrom(
      ';application/json',
      '; charset=application/json',
      ';,application/json',
      ' ; a="application/json"',
    ),
  )
  holds(
    t,
    fc.property(simple, rest, (type, rest) => {
      try {
        requireJson(withHeaders({ 'content-type': type + rest }))
        return false
      } catch (thrown) {
        return (thrown as SidecarError).code === 'ERR_CONTENT_TYPE'
      }
    }),
  )
})

t.test('all types that may be answered with must be acceptable', async (t) => {
  const needed = ['application/json', 'text/event-stream']
  const accepts = (accept: string | undefined, ...types: string[]): boolean => {
    try {
      requireAccept(withHeaders({ accept }), ...types)
      return true
    } catch (thrown) {
      if ((thrown as SidecarError).code === 'ERR_ACCEPT') return false
      throw thrown
    }
  }
  const both = [
    ...[
      'application/json, text/event-stream',
      'text/event-stream,application/json',
      '*/*',
      'APPLICATION/JSON,Text/Event-Stream',
    ],
    ...[
      'application/*, text/*',
      'application/json;q=0.9, text/event-stream;q=0.1, */*;q=0.01',
      'text/html, */*',
      'text/*,application/json',
    ],
  ]
  for (const accept of both) t.ok(accepts(accept, ...needed), accept)
  for (const accept of [
    undefined,
    '',
    'application/json',
    'text/event-stream',
    'text/html',
    'text/*',
    'application/json/text/event-stream',
    'text',
  ])
    t.notOk(accepts(accept, ...needed), shown(String(accept)))
  t.ok(accepts('text/event-stream', 'text/event-stream'))
  t.notOk(accepts('application/json', 'text/event-stream'))
  t.throws(() => requireAccept(withHeaders({ accept: 'text/html' }), ...needed), {
    code: 'ERR_ACCEPT',
    detail: 'Accept "text/html" does not allow application/json, text/event-stream',
  })
})

t.test('media types are found whatever stands around them', async (t) => {
  t.same(mediaTypes(undefined), [])
  t.same(mediaTypes(' Text/HTML;q=1 , a/b'), ['text/html', 'a/b'])
  const token = fc.stringMatching(/^[a-z0-9!#$&^_.+-]{1,8}$/)
  const type = fc.tuple(token, token).map((parts) => parts.join('/'))
  const parameter = fc.constantFrom('', ';q=0.5', '; a=b', ' ; A=B;c=d ')
  const padding = fc.constantFrom('', ' ', '\t')
  holds(
    t,
    fc.property(fc.array(fc.tuple(padding, type, parameter), { minLength: 1, maxLength: 5 }), (parts) => {
      const header = parts.map((part) => part.join('')).join(',')
      return fc.stringify(mediaTypes(header)) === fc.stringify(parts.map(([, type]) => type))
    }),
  )
})
