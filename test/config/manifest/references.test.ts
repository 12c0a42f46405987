import { join } from 'node:path'
import t from 'tap'
import { variableFor } from '../../../src/config/manifest/references.ts'
import { load, problems, route, server } from './documents.ts'

const keys = route('authentication: { apiKey: { secretRefs: [{ name: api-keys, key: ci.key }] } }')
const key = 'ci-key-0123456789'

function textOf(loaded: Awaited<ReturnType<typeof load>>): string | undefined {
  const method = loaded.config.policy.auth.layers[0]?.methods[0]
  return method?.method === 'apiKey' && 'text' in method.source ? method.source.text.reveal() : undefined
}

t.test('a reference is the file that the operator has mounted, and is watched', async (t) => {
  const loaded = await load(t, [server(), keys], { secrets: { 'api-keys/ci.key': `${key}\n` } })
  t.equal(textOf(loaded), `api-keys.ci.key:${key}`, 'without its last line break')
  t.ok(loaded.files.includes(join(t.testdirName, 'secrets/api-keys/ci.key')))
})

t.test('else it is a variable', async (t) => {
  t.equal(variableFor('Secret', { name: 'api-keys', key: 'ci.key' }), 'MCP_SIDECAR_SECRET_API_KEYS__CI_KEY')
  t.equal(variableFor('ConfigMap', { name: 'a', key: 'b' }), 'MCP_SIDECAR_CONFIGMAP_A__B')
  const env = { MCP_SIDECAR_SECRET_API_KEYS__CI_KEY: `${key}\n` }
  t.equal(textOf(await load(t, [server(), keys], { env })), `api-keys.ci.key:${key}`)
  const both = await load(t, [server(), keys], {
    env,
    secrets: { 'api-keys/ci.key': 'from-file-0123456789' },
  })
  t.match(textOf(both), /from-file/, 'the file comes first')
})

t.test('what is in neither place is an error that names both', async (t) => {
  t.same(await problems(t, [server(), keys]), [
    'm.yaml:13:44: document 2 (MCPRoute team-a/search): spec.authentication.apiKey.secretRefs[0]: Secret api-keys, key ci.key: api-keys/ci.key in DIR/secrets does not exist, and there is no variable MCP_SIDECAR_SECRET_API_KEYS__CI_KEY',
    'm.yaml:13:43: document 2 (MCPRoute team-a/search): spec.authentication.apiKey.secretRefs: not one of the secrets is there',
  ])
})

t.test('one that is optional may be missing, as long as something is left to check', async (t) => {
  const refs = '[{ name: a, key: k, optional: true }, { name: b, key: k }]'
  const more = route(`authentication: { apiKey: { secretRefs: ${refs} } }`)
  t.equal(textOf(await load(t, [server(), more], { secrets: { 'b/k': key } })), `b.k:${key}`)
  const none = route('authentication: { apiKey: { secretRefs: [{ name: a, key: k, optional: true }] } }')
  t.match(await problems(t, [server(), none]), [/not one of the secrets is there/])
})

t.test('a variable that stands for two references serves neither', async (t) => {
  const refs = '[{ name: a-b, key: k }, { name: a.b, key: k }]'
  const two = route(`authentication: { apiKey: { secretRefs: ${refs} } }`)
  t.match(await problems(t, [server(), two], { env: { MCP_SIDECAR_SECRET_A_B__K: key } }), [
    /secretRefs\[1\]: the variable MCP_SIDECAR_SECRET_A_B__K would stand for two of the Secrets/,
  ])
})

t.test('no path leads out of the folder, and no content is shown', async (t) => {
  for (const ref of [
    '{ name: .., key: m.yaml }',
    '{ name: a/b, key: c }',
    '{ name: a, key: ../../m.yaml }',
    '{ name: a, key: .. }',
  ])
    t.match(
      await problems(t, [server(), route(`authentication: { apiKey: { secretRefs: [${ref}] } }`)]),
      [/is not the name of a Kubernetes object|is not a key of a Secret/],
      ref,
    )
  const lines = await problems(t, [server(), keys], { secrets: { 'api-keys/ci.key': 'hunter2\nhunter3' } })
  t.match(lines, [/secretRefs\[0\]: must be one line of text/])
  t.notMatch(lines.join(), 'hunter')
})
