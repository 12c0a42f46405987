import type { IncomingHttpHeaders } from 'node:http'
import fc from 'fast-check'
import t from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import { localNotification, localRequest, localResult, messageOf } from '../../src/core/local.ts'
import { checkParameterHeaders, checkStandardHeaders, decodeHeader } from '../../src/era/headers.ts'
import type { ToolParameter } from '../../src/era/tool-parameters.ts'
import { cpuMs } from '../support/cost.ts'
import { holds, shown } from '../support/property.ts'

const sentinel = (text: string): string => `=?base64?${Buffer.from(text).toString('base64')}?=`

/** As the specification has clients do it. */
function encodeHeader(text: string): string {
  const plain = /^[\t\x20-\x7e]*$/.test(text) && text === text.trim()
  return plain && !(text.startsWith('=?base64?') && text.endsWith('?=')) ? text : sentinel(text)
}

/** The header that was refused, or undefined. */
function refused(check: () => void): string | undefined {
  try {
    check()
    return undefined
  } catch (thrown) {
    if (!(thrown instanceof SidecarError) || thrown.code !== 'ERR_HEADER_MISMATCH') throw thrown
    return thrown.data?.['header'] as string
  }
}

/** A lone surrogate has no UTF-8. */
const isWellFormed = (text: string): boolean => !/\p{Surrogate}/u.test(text)

const anyText = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({ unit: 'grapheme' }),
  fc.string(),
  fc.string().map((inner) => `=?base64?${inner}?=`),
  fc.string().map((inner) => ` ${inner}\t`),
)

t.test('values of headers', async (t) => {
  const values: [string, string | undefined][] = [
    ['us-west1', 'us-west1'],
    ['', ''],
    ['  us west 1 \t', 'us west 1'],
    [' \t ', ''],
    ['=?base64?SGVsbG8sIOS4lueVjA==?=', 'Hello, 世界'],
    [' =?base64?SGVsbG8=?=\t', 'Hello'],
    ['=?base64?IHBhZGRlZCA=?=', ' padded '],
    ['=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=', '=?base64?literal?='],
    ['=?base64??=', ''],
    ['=?base64?77u/YQ==?=', '\ufeffa'],
    // Padding, alphabet, bits that belong to no character, white space, two values in one.
    ['=?base64?SGVsbG8?=', undefined],
    ['=?base64?SGVsbG8==?=', undefined],
    ['=?base64?SGVs!!!bG8=?=', undefined],
    ['=?base64?SGVs bG8=?=', undefined],
    ['=?base64?_-8=?=', undefined],
    ['=?base64?YR==?=', undefined],
    ['=?base64?YQ==?=, =?base64?YQ==?=', undefined],
    // No UTF-8: a lone byte, a surrogate, an overlong form.
    ['=?base64?/w==?=', undefined],
    ['=?base64?7aCA?=', undefined],
    ['=?base64?wIA=?=', undefined],
    // Half of it, or another spelling, is what it looks like.
    ['SGVsbG8=', 'SGVsbG8='],
    ['=?base64?SGVsbG8=', '=?base64?SGVsbG8='],
    ['SGVsbG8=?=', 'SGVsbG8=?='],
    ['=?base64?=', '=?base64?='],
    ['=?BASE64?SGVsbG8=?=', '=?BASE64?SGVsbG8=?='],
    ['=?base32?SGVsbG8=?=', '=?base32?SGVsbG8=?='],
    // Bytes that may not stand in a header.
    ['caf\u00c3\u00a9', undefined],
    ['a\u007f', undefined],
    ['a\u0001b', undefined],
  ]
  for (const [value, expected] of values) t.equal(decodeHeader(value), expected, shown(value))
})

t.test('what clients encode is decoded', async (t) => {
  const wellFormed = anyText.filter(isWellFormed)
  holds(
    t,
    fc.property(wellFormed, (text) => decodeHeader(encodeHeader(text)) === text),
  )
  holds(
    t,
    fc.property(wellFormed, (text) => decodeHeader(` \t${sentinel(text)} `) === text),
  )
})

t.test('there is one spelling of an encoded value', async (t) => {
  const payload = fc.oneof(fc.base64String(), fc.string(), fc.stringMatching(/^[A-Za-z0-9+/_=-]{0,8}$/))
  holds(
    t,
    fc.property(payload, (inner) => {
      const decoded = decodeHeader(`=?base64?${inner}?=`)
      return decoded === undefined || sentinel(decoded) === `=?base64?${inner}?=`
    }),
    2000,
  )
})

t.test('a long value is read in linear time', async (t) => {
  const inside = `a${' '.repeat(1_000_000)}b`
  const around = `${' '.repeat(1_000_000)}b${' '.repeat(1_000_000)}`
  t.equal(decodeHeader(inside)?.length, 1_000_002)
  t.equal(decodeHeader(around), 'b')
  t.ok(cpuMs(() => decodeHeader(inside)) + cpuMs(() => decodeHeader(around)) < 1000)
})

const call = (name: unknown): object => ({ name, arguments: {} })
const weather = { 'mcp-method': 'tools/call', 'mcp-name': 'weather' }

const standard: [string, string, object, IncomingHttpHeaders, string | undefined][] = [
  ['a method', 'tools/list', {}, { 'mcp-method': 'tools/list' }, undefined],
  ['white space around it', 'tools/list', {}, { 'mcp-method': ' tools/list\t' }, undefined],
  ['none', 'tools/list', {}, {}, 'Mcp-Method'],
  ['another', 'tools/list', {}, { 'mcp-method': 'prompts/list' }, 'Mcp-Method'],
  ['in capitals', 'tools/list', {}, { 'mcp-method': 'TOOLS/LIST' }, 'Mcp-Method'],
  ['empty', 'tools/list', {}, { 'mcp-method': '' }, 'Mcp-Method'],
  ['twice', 'tools/list', {}, { 'mcp-method': 'tools/list, tools/list' }, 'Mcp-Method'],
  ['a list', 'tools/list', {}, { 'mcp-method': ['tools/list'] as unknown as string }, 'Mcp-Method'],
  ['a method is never encoded', 'tools/list', {}, { 'mcp-method': sentinel('tools/list') }, 'Mcp-Method'],
  ['a method no header can hold', 'x/é', {}, { 'mcp-method': 'x/é' }, 'Mcp-Method'],
  ['an unknown method', 'acme/do', { name: 'x' }, { 'mcp-method': 'acme/do' }, undefined],
  ['a name nobody asked for', 'tools/list', {}, { 'mcp-method': 'tools/list', 'mcp-name': 'x' }, undefined],
  ['a method named as one of Object', 'constructor', {}, { 'mcp-method': 'constructor' }, undefined],
  ['a name', 'tools/call', call('weather'), weather, undefined],
  [
    'white space around a name',
    'tools/call',
    call('weather'),
    { ...weather, 'mcp-name': '  weather  ' },
    undefined,
  ],
  [
    'an encoded name',
    'tools/call',
    call('wetter°'),
    { ...weather, 'mcp-name': sentinel('wetter°') },
    undefined,
  ],
  [
    'encoded without need',
    'tools/call',
    call('weather'),
    { ...weather, 'mcp-name': sentinel('weather') },
    undefined,
  ],
  ['no name', 'tools/call', call('weather'), { 'mcp-method': 'tools/call' }, 'Mcp-Name'],
  ['another name', 'tools/call', call('wind'), weather, 'Mcp-Name'],
  ['a name in capitals', 'tools/call', call('Weather'), weather, 'Mcp-Name'],
  ['a malformed name', 'tools/call', call('a'), { ...weather, 'mcp-name': '=?base64?YQ?=' }, 'Mcp-Name'],
  ['a name twice', 'tools/call', call('a'), { ...weather, 'mcp-name': 'a, a' }, 'Mcp-Name'],
  ['a name with a comma', 'tools/call', call('a, a'), { ...weather, 'mcp-name': 'a, a' }, undefined],
  ['Latin-1 as it stands', 'tools/call', call('é'), { ...weather, 'mcp-name': 'é' }, 'Mcp-Name'],
  [
    'a name like a sentinel',
    'tools/call',
    call('=?base64?YQ==?='),
    { ...weather, 'mcp-name': '=?base64?YQ==?=' },
    'Mcp-Name',
  ],
  ['an empty name', 'tools/call', call(''), { ...weather, 'mcp-name': '' }, undefined],
  ['nothing to repeat', 'tools/call', {}, { 'mcp-method': 'tools/call' }, undefined],
  ['a number for a name', 'tools/call', call(1), { 'mcp-method': 'tools/call' }, undefined],
  ['a header of nothing', 'tools/call', {}, weather, 'Mcp-Name'],
  ['a header of a number', 'tools/call', call(1), { ...weather, 'mcp-name': '1' }, 'Mcp-Name'],
  ['a prompt', 'prompts/get', { name: 'p' }, { 'mcp-method': 'prompts/get', 'mcp-name': 'p' }, undefined],
  [
    'a resource',
    'resources/read',
    { uri: 'a:b', name: 'x' },
    { 'mcp-method': 'resources/read', 'mcp-name': 'a:b' },
    undefined,
  ],
  [
    'a resource by its name',
    'resources/read',
    { uri: 'a:b', name: 'x' },
    { 'mcp-method': 'resources/read', 'mcp-name': 'x' },
    'Mcp-Name',
  ],
  ...['tasks/get', 'tasks/update', 'tasks/cancel'].flatMap(
    (method): [string, string, object, IncomingHttpHeaders, string | undefined][] => [
      [
        `${method} with its task`,
        method,
        { taskId: 't' },
        { 'mcp-method': method, 'mcp-name': 't' },
        undefined,
      ],
      [`${method} without`, method, { taskId: 't' }, { 'mcp-method': method }, 'Mcp-Name'],
    ],
  ),
]

for (const [name, method, params, headers, expected] of standard) {
  t.test(`standard headers: ${name}`, async (t) => {
    t.equal(
      refused(() => checkStandardHeaders(localRequest(method, params), headers)),
      expected,
    )
  })
}

t.test('notifications and responses have no headers to check', async (t) => {
  checkStandardHeaders(localNotification('notifications/cancelled', { requestId: 1 }), {})
  checkStandardHeaders(localResult('1', {}), { 'mcp-method': 'x' })
  t.pass()
})

t.test('every name can be sent', async (t) => {
  holds(
    t,
    fc.property(anyText.filter(isWellFormed), (name) => {
      const headers = { 'mcp-method': 'tools/call', 'mcp-name': encodeHeader(name) }
      return refused(() => checkStandardHeaders(localRequest('tools/call', { name }), headers)) === undefined
    }),
  )
})

const parameter = (path: string, type: ToolParameter['type'] = 'string'): ToolParameter => ({
  header: `mcp-param-${path.replaceAll('.', '-').toLowerCase()}`,
  path: path.split('.'),
  type,
})

/** @param args as JSON text */
function checked(args: string | undefined, header: string | undefined, each: ToolParameter): boolean {
  const text = args === undefined ? '' : `,"arguments":${args}`
  const message = messageOf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"${text}}}`)
  const headers = { 'mcp-param-other': 'é', ...(header === undefined ? {} : { [each.header]: header }) }
  const found = refused(() => checkParameterHeaders(message, headers, [each]))
  if (found !== undefined && found !== each.header) throw new Error(`it names ${found}`)
  return found === undefined
}

const region = parameter('region')
const count = parameter('count', 'integer')
const flag = parameter('flag', 'boolean')
const nested = parameter('a.b')
const proto = parameter('__proto__')

const values: [string, string | undefined, string | undefined, ToolParameter, boolean][] = [
  ['a string', '{"region":"us"}', 'us', region, true],
  ['an escaped string', '{"r\\u0065gion":"\\u0075s"}', 'us', region, true],
  ['an encoded string', '{"region":"世界"}', sentinel('世界'), region, true],
  ['an empty string', '{"region":""}', '', region, true],
  ['white space around it', '{"region":"us"}', ' us ', region, true],
  ['white space of the value', '{"region":" us "}', ' us ', region, false],
  ['another string', '{"region":"us"}', 'eu', region, false],
  ['other case', '{"region":"us"}', 'US', region, false],
  ['malformed', '{"region":"Hello"}', '=?base64?SGVsbG8?=', region, false],
  ['half a sentinel', '{"region":"=?base64?SGVsbG8="}', '=?base64?SGVsbG8=', region, true],
  ['a lone surrogate', '{"region":"\\ud800"}', sentinel('\ud800'), region, false],
  ['bytes of Latin-1', '{"region":"é"}', 'é', region, false],
  ['twice', '{"region":"us"}', 'us, us', region, false],
  ['twice, as the value is', '{"region":"us, us"}', 'us, us', region, true],
  ['no header', '{"region":"us"}', undefined, region, false],
  ['no header for an empty string', '{"region":""}', undefined, region, false],
  ['null', '{"region":null}', undefined, region, true],
  ['absent', '{"other":1}', undefined, region, true],
  ['no arguments', undefined, undefined, region, true],
  ['arguments that are no object', '["us"]', undefined, region, true],
  ['a header for null', '{"region":null}', 'us', region, false],
  ['the text null for null', '{"region":null}', 'null', region, false],
  ['a header for nothing', '{}', 'us', region, false],
  ['a header without arguments', undefined, '', region, false],
  ['a list', '{"region":["us"]}', 'us', region, false],
  ['a list without header', '{"region":["us"]}', undefined, region, false],
  ['an object', '{"region":{}}', '{}', region, false],
  ['a number for a string', '{"region":42}', '42', region, true],
  ['a fraction for an integer', '{"count":3.50}', '3.5', count, true],
  ['another fraction', '{"count":3.5}', '3.51', count, false],
  ['a string for an integer', '{"count":"42.0"}', '42', count, false],
  ['stands twice', '{"region":"us","region":"us"}', 'us', region, false],
  ['stands twice, escaped', '{"region":null,"regio\\u006e":"us"}', 'us', region, false],
  ['an integer', '{"count":42}', '42', count, true],
  ['negative', '{"count":-7}', '-7', count, true],
  ['with a fraction of nothing', '{"count":42}', '42.0', count, true],
  ['the other way round', '{"count":42.00}', '42', count, true],
  ['with an exponent in the body', '{"count":4.2e1}', '42', count, true],
  ['with an exponent in the header', '{"count":42}', '4.2e1', count, false],
  ['zeros in front', '{"count":42}', '042', count, false],
  ['a sign in front', '{"count":42}', '+42', count, false],
  ['hexadecimal', '{"count":42}', '0x2a', count, false],
  ['nothing', '{"count":0}', '', count, false],
  ['minus zero', '{"count":-0}', '0', count, true],
  ['a point without digits', '{"count":42}', '42.', count, false],
  ['encoded', '{"count":42}', sentinel('42'), count, true],
  ['encoded with white space', '{"count":42}', sentinel(' 42'), count, false],
  ['other digits', '{"count":42}', sentinel('\u0664\u0662'), count, false],
  ['the largest', '{"count":9007199254740991}', '9007199254740991', count, true],
  ['the smallest', '{"count":-9007199254740991}', '-9007199254740991.0', count, true],
  ['too large', '{"count":9007199254740992}', '9007199254740992', count, false],
  ['too large and rounded', '{"count":9007199254740993}', '9007199254740992', count, false],
  ['rounded in the header', '{"count":9007199254740991}', '9007199254740990.9', count, false],
  ['far too large', '{"count":1e400}', '1'.padEnd(401, '0'), count, false],
  ['true', '{"flag":true}', 'true', flag, true],
  ['false', '{"flag":false}', 'false', flag, true],
  ['in capitals', '{"flag":true}', 'True', flag, false],
  ['as a number', '{"flag":true}', '1', flag, false],
  ['not true', '{"flag":false}', 'true', flag, false],
  ['nested', '{"a":{"b":"x"}}', 'x', nested, true],
  ['nested, another', '{"a":{"b":"x"}}', 'y', nested, false],
  ['nested, no header', '{"a":{"b":"x"}}', undefined, nested, false],
  ['nested, absent', '{"a":{}}', undefined, nested, true],
  ['nested in null', '{"a":null}', undefined, nested, true],
  ['nested in a list', '{"a":[{"b":"x"}]}', undefined, nested, true],
  ['nested in a text', '{"a":"b"}', undefined, nested, true],
  ['a name with a point is no path', '{"a.b":"x"}', undefined, nested, true],
  ['nested in one of two', '{"a":{"b":"x"},"a":{}}', 'x', nested, false],
  ['a name of Object', '{"__proto__":"x"}', 'x', proto, true],
  ['a name of Object, absent', '{}', undefined, parameter('constructor'), true],
]

for (const [name, args, header, each, accepted] of values) {
  t.test(`parameter headers: ${each.path.join('.')} ${name}`, async (t) => {
    t.equal(checked(args, header, each), accepted)
  })
}

t.test('each of several is checked', async (t) => {
  const message = localRequest('tools/call', {
    name: 'x',
    arguments: { region: 'us', a: { b: 'x', c: true } },
  })
  const all = [region, count, nested, parameter('a.c', 'boolean')]
  const good = { 'mcp-param-region': 'us', 'mcp-param-a-b': 'x', 'mcp-param-a-c': 'true' }
  t.equal(
    refused(() => checkParameterHeaders(message, good, all)),
    undefined,
  )
  for (const header of Object.keys(good)) {
    t.equal(
      refused(() => checkParameterHeaders(message, { ...good, [header]: 'wrong' }, all)),
      header,
    )
    t.equal(
      refused(() => checkParameterHeaders(message, { ...good, [header]: undefined }, all)),
      header,
    )
  }
})

t.test('a refusal tells no values', async (t) => {
  const message = localRequest('tools/call', { name: 'x', arguments: { region: 'secret-1' } })
  try {
    checkParameterHeaders(message, { 'mcp-param-region': 'secret-2' }, [region])
    t.fail('it is refused')
  } catch (thrown) {
    const { detail, data } = thrown as SidecarError
    t.notMatch(JSON.stringify([detail, data]), /secret/)
    t.match(detail, /mcp-param-region .*string "region"/)
  }
})

const spelledInteger = fc
  .tuple(fc.maxSafeInteger(), fc.nat(3), fc.boolean())
  .map(([value, zeros, exponent]) => ({
    value,
    text: exponent ? `${value}e0` : zeros === 0 ? String(value) : `${value}.${'0'.repeat(zeros)}`,
  }))

t.test('integers agree when they are equal, however they are spelled', async (t) => {
  holds(
    t,
    fc.property(spelledInteger, spelledInteger, fc.boolean(), (body, other, same) => {
      const header = same ? { ...other, text: other.text.replace(/^[^.e]*/, String(body.value)) } : other
      const expected = !header.text.includes('e') && (same || header.value === body.value)
      return checked(`{"count":${body.text}}`, header.text, count) === expected
    }),
    1000,
  )
})

t.test('integers beyond what all readers can hold agree with nothing', async (t) => {
  const unsafe = fc
    .bigInt()
    .filter((value) => value > Number.MAX_SAFE_INTEGER || value < Number.MIN_SAFE_INTEGER)
  holds(
    t,
    fc.property(unsafe, fc.boolean(), (value, fraction) => {
      return !checked(`{"count":${value}}`, fraction ? `${value}.0` : String(value), count)
    }),
  )
})

t.test('a number agrees with no text but a number', async (t) => {
  holds(
    t,
    fc.property(
      fc.oneof(fc.string(), fc.constantFrom('1_0', '1,0', ' ', '.5', '5.', 'Infinity', 'NaN', '1n')),
      (text) => {
        const value = Number(text.trim())
        return (
          /^-?\d/.test(text.trim()) ||
          !checked(`{"count":${Number.isFinite(value) ? value : 0}}`, text, count)
        )
      },
    ),
  )
})

t.test('every text, integer and boolean can be sent', async (t) => {
  const value = fc.oneof(anyText.filter(isWellFormed), fc.maxSafeInteger(), fc.boolean())
  holds(
    t,
    fc.property(value, (each) =>
      checked(JSON.stringify({ region: each }), encodeHeader(String(each)), region),
    ),
  )
})
