import { isUtf8 } from 'node:buffer'
import fc from 'fast-check'
import t from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import { type Message, readMessages, valueKey } from '../../src/core/jsonrpc.ts'
import { cpuMs } from '../support/cost.ts'
import {
  lookalike,
  memberOf,
  messageText,
  notificationText,
  objectOf,
  paramNames,
  requestText,
  responseText,
  topNames,
} from '../support/messages.ts'
import { arrayText, damaged, holds, idText, jsonText, shown, stringText } from '../support/property.ts'

type Parsed = Readonly<Record<string, unknown>>

const readOne = (text: string): Message => {
  const { messages, batch } = readMessages(Buffer.from(text))
  if (batch || messages.length !== 1) throw new Error('not one message')
  return messages[0] as Message
}

/** The code of the refusal, or undefined if the text was taken; anything but a SidecarError is a bug. */
function refusal(text: string | Buffer): string | undefined {
  try {
    readMessages(Buffer.from(text as string))
    return undefined
  } catch (thrown) {
    if (thrown instanceof SidecarError) return thrown.code
    throw thrown
  }
}

/** The same value to the last digit of -0, or the same absence. */
const same = (a: unknown, b: unknown): boolean => fc.stringify(a) === fc.stringify(b)

const isObject = (value: unknown): value is Parsed =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

t.test('what it finds in a message equals what JSON.parse finds', async (t) => {
  holds(
    t,
    fc.property(messageText, (text) => {
      const whole = JSON.parse(text) as Parsed
      const message = readOne(text)
      const found = (span: Message['id']): unknown =>
        span === undefined ? undefined : JSON.parse(message.text(span))
      const params = isObject(whole['params']) ? whole['params'] : {}
      const meta = isObject(params['_meta']) ? params['_meta'] : {}
      const kind =
        whole['method'] === undefined ? 'response' : whole['id'] === undefined ? 'notification' : 'request'
      return (
        message.kind === kind &&
        message.method === (whole['method'] ?? '') &&
        message.isError === (kind === 'response' && 'error' in whole) &&
        same(found(message.id), whole['id'] ?? undefined) &&
        same(found(message.params), whole['params']) &&
        same(found(message.result), whole['result']) &&
        same(found(message.error), whole['error']) &&
        same(found(message.progressToken), meta['progressToken'] ?? undefined) &&
        paramNames.every((name) => same(found(message.paramSpans[name]), params[name])) &&
        same(message.parsed(), whole)
      )
    }),
    500,
  )
})

t.test('not a byte changes but line breaks, which become blanks', async (t) => {
  holds(
    t,
    fc.property(messageText, (text) => readOne(text).bytes.toString() === text.replace(/[\r\n]/g, ' ')),
    500,
  )
  const pretty = '\r\n{\n\t"jsonrpc":\r"2.0",\r\n\r\n"method"\n:"a\\nb\\r\u2028"\r}\n'
  const message = readOne(pretty)
  t.equal(message.bytes.toString(), pretty.replace(/[\r\n]/g, ' '))
  t.equal(message.method, 'a\nb\r\u2028')
})

t.test('what the sidecar has no business with survives to the byte', async (t) => {
  const odd =
    '{"big":123456789012345678901234567890,"z":-0.0,"e":1E+2,"u":"\\u00e9\\/\\ud800","dup":1,"dup":2,"":{"Method":1}}'
  const text = `{"x":${odd},"jsonrpc":"2.0","id":9007199254740993,"method":"a","params":{"arguments":${odd},"_meta":{"a.b/c":${odd}}}}`
  t.equal(readOne(text).bytes.toString(), text)
  const answer = `{"id":1.0,"result":${odd},"jsonrpc":"2.0","y":${odd}}`
  t.equal(readOne(answer).bytes.toString(), answer)
  t.equal(readOne(answer).idText, '1.0')
})

t.test('of damaged messages it takes nothing that JSON.parse refuses or reads differently', async (t) => {
  holds(
    t,
    fc.property(damaged(messageText), (bytes) => {
      const original = Buffer.from(bytes)
      const code = refusal(original)
      if (code === 'ERR_INVALID_REQUEST') return true
      let whole: unknown
      try {
        if (!isUtf8(bytes)) throw new Error('not UTF-8')
        whole = JSON.parse(bytes.toString())
      } catch {
        return code === 'ERR_PARSE'
      }
      if (code !== undefined) return false
      return readMessages(bytes).messages.every((message, i) =>
        same(message.parsed(), Array.isArray(whole) ? whole[i] : whole),
      )
    }),
    1000,
  )
})

t.test('any bytes are read or refused, never anything else', async (t) => {
  holds(
    t,
    fc.property(fc.oneof(fc.uint8Array(), jsonText.map(Buffer.from)), (bytes) =>
      [undefined, 'ERR_PARSE', 'ERR_INVALID_REQUEST'].includes(refusal(Buffer.from(bytes))),
    ),
    500,
  )
})

t.test('bytes that are not UTF-8 are refused, wherever they stand', async (t) => {
  for (const bad of [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xc3], [0xf5, 0x80, 0x80, 0x80]]) {
    const text = Buffer.concat([
      Buffer.from('{"jsonrpc":"2.0","method":"a","params":{"x":"'),
      Buffer.from(bad),
      Buffer.from('"}}'),
    ])
    t.equal(refusal(text), 'ERR_PARSE', shown(text.toString('hex')))
  }
  t.equal(refusal(Buffer.from('\ufeff{"jsonrpc":"2.0","method":"a"}')), 'ERR_PARSE', 'a byte order mark')
  t.equal(refusal(Buffer.from('{"jsonrpc":"2.0","method":"a"}', 'utf16le')), 'ERR_PARSE', 'UTF-16')
})

t.test('a member that decides, twice, is refused, however either is spelled', async (t) => {
  const twice = fc.constantFrom(...topNames).chain((name) => {
    const value = { jsonrpc: '"2.0"', method: '"a"', params: '{}' }[name as string] ?? '1'
    const others = topNames
      .filter((other) => other !== name && (other === 'jsonrpc' || other === 'method' || other === 'id'))
      .map((other) =>
        memberOf(other, fc.constant({ jsonrpc: '"2.0"', method: '"a"' }[other as string] ?? '1')),
      )
    return objectOf(
      memberOf(name, fc.constant(value)),
      memberOf(name, fc.oneof(fc.constant(value), jsonText)),
      ...others,
    )
  })
  holds(
    t,
    fc.property(twice, (text) => refusal(text) === 'ERR_INVALID_REQUEST'),
    300,
  )
})

const requestWith = (params: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  objectOf(
    memberOf('jsonrpc', fc.constant('"2.0"')),
    memberOf('id', idText),
    memberOf('method', stringText),
    memberOf('params', params),
  )

t.test('a known member of params, twice, is refused', async (t) => {
  const twice = fc
    .constantFrom(...paramNames.filter((name) => name !== '_meta'))
    .chain((name) => requestWith(objectOf(memberOf(name, jsonText), memberOf(name, jsonText))))
  holds(
    t,
    fc.property(twice, (text) => refusal(text) === 'ERR_INVALID_REQUEST'),
  )
  t.equal(
    refusal('{"jsonrpc":"2.0","method":"a","params":{"_meta":{},"_meta":{}}}'),
    'ERR_INVALID_REQUEST',
    '_meta',
  )
})

t.test('a progress token, twice, is refused, null or not', async (t) => {
  const token = fc.oneof(idText, fc.constant('null'))
  const twice = requestWith(
    objectOf(memberOf('_meta', objectOf(memberOf('progressToken', token), memberOf('progressToken', token)))),
  )
  holds(
    t,
    fc.property(twice, (text) => refusal(text) === 'ERR_INVALID_REQUEST'),
  )
})

t.test('names that only letter case or Unicode folding tells apart are refused', async (t) => {
  const top = fc
    .constantFrom(...topNames)
    .chain(lookalike)
    .chain((name) =>
      objectOf(
        memberOf('jsonrpc', fc.constant('"2.0"')),
        memberOf('method', stringText),
        memberOf(name, jsonText),
      ),
    )
  const inParams = fc
    .constantFrom(...paramNames)
    .chain(lookalike)
    .chain((name) => requestWith(objectOf(memberOf(name, jsonText))))
  const inMeta = lookalike('progressToken').chain((name) =>
    requestWith(objectOf(memberOf('_meta', objectOf(memberOf(name, idText))))),
  )
  holds(
    t,
    fc.property(fc.oneof(top, inParams, inMeta), (text) => refusal(text) === 'ERR_INVALID_REQUEST'),
    500,
  )
  for (const member of [
    '"Method":"b"',
    '"ID":2',
    '"re\u017fult":1',
    '"param\u017f":{}',
    '"\\u004dethod":"b"',
  ]) {
    const text = `{"jsonrpc":"2.0","id":1,"method":"a",${member}}`
    t.equal(refusal(text), 'ERR_INVALID_REQUEST', shown(text))
  }
  for (const member of ['"tas\u212aId":"1"', '"requestid":1', '"Name":"x"', '"_Meta":{}', '"URI":"x"']) {
    const text = `{"jsonrpc":"2.0","method":"a","params":{${member}}}`
    t.equal(refusal(text), 'ERR_INVALID_REQUEST', shown(text))
  }
})

t.test('names that merely resemble, and look-alikes deeper down, pass', async (t) => {
  const members = [
    '"\u017f":1',
    '"\u212a":1',
    '"methods":1',
    '"":1',
    '"meth\u00f6d":1',
    '"m\u0435thod":1',
    '"id ":1',
  ]
  for (const member of members) {
    const text = `{"jsonrpc":"2.0","id":1,"method":"a",${member},"params":{${member},"_meta":{${member}}}}`
    t.equal(refusal(text), undefined, shown(text))
  }
  const deep = '{"Method":1,"NAME":2,"ProgressToken":3,"_META":{"progresstoken":4}}'
  t.equal(refusal(`{"jsonrpc":"2.0","id":1,"method":"a","params":{"arguments":${deep}}}`), undefined)
  t.equal(refusal(`{"jsonrpc":"2.0","id":1,"result":${deep}}`), undefined)
  t.equal(refusal(`{"jsonrpc":"2.0","id":1,"error":{"data":${deep}}}`), undefined)
})

t.test('an escaped spelling of a known name is that name', async (t) => {
  const message = readOne(
    '{"json\\u0072pc":"2.0","\\u0069d":"7","\\u006d\\u0065thod":"t\\u006fols\\/call","params":{"n\\u0061me":"x","\\u005fmeta":{"progress\\u0054oken":"p"}}}',
  )
  t.equal(message.kind, 'request')
  t.equal(message.method, 'tools/call')
  t.equal(message.idText, '"7"')
  t.equal(message.paramString('name'), 'x')
  t.equal(message.text(message.progressToken as NonNullable<typeof message.progressToken>), '"p"')
})

t.test('shapes that are no message are refused', async (t) => {
  const members = [
    ...['"method":1', '"method":null', '"method":["a"]', '"id":null,"method":"a"', '"id":true,"method":"a"'],
    ...['"id":{},"method":"a"', '"id":[1],"method":"a"', '"id":false,"result":1', '"id":null,"result":1'],
    ...[
      '"id":1',
      '"result":1',
      '"id":1,"result":1,"error":{}',
      '"id":1,"method":"a","result":1',
      '"params":{}',
    ],
    ...[
      '"method":"a","error":{}',
      '"method":"a","params":[]',
      '"method":"a","params":null',
      '"method":"a","params":1',
    ],
    ...[
      '"method":"a","params":{"_meta":{"progressToken":true}}',
      '"id":true,"error":{}',
      '"id":[],"error":{}',
    ],
    ...['"method":"a","params":{"_meta":{"progressToken":{}}}'],
  ]
  for (const member of members) t.equal(refusal(`{"jsonrpc":"2.0",${member}}`), 'ERR_INVALID_REQUEST', member)
  for (const text of ['1', '"a"', 'null', 'true', '{}', '{"method":"a"}', '[1]', '[[]]', '[null]', '[{}]'])
    t.equal(refusal(text), 'ERR_INVALID_REQUEST', text)
  for (const version of ['"1.0"', '2.0', '"2.0 "', 'null', '"2\\u002e0"', '["2.0"]'])
    t.equal(refusal(`{"jsonrpc":${version},"method":"a"}`), 'ERR_INVALID_REQUEST', version)
})

t.test('text after the message is refused', async (t) => {
  const one = '{"jsonrpc":"2.0","method":"a"}'
  for (const rest of [one, ',', '1', '\0', 'x', ']', '\u00a0'])
    t.equal(refusal(one + rest), 'ERR_PARSE', shown(rest))
  t.equal(refusal(''), 'ERR_PARSE')
  t.equal(refusal(`[${one}],`), 'ERR_PARSE')
  t.equal(refusal(`[${one},]`), 'ERR_PARSE')
})

t.test('every error response is one, with an id, with null, or without', async (t) => {
  holds(
    t,
    fc.property(responseText, (text) => {
      const message = readOne(text)
      const whole = JSON.parse(text) as Parsed
      return message.kind === 'response' && (message.id === undefined) === ((whole['id'] ?? null) === null)
    }),
  )
})

t.test('a batch gives its elements one by one, each as if it had come alone', async (t) => {
  const batch = fc
    .array(messageText, { maxLength: 4 })
    .chain((texts) => arrayText(texts).map((text) => ({ texts, text })))
  holds(
    t,
    fc.property(batch, ({ texts, text }) => {
      const { messages, batch } = readMessages(Buffer.from(text))
      return (
        batch &&
        messages.length === texts.length &&
        messages.every((message, i) => {
          const alone = readOne((texts[i] as string).trim())
          return (
            message.bytes.equals(alone.bytes) &&
            message.kind === alone.kind &&
            message.idText === alone.idText &&
            same(message.paramSpans, alone.paramSpans)
          )
        })
      )
    }),
    300,
  )
})

t.test('one bad element refuses the whole batch', async (t) => {
  const one = '{"jsonrpc":"2.0","method":"a"}'
  for (const bad of ['{}', '1', `[${one}]`, '{"jsonrpc":"2.0","method":"a","Method":"b"}'])
    t.equal(refusal(`[${one},${bad},${one}]`), 'ERR_INVALID_REQUEST', bad)
  t.equal(refusal(`[${one},{]`), 'ERR_PARSE')
})

t.test('of a batch no more elements are read than are allowed', async (t) => {
  const one = '{"jsonrpc":"2.0","method":"a"}'
  t.equal(readMessages(Buffer.from(`[${one},${one}]`), 2).messages.length, 2)
  t.throws(
    () => readMessages(Buffer.from(`[${one},${one},{]`), 2),
    { code: 'ERR_INVALID_REQUEST' },
    'before what is wrong later',
  )
  t.equal(readMessages(Buffer.from(one), 0).messages.length, 1, 'a message alone is no batch')
})

t.test('nesting is bounded, in a message alone and in a batch', async (t) => {
  const nested = (levels: number): string =>
    `{"jsonrpc":"2.0","method":"a","params":{"x":${'['.repeat(levels)}${']'.repeat(levels)}}}`
  t.equal(refusal(nested(254)), undefined)
  t.equal(refusal(nested(255)), 'ERR_PARSE')
  t.equal(refusal(`[${nested(253)}]`), undefined)
  t.equal(refusal(`[${nested(254)}]`), 'ERR_PARSE')
  t.equal(refusal('['.repeat(1_000_000)), 'ERR_PARSE')
})

t.test('ids and tokens are equal as keys when they are equal as values', async (t) => {
  const spelled = fc.oneof(
    idText,
    stringText,
    fc.constantFrom('1', '1.0', '10e-1', '"1"', '-0', '0', '"n1"', '1e2'),
  )
  holds(
    t,
    fc.property(spelled, spelled, (a, b) => {
      const equal = JSON.parse(a) === JSON.parse(b)
      return (valueKey(a) === valueKey(b)) === equal
    }),
    500,
  )
  t.equal(valueKey('1'), valueKey('1.0'))
  t.equal(valueKey('"a"'), valueKey('"\\u0061"'))
  t.not(valueKey('1'), valueKey('"1"'))
  t.not(valueKey('"\\ud800"'), valueKey('"\\ud801"'))
})

t.test('integers beyond 2^53 are told apart as keys: servers number with 64 bits', async (t) => {
  t.not(valueKey('9007199254740992'), valueKey('9007199254740993'))
  t.not(valueKey('1234567890123456789'), valueKey('1234567890123456790'))
  t.not(valueKey('1e400'), valueKey('2e400'))
})

t.test('a request, a notification and a response give what stages ask of them', async (t) => {
  holds(
    t,
    fc.property(requestText, notificationText, (request, notification) => {
      const [asks, tells] = [readOne(request), readOne(notification)]
      return (
        asks.idKey === valueKey(asks.idText as string) &&
        tells.idKey === undefined &&
        tells.idText === undefined &&
        asks.wire !== undefined
      )
    }),
  )
  const message = readOne(
    '{"jsonrpc":"2.0","method":"m","params":{"name":"a\\"b","uri":5,"requestId":"7","progressToken":7.0,"level":null}}',
  )
  t.equal(message.paramString('name'), 'a"b')
  t.equal(message.paramString('uri'), undefined, 'a number is no string')
  t.equal(message.paramString('level'), undefined)
  t.equal(message.paramString('taskId'), undefined)
  t.equal(message.paramKey('requestId'), valueKey('"7"'))
  t.equal(message.paramKey('progressToken'), valueKey('7'))
  t.equal(message.paramKey('elicitationId'), undefined)
})

t.test('a progress token of null asks for no progress', async (t) => {
  const message = readOne('{"jsonrpc":"2.0","id":1,"method":"a","params":{"_meta":{"progressToken":null}}}')
  t.equal(message.progressToken, undefined)
})

t.test('a key that is a member of every object does no harm', async (t) => {
  const text =
    '{"jsonrpc":"2.0","id":1,"method":"a","__proto__":{"method":"b"},"params":{"__proto__":{"name":"x"},"constructor":1}}'
  const message = readOne(text)
  t.equal(message.method, 'a')
  t.equal(message.paramString('name'), undefined)
  t.equal(message.bytes.toString(), text)
})

t.test('a message padded with line breaks is read about as fast as one padded with blanks', async (t) => {
  const padded = (padding: number): Buffer =>
    Buffer.concat([
      Buffer.from('{"jsonrpc":"2.0",'),
      Buffer.alloc(2 ** 20, padding),
      Buffer.from('"method":"a"}'),
    ])
  const time = (padding: number): number => {
    const copies = [1, 2, 3].map(() => padded(padding))
    return cpuMs(() => readMessages(copies.pop() as Buffer), copies.length)
  }
  time(0x20)
  const ratio = time(0x0d) / time(0x20)
  t.ok(ratio < 5, `line breaks took ${ratio.toFixed(1)} times as long`)
})
