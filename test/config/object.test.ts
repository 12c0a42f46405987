import fc from 'fast-check'
import t from 'tap'
import {
  checked,
  defaulted,
  lenient,
  object,
  oneOrMore,
  optional,
  record,
  required,
} from '../../src/config/object.ts'
import { good, type Parsed } from '../../src/config/parsed.ts'
import { duration, flag, integer, list, path, text } from '../../src/config/values.ts'

const name = text('name', {}, good)
const server = object(
  {
    host: required(name, 'Where it is. More about it.'),
    port: defaulted(integer(1, 9), 5, 'Its port.'),
    wait: optional(duration('1s', '1h'), 'for ever', 'How long.'),
    certFile: optional(path('file'), 'none', 'A certificate.'),
    keyFile: optional(path('output'), 'none', 'A key.'),
    token: optional({ ...name, show: () => '(not shown)' }, 'none', 'A secret.'),
  },
  { most: [['certFile', 'token']] },
)

function faults(parsed: Parsed<unknown>): string[] {
  return parsed.ok
    ? []
    : parsed.faults.map(({ path: at, key, message }) =>
        `${at.join('.')}${key === true ? '!' : ''} ${message}`.trim(),
      )
}

t.test('members are read, defaults filled in, and what is left out is undefined', async (t) => {
  const none = { wait: undefined, certFile: undefined, keyFile: undefined, token: undefined }
  t.same(server.parse({ host: 'a' }), good({ ...none, host: 'a', port: 5 }))
  t.same(server.parse({ host: 'a', port: 2, wait: '2s' }), good({ ...none, host: 'a', port: 2, wait: 2000 }))
})

t.test('everything wrong is reported at its own place', async (t) => {
  t.same(faults(server.parse({ host: '', port: 10, wait: 3 })), [
    'host is empty: give it a value or leave it out',
    'port 10 is out of range: 1 to 9',
    'wait 3 has no unit: write 3s',
  ])
  t.same(faults(server.parse({})), ['host is missing: where it is'])
  t.same(faults(server.parse([])), [
    'must be a section of keys (host, port, wait, certFile, keyFile, token), not a list',
  ])
  t.match(faults(server.parse(null))[0], /not nothing: fill it or leave it out$/)
})

t.test(
  'an unknown key is refused with the name that was meant, and its own name is not repeated',
  async (t) => {
    t.same(faults(server.parse({ host: 'a', prot: 1 })), ['prot! unknown key: did you mean port?'])
    t.same(
      faults(server.parse({ hots: 'a' })),
      ['hots! unknown key: did you mean host?'],
      'and is not missing, too',
    )
    const [fault] = faults(server.parse({ host: 'a', hunter2hunter2: 1 }))
    t.equal(fault, 'hunter2hunter2! unknown key: there are host, port, wait, certFile, keyFile, token')
    t.notMatch(JSON.stringify(server.parse({ host: 'a', constructor: 1 })), '"ok":true')
  },
)

t.test('names of other versions get an answer of their own', async (t) => {
  const type = object({ a: optional(name, 'none', 'A.') }, { known: { burst: 'is not implemented' } })
  t.same(faults(type.parse({ burst: 1 })), ['burst! burst is not implemented'])
})

t.test('an object of somebody else may have anything besides', async (t) => {
  const type = object({ a: required(name, 'A.') }, { open: true })
  t.same(type.parse({ a: 'x', b: [1] }), good({ a: 'x' }))
})

t.test('which member is there says which variant is meant', async (t) => {
  const one = object(
    { url: optional(name, 'x', 'U.'), file: optional(name, 'x', 'F.') },
    { one: [['url', 'file']] },
  )
  t.same(faults(one.parse({})), ['needs one of url, file'])
  t.same(faults(one.parse({ url: 'a', file: 'b' })), [
    'file! file and url exclude each other: keep one of them',
  ])
  t.same(faults(one.parse({ ulr: 'a' })), ['ulr! unknown key: did you mean url?'])
  t.ok(one.parse({ file: 'b' }).ok)
  t.same(faults(server.parse({ host: 'a', token: 'x', certFile: 'y' })), [
    'token! token and certFile exclude each other: keep one of them',
  ])
})

t.test('a demand on several members is made when each is right', async (t) => {
  const range = object(
    { from: required(integer(1, 9), 'F.'), to: required(integer(1, 9), 'T.') },
    { check: ({ from, to }) => (from > to ? [{ path: ['to'], message: 'is too small' }] : []) },
  )
  t.same(faults(range.parse({ from: 5, to: 2 })), ['to is too small'])
  t.same(faults(range.parse({ from: 50, to: 2 })), ['from 50 is out of range: 1 to 9'])
  const even = checked(integer(1, 9), (value) => (value % 2 === 0 ? [] : [{ path: [], message: 'is odd' }]))
  t.same(faults(even.parse(3)), ['is odd'])
  t.same(faults(even.parse('x')), ['"x" is not a whole number'])
})

t.test('one section may stand without a list around it', async (t) => {
  const type = oneOrMore(server)
  t.match(type.parse({ host: 'a' }), { value: [{ host: 'a' }] })
  t.match(type.parse([{ host: 'a' }, { host: 'b' }]), { value: [{ host: 'a' }, { host: 'b' }] })
  t.same(
    faults(type.parse({ port: 99 })),
    ['host is missing: where it is', 'port 99 is out of range: 1 to 9'].toSorted(),
  )
  t.same(faults(type.parse([])), ['is empty: it needs at least one item'])
  t.same(faults(type.parse('a')), ['must be a section or a list of sections, not text'])
  t.same(faults(type.parse([{ host: 'a', port: 0 }])), ['0.port 0 is out of range: 1 to 9'])
})

t.test('a record has any names', async (t) => {
  const type = record(list(integer(1, 9), 1), 'scope', 1)
  t.same(type.parse({ a: [1], b: [2, 3] }), good({ a: [1], b: [2, 3] }))
  t.same(faults(type.parse({ a: [], b: 1 })), [
    'a is empty: it needs at least one item',
    'b must be a list, not a number',
  ])
  t.same(faults(type.parse({})), ['is empty: it needs at least one entry'])
  t.same(faults(type.parse('x')), ['must be a section of scope: value, not text'])
  t.equal(type.show({ a: [1, 2] }), '{ a: 1, 2 }')
})

t.test('another spelling is rewritten first', async (t) => {
  const type = lenient(flag, (input) => (input === 'on' ? true : input))
  t.same(type.parse('on'), good(true))
  t.notOk(type.parse('off').ok)
})

t.test('none of them can be given in one text', async (t) => {
  for (const type of [server, record(name, 'x'), oneOrMore(server)])
    t.same(faults(type.parseText('a')), ['can be set only in the file'])
})

t.test('paths inside are found with their use and place, and replaced', async (t) => {
  const seen: string[] = []
  const type = object({ servers: required(oneOrMore(server), 'S.'), plain: optional(name, 'x', 'P.') })
  const parsed = type.parse({
    servers: [
      { host: 'a', certFile: 'c.pem' },
      { host: 'b', keyFile: 'k' },
    ],
  })
  if (!parsed.ok) throw new Error('it was refused')
  const moved = type.mapPaths?.(
    parsed.value,
    (value, use, at) => {
      seen.push(`${at.join('.')} ${use} ${value}`)
      return `/x/${value}`
    },
    [],
  )
  t.same(seen, ['servers.0.certFile file c.pem', 'servers.1.keyFile output k'])
  t.match(moved, {
    servers: [
      { host: 'a', certFile: '/x/c.pem' },
      { host: 'b', keyFile: '/x/k' },
    ],
  })
})

t.test('it is shown without its secrets, as a whole and member by member', async (t) => {
  const parsed = server.parse({ host: 'a', wait: '90s', token: 'hunter2' })
  if (!parsed.ok) throw new Error('it was refused')
  t.equal(server.show(parsed.value), '{ host: a, port: 5, wait: 90s, token: (not shown) }')
  t.same(oneOrMore(server).parts?.([parsed.value]), [
    { path: [0, 'host'], shown: 'a' },
    { path: [0, 'port'], shown: '5' },
    { path: [0, 'wait'], shown: '90s' },
    { path: [0, 'token'], shown: '(not shown)' },
  ])
})

t.test('its members are described for the reference and the JSON Schema', async (t) => {
  t.match(list(server).members, [
    { suffix: '[].host', type: 'name', fallback: 'required' },
    { suffix: '[].port', fallback: '`5`' },
    { suffix: '[].wait', fallback: 'for ever' },
  ])
  t.match(server.json, {
    type: 'object',
    required: ['host'],
    additionalProperties: false,
    properties: {
      port: { type: 'integer', default: 5, description: 'Its port.' },
      wait: { description: 'How long. Default: for ever.' },
    },
  })
})

t.test('whatever is written, it is read or refused, never thrown at', async (t) => {
  const type = object({
    servers: optional(oneOrMore(server), 'none', 'S.'),
    times: defaulted(record(duration('1s', '1h'), 'x'), {}, 'T.'),
  })
  const key = fc.oneof(
    fc.constantFrom('servers', 'times', 'host', 'port', '__proto__', 'toString'),
    fc.string(),
  )
  const value = fc.letrec((tie) => ({
    any: fc.oneof(
      { maxDepth: 4 },
      fc.string(),
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      fc.array(tie('any'), { maxLength: 3 }),
      fc.dictionary(key, tie('any'), { maxKeys: 4 }),
    ),
  })).any
  fc.assert(
    fc.property(value, (input) => {
      const parsed = type.parse(input)
      if (parsed.ok) type.show(parsed.value)
      else if (parsed.faults.length === 0) throw new Error('refused for no reason')
    }),
    { numRuns: 500 },
  )
  t.pass()
})
