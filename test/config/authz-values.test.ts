import t from 'tap'
import { action, principal } from '../../src/config/authz-values.ts'
import { problems } from './loading.ts'

t.test('a principal is written in one of a few ways', async (t) => {
  for (const good of [
    '*',
    'anonymous',
    'user:alice',
    'user:https://id.example.com|123',
    'group:dev team',
    'id:jwt:https://login.example.com|alice',
    'serviceaccount:ci',
    'serviceaccount:ns/ci',
    'serviceaccount:ns:ci',
    'serviceaccount:system:serviceaccount:ns:ci',
  ])
    t.ok(principal.parse(good).ok, good)
  for (const bad of [
    'alice',
    'user:',
    'user: ',
    'id:',
    'group',
    'Group:dev',
    'serviceaccount:',
    'serviceaccount:a/b/c',
    'role:x',
    '**',
  ])
    t.notOk(principal.parse(bad).ok, bad)
})

t.test('actions of an earlier draft are refused with those of today', async (t) => {
  t.ok(action.parse('prompts/get').ok)
  for (const old of ['read', 'write', 'execute'])
    t.match(
      action.parse(old),
      { ok: false, faults: [{ message: /of an earlier draft: write tools\/call/ }] },
      old,
    )
})

t.test('a rule that means nothing, or something else than it says, is refused where it stands', async (t) => {
  const rule = (rest: string): string => `{ principals: ['*'], ${rest} }`
  const permission = (rest: string): string => rule(`permissions: [{ ${rest} }]`)
  const cases: [rule: string, wanted: string | RegExp][] = [
    ["{ principals: [], tools: ['*'] }", /rules\[0\]\.principals: is empty/],
    ["{ tools: ['*'] }", /rules\[0\]: principals is missing: who it is about/],
    ["{ principals: ['*'] }", /rules\[0\]: needs one of permissions, tools/],
    [rule("tools: ['*'], permissions: [{ tools: ['*'], actions: ['*'] }]"), /exclude each other/],
    [permission("tools: ['*']"), /permissions\[0\]: actions is missing/],
    [permission("tools: ['*'], actions: []"), /actions: is empty/],
    [
      permission("tools: ['*'], prompts: [a], actions: [prompts/get]"),
      /tools: no action is about tools: add tools\/call/,
    ],
    [permission('actions: [tools/call]'), /actions\[0\]: needs tools, for all of them "\*"/],
    [permission("actions: ['*']"), /permissions\[0\]: names no tools, resources or prompts/],
    [permission("tools: ['*'], actions: [write]"), /of an earlier draft/],
    [
      rule("tools: ['*'], conditions: [{ type: Weekday, value: Mon }]"),
      /type: "Weekday" is not one of IPAddress/,
    ],
    [
      rule("tools: ['*'], conditions: [{ type: RequestHeader, value: x }]"),
      /conditions\[0\]: key is missing: the name of the header/,
    ],
    [
      rule("tools: ['*'], conditions: [{ type: IPAddress, key: a, value: x }]"),
      /conditions\[0\]: key has no meaning for IPAddress/,
    ],
    [
      rule("tools: ['*'], conditions: [{ type: TimeOfDay, value: x, operator: Matches }]"),
      /operator: Matches is for RequestHeader alone/,
    ],
    [
      rule("tools: ['*'], conditions: [{ type: RequestHeader, key: 'a b', value: x }]"),
      /key: is not the name of a header/,
    ],
    [
      `{ id: a, principals: ['*'], tools: [x] }, { id: a, principals: ['*'], tools: [y] }`,
      /rules\[1\]\.id: is the name of an earlier rule, too/,
    ],
  ]
  for (const [yaml, wanted] of cases) {
    const found = await problems(t, { 'c.yaml': `authorization: { rules: [${yaml}] }\n` })
    t.equal(found.length, 1, `${yaml}: ${found.join(' / ')}`)
    t.match(found[0], /^c\.yaml:1:\d+: authorization\.rules/, yaml)
    t.match(found[0], wanted, yaml)
  }
})

t.test('a section without any demand is no authorization', async (t) => {
  t.same(await problems(t, { 'c.yaml': 'authorization: {}\n' }), [
    'c.yaml:1:16: authorization: is empty: it needs rules, cedar, scopes, a toolsFilter or capabilities',
  ])
  for (const empty of ['rules: []', 'scopes: []', 'toolsFilter: []', 'impliedScopes: {}'])
    t.match(
      await problems(t, { 'c.yaml': `authorization: { ${empty} }\n` }),
      [/is empty: it needs at least one/],
      empty,
    )
  t.match(await problems(t, { 'c.yaml': 'authorization: { scopes: [{ scopes: [a] }] }\n' }), [
    /scopes\[0\]: names no methods, tools, resources or prompts/,
  ])
})

t.test('Cedar has policies, from one kind of place', async (t) => {
  const files = { 'a.cedar': '', 'a.json': '' }
  const cases: [string, RegExp][] = [
    ['{}', /has no policies: name policyFiles, policies or a configFile/],
    ['{ configFile: a.json, policyFiles: [a.cedar] }', /policyFiles and configFile exclude each other/],
    ['{ configFile: a.json, groupClaim: g }', /groupClaim and configFile exclude each other/],
    [
      '{ policyFiles: [b.cedar] }',
      /^c\.yaml:1:41: the file of authorization\.cedar\.policyFiles\[0\] does not exist \(looked in DIR\)$/,
    ],
  ]
  for (const [yaml, wanted] of cases) {
    const found = await problems(t, { ...files, 'c.yaml': `authorization: { cedar: ${yaml} }\n` })
    t.match(found, [wanted], `${yaml}: ${found.join(' / ')}`)
  }
})
