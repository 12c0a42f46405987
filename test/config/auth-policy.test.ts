import { join } from 'node:path'
import t from 'tap'
import { load } from './loading.ts'

const files = {
  keys: '',
  passwords: '',
  'ca.pem': '',
  'crl.pem': '',
  'jwks.json': '',
  'key.pem': '',
  secret: '',
}

const checks = {
  audiences: [],
  algorithms: [],
  clockToleranceMs: 30_000,
  requiredClaims: {},
  scopes: [],
  subjectClaim: 'sub',
  groupsClaim: undefined,
}
const fetching = { caFile: undefined, timeoutMs: 5000, allowPrivate: false, allowHttp: false }

t.test('each method is carried over with its defaults, and all it can be told', async (t) => {
  const dir = t.testdirName
  const file = (name: string): string => join(dir, name)
  const cases: [what: string, yaml: string, method: object][] = [
    [
      'bearer',
      'bearer: { tokenFile: keys }',
      { method: 'bearer', source: { file: file('keys') }, header: undefined },
    ],
    [
      'apiKey',
      'apiKey: { keyFile: ./keys }',
      { method: 'apiKey', source: { file: file('keys') }, header: 'x-api-key' },
    ],
    [
      'apiKey in a header of its own',
      'apiKey: { keyFile: keys, header: X-Team-Key }',
      { method: 'apiKey', source: { file: file('keys') }, header: 'x-team-key' },
    ],
    ['basic', 'basic: { passwordFile: passwords }', { method: 'basic', source: { file: file('passwords') } }],
    [
      'jwt',
      'jwt: { issuer: https://id.example.com, jwksUrl: https://id.example.com/keys }',
      {
        method: 'jwt',
        issuer: 'https://id.example.com',
        ...checks,
        keys: { url: 'https://id.example.com/keys', fetching },
      },
    ],
    [
      'jwt with everything',
      `jwt:
    issuer: any text
    publicKeyFile: key.pem
    audiences: [a, b]
    algorithms: [ES256]
    clockTolerance: 5s
    requiredClaims: { tenant: t1, level: 3, verified: true, jti: null }
    scopes: [mcp]
    subjectClaim: email
    groupsClaim: teams`,
      {
        method: 'jwt',
        issuer: 'any text',
        audiences: ['a', 'b'],
        algorithms: ['ES256'],
        clockToleranceMs: 5000,
        requiredClaims: { tenant: 't1', level: 3, verified: true, jti: null },
        scopes: ['mcp'],
        subjectClaim: 'email',
        groupsClaim: 'teams',
        keys: { file: file('key.pem') },
      },
    ],
    [
      'jwt, keys in a file',
      'jwt: { issuer: x, jwksFile: jwks.json }',
      { method: 'jwt', keys: { file: file('jwks.json') } },
    ],
    [
      'jwt, a shared secret',
      'jwt: { issuer: x, secretFile: secret, algorithms: [HS512] }',
      { method: 'jwt', algorithms: ['HS512'], keys: { secret: { file: file('secret') } } },
    ],
    [
      'oidc',
      'oidc: { issuer: https://id.example.com/ }',
      {
        method: 'oidc',
        issuer: 'https://id.example.com/',
        ...checks,
        clientId: undefined,
        clientSecret: undefined,
        introspectionUrl: undefined,
        tokens: 'auto',
        cacheMs: 60_000,
        fetching,
      },
    ],
    [
      'oidc with introspection',
      'oidc: { issuer: https://id.example.com, clientId: me, clientSecretFile: secret, tokens: introspection, introspectionUrl: https://id.example.com/i, cache: 5s, caFile: ca.pem, timeout: 1s, allowPrivateAddresses: true }',
      {
        method: 'oidc',
        clientId: 'me',
        clientSecret: { file: file('secret') },
        introspectionUrl: 'https://id.example.com/i',
        tokens: 'introspection',
        cacheMs: 5000,
        fetching: { caFile: file('ca.pem'), timeoutMs: 1000, allowPrivate: true, allowHttp: false },
      },
    ],
    [
      'kubernetes',
      'kubernetes: { audiences: [mcp], tokenFile: keys, caFile: ca.pem }',
      {
        method: 'kubernetes',
        mode: 'token-review',
        audiences: ['mcp'],
        apiServer: 'https://kubernetes.default.svc',
        tokenFile: file('keys'),
        caFile: file('ca.pem'),
        issuer: 'https://kubernetes.default.svc.cluster.local',
        cacheMs: 60_000,
        timeoutMs: 5000,
      },
    ],
    [
      'forwarded certificates',
      'clientCertificate: { from: forwarded, caFile: ca.pem, crlFile: crl.pem, names: [dns, cn], allow: ["*.team-a"] }\nlisten: { trustedProxies: [10.0.0.1] }',
      {
        method: 'clientCertificate',
        from: 'forwarded',
        caFile: file('ca.pem'),
        crlFile: file('crl.pem'),
        names: ['dns', 'cn'],
        trustDomains: [],
        allow: ['*.team-a'],
        header: 'x-forwarded-client-cert',
      },
    ],
    [
      'mutual TLS',
      'clientCertificate: { caFile: ca.pem, trustDomains: [example.org] }\nlisten: { tls: { certFile: ca.pem, keyFile: key.pem } }',
      {
        method: 'clientCertificate',
        from: 'tls',
        names: ['spiffe', 'uri', 'dns', 'email'],
        trustDomains: ['example.org'],
      },
    ],
  ]
  for (const [what, yaml, method] of cases) {
    const { config } = await load(t, { ...files, 'c.yaml': `auth:\n  ${yaml}\n` })
    const [layer, ...others] = config.policy.auth.layers
    t.same(others, [])
    t.match(layer, { name: 'auth', require: 'any' }, what)
    t.match(layer?.methods, [method], what)
    t.equal(layer?.methods.length, 1, what)
  }
})

t.test('several methods are tried from the cheapest to the dearest, and may be demanded all', async (t) => {
  const yaml = `auth:
  require: all
  oidc: [{ issuer: https://a.example.com }, { issuer: https://b.example.com }]
  jwt: { issuer: x, jwksFile: jwks.json }
  basic: { passwordFile: passwords }
  apiKey: { keyFile: keys }
`
  const { config } = await load(t, { ...files, 'c.yaml': yaml.replace('require: all\n  ', '') })
  t.same(
    config.policy.auth.layers[0]?.methods.map(({ method }) => method),
    ['apiKey', 'basic', 'jwt', 'oidc', 'oidc'],
  )
  const all = 'auth: { require: all, apiKey: { keyFile: keys }, basic: { passwordFile: passwords } }\n'
  t.equal((await load(t, { ...files, 'c.yaml': all })).config.policy.auth.layers[0]?.require, 'all')
})

t.test('a token file named by a flag is a method like any other', async (t) => {
  const { config } = await load(
    t,
    { keys: '', 'c.yaml': 'auth: { apiKey: { keyFile: keys } }\n' },
    {
      flags: { bearerTokenFile: 'keys' },
    },
  )
  t.same(
    config.policy.auth.layers[0]?.methods.map(({ method }) => method),
    ['bearer', 'apiKey'],
  )
})

t.test('what is about all methods is carried over', async (t) => {
  const yaml = `auth:
  bearer: { tokenFile: keys }
  timeout: 3s
  resource: https://MCP.example.com/mcp/
  failures: { attempts: 3, window: 10m }
  authorizationServers: [https://id.example.com]
  scopesSupported: [mcp]
`
  const { config } = await load(t, { keys: '', 'c.yaml': yaml })
  const { layers, ...frame } = config.policy.auth
  t.equal(layers.length, 1)
  t.same(frame, {
    timeoutMs: 3000,
    resource: 'https://mcp.example.com/mcp',
    failures: { attempts: 3, windowMs: 600_000 },
    authorizationServers: ['https://id.example.com'],
    scopesSupported: ['mcp'],
  })
})

t.test('how issuers are asked is said once for all, and a method may differ', async (t) => {
  const yaml = `auth:
  fetching: { timeout: 2s, allowPrivateAddresses: true, caFile: ca.pem }
  jwt:
  - { issuer: a, jwksUrl: https://a.example.com }
  - { issuer: b, jwksUrl: https://b.example.com, timeout: 1s, allowPrivateAddresses: false }
`
  const { config } = await load(t, { ...files, 'c.yaml': yaml })
  const caFile = join(t.testdirName, 'ca.pem')
  t.match(config.policy.auth.layers[0]?.methods, [
    { keys: { fetching: { timeoutMs: 2000, allowPrivate: true, caFile } } },
    { keys: { fetching: { timeoutMs: 1000, allowPrivate: false, caFile } } },
  ])
})

t.test('the files are watched, but those that are read again by their readers', async (t) => {
  const yaml = `auth:
  kubernetes: { audiences: [a], tokenFile: keys, caFile: ca.pem }
  jwt: { issuer: x, jwksFile: jwks.json }
  fetching: { caFile: crl.pem }
listen: { tls: { certFile: key.pem, keyFile: secret } }
audit: { destination: audit.log }
`
  const loaded = await load(t, { ...files, 'c.yaml': yaml })
  const names = loaded.files.map((path) => path.slice(t.testdirName.length + 1))
  t.same(names.toSorted(), ['c.yaml', 'crl.pem', 'jwks.json', 'key.pem', 'secret'])
})
