import t from 'tap'
import { loadCedar } from '../../src/authz/cedar.ts'
import type { CedarPolicy } from '../../src/core/policy.ts'
import { allows, cedarPolicy } from '../support/cedar.ts'

async function refusal(text: string, more?: Partial<CedarPolicy>): Promise<string> {
  try {
    await loadCedar(cedarPolicy(text, more))
    return ''
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : ''
  }
}

const when = (condition: string): string => `permit(principal, action, resource) when { ${condition} };`

t.test('what the vocabulary has may be named', async (t) => {
  for (const text of [
    'permit(principal == Client::"a", action == Action::"call_tool", resource == Tool::"x");',
    'permit(principal in THVGroup::"a", action in [Action::"get_prompt", Action::"list_tools"], resource is Prompt);',
    'permit(principal is Client in THVGroup::"a", action, resource is Resource in MCP::"x");',
    when('resource has uri && resource has readOnlyHint && resource.destructiveHint == false'),
    when('principal has claim_a.b.c && context["claim_https://x/y"] == 1 && context has claimset_scp'),
    when('resource.arg_x == context.arg_x && action.operation == "call_tool"'),
    when('resource is FeatureType || context.claim_x.anything.below == 3'),
  ]) {
    t.equal(await refusal(text), '', text)
  }
})

t.test('what it has not is refused, where it stands', async (t) => {
  const cases: [string, RegExp][] = [
    [
      '// Tol::"x"\npermit(principal, action, resource == Tol::"x");',
      /^a\.cedar:2:39: .*no entity type Tol;/,
    ],
    ['permit(principal, action == Action::"cal_tool", resource);', /^a\.cedar:1:29: .*Action::"cal_tool"/],
    ['permit(principal, action in [Action::"call_tool", Action::"x"], resource);', /^a\.cedar:1:51: /],
    ['permit(principal in Group::"a", action, resource);', /^a\.cedar:1:21: .*Group.*THVGroup/],
    ['permit(principal is User, action, resource);', /^a\.cedar:1:21: .*User/],
    ['permit(principal is Client in User::"x", action, resource);', /^a\.cedar:1:31: .*User/],
    [when('resource in [Tool::"a", A::B::"b"]'), /^a\.cedar:1:68: .*A::B/],
    [when('principal is User'), /^a\.cedar:1:57: .*User/],
    [when('principal.sub == "x"'), /^a\.cedar:1:44: principal has no attribute sub; it has claim_<name>/],
    [when('"principal.sub" == context.args'), /^a\.cedar:1:63: context has no attribute args/],
    [when('context has "claims"'), /^a\.cedar:1:44: context has no attribute claims/],
    [when('resource has owner.name'), /^a\.cedar:1:44: resource has no attribute owner/],
    [when('resource["owner"] == 1'), /^a\.cedar:1:44: resource has no attribute owner/],
    [when('action.name == "x"'), /^a\.cedar:1:44: action has no attribute name/],
  ]
  for (const [text, message] of cases) t.match(await refusal(text), message, text)
})

t.test('entities of the configuration bring their types, actions and attributes', async (t) => {
  const entities = JSON.stringify([
    {
      uid: { type: 'Tool', id: 'a' },
      attrs: { owner: { __entity: { type: 'Team', id: 'x' } } },
      parents: [],
    },
    { uid: { type: 'Action', id: 'call_tool' }, attrs: {}, parents: [{ type: 'Action', id: 'any' }] },
    { uid: { type: 'Action', id: 'mine' }, attrs: {}, parents: [] },
    { uid: { type: 'Tool', id: 'b' }, attrs: {}, parents: [{ type: 'Kind', id: 'k' }] },
  ])
  for (const text of [
    when('resource has owner && resource.owner == Team::"x"'),
    'permit(principal, action in Action::"any", resource);',
    'permit(principal, action == Action::"mine", resource);',
    when('resource in Kind::"k"'),
  ]) {
    t.equal(await refusal(text, { entities }), '', text)
    t.not(await refusal(text), '', 'and not without them')
  }
  t.match(await refusal(when('principal.owner == 1'), { entities }), /principal has no attribute owner/)
})

t.test('groups may have another type', async (t) => {
  const text = 'permit(principal in Role::"a", action, resource);'
  t.equal(await refusal(text, { groupEntityType: 'Role' }), '')
  t.match(
    await refusal('permit(principal in THVGroup::"a", action, resource);', { groupEntityType: 'Role' }),
    /THVGroup/,
  )
})

const schema = `entity THVGroup; entity MCP;
entity Client in [THVGroup] { claim_sub: String, claim_level?: Long };
entity Tool in [MCP] { name: String };
action call_tool appliesTo { principal: [Client], resource: [Tool], context: { arg_n?: Long } };`

t.test("a schema of the operator's takes the place of the vocabulary", async (t) => {
  const fine =
    'permit(principal, action == Action::"call_tool", resource) when { context has arg_n && context.arg_n < 5 };'
  t.equal(await refusal(fine, { schema }), '')
  t.ok(await allows(fine, { arguments: '{"n":3}' }, { schema }))
  t.notOk(await allows(fine, { arguments: '{"n":7}' }, { schema }))
  const unguarded = `${fine}\n${fine.replace('context has arg_n && ', '')}`
  t.match(await refusal(unguarded, { schema }), /^a\.cedar:2:67: .*arg_n/)
  t.match(await refusal(fine.replace('< 5', '== "5"'), { schema }), /^a\.cedar:1:/)
  t.match(await refusal(fine.replace('call_tool', 'get_prompt'), { schema }), /^a\.cedar:1:29: .*get_prompt/)
})

t.test('a schema may be JSON', async (t) => {
  const json = JSON.stringify({
    '': {
      entityTypes: { Client: {}, Tool: {} },
      actions: { call_tool: { appliesTo: { principalTypes: ['Client'], resourceTypes: ['Tool'] } } },
    },
  })
  t.equal(await refusal('permit(principal, action == Action::"call_tool", resource);', { schema: json }), '')
  t.match(
    await refusal(when('principal.claim_sub == "x"'), { schema: ` ${json}` }),
    /^a\.cedar:1:44: .*claim_sub/,
  )
})

t.test('a schema that is none is refused', async (t) => {
  const text = 'permit(principal, action, resource);'
  t.match(await refusal(text, { schema: '\nentity Client {' }), /^schema:2:\d+: /)
  t.match(await refusal(text, { schema: '{"a":' }), /^schema: not JSON/)
  t.match(await refusal(text, { schema: '{"a": 3}' }), /^schema/)
})

t.test('entities are held against the schema, too', async (t) => {
  const entities = '[{"uid":{"type":"Tool","id":"a"},"attrs":{"name":3},"parents":[]}]'
  const text = 'permit(principal, action, resource);'
  t.match(await refusal(text, { schema, entities }), /^entities: .*name/)
})
