import { join } from 'node:path'
import t from 'tap'
import { load, problems, server } from './documents.ts'

const config = (yaml: string): string => server(`oidcConfig: ${yaml}`)
const inline = (yaml: string): string =>
  config(`{ type: inline, inline: { issuer: https://id.example.com${yaml} } }`)

async function method(...args: Parameters<typeof load>): Promise<unknown> {
  const { auth } = (await load(...args)).config.policy
  return auth.layers[0]?.methods[0]
}

t.test('inline settings are a layer of their own', async (t) => {
  t.match(await method(t, [inline(', audience: a')]), {
    method: 'oidc',
    issuer: 'https://id.example.com',
    audiences: ['a'],
    tokens: 'jwt',
    fetching: { allowPrivate: false },
  })
  t.match(await method(t, [inline(', jwksURL: https://id.example.com/k, jwksAllowPrivateIP: true')]), {
    method: 'jwt',
    issuer: 'https://id.example.com',
    keys: { url: 'https://id.example.com/k', fetching: { allowPrivate: true } },
  })
  const secrets = { 'c/k': 'x' }
  const introspected = inline(
    ', clientId: me, introspectionURL: https://id.example.com/i, clientSecretRef: { name: c, key: k }',
  )
  t.match(await method(t, [introspected], { secrets }), {
    method: 'oidc',
    tokens: 'auto',
    clientId: 'me',
    introspectionUrl: 'https://id.example.com/i',
  })
  t.match(await method(t, [inline(', thvCABundlePath: keys')]), {
    fetching: { caFile: join(t.testdirName, 'keys') },
  })
})

t.test('a secret written out is warned of', async (t) => {
  const yaml = inline(', clientId: me, introspectionURL: https://id.example.com/i, clientSecret: hunter2')
  const loaded = await load(t, [yaml])
  t.match(loaded.warnings, [{ message: /clientSecret: a secret stands here in clear/ }])
  t.notMatch(JSON.stringify(loaded), 'hunter2')
})

t.test('the same may stand in a ConfigMap', async (t) => {
  const documents = [config('{ type: configMap, configMap: { name: oidc } }')]
  const json = '{"issuer": "https://id.example.com",\n "audience": "a"}'
  const loaded = await load(t, documents, { configMaps: { 'oidc/oidc.json': json } })
  t.match(loaded.config.policy.auth.layers, [
    {
      name: 'MCPServer team-a/github oidcConfig',
      methods: [{ issuer: 'https://id.example.com', audiences: ['a'] }],
    },
  ])
  t.match(
    await problems(t, documents, { configMaps: { 'oidc/oidc.json': json.replace('audience', 'audiences') } }),
    [/oidc\.json:2:2: unknown key: did you mean audience\?/],
  )
})

t.test('tokens of service accounts need an audience', async (t) => {
  t.match(await problems(t, [config('{ kubernetes: {} }')]), [
    /audience is missing: accepted audience; there is no default/,
  ])
  t.match(await method(t, [config('{ kubernetes: { audience: mcp } }')]), {
    method: 'kubernetes',
    mode: 'jwks',
    audiences: ['mcp'],
    issuer: 'https://kubernetes.default.svc',
  })
})

t.test('its resource is that of the server, unless the file says another', async (t) => {
  const documents = [config('{ resourceURL: https://mcp.example.com/a, kubernetes: { audience: mcp } }')]
  t.equal((await load(t, documents)).config.policy.auth.resource, 'https://mcp.example.com/a')
  const own = 'auth: { resource: https://mcp.example.com/b }\n'
  t.equal(
    (await load(t, documents, { config: own })).config.policy.auth.resource,
    'https://mcp.example.com/b',
  )
})

t.test('what is not implemented, and what contradicts itself, is refused', async (t) => {
  const cases: [document: string, wanted: RegExp][] = [
    [config('{ type: inline, kubernetes: { audience: a } }'), /inline is missing: type says so/],
    [
      config('{ kubernetes: { audience: a, introspectionURL: https://a.b } }'),
      /introspectionURL is not implemented/,
    ],
    [
      config('{ kubernetes: { audience: a, useClusterAuth: false } }'),
      /useClusterAuth: false is not implemented/,
    ],
    [inline(', jwksAuthTokenPath: /x'), /jwksAuthTokenPath is not implemented/],
    [inline(', introspectionURL: https://a.b'), /introspectionURL and clientSecret go together/],
    [
      inline(', clientId: a, clientSecret: b, introspectionURL: https://a.b, jwksURL: https://a.b'),
      /together are not implemented/,
    ],
  ]
  for (const [document, wanted] of cases) {
    const found = await problems(t, [document])
    t.ok(
      found.some((each) => wanted.test(each)),
      `${document}: ${found.join(' / ')}`,
    )
  }
})
