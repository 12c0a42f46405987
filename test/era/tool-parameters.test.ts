import fc from 'fast-check'
import t from 'tap'
import { localResult, messageOf } from '../../src/core/local.ts'
import {
  mayAnnotate,
  type ToolParameters,
  toolParameters,
  withoutInvalidTools,
} from '../../src/era/tool-parameters.ts'
import { arrayText, escapedSpelling, holds, jsonText, objectText } from '../support/property.ts'

const header = 'x-mcp-header'
const region = { type: 'string', [header]: 'Region' }
/** Of a tool with this input schema. */
const of = (inputSchema: unknown): ToolParameters | string => toolParameters({ name: 'x', inputSchema })
const properties = (value: object): object => ({ type: 'object', properties: value })

t.test('annotated properties, at any depth', async (t) => {
  t.same(
    of(
      properties({
        region,
        plain: { type: 'string' },
        where: properties({
          Zone: { type: 'integer', [header]: 'zone-ID' },
          deep: properties({ on: { type: 'boolean', [header]: '!#$%' } }),
        }),
      }),
    ),
    [
      { header: 'mcp-param-region', path: ['region'], type: 'string' },
      { header: 'mcp-param-zone-id', path: ['where', 'Zone'], type: 'integer' },
      { header: 'mcp-param-!#$%', path: ['where', 'deep', 'on'], type: 'boolean' },
    ],
  )
})

t.test('schemas without an annotation', async (t) => {
  const plain: unknown[] = [
    undefined,
    null,
    true,
    [],
    {},
    properties({}),
    properties({ a: true, b: null, c: [region] }),
    { type: 'object', properties: [region] },
    { type: 'object', properties: null },
    // A property of that name is none, nor is what stands in values.
    properties({ [header]: { type: 'string' } }),
    { $defs: { [header]: { type: 'string' } } },
    properties({ a: { type: 'object', default: region, const: region, enum: [region], examples: [region] } }),
    { required: [header], dependencies: { a: [header] } },
  ]
  for (const schema of plain) t.same(of(schema), [], JSON.stringify(schema))
  for (const tool of [undefined, null, 'x', [], {}]) t.same(toolParameters(tool), [], String(tool))
})

t.test('names are names, whatever objects have of their own', async (t) => {
  const schema: unknown = JSON.parse(
    `{"properties":{"__proto__":{"type":"string","${header}":"A"},"constructor":{"properties":{"toString":{"type":"string","${header}":"__proto__"}}}}}`,
  )
  t.same(of(schema), [
    { header: 'mcp-param-a', path: ['__proto__'], type: 'string' },
    { header: 'mcp-param-__proto__', path: ['constructor', 'toString'], type: 'string' },
  ])
})

const invalid: Record<string, [unknown, RegExp]> = {
  empty: [properties({ a: { type: 'string', [header]: '' } }), /not a text, or empty/],
  'no text': [properties({ a: { type: 'string', [header]: 1 } }), /not a text/],
  null: [properties({ a: { type: 'string', [header]: null } }), /not a text/],
  'a list': [properties({ a: { type: 'string', [header]: ['A'] } }), /not a text/],
  'a blank': [properties({ a: { type: 'string', [header]: 'My Region' } }), /"My Region" cannot be part/],
  'a colon': [properties({ a: { type: 'string', [header]: 'Region:Primary' } }), /cannot be part/],
  'not ASCII': [properties({ a: { type: 'string', [header]: 'Région' } }), /cannot be part/],
  'a tab': [properties({ a: { type: 'string', [header]: 'Region\t1' } }), /cannot be part/],
  'a line break at the end': [properties({ a: { type: 'string', [header]: 'Region\n' } }), /cannot be part/],
  'on an object': [properties({ a: { type: 'object', [header]: 'A' } }), /type "object"/],
  'on a list': [properties({ a: { type: 'array', [header]: 'A' } }), /type "array"/],
  'on null': [properties({ a: { type: 'null', [header]: 'A' } }), /type "null"/],
  'on a number': [properties({ a: { type: 'number', [header]: 'A' } }), /type "number"/],
  'on several types': [
    properties({ a: { type: ['string', 'null'], [header]: 'A' } }),
    /type \["string","null"\]/,
  ],
  'on no type': [properties({ a: { [header]: 'A' } }), /type undefined/],
  twice: [properties({ a: region, b: region }), /two properties have the header "mcp-param-region"/],
  'twice, in another case': [
    properties({ a: region, b: properties({ c: { type: 'string', [header]: 'REGION' } }) }),
    /two properties/,
  ],
  'at the root': [{ type: 'string', [header]: 'A' }, /no chain of properties leads \(at ""\)/],
  'on a chain through itself': [
    properties({ a: { ...properties({ b: region }), [header]: 'A' } }),
    /type "object"/,
  ],
  'after good ones': [
    properties({ a: region, b: { type: 'number', [header]: 'B' } }),
    /type "number"; .*"\/properties\/b"/,
  ],
  'far too deep': [
    Array.from({ length: 100 }).reduce<object>((inner) => properties({ a: inner }), region),
    /nested deeper/,
  ],
  'among far too many': [
    properties(Object.fromEntries(Array.from({ length: 10_001 }, (_, i) => [`p${i}`, {}]))),
    /more than 10000 parts/,
  ],
}

for (const [name, [schema, rule]] of Object.entries(invalid)) {
  t.test(`invalid: ${name}`, async (t) => {
    t.match(of(schema), rule)
  })
}

const places: Record<string, (inner: unknown) => object> = {
  ...Object.fromEntries(
    [
      ...[
        'items',
        'additionalItems',
        'unevaluatedItems',
        'contains',
        'additionalProperties',
        'not',
        'if',
        'then',
      ],
      ...['else', 'unevaluatedProperties', 'propertyNames', 'contentSchema'],
    ].map((keyword) => [keyword, (inner: unknown) => ({ [keyword]: inner })]),
  ),
  ...Object.fromEntries(
    ['allOf', 'anyOf', 'oneOf', 'prefixItems', 'items'].map((keyword) => [
      `${keyword} as a list`,
      (inner: unknown) => ({ [keyword]: [true, inner] }),
    ]),
  ),
  ...Object.fromEntries(
    ['patternProperties', 'dependentSchemas', 'dependencies', '$defs', 'definitions'].map((keyword) => [
      keyword,
      (inner: unknown) => ({ [keyword]: { a: inner } }),
    ]),
  ),
}

for (const [name, within] of Object.entries(places)) {
  t.test(`invalid within ${name}`, async (t) => {
    const rule = /no chain of properties leads/
    t.match(of(within(region)), rule, 'at the root')
    t.match(of(within(properties({ a: region }))), rule, 'with properties inside')
    t.match(of(properties({ a: within(properties({ b: region })) })), rule, 'below properties')
    t.same(of(properties({ a: region, b: within({ type: 'string' }) })), [
      { header: 'mcp-param-region', path: ['a'], type: 'string' },
    ])
  })
}

t.test('a definition that is referred to may not be annotated, the property that refers may', async (t) => {
  t.match(of({ $defs: { r: region }, properties: { a: { $ref: '#/$defs/r' } } }), /no chain/)
  t.same(of({ $defs: { r: { type: 'string' } }, properties: { a: { $ref: '#/$defs/r', ...region } } }), [
    { header: 'mcp-param-region', path: ['a'], type: 'string' },
  ])
})

t.test('a fault is short, whatever the server says', async (t) => {
  const long = 'é'.repeat(100_000)
  for (const schema of [
    properties({ a: { type: 'string', [header]: long } }),
    properties({ [long]: { type: long, [header]: 'a' } }),
  ]) {
    t.ok((of(schema) as string).length < 400)
  }
})

t.test('any JSON is a definition that can be read', async (t) => {
  const keyword = fc.constantFrom(header, 'type', 'properties', 'items', 'anyOf', '$defs', 'a')
  const value: fc.Arbitrary<unknown> = fc.letrec((tie) => ({
    value: fc.oneof(
      { depthSize: 'medium' },
      fc.constantFrom('string', 'integer', 'Region', '', null, true),
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(keyword, tie('value'), { maxKeys: 4 }),
    ),
  })).value
  holds(
    t,
    fc.property(value, (schema) => {
      const found = of(schema)
      if (typeof found === 'string') return found !== ''
      // Each is where its path says, and all that is annotated with a text is found.
      return found.every(({ path }) => {
        let at = schema as { properties: Record<string, unknown> }
        for (const name of path) at = at.properties[name] as typeof at
        return header in at
      })
    }),
    2000,
  )
})

t.test('text that may have an annotation is recognised in any spelling', async (t) => {
  holds(
    t,
    fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 12 }), fc.boolean(), (which, upper) => {
      const key = escapedSpelling(header, which)
      const text = upper
        ? key.replace(/\\u00([0-9a-f]{2})/g, (_, digits: string) => `\\u00${digits.toUpperCase()}`)
        : key
      return JSON.parse(text) === header && mayAnnotate(Buffer.from(`{${text}:"a"}`))
    }),
  )
  t.notOk(mayAnnotate(Buffer.from('{"description":"x-header","z":"\\u0026\\u003c\\u00e9"}')))
})

const good = JSON.stringify({ name: 'good', inputSchema: properties({ region }) })
const plain = JSON.stringify({ name: 'plain', inputSchema: properties({}) })
const bad = JSON.stringify({ name: 'bad', inputSchema: properties({ a: { type: 'number', [header]: 'A' } }) })

const list = (tools: string, rest = ''): string =>
  `{"jsonrpc":"2.0","id":7,"result":{${rest}"tools":${tools}}}`

t.test('tools that break a rule are left out, and nothing else changes', async (t) => {
  const warnings: string[][] = []
  const text = list(
    `[ ${bad} , ${good},\t${bad} ,${plain}, ${bad} ]`,
    '"ttlMs": 1.0, "nextCursor":"\\u0063",',
  )
  const filtered = withoutInvalidTools(messageOf(text), (...warning) => warnings.push(warning))
  t.equal(filtered.wire, list(`[ ${good},\t${plain} ]`, '"ttlMs": 1.0, "nextCursor":"\\u0063",'))
  t.equal(warnings.length, 3)
  t.match(warnings[0], ['bad', /type "number"/])
})

t.test('a result without a word of it is not looked at', async (t) => {
  const warn = (): void => {
    throw new Error('nothing is wrong')
  }
  for (const text of [
    list(`[${plain}]`),
    list(`[${good}, ${plain}]`),
    list('[]'),
    list(`{"${header}":1}`),
    list(`["${header}", null]`),
    `{"jsonrpc":"2.0","id":7,"result":{"${header}":1}}`,
    `{"jsonrpc":"2.0","id":7,"result":["${header}"]}`,
    `{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"${header}"}}`,
  ]) {
    const message = messageOf(text)
    t.equal(withoutInvalidTools(message, warn), message, text)
  }
})

t.test('a tool without a name is left out, too', async (t) => {
  const warnings: string[] = []
  const nameless = JSON.stringify({ name: 1, inputSchema: { [header]: 'A' } })
  const filtered = withoutInvalidTools(messageOf(list(`[${nameless}]`)), (tool) => warnings.push(tool))
  t.equal(filtered.wire, list('[]'))
  t.same(warnings, [''])
})

t.test('what others have changed stays changed', async (t) => {
  const message = messageOf(list(`[${good},${plain},${bad}]`))
  const at = message.bytes.indexOf(plain)
  const end = at + plain.length + 1
  const edited = message.edited({ start: at, end, text: '' })
  t.equal(withoutInvalidTools(edited, () => {}).wire, list(`[${good}]`))
  const gone = message.edited({ start: end - 1, end: message.bytes.indexOf(bad) + bad.length, text: '' })
  t.equal(
    withoutInvalidTools(gone, () => t.fail('it has gone')),
    gone,
  )
})

t.test('what is left is what was there', async (t) => {
  const named = { good, bad, plain }
  const tool = fc.oneof(fc.constantFrom(...Object.values(named)), jsonText)
  const message = fc
    .array(tool, { maxLength: 6 })
    .chain((tools) => fc.tuple(fc.constant(tools), arrayText(tools), jsonText))
    .chain(([tools, value, other]) =>
      fc.tuple(
        fc.constant(tools),
        objectText([
          { key: '"other"', value: other },
          { key: '"tools"', value },
        ]),
      ),
    )
  holds(
    t,
    fc.property(message, ([tools, result]) => {
      const before = messageOf(`{"jsonrpc":"2.0","id":1,"result":${result}}`)
      let warned = 0
      const after = withoutInvalidTools(before, () => warned++)
      const expected = before.parsed() as { result: { tools: unknown[] } }
      expected.result.tools = tools.filter((each) => each !== bad).map((each) => JSON.parse(each) as unknown)
      return (
        fc.stringify(after.parsed()) === fc.stringify(expected) &&
        warned === tools.filter((each) => each === bad).length
      )
    }),
  )
})

t.test('a message of our own making can be filtered as well', async (t) => {
  const message = localResult('1', { tools: [JSON.parse(bad), JSON.parse(plain)] as unknown[] })
  t.match(withoutInvalidTools(message, () => {}).parsed(), { result: { tools: [{ name: 'plain' }] } })
})
