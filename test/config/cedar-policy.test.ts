import { join } from 'node:path'
import t from 'tap'
import { load, problems } from './loading.ts'

const permit = 'permit(principal, action, resource);'

t.test('policies come from files and from the configuration itself', async (t) => {
  const yaml = `authorization:
  cedar:
    policyFiles: [a.cedar, more/b.cedar]
    policies: ['forbid(principal, action, resource) when { context.arg_n > 5 };']
    entitiesFile: entities.json
    schemaFile: s.cedarschema
    server: github
    groupClaim: teams
    multiValuedClaims: [teams]
    decimalNumbers: true
`
  const files = {
    'a.cedar': permit,
    more: { 'b.cedar': `${permit}\n` },
    'entities.json': '[]',
    's.cedarschema': 'x',
  }
  const { config, files: watched } = await load(t, { ...files, 'c.yaml': yaml })
  t.same(config.policy.authz.cedar, {
    policies: [
      { name: 'a.cedar', text: permit },
      { name: 'b.cedar', text: `${permit}\n` },
      {
        name: 'authorization.cedar.policies[0]',
        text: 'forbid(principal, action, resource) when { context.arg_n > 5 };',
      },
    ],
    entities: '[]',
    schema: 'x',
    groupClaim: 'teams',
    roleClaim: undefined,
    groupEntityType: 'THVGroup',
    multiValuedClaims: ['teams'],
    decimalNumbers: true,
    server: 'github',
  })
  t.ok(watched.includes(join(t.testdirName, 'more/b.cedar')))
})

t.test('files of one name are told apart by their paths', async (t) => {
  const yaml = 'authorization: { cedar: { policyFiles: [x/p.cedar, y/p.cedar] } }\n'
  const { config } = await load(t, { 'c.yaml': yaml, x: { 'p.cedar': permit }, y: { 'p.cedar': permit } })
  t.same(
    config.policy.authz.cedar?.policies.map(({ name }) => name),
    ['x', 'y'].map((folder) => join(t.testdirName, folder, 'p.cedar')),
  )
})

const toolhive = {
  version: '1.0',
  type: 'cedarv1',
  cedar: {
    policies: [permit, permit],
    entities_json: '[{"uid":{"type":"Client","id":"a"},"attrs":{},"parents":[]}]',
    group_claim_name: 'teams',
    role_claim_name: '',
    group_entity_type: 'Team',
    multi_valued_claims: ['teams'],
  },
}
const own = 'authorization: { cedar: { configFile: authz.json } }\n'

t.test("ToolHive's file is read as it is", async (t) => {
  const { config } = await load(t, { 'c.yaml': own, 'authz.json': JSON.stringify(toolhive) })
  t.same(config.policy.authz.cedar, {
    policies: [
      { name: 'authz.json policies[0]', text: permit },
      { name: 'authz.json policies[1]', text: permit },
    ],
    entities: toolhive.cedar.entities_json,
    schema: undefined,
    groupClaim: 'teams',
    roleClaim: undefined,
    groupEntityType: 'Team',
    multiValuedClaims: ['teams'],
    decimalNumbers: false,
    server: 'mcp-server',
  })
  const least = { ...toolhive, cedar: { policies: [permit] } }
  const { config: short } = await load(t, { 'c.yaml': own, 'authz.json': JSON.stringify(least) })
  t.match(short.policy.authz.cedar, { entities: '[]', groupEntityType: 'THVGroup' })
})

t.test('what is wrong in it is reported at its own line and column', async (t) => {
  const cases: [content: string, wanted: string][] = [
    [
      '{"version": "1.0",\n "type": "cedarv2",\n "cedar": {"policies": ["x"]}}',
      'authz.json:2:10: type: "cedarv2" is not one of cedarv1',
    ],
    [
      '{"version": "1.0", "type": "cedarv1",\n "cedar": {"policies": []}}',
      'authz.json:2:24: cedar.policies: is empty: it needs at least one item',
    ],
    [
      '{"version": "1.0", "type": "cedarv1",\n "cedar": {"policies": ["x"], "entities_json": "{"}}',
      'authz.json:2:48: cedar.entities_json: is not valid JSON',
    ],
    [
      '{"version": "1.0", "type": "cedarv1",\n "cedar": {"policies": ["x"], "policie": "y"}}',
      'authz.json:2:31: cedar: unknown key: did you mean policies?',
    ],
    [
      '{',
      'authz.json:1:2: not valid YAML: a colon, comma, quote, bracket or blank is missing here or just before',
    ],
  ]
  for (const [content, wanted] of cases)
    t.same(await problems(t, { 'c.yaml': own, 'authz.json': content }), [wanted], content)
})

t.test('entities that are none are refused', async (t) => {
  const yaml = 'authorization: { cedar: { policies: [x], entitiesFile: e.json } }\n'
  for (const [content, wanted] of [
    ['{', 'is not valid JSON'],
    ['{}', 'must be a JSON array of entities'],
  ] as const)
    t.same(await problems(t, { 'c.yaml': yaml, 'e.json': content }), [
      `c.yaml:1:56: the file named here ${wanted}`,
    ])
})
