import fc from 'fast-check'
import t from 'tap'
import { compileLayer, type ListedType } from '../../src/authz/rules.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { operationOf } from '../../src/core/operation.ts'
import type { AccessRule, RuleAction, RuleLayer } from '../../src/core/policy.ts'
import type { Decoded, Principal } from '../../src/core/types.ts'
import { alice, anonymous, bob, condition, decoded, layer, robot, rule } from '../support/authz.ts'
import { holds } from '../support/property.ts'

let hour = 12
const clock = { epoch: () => Date.UTC(2026, 0, 1, hour) }

/** The ids that permitted, or the refusal. */
function verdict(of: RuleLayer, request: Decoded): readonly string[] | SidecarError {
  try {
    const found = compileLayer(of, clock).permit(request, operationOf(request.message))
    if (found.layer !== of.name) throw new Error(found.layer)
    return found.ids
  } catch (thrown) {
    if (thrown instanceof SidecarError) return thrown
    throw thrown
  }
}

const may = (of: RuleLayer, request: Decoded): boolean => Array.isArray(verdict(of, request))
const call = (name: string, principal: Principal = alice): Decoded =>
  decoded('tools/call', { name }, { principal })
const read = (uri: string, principal: Principal = alice): Decoded =>
  decoded('resources/read', { uri }, { principal })
const get = (name: string): Decoded => decoded('prompts/get', { name })

function shows(rules: readonly AccessRule[], type: ListedType, name: string, who = alice): boolean {
  return compileLayer(layer(rules), clock).listing(decoded('tools/list', {}, { principal: who }))(type, name)
}

t.test('a rule permits its principals what it names, and nobody anything else', async (t) => {
  const rules = layer([
    rule(['group:dev'], [{ tools: ['db_*', '*_query', 'exact'], actions: ['tools/call'] }]),
    rule(['*'], [{ resources: ['docs://*'], prompts: ['greet'] }]),
  ])
  for (const name of ['db_', 'db_drop', 'x_query', 'exact']) t.ok(may(rules, call(name)), name)
  for (const name of ['DB_drop', 'xdb_', 'exactly', '', 'greet', 'docs://a'])
    t.notOk(may(rules, call(name)), name)
  t.notOk(may(rules, call('db_drop', bob)))
  t.ok(may(rules, read('docs://a', robot)))
  t.notOk(may(rules, read('docs:/a')))
  t.notOk(may(rules, read('greet')))
  t.ok(may(rules, get('greet')))
  t.notOk(may(rules, get('db_drop')))
  t.notOk(may(rules, read('docs://a', anonymous)), '* is no anonymous caller')
})

t.test('an action permits what it says', async (t) => {
  const uses: readonly [RuleAction, Decoded][] = [
    ['tools/call', call('x')],
    ['resources/read', read('x')],
    ['prompts/get', get('x')],
  ]
  const all = { tools: ['x'], resources: ['x'], prompts: ['x'] }
  for (const [action] of [...uses, ['tools/list'] as const]) {
    for (const [needed, request] of uses) {
      const rules = layer([rule(['*'], [{ ...all, actions: [action] }])])
      t.equal(may(rules, request), action === needed, `${action} for ${request.message.method}`)
    }
  }
  for (const [, request] of uses) t.ok(may(layer([rule(['*'], [all])]), request), '* is every action')
})

t.test('subscriptions and completions are judged by what they are about', async (t) => {
  const rules = layer([rule(['*'], [{ resources: ['a:*'], prompts: ['p'] }])])
  const ref = (type: string, more: object): Decoded =>
    decoded('completion/complete', { ref: { type, ...more }, argument: {} })
  const listen = (...resourceSubscriptions: unknown[]): Decoded =>
    decoded('subscriptions/listen', { notifications: { resourceSubscriptions } })
  const table: [Decoded, boolean][] = [
    [decoded('resources/subscribe', { uri: 'a:1' }), true],
    [decoded('resources/subscribe', { uri: 'b:1' }), false],
    [decoded('resources/unsubscribe', { uri: 'b:1' }), false],
    [ref('ref/prompt', { name: 'p' }), true],
    [ref('ref/prompt', { name: 'q' }), false],
    [ref('ref/resource', { uri: 'a:{x}' }), true],
    [ref('ref/resource', { uri: 'b:{x}' }), false],
    [listen('a:1', 'a:2'), true],
    [listen('a:1', 'b:2'), false],
  ]
  for (const [request, expected] of table) {
    t.equal(may(rules, request), expected, request.message.bytes.toString())
  }
})

t.test('any: one rule that permits is enough, and the first is named', async (t) => {
  const rules = [
    rule(['user:bob'], [{ tools: ['*'] }], { id: 'bobs' }),
    rule(['*'], [{ tools: ['a'] }], { id: 'a' }),
    rule(['*'], [{ tools: ['*'], resources: ['r:1'] }], { id: 'all' }),
    rule(['*'], [{ resources: ['r:2'] }], { id: 'r2' }),
  ]
  t.same(verdict(layer(rules), call('a')), ['a'])
  t.same(verdict(layer(rules), call('b')), ['all'])
  const listen = (...uris: string[]): Decoded =>
    decoded('subscriptions/listen', { notifications: { resourceSubscriptions: uris } })
  t.same(verdict(layer(rules), listen('r:1', 'r:2', 'r:1')), ['all', 'r2'], 'each object by its own rule')
  t.same(verdict(layer(rules), listen('r:2')), ['r2'])
})

t.test('all: each rule must permit', async (t) => {
  const rules = [
    rule(['group:dev'], [{ tools: ['a', 'b'] }], { id: 'dev' }),
    rule(['group:staff', 'group:ops'], [{ tools: ['a'] }], { id: 'staff' }),
  ]
  const of = layer(rules, { evaluation: 'all' })
  t.same(verdict(of, call('a')), ['dev', 'staff'])
  t.match(verdict(of, call('b')), { code: 'ERR_DENIED', verdict: { layer: 'rules', ids: ['staff'] } })
  t.match(verdict(of, call('a', bob)), { verdict: { ids: ['dev'] } })
  t.match(verdict(of, call('c', bob)), { verdict: { ids: ['dev', 'staff'] } })
})

t.test('all conditions of a rule must hold', async (t) => {
  const office = condition('TimeOfDay', 'In', '09:00-17:00')
  const inside = condition('IPAddress', 'In', '192.0.2.0/24')
  const rules = layer([rule(['*'], [{ tools: ['x'] }], { conditions: [office, inside] })])
  const from = (clientAddress: string): Decoded => decoded('tools/call', { name: 'x' }, { clientAddress })
  t.ok(may(rules, from('192.0.2.1')))
  t.notOk(may(rules, from('198.51.100.1')))
  hour = 20
  t.notOk(may(rules, from('192.0.2.1')))
  const refusal = verdict(rules, from('192.0.2.1')) as SidecarError
  t.match(refusal.detail, 'rule: its condition TimeOfDay In does not hold')
  hour = 12
})

t.test(
  'a refusal says to the log what stood in the way of each rule, and to the client nothing',
  async (t) => {
    const rules = layer([
      rule(['user:bob'], [{ tools: ['secret_tool'] }], { id: 'bobs' }),
      rule(['*'], [{ tools: ['other'] }], { id: 'others' }),
      rule(['*'], [{ tools: ['secret_tool'] }], {
        id: 'inside',
        conditions: [condition('IPAddress', 'In', '10.0.0.0/8')],
      }),
    ])
    const refusal = verdict(rules, call('secret_tool')) as SidecarError
    t.equal(
      refusal.detail,
      'rules: no rule permits tools/call of tool "secret_tool" to "user:alice" ' +
        '(bobs: not for this caller; others: not for this object; inside: its condition IPAddress In does not hold)',
    )
    t.match(refusal.verdict, { layer: 'rules', ids: [] })
    t.equal(refusal.message, 'This operation is not permitted.')
    t.same([refusal.httpStatus(true), refusal.data, refusal.headers], [403, undefined, {}])

    const many = layer(
      Array.from({ length: 30 }, (_, i) => rule(['anonymous'], [{ tools: ['x'] }], { id: `r${i}` })),
    )
    const long = verdict(many, call(`a\n${'b'.repeat(5000)}`)) as SidecarError
    t.match(long.detail, /; and 22 more\)$/)
    t.ok((long.detail ?? '').length < 1000)
    t.notMatch(long.detail, '\n')
  },
)

t.test('a tool is listed for who may list or call it, anything else for who may read it', async (t) => {
  const only = (action: RuleAction): AccessRule[] => [
    rule(['*'], [{ tools: ['x'], resources: ['x'], prompts: ['x'], actions: [action] }]),
  ]
  const table: [RuleAction, ListedType[]][] = [
    ['tools/list', ['tool']],
    ['tools/call', ['tool']],
    ['resources/read', ['resource', 'template']],
    ['prompts/get', ['prompt']],
    ['*', ['tool', 'resource', 'template', 'prompt']],
  ]
  for (const [action, listed] of table) {
    for (const type of ['tool', 'resource', 'template', 'prompt'] as const) {
      t.equal(shows(only(action), type, 'x'), listed.includes(type), `${action}, ${type}`)
      t.notOk(shows(only(action), type, 'y'))
      t.notOk(shows(only(action), type, 'x', anonymous))
    }
  }
})

t.test('of rules that must all permit, all must list', async (t) => {
  const rules = [
    rule(['*'], [{ tools: ['a', 'b'] }]),
    rule(['group:dev'], [{ tools: ['a'], actions: ['tools/list'] }]),
  ]
  const of = compileLayer(layer(rules, { evaluation: 'all' }), clock)
  const listing = of.listing(decoded('tools/list'))
  t.same([listing('tool', 'a'), listing('tool', 'b')], [true, false])
  const other = of.listing(decoded('tools/list', {}, { principal: bob }))
  t.same([other('tool', 'a'), other('tool', 'b')], [false, false])
})

t.test('a template is listed where it may become a URI that can be read', async (t) => {
  const table: [string, string, boolean][] = [
    ['file:///{path}', 'file:///public/*', true],
    ['file:///public/{path}', 'file:///public/*', true],
    ['file:///public/{path}', 'file:///*', true],
    ['file:///public/a{path}', 'file:///public/b*', false],
    ['file:///secret/{path}', 'file:///public/*', false],
    ['file:///secret/{path}', '*', true],
    ['{+uri}', 'file:///public/*', true],
    ['file:///{path}', 'file:///a.txt', true],
    ['file:///dir/{path}', 'file:///a.txt', false],
    ['file:///dir/{path}', 'file:///d', false],
    ['file:///fixed', 'file:///fixed', true],
    ['file:///fixed', 'file:///f*', true],
    ['file:///fixed', 'file:///fixed2', false],
    ['http://{host}/x', 'https://*', false],
  ]
  for (const [template, pattern, expected] of table) {
    const rules = [rule(['*'], [{ resources: [pattern] }])]
    t.equal(shows(rules, 'template', template), expected, `${template} with ${pattern}`)
  }
})

const names = fc.constantFrom('a', 'b', 'ab', 'r:1')
const anyRule = fc
  .record({
    principals: fc.array(fc.constantFrom('user:alice', 'group:ops', '*', 'anonymous'), {
      minLength: 1,
      maxLength: 2,
    }),
    tools: fc.array(fc.constantFrom('a', 'b', 'a*', '*'), { maxLength: 2 }),
    resources: fc.array(fc.constantFrom('r:*', 'a', '*'), { maxLength: 1 }),
    actions: fc.array(fc.constantFrom<RuleAction>('tools/call', 'tools/list', 'resources/read', '*'), {
      maxLength: 2,
    }),
    hours: fc.option(fc.constantFrom('09:00-17:00', '17:00-09:00'), { nil: undefined }),
  })
  .map(({ principals, tools, resources, actions, hours }) =>
    rule(principals, [{ tools, resources, actions }], {
      conditions: hours === undefined ? [] : [condition('TimeOfDay', 'In', hours)],
    }),
  )
const anyRequest = fc
  .tuple(fc.constantFrom('tools/call', 'resources/read'), names, fc.constantFrom(alice, bob, anonymous))
  .map(([method, name, who]) => decoded(method, { name, uri: name }, { principal: who }))

t.test('any: a rule more takes nothing away, neither from use nor from lists', async (t) => {
  holds(
    t,
    fc.property(
      fc.array(anyRule, { minLength: 1, maxLength: 4 }),
      anyRule,
      anyRequest,
      names,
      (rules, more, request, name) => {
        const [before, after] = [layer(rules), layer([...rules, more])]
        const lists = (of: RuleLayer): boolean => compileLayer(of, clock).listing(request)('tool', name)
        return (!may(before, request) || may(after, request)) && (!lists(before) || lists(after))
      },
    ),
  )
})

t.test('all: a rule more gives nothing, neither to use nor to lists', async (t) => {
  const all = { evaluation: 'all' } as const
  holds(
    t,
    fc.property(
      fc.array(anyRule, { minLength: 1, maxLength: 3 }),
      anyRule,
      anyRequest,
      names,
      (rules, more, request, name) => {
        const [before, after] = [layer(rules, all), layer([...rules, more], all)]
        const lists = (of: RuleLayer): boolean => compileLayer(of, clock).listing(request)('tool', name)
        return (!may(after, request) || may(before, request)) && (!lists(after) || lists(before))
      },
    ),
  )
})

t.test('what may be used is listed', async (t) => {
  holds(
    t,
    fc.property(
      fc.array(anyRule, { minLength: 1, maxLength: 4 }),
      anyRequest,
      fc.constantFrom('any' as const, 'all' as const),
      (rules, request, evaluation) => {
        const of = layer(rules, { evaluation })
        const [target] = operationOf(request.message).targets
        if (target === undefined) return false
        return !may(of, request) || compileLayer(of, clock).listing(request)(target.type, target.name)
      },
    ),
  )
})
