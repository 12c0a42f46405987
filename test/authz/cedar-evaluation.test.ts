/** What is evaluated without the engine, against the engine, and what is left to it. */
import * as engine from '@cedar-policy/cedar-wasm/nodejs'
import fc from 'fast-check'
import t from 'tap'
import type { Engine, Json, PolicyJson } from '../../src/authz/cedar-ast.ts'
import { evaluator, type Facts } from '../../src/authz/cedar-evaluation.ts'

const { policyToJson } = engine as unknown as Engine

const facts = (context: Record<string, Json> = {}, name = 'echo'): Facts => ({
  principal: { type: 'Client', id: 'alice' },
  resource: { type: 'Tool', id: name },
  context,
})

/** As slices have it: the action is not in it any more. */
function parsed(text: string): PolicyJson {
  const read = policyToJson(text)
  if (read.type === 'failure') throw new Error(`${text}: ${read.errors[0]?.message}`)
  return read.json
}

/** What the engine itself comes to; undefined if any policy errs. */
function oracle(
  texts: readonly string[],
  given: Facts,
): { allow: boolean; ids: readonly string[] } | undefined {
  const answer = engine.isAuthorized({
    ...given,
    action: { type: 'Action', id: 'call_tool' },
    policies: { staticPolicies: Object.fromEntries(texts.map((text, i) => [`p${i}`, text])) },
    entities: [],
  } as Parameters<typeof engine.isAuthorized>[0])
  if (answer.type !== 'success') throw new Error(JSON.stringify(answer))
  const { decision, diagnostics } = answer.response
  if (diagnostics.errors.length > 0) return undefined
  return { allow: decision === 'allow', ids: diagnostics.reason.toSorted() }
}

function own(texts: readonly string[], given: Facts): ReturnType<typeof oracle> {
  const decision = evaluator(Object.fromEntries(texts.map((text, i) => [`p${i}`, parsed(text)])))(given)
  return decision && { allow: decision.allow, ids: decision.ids.toSorted() }
}

const from = <T>(...all: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...all)
const join =
  (between: readonly string[]) =>
  (tie: fc.Arbitrary<string>): fc.Arbitrary<string> =>
    fc.tuple(tie, from(...between), tie).map(([left, op, right]) => `(${left}) ${op} (${right})`)

/** Expressions of every form; the types are right about as often as not. */
const { expression } = fc.letrec<{ expression: string; any: string; flag: string }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 3, depthSize: 'medium' },
    from(
      '1',
      '2',
      '-3',
      '9007199254740991',
      '9223372036854775807',
      '"a"',
      '"echo"',
      '"a*b😀"',
      'true',
      'false',
    ),
    from('context.n', 'context.m', 'context.s', 'context.t', 'context.b', 'context.set', 'context.missing'),
    from('context.rec.at', 'context.rec.n', 'context["a b"]', 'context.toString', 'context.rec.constructor'),
    from(
      'context.rec',
      'context.list',
      'context',
      'principal',
      'resource',
      'context.deep.er.at',
      'context.d',
    ),
    from(
      'Client::"alice"',
      'Tool::"alice"',
      'Tool::"echo"',
      '[]',
      '["a", "b"]',
      '["a", 1, true]',
      '[Tool::"echo"]',
    ),
    from('[["a"], []]', '{at: "a"}', 'decimal("1.5")', '[context.s, context.n]', '[principal, resource]'),
    join(['+', '-', '*'])(tie('any')),
    tie('any').map((inner) => `-(${inner})`),
    fc.tuple(tie('flag'), tie('any'), tie('any')).map(([i, y, n]) => `(if ${i} then ${y} else ${n})`),
    tie('flag'),
  ),
  flag: fc.oneof(
    { maxDepth: 4, depthSize: 'medium' },
    join(['==', '!=', '<', '<=', '>', '>='])(tie('any')),
    join(['==', '!='])(tie('any')),
    join(['&&', '||'])(tie('flag')),
    tie('flag').map((inner) => `!(${inner})`),
    fc
      .tuple(tie('any'), from('contains', 'containsAll', 'containsAny'), tie('any'))
      .map(([left, method, right]) => `(${left}).${method}(${right})`),
    tie('any').map((inner) => `(${inner}).isEmpty()`),
    fc
      .tuple(tie('any'), from('*', '', 'a*', '*b*', 'a\\*b*', '*😀', 'a*a*b', 'e*o', '**'))
      .map(([left, pattern]) => `(${left}) like "${pattern}"`),
    fc
      .tuple(
        from('context', 'context.rec', 'context.s', 'principal'),
        from('s', 'at', 'toString', 'at.x', '"a b"'),
      )
      .map(([left, name]) => `${left} has ${name}`),
    fc
      .tuple(tie('any'), from('Client', 'Tool', 'Client in Tool::"echo"'))
      .map(([left, type]) => `(${left}) is ${type}`),
  ),
  expression: fc.oneof({ arbitrary: tie('flag'), weight: 4 }, { arbitrary: tie('any'), weight: 1 }),
}))

const policy = fc
  .record({
    effect: from('permit', 'permit', 'forbid'),
    principal: from('principal', 'principal', 'principal == Client::"alice"', 'principal == Client::"bob"'),
    resource: from('resource', 'resource', 'resource == Tool::"echo"', 'resource == Prompt::"echo"'),
    conditions: fc.array(fc.tuple(from('when', 'unless'), expression), { maxLength: 3 }),
  })
  .map(
    ({ effect, principal, resource, conditions }) =>
      `${effect}(${principal}, action, ${resource})${conditions.map(([kind, body]) => ` ${kind} { ${body} }`).join('')};`,
  )

const number = from(0, 1, 2, -3, 9007199254740991, -9007199254740991)
const text = from('', 'a', 'b', 'echo', 'a*b😀', 'aab', 'a\u0301')
const context: fc.Arbitrary<Record<string, Json>> = fc.record(
  {
    n: number,
    m: number,
    s: text,
    t: text,
    b: fc.boolean(),
    set: fc.array(text, { maxLength: 4 }),
    list: fc.array(fc.oneof(number, text, fc.boolean()), { maxLength: 3 }),
    rec: fc.record({ at: fc.oneof(text, number), n: number }, { requiredKeys: [] }),
    deep: fc.constant({ er: { at: 'a' } }),
    'a b': text,
    d: fc.constant({ __extn: { fn: 'decimal', arg: '1.5' } }),
  },
  { requiredKeys: [] },
)

t.test('what is decided here is what the engine decides', async (t) => {
  const counts = { allowed: 0, denied: 0, left: 0, erred: 0 }
  const property = fc.property(
    fc.array(policy, { minLength: 1, maxLength: 3 }),
    fc.array(context, { minLength: 4, maxLength: 4 }),
    (texts, contexts) => {
      for (const each of contexts) {
        const given = facts(each)
        const expected = oracle(texts, given)
        const found = own(texts, given)
        if (found === undefined) counts[expected === undefined ? 'erred' : 'left']++
        else if (JSON.stringify(found) !== JSON.stringify(expected))
          throw new Error(`${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`)
        else counts[found.allow ? 'allowed' : 'denied']++
      }
    },
  )
  await fc.assert(property, { numRuns: 1500 })
  for (const [what, count] of Object.entries(counts)) t.ok(count > 50, `${what}: ${count}`)
})

t.test('each operator', async (t) => {
  const context = { n: 2, s: 'a*b', b: true, set: ['a', 'a'], rec: { at: 'x' } }
  const decided: readonly [condition: string, holds: boolean][] = [
    ['context.n == 2 && context.n != 3 && context.n != "2"', true],
    ['context.n < 3 && context.n <= 2 && context.n > 1 && context.n >= 2', true],
    ['context.n + 1 - 4 * 2 == -5 && -context.n == -2', true],
    ['context.s like "a\\*b" && !(context.s like "a\\*") && context.s like "*"', true],
    ['context has n && !(context has m) && context.rec has at && context.rec.at == "x"', true],
    ['!(context has toString) && !(context.rec has constructor)', true],
    [
      'context.set.contains("a") && context.set.containsAll(["a"]) && context.set.containsAny(["b", "a"])',
      true,
    ],
    ['[].isEmpty() && !context.set.isEmpty()', true],
    ['principal is Client && !(principal is Tool) && principal == Client::"alice"', true],
    ['principal != Tool::"alice" && [resource].contains(Tool::"echo")', true],
    ['if context.b then false else 1 == "no boolean"', false],
    ['context.b || context.missing', true],
    ['!context.b && context.missing', false],
  ]
  for (const [condition, holds] of decided) {
    const given = facts(context)
    const texts = [`permit(principal, action, resource) when { ${condition} };`]
    t.strictSame(own(texts, given), { allow: holds, ids: holds ? ['p0'] : [] }, condition)
    t.strictSame(oracle(texts, given), own(texts, given), `${condition}, by the engine`)
  }
})

t.test('what it leaves to the engine', async (t) => {
  const big = 2 ** 53
  const context = { n: 9007199254740991, big, set: [['a']], d: { __extn: { fn: 'decimal', arg: '1.5' } } }
  const left = [
    'context.missing == 1',
    'context.n + 1 > 0',
    'context.big > 0',
    'context.n == 9007199254740993',
    'context.set == [["a"]]',
    'context.set.contains(["a"])',
    'context.d == decimal("1.5")',
    'context.d.lessThan(decimal("2.0"))',
    'context == {}',
    'context.d has x',
    'principal has x',
    'principal in Client::"alice"',
    'principal is Client in Client::"alice"',
    '"a" < "b"',
    '1 && true',
    'true && 1',
    '!1',
    '1',
    'if 1 then true else true',
    '1 like "a"',
    '"a".contains("a")',
    '["a"].containsAny("a")',
  ]
  for (const condition of left)
    for (const kind of ['when', 'unless'])
      t.equal(
        own([`permit(principal, action, resource) ${kind} { ${condition} };`], facts(context)),
        undefined,
        condition,
      )
  const many = { a: Array.from({ length: 200 }, (_, i) => `${i}`), b: Array.from({ length: 100 }, () => 'x') }
  for (const [method, allow] of [
    ['containsAll', false],
    ['containsAny', false],
  ] as const) {
    const texts = [`permit(principal, action, resource) when { context.a.${method}(context.b) };`]
    t.equal(own(texts, facts(many)), undefined, `${method} of large sets`)
    t.equal(own(texts, facts({ ...many, b: ['x'] }))?.allow, allow)
  }
  const scopes = [
    'principal is Client, action, resource',
    'principal in Client::"alice", action, resource',
    'principal, action == Action::"call_tool", resource',
    'principal, action, resource is Tool',
  ]
  for (const scope of scopes) t.equal(own([`permit(${scope});`], facts()), undefined, scope)
  t.equal(evaluator({ p0: 'permit(principal, action, resource);' })(facts()), undefined, 'text')
  const fine = 'permit(principal, action, resource);'
  const errs = 'permit(principal, action, resource) when { context.missing };'
  t.equal(own([fine, errs], facts()), undefined, 'one policy that errs')
  t.equal(own([errs, fine], facts()), undefined)
})

t.test('only what Cedar takes for an entity is one', async (t) => {
  const alice = { type: 'Client', id: 'alice' }
  const records: readonly Json[] = [
    { __entity: alice, more: 1 },
    { __entity: alice, __extn: { fn: 'ip', arg: '10.0.0.1' } },
    { __entity: { type: 'Client', id: 5 } },
    ...['foo', 5, true, null, ['a']].map((each) => ({ __entity: each })),
  ]
  for (const x of records) {
    for (const condition of [
      'context.x == principal',
      'context.x is Client',
      'context.x == "foo"',
      '[context.x].contains(principal)',
    ])
      t.equal(
        own([`permit(principal, action, resource) when { ${condition} };`], facts({ x })),
        undefined,
        condition,
      )
  }
  const same = facts({ x: { __entity: alice } })
  t.equal(own(['permit(principal, action, resource) when { context.x == principal };'], same)?.allow, true)
})

t.test('all forbids, or all permits, are named', async (t) => {
  const permit = 'permit(principal, action, resource);'
  const forbid = 'forbid(principal, action, resource);'
  const bob = 'permit(principal == Client::"bob", action, resource);'
  t.strictSame(own([permit, bob, permit], facts()), { allow: true, ids: ['p0', 'p2'] })
  t.strictSame(own([permit, forbid, bob, forbid], facts()), { allow: false, ids: ['p1', 'p3'] })
  t.strictSame(own([bob], facts()), { allow: false, ids: [] })
  t.strictSame(own(['permit(principal, action, resource == Tool::"rm");'], facts()), {
    allow: false,
    ids: [],
  })
  t.strictSame(own(['permit(principal, action, resource == Tool::"rm");'], facts({}, 'rm')), {
    allow: true,
    ids: ['p0'],
  })
})
