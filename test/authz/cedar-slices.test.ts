/** The engine asked about a slice, with what the slice needs, against the engine asked about everything. */
import * as engine from '@cedar-policy/cedar-wasm/nodejs'
import fc from 'fast-check'
import t from 'tap'
import { loadCedar } from '../../src/authz/cedar.ts'
import type { Question } from '../../src/authz/decider.ts'
import { type Ask, caller, cedarPolicy, question } from '../support/cedar.ts'

const groups = ['dev', 'ops', 'admins']
const tools = ['echo', 'add', 'rm']
const subjects = ['alice', 'bob']

const entities = [
  { uid: { type: 'THVGroup', id: 'dev' }, attrs: {}, parents: [{ type: 'THVGroup', id: 'staff' }] },
  {
    uid: { type: 'Client', id: 'bob' },
    attrs: { level: 2, claim_x: 'fixed' },
    parents: [{ type: 'Team', id: 't' }],
  },
  {
    uid: { type: 'Tool', id: 'rm' },
    attrs: { owner: 'alice', arg_s: 'b' },
    parents: [{ type: 'Kit', id: 'danger' }],
  },
  { uid: { type: 'Action', id: 'call_tool' }, attrs: {}, parents: [{ type: 'Action', id: 'any' }] },
  { uid: { type: 'Kit', id: 'danger' }, attrs: {}, parents: [{ type: 'Kit', id: 'all' }] },
]
/** The same, and an attribute that is an entity. */
const linked = [
  ...entities,
  {
    uid: { type: 'Tool', id: 'add' },
    attrs: { boss: { __entity: { type: 'Client', id: 'bob' } } },
    parents: [],
  },
]

const uids = [
  ...[...groups, 'staff'].map((id) => `THVGroup::"${id}"`),
  ...['Kit::"danger"', 'Kit::"all"', 'MCP::"github"', 'MCP::"other"', 'Team::"t"'],
  ...[...subjects.map((id) => `Client::"${id}"`), ...tools.map((id) => `Tool::"${id}"`), 'Prompt::"echo"'],
]
const from = (...texts: readonly string[]): fc.Arbitrary<string> => fc.constantFrom(...texts)

/** Conditions of every form, most of which have the right types. */
const { condition } = fc.letrec<{ condition: string; text: string; number: string; uid: string }>((tie) => ({
  text: fc.oneof(
    from('"a"', '"b"', '"echo"', '"rm"', '"alice"', '""'),
    from(
      'principal.claim_sub',
      'context.claim_sub',
      'principal.claim_x',
      'context.claim_x',
      'principal.claim_rec.at',
    ),
    from('resource.name', 'resource.operation', 'resource.feature', 'resource.owner', 'action.operation'),
    from('context.arg_s', 'resource.arg_s', 'resource["name"]', 'resource.uri', 'context.claim_rec["at"]'),
    from('resource.boss.claim_x', '(if context has arg_b then principal else principal).claim_sub'),
  ),
  number: from(
    '1',
    '2',
    '-1',
    'context.arg_n',
    'resource.arg_n',
    'principal.level',
    'context.arg_n + 1',
    '9007199254740993',
  ),
  uid: fc.oneof(from('principal', 'resource', 'action'), from(...uids), from('resource.boss')),
  condition: fc.oneof(
    { maxDepth: 4, depthSize: 'medium' },
    fc.tuple(tie('text'), from('==', '!='), tie('text')).map(([l, op, r]) => `${l} ${op} ${r}`),
    fc.tuple(tie('number'), from('==', '<', '>='), tie('number')).map(([l, op, r]) => `${l} ${op} ${r}`),
    fc.tuple(tie('uid'), from('==', '!=', 'in'), tie('uid')).map(([l, op, r]) => `${l} ${op} ${r}`),
    fc
      .tuple(tie('uid'), fc.array(from(...uids), { maxLength: 3 }))
      .map(([l, r]) => `${l} in [${r.join(', ')}]`),
    fc
      .tuple(tie('uid'), from('Client', 'Tool', 'Prompt', 'Client in THVGroup::"dev"'))
      .map(([l, r]) => `${l} is ${r}`),
    fc.tuple(tie('text'), from('a*', '*', '*b*', 'e*o')).map(([l, r]) => `${l} like "${r}"`),
    fc
      .tuple(fc.array(tie('text'), { maxLength: 3 }), tie('text'))
      .map(([l, r]) => `[${l.join(', ')}].contains(${r})`),
    fc
      .tuple(fc.array(from(...uids), { maxLength: 3 }), tie('uid'))
      .map(([l, r]) => `[${l.join(', ')}].contains(${r})`),
    from(
      'context has arg_s',
      'resource has arg_n',
      'principal has claim_x',
      'resource has uri',
      'resource has name',
    ),
    from(
      'principal has claim_rec.at',
      'principal has claim_rec.at.deep',
      'resource has boss.level',
      'resource has owner',
    ),
    from(
      'context.arg_b',
      'true',
      'false',
      'context.arg_o_present',
      'resource has arg_o_present',
      'context has arg_s.x',
    ),
    from('principal.claim_groups.contains("dev")', 'context.claim_groups.containsAny(["ops"])'),
    from(
      'context == {}',
      'principal.hasTag("x")',
      '{a: context}.a has arg_s',
      'context.arg_d.lessThan(decimal("1.5"))',
    ),
    fc.tuple(tie('condition'), from('&&', '||'), tie('condition')).map(([l, op, r]) => `(${l}) ${op} (${r})`),
    tie('condition').map((inner) => `!(${inner})`),
    fc
      .tuple(tie('condition'), tie('condition'), tie('condition'))
      .map(([i, t, e]) => `(if (${i}) then (${t}) else (${e}))`),
  ),
}))

const policy = fc
  .record({
    effect: from('permit', 'permit', 'forbid'),
    principal: from(
      ...['principal', 'principal', 'principal == Client::"alice"', 'principal in THVGroup::"staff"'],
      ...['principal is Client', 'principal is Client in Team::"t"', 'principal is Tool'],
    ),
    action: from(
      ...[
        'action',
        'action == Action::"call_tool"',
        'action == Action::"get_prompt"',
        'action in Action::"any"',
      ],
      'action in [Action::"call_tool", Action::"read_resource"]',
    ),
    resource: from(
      ...[
        'resource',
        'resource',
        'resource == Tool::"echo"',
        'resource == Prompt::"echo"',
        'resource is Tool',
      ],
      ...[
        'resource in MCP::"github"',
        'resource in Kit::"all"',
        'resource in Tool::"echo"',
        'resource is Tool in Kit::"all"',
      ],
    ),
    conditions: fc.array(fc.tuple(from('when', 'unless'), condition), { maxLength: 2 }),
  })
  .map(
    ({ effect, principal, action, resource, conditions }) =>
      `${effect}(${principal}, ${action}, ${resource})${conditions.map(([kind, body]) => ` ${kind} { ${body} }`).join('')};`,
  )

const asked = fc.record({
  principal: fc
    .record(
      {
        sub: from(...subjects),
        x: from('a', 'fixed'),
        rec: fc.record({ at: from('a', 'b') }, { requiredKeys: [] }),
        groups: fc.subarray(groups),
      },
      { requiredKeys: ['sub'] },
    )
    .map((claims) => caller(claims)),
  action: fc.constantFrom<Question['action']>('tools/call', 'tools/call', 'prompts/get', 'resources/read'),
  name: from(...tools, 'other'),
  arguments: fc
    .record(
      {
        s: from('a', 'b', 'alice'),
        n: fc.constantFrom(0, 1, 2),
        b: fc.boolean(),
        o: fc.constantFrom(null, [1], { x: 1 }),
        d: fc.constantFrom(0.5, 1.25),
      },
      { requiredKeys: [] },
    )
    .map((values) => JSON.stringify(values)),
}) satisfies fc.Arbitrary<Ask>

/** The vocabulary once more, written out plainly, with every policy and every attribute. */
function everything(texts: readonly string[], ask: Ask, known: typeof linked | typeof entities): object {
  const claims = ask.principal?.claims as Record<string, unknown>
  const [type, action, operation] = {
    'tools/call': ['Tool', 'call_tool', 'call'],
    'prompts/get': ['Prompt', 'get_prompt', 'get'],
    'resources/read': ['Resource', 'read_resource', 'read'],
  }[ask.action as Question['action']] as [string, string, string]
  const cedar = (value: unknown): unknown =>
    typeof value === 'number' && !Number.isInteger(value)
      ? { __extn: { fn: 'decimal', arg: String(value) } }
      : value
  const own = Object.fromEntries(Object.entries(claims).map(([name, value]) => [`claim_${name}`, value]))
  const given = ask.action === 'resources/read' ? {} : (JSON.parse(ask.arguments as string) as object)
  const args = Object.fromEntries(
    Object.entries(given).map(([name, value]) =>
      typeof value === 'object' ? [`arg_${name}_present`, true] : [`arg_${name}`, cedar(value)],
    ),
  )
  const principal = { type: 'Client', id: claims['sub'] as string }
  const resource = { type, id: ask.name as string }
  const parents = ((claims['groups'] ?? []) as string[]).map((id) => ({ type: 'THVGroup', id }))
  const standard = { name: ask.name, operation, feature: type.toLowerCase() }
  const mine = [
    { uid: principal, attrs: own, parents },
    {
      uid: resource,
      attrs: { ...args, ...standard, ...(type === 'Resource' ? { uri: ask.name } : {}) },
      parents: [{ type: 'MCP', id: 'github' }],
    },
    { uid: { type: 'Action', id: action }, attrs: { operation: action }, parents: [] },
  ]
  const same = (a: { type: string; id: string }, b: { type: string; id: string }): boolean =>
    a.type === b.type && a.id === b.id
  const merged = mine.map((entity) => {
    const found = known.find(({ uid }) => same(uid, entity.uid))
    return {
      uid: entity.uid,
      attrs: { ...found?.attrs, ...entity.attrs },
      parents: [...entity.parents, ...(found?.parents ?? [])],
    }
  })
  return {
    principal,
    action: { type: 'Action', id: action },
    resource,
    context: { ...own, ...args },
    policies: { staticPolicies: Object.fromEntries(texts.map((text, i) => [`a.cedar#${i + 1}`, text])) },
    entities: [...merged, ...known.filter(({ uid }) => !mine.some((entity) => same(entity.uid, uid)))],
  }
}

let matched = 0
let failures = 0

async function compare(texts: readonly string[], asks: readonly Ask[], withLinks: boolean): Promise<void> {
  const known = withLinks || texts.some((text) => text.includes('boss')) ? linked : entities
  const decider = await loadCedar(cedarPolicy(texts.join('\n'), { entities: JSON.stringify(known) }))
  for (const ask of asks) {
    const decision = decider.decide(question(ask))
    const answer = engine.isAuthorized(
      everything(texts, ask, known) as Parameters<typeof engine.isAuthorized>[0],
    )
    if (answer.type !== 'success') throw new Error(JSON.stringify(answer))
    const { reason, errors } = answer.response.diagnostics
    const expected = {
      allow: answer.response.decision === 'allow' && errors.length === 0,
      ids: reason.toSorted(),
      failed: errors.map(({ policyId }) => policyId).toSorted(),
    }
    const failed = decision.errors.map((error) => error.split(': ')[0] as string).toSorted()
    const actual = { allow: decision.allow, ids: decision.ids.toSorted(), failed }
    if (JSON.stringify(actual) !== JSON.stringify(expected)) {
      throw new Error(
        `${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}\n${JSON.stringify(decision.errors)} ${JSON.stringify(errors)}`,
      )
    }
    if (expected.ids.length > 0) matched++
    if (expected.failed.length > 0) failures++
  }
}

t.test('a slice decides as all policies with all attributes and entities do', async (t) => {
  const property = fc.asyncProperty(
    fc.array(policy, { minLength: 1, maxLength: 5 }),
    fc.array(asked, { minLength: 4, maxLength: 4 }),
    fc.boolean(),
    compare,
  )
  await fc.assert(property, { numRuns: 500 })
  t.ok(matched > 200, `policies matched ${matched} times`)
  t.ok(failures > 100, `and failed ${failures} times`)
})
