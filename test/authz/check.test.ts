import t from 'tap'
import { checkAuthz, ruleProblems } from '../../src/authz/check.ts'
import type { AuthzPolicy, RuleAction } from '../../src/core/policy.ts'
import { condition, demand, layer, policyOf, rule } from '../support/authz.ts'

const problems = (more: Partial<AuthzPolicy>): string[] =>
  checkAuthz(policyOf(more)).map(({ path, message }) => `${path.join('.')}: ${message}`)

t.test('a policy that can be carried out has no faults', async (t) => {
  t.same(problems({}), [])
  const rules = [
    rule(
      ['user:a', 'group:b', 'serviceaccount:ns/c', '*', 'anonymous'],
      [
        { tools: ['a*'], actions: ['tools/list'] },
        {
          tools: ['a'],
          resources: ['b'],
          prompts: ['*'],
          actions: ['tools/call', 'resources/read', 'prompts/get'],
        },
        { tools: ['*'], actions: ['tools/call', 'resources/read', 'prompts/get', 'tools/list'] },
      ],
    ),
    rule(['*'], [{ tools: ['*'] }], { conditions: [condition('TimeOfDay', 'In', '09:00-17:00')] }),
  ]
  t.same(
    problems({
      layers: [layer(rules), layer([], { name: 'empty' })],
      scopes: [
        demand(['a', 'b:c'], { methods: ['tools/*', 'com.example/*', 'ping'] }),
        demand(['a'], { resources: ['x'] }),
      ],
      impliedScopes: { admin: ['a', 'b'], none: [] },
      toolsFilters: [['a', 'b'], []],
    }),
    [],
  )
})

t.test('each mistake of a rule is told with its place, its layer and its rule', async (t) => {
  const broken = layer(
    [
      rule(['*'], [{ tools: ['*'] }]),
      rule(['alice', 'user:x', 'group:'], [{ tools: ['*'] }], { id: 'second' }),
      rule([], [], { id: 'third' }),
      rule(['*'], [{ tools: [''] }, {}, { tools: ['x'], actions: [] }], {
        id: 'fourth',
        conditions: [condition('IPAddress', 'In', 'x'), condition('RequestHeader', 'Equal', 'x')],
      }),
    ],
    { name: 'route' },
  )
  const found = problems({ layers: [layer([rule(['*'], [{ tools: ['*'] }])]), broken] })
  t.match(found, [
    /^layers\.1\.rules\.1\.principals\.0: route, rule "second": "alice" names no principal/,
    /^layers\.1\.rules\.1\.principals\.2: route, rule "second": "group:" has no name/,
    /^layers\.1\.rules\.2\.principals: route, rule "third": it is for no principals/,
    /^layers\.1\.rules\.2\.permissions: route, rule "third": it grants no permissions/,
    /^layers\.1\.rules\.3\.permissions\.0\.tools\.0: route, rule "fourth": an empty pattern/,
    /^layers\.1\.rules\.3\.permissions\.1: route, rule "fourth": a permission without tools, resources or prompts/,
    /^layers\.1\.rules\.3\.permissions\.2\.actions: route, rule "fourth": a permission without actions/,
    /^layers\.1\.rules\.3\.conditions\.0: route, rule "fourth": "x" is neither an IP address/,
    /^layers\.1\.rules\.3\.conditions\.1: route, rule "fourth": RequestHeader needs the name/,
  ])
  t.equal(found.length, 9)
  t.equal(ruleProblems(broken).length, 9)
  t.match(ruleProblems(broken)[0]?.path, ['rules', 1, 'principals', 0])
})

t.test('a permission for which nothing may be done is a mistake', async (t) => {
  const found = (permission: object): string[] => problems({ layers: [layer([rule(['*'], [permission])])] })
  t.match(found({ tools: ['x'], actions: ['resources/read'] }), [
    /\.tools: .*actions needs tools\/call or tools\/list/,
  ])
  t.match(found({ tools: ['x'], resources: ['y'], actions: ['tools/call'] }), [
    /\.resources: .*needs resources\/read/,
  ])
  t.match(found({ prompts: ['x'], actions: ['tools/call'] }), [/\.prompts: .*needs prompts\/get/])
  t.match(found({ tools: ['x'], actions: ['*', 'read' as RuleAction] }), [
    /actions\.1: .*"read" is unknown: tools\/call/,
  ])
})

t.test('a demand says what it is for, and in scopes that can be named', async (t) => {
  t.match(
    problems({
      scopes: [
        demand(['a'], {}),
        demand([], { tools: ['x'] }),
        demand(['a b', 'c"', ''], { tools: ['x', ''] }),
        demand(['a'], { methods: ['tools/*', 'tool/call', 'toString'] }),
      ],
    }),
    [
      /^scopes\.0: say for which methods/,
      /^scopes\.1\.scopes: a demand for no scopes/,
      /^scopes\.2\.scopes: "a b" is no scope/,
      /^scopes\.2\.scopes: "c\\"" is no scope/,
      /^scopes\.2\.scopes: "" is no scope/,
      /^scopes\.2\.tools\.1: an empty pattern/,
      /^scopes\.3\.methods\.1: "tool\/call" is no method of MCP/,
      /^scopes\.3\.methods\.2: "toString" is no method of MCP/,
    ],
  )
  t.match(problems({ impliedScopes: { 'a b': ['c'], d: ['e\\'] } }), [
    /^impliedScopes\.a b: "a b" is no scope/,
    /^impliedScopes\.d: /,
  ])
})

t.test('names of the tools filter are names', async (t) => {
  t.match(problems({ toolsFilters: [['a'], ['b', 'db_*', '']] }), [
    /^toolsFilters\.1\.1: "db_\*" is no name of a tool/,
    /^toolsFilters\.1\.2: "" is no name/,
  ])
})
