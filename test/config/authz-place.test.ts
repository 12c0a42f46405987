import t from 'tap'
import { authzPlace } from '../../src/config/authz-place.ts'
import { load } from './loading.ts'
import { load as loadDocuments, route, server } from './manifest/documents.ts'

t.test('a path below the policy leads to line and column', async (t) => {
  const yaml = `authorization:
  rules:
  - { principals: ['*'], tools: [a] }
  - principals: ['*']
    permissions: [{ tools: [b], actions: [tools/call] }]
    conditions: [{ type: TimeOfDay, value: never }]
  scopes: [{ tools: [a], scopes: [x] }]
  impliedScopes: { a: [b] }
  toolsFilter: [a, 'b*']
`
  const loaded = await load(t, { 'c.yaml': yaml })
  const cases: [path: (string | number)[], where: string][] = [
    [['layers', 0], 'c.yaml:3:3'],
    [['layers', 0, 'rules', 1, 'conditions', 0], 'c.yaml:6:18'],
    [['layers', 0, 'rules', 1, 'conditions', 0, 'value'], 'c.yaml:6:44'],
    [['layers', 0, 'rules', 1, 'permissions', 0, 'tools', 0], 'c.yaml:5:29'],
    [['layers', 0, 'rules', 0, 'permissions', 0], 'c.yaml:3:5'],
    [['scopes', 0, 'tools', 0], 'c.yaml:7:22'],
    [['impliedScopes', 'a'], 'c.yaml:8:23'],
    [['toolsFilters', 0, 1], 'c.yaml:9:20'],
    [['layers', 7], 'default'],
  ]
  for (const [path, where] of cases) t.equal(authzPlace(loaded, path), where, path.join('.'))
})

t.test('also into a document', async (t) => {
  const rules =
    "authorization:\n  rules:\n  - principals: ['*']\n    tools: [a]\n    conditions: [{ type: IPAddress, value: x }]"
  const loaded = await loadDocuments(t, [server('toolsFilter: [a]'), route(rules)])
  t.equal(authzPlace(loaded, ['layers', 0, 'rules', 0, 'conditions', 0, 'value']), 'm.yaml:17:46')
  t.equal(authzPlace(loaded, ['toolsFilters', 0, 0]), 'm.yaml:6:17')
})
