import fc from 'fast-check'
import t from 'tap'
import { type ErrorCode, errorTable, rpcErrorText, SidecarError } from '../../src/core/errors.ts'
import { readMessages } from '../../src/core/jsonrpc.ts'
import { holds, idText } from '../support/property.ts'

const codes = Object.keys(errorTable) as ErrorCode[]
const anyCode = fc.constantFrom(...codes)

t.test('every failure has an HTTP status, a JSON-RPC code, a close code and a public sentence', async (t) => {
  for (const code of codes) {
    const { status, rpc, close, sentence } = errorTable[code]
    t.match(code, /^ERR_[A-Z_]+$/)
    t.ok(Number.isInteger(status) && status >= 400 && status < 600, `${code}: ${status}`)
    const standard = [-32700, -32600, -32601, -32602, -32603].includes(rpc)
    // Those that MCP 2026-07-28 defines in the range it has reserved.
    const mcp = [-32020, -32021, -32022].includes(rpc)
    t.ok(standard || mcp || rpc < -32768 || rpc > -32000, `${code}: ${rpc} is not reserved by JSON-RPC`)
    // 1004 to 1006 and 1015 must not be sent (RFC 6455 section 7.4.1).
    t.ok(
      [1001, 1002, 1003, 1007, 1008, 1009, 1011, 1013].includes(close) || (close >= 4000 && close < 5000),
      `${code}: ${close}`,
    )
    t.match(sentence, /^[A-Z][ -~]+\.$/, code)
    t.ok(Buffer.byteLength(code) <= 123, 'the code fits into a close frame')
  }
})

t.test('all failures of authentication look alike but for their code', async (t) => {
  t.same(errorTable.ERR_AUTH_MISSING, errorTable.ERR_AUTH_INVALID)
})

t.test('an answer in band has status 200 once the request id is known', async (t) => {
  for (const code of codes) {
    const error = new SidecarError(code)
    const { status, inBand } = errorTable[code]
    t.equal(error.httpStatus(false), status)
    t.equal(error.httpStatus(true), inBand ? 200 : status, code)
    t.equal(error.close, errorTable[code].close)
  }
  const answers = codes.filter((code) => errorTable[code].inBand)
  t.same(answers, [
    ...[
      'ERR_TOOL_UNKNOWN',
      'ERR_UNSUPPORTED',
      'ERR_REQUEST_STATE',
      'ERR_PARAMS',
      'ERR_TASK_UNKNOWN',
      'ERR_ROUNDS',
      'ERR_INPUT',
    ],
    ...['ERR_UPSTREAM_EXIT', 'ERR_UPSTREAM_MESSAGE', 'ERR_TIMEOUT'],
  ])
})

t.test('the client reads the sentence, the code and the request id, and nothing from inside', async (t) => {
  const secret = 'hunter2'
  holds(
    t,
    fc.property(
      anyCode,
      fc.option(idText, { nil: undefined }),
      fc.option(fc.uuid(), { nil: undefined }),
      (code, id, requestId) => {
        const error = new SidecarError(code, {
          detail: `about ${secret}`,
          cause: new Error(secret),
          headers: { 'X-Inside': secret },
        })
        const text = rpcErrorText(error, id, requestId)
        const { rpc, sentence } = errorTable[code]
        const expected = {
          jsonrpc: '2.0',
          ...(id === undefined ? {} : { id: JSON.parse(id) as unknown }),
          error: {
            code: rpc,
            message: sentence,
            data: {
              source: 'mcp-sidecar',
              reason: code.replace(/^(ERR_AUTH)_.*/, '$1'),
              ...(requestId === undefined ? {} : { requestId }),
            },
          },
        }
        return (
          !text.includes(secret) &&
          !/[\r\n]/.test(text) &&
          fc.stringify(JSON.parse(text)) === fc.stringify(expected)
        )
      },
    ),
  )
})

t.test('the id is given back as it was spelled, and left out when it is not known', async (t) => {
  const error = new SidecarError('ERR_TIMEOUT')
  t.match(rpcErrorText(error, '1.0', undefined), '"id":1.0,')
  t.match(rpcErrorText(error, '9007199254740993', undefined), '"id":9007199254740993,')
  t.match(rpcErrorText(error, '"\\u0061"', undefined), '"id":"\\u0061",')
  t.notMatch(rpcErrorText(error, undefined, undefined), '"id"')
})

t.test('it is a message that the sidecar itself can read', async (t) => {
  for (const id of ['1', '"a"', undefined]) {
    const message = readMessages(Buffer.from(rpcErrorText(new SidecarError('ERR_INTERNAL'), id, 'r')))
      .messages[0]
    t.match(message, { kind: 'response', isError: true })
    t.equal(message?.idText, id)
  }
})

t.test('Retry-After is in the body, too', async (t) => {
  const error = new SidecarError('ERR_OVERLOADED', { headers: { 'Retry-After': '5' } })
  t.match(JSON.parse(rpcErrorText(error, '1', undefined)), { error: { data: { retryAfterSeconds: 5 } } })
})

t.test('whatever is thrown becomes a failure of the table', async (t) => {
  const own = new SidecarError('ERR_DENIED', { detail: 'why' })
  t.equal(SidecarError.from(own), own)
  const cause = new TypeError('x is undefined')
  const internal = SidecarError.from(cause)
  t.match(internal, { code: 'ERR_INTERNAL', detail: 'x is undefined', cause, message: 'Internal error.' })
  t.match(SidecarError.from('text'), { code: 'ERR_INTERNAL', detail: 'text' })
  t.match(SidecarError.from(undefined), { code: 'ERR_INTERNAL', detail: 'undefined' })
  t.match(SidecarError.from(null), { code: 'ERR_INTERNAL' })
})

t.test('its message is the public sentence', async (t) => {
  const error = new SidecarError('ERR_PARSE', { detail: 'at byte 7' })
  t.match(error, { name: 'SidecarError', message: errorTable.ERR_PARSE.sentence, detail: 'at byte 7' })
  t.same(error.headers, {})
  t.notOk('cause' in error)
})
