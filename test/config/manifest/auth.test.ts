import { scrypt } from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { load, problems, route, server } from './documents.ts'

const key = 'key-0123456789abcdef'
const authentication = (yaml: string): string => route(`authentication: ${yaml}`)
const method = (yaml: string): string => authentication(`{ methods: [{ ${yaml} }] }`)
const ref = (name: string): string => `{ secretRef: { name: ${name}, key: k } }`

function layersOf(loaded: Awaited<ReturnType<typeof load>>) {
  return loaded.config.policy.auth.layers
}

t.test('oidc: its client is the audience, its secret serves introspection', async (t) => {
  const oidc =
    'issuer: https://id.example.com, clientID: mcp, scopes: [a], clientSecretRef: { name: c, key: k }'
  const secrets = { 'c/k': 'x' }
  const [layer] = layersOf(await load(t, [server(), authentication(`{ oidc: { ${oidc} } }`)], { secrets }))
  t.match(layer?.methods, [
    {
      method: 'oidc',
      issuer: 'https://id.example.com',
      audiences: ['mcp'],
      scopes: ['a'],
      clientId: 'mcp',
      clientSecret: { file: join(t.testdirName, 'secrets/c/k') },
      tokens: 'auto',
    },
  ])
  const given = authentication(`{ oidc: { ${oidc}, audiences: [b] } }`)
  t.match(layersOf(await load(t, [server(), given], { secrets })), [{ methods: [{ audiences: ['b'] }] }])
  const optional = authentication(`{ oidc: { ${oidc.replace('key: k', 'key: k, optional: true')} } }`)
  t.match(layersOf(await load(t, [server(), optional])), [
    { methods: [{ clientId: undefined, clientSecret: undefined, tokens: 'jwt' }] },
  ])
})

t.test('jwt: its keys are fetched as the file says for all', async (t) => {
  const jwt = '{ jwt: { audiences: [a], jwksURI: https://id.example.com/keys } }'
  const config = 'auth: { fetching: { allowPrivateAddresses: true, timeout: 1s } }\n'
  const [layer] = layersOf(await load(t, [server(), authentication(jwt)], { config }))
  t.match(layer?.methods, [
    {
      method: 'jwt',
      issuer: undefined,
      audiences: ['a'],
      keys: { url: 'https://id.example.com/keys', fetching: { allowPrivate: true, timeoutMs: 1000 } },
    },
  ])
})

t.test('apiKey: each secret has the name of its Secret and key', async (t) => {
  const refs =
    '[{ name: a, key: k }, { name: long-name-of-a-secret-that-goes-on-and-on-and-on-for-ever-and-ever, key: k }]'
  const secrets = {
    'a/k': key,
    'long-name-of-a-secret-that-goes-on-and-on-and-on-for-ever-and-ever/k': `${key}2`,
  }
  const loaded = await load(
    t,
    [server(), authentication(`{ apiKey: { secretRefs: ${refs}, header: X-Key } }`)],
    { secrets },
  )
  const [found] = layersOf(loaded)[0]?.methods ?? []
  t.match(found, { method: 'apiKey', header: 'x-key' })
  const text = found?.method === 'apiKey' && 'text' in found.source ? found.source.text.reveal() : ''
  const names = text.split('\n').map((line) => line.slice(0, line.indexOf(':')))
  t.equal(names[0], 'a.k')
  t.match(
    names[1],
    /^long-name-of-a-secret-that-goes-on-and-on-and-on-fo-[0-9a-f]{12}$/,
    'no longer than a name may be',
  )
  t.notMatch(JSON.stringify(loaded.config), key, 'and no secret is shown')
})

t.test('the methods of earlier drafts are read as what is accepted', async (t) => {
  const secrets = { 'bearer/k': `${key}\n`, 'hmac/k': 'x', 'pem/k': 'x', 'ca/k': 'x', 'oauth/k': 'x' }
  const cases: [yaml: string, wanted: object][] = [
    [`method: Bearer, token: ${ref('bearer')}`, { method: 'bearer', header: undefined }],
    [
      `method: Bearer, token: { secretRef: { name: bearer, key: k }, headerName: Authorization }`,
      { method: 'bearer' },
    ],
    [`method: ApiKey, token: ${ref('bearer')}`, { method: 'apiKey', header: 'x-api-key' }],
    [`method: ApiKey, token: { value: ${key}, headerName: X-Key }`, { method: 'apiKey', header: 'x-key' }],
    [
      `method: JWT, jwt: { signingKey: ${ref('hmac')}, algorithm: HS256, issuer: me, audience: you, expirationTolerance: 1m }`,
      {
        method: 'jwt',
        algorithms: ['HS256'],
        issuer: 'me',
        audiences: ['you'],
        clockToleranceMs: 60_000,
        keys: { secret: {} },
      },
    ],
    [
      `method: JWT, jwt: { signingKey: ${ref('pem')} }`,
      { algorithms: ['RS256'], audiences: [], keys: { file: /pem\/k$/ } },
    ],
    [
      'method: JWT, jwt: { signingKey: { value: PUBLIC }, algorithm: ES384 }',
      { algorithms: ['ES384'], keys: { text: 'PUBLIC' } },
    ],
    [
      `method: OAuth2, oAuth2: { clientID: c, clientSecret: ${ref('oauth')}, issuer: https://id.example.com, introspectionURL: https://id.example.com/i }`,
      {
        method: 'oidc',
        tokens: 'introspection',
        clientId: 'c',
        introspectionUrl: 'https://id.example.com/i',
      },
    ],
  ]
  for (const [yaml, wanted] of cases)
    t.match(
      layersOf(await load(t, [server(), method(yaml)], { secrets })),
      [{ require: 'any', methods: [wanted] }],
      yaml,
    )
  const tls = 'listen: { tls: { certFile: keys, keyFile: keys } }\n'
  const certificate = method('method: ClientCertificate, clientCert: { caRef: { name: ca, key: k } }')
  t.match(layersOf(await load(t, [server(), certificate], { secrets, config: tls })), [
    { methods: [{ method: 'clientCertificate', from: 'tls', caFile: /ca\/k$/ }] },
  ])
})

t.test('a password in clear becomes a hash, one that is a hash stays', async (t) => {
  const basic = method(`method: Basic, basic: { username: carol, password: ${ref('pw')} }`)
  const textOf = async (password: string): Promise<string> => {
    const [found] =
      layersOf(await load(t, [server(), basic], { secrets: { 'pw/k': password } }))[0]?.methods ?? []
    return found?.method === 'basic' && 'text' in found.source ? found.source.text.reveal() : ''
  }
  const text = await textOf('hunter2\n')
  t.notMatch(text, 'hunter2')
  const [, n, r, p, salt = '', hash] = text.split('$')
  t.equal(text.split('$')[0], 'carol:scrypt')
  const cost = { N: Number(n), r: Number(r), p: Number(p), maxmem: 2 ** 27 }
  const derive = promisify<string, Buffer, number, typeof cost, Buffer>(scrypt)
  const again = await derive('hunter2', Buffer.from(salt, 'base64url'), 32, cost)
  t.equal(again.toString('base64url'), hash)
  t.equal(await textOf('hunter2'), text, 'the same at each reload, so that sessions go on')
  const line = 'scrypt$16384$8$1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaA'
  t.equal(await textOf(line), `carol:${line}`)
})

t.test('a secret in clear works, and is warned of without being shown', async (t) => {
  const loaded = await load(t, [server(), method(`method: Bearer, token: { value: ${key} }`)])
  t.match(loaded.warnings, [
    {
      where: 'm.yaml:13:65',
      message: /spec\.authentication\.methods\[0\]\.token\.value: a secret stands here in clear/,
    },
  ])
  t.notMatch(JSON.stringify(loaded), key)
  const publicKey = method('method: JWT, jwt: { signingKey: { value: PUBLIC } }')
  t.same((await load(t, [server(), publicKey])).warnings, [], 'a public key is no secret')
})

t.test('None and enabled: false let everyone in, if nothing else is said', async (t) => {
  const outside = { config: 'permissions: none\nlisten: { host: 0.0.0.0 }\n' }
  for (const yaml of ['{ enabled: false }', '{ methods: [{ method: None }] }']) {
    const { config } = await load(t, [server(), authentication(yaml)], outside)
    t.same(config.policy.auth.layers, [], yaml)
  }
  t.match(
    await problems(t, [server(), route()], outside),
    [/there is no authentication/],
    'saying nothing is no choice',
  )
})

t.test('the shortest time for authentication counts', async (t) => {
  const methods = `[{ method: Bearer, timeout: 20s, token: { value: ${key} } }, { method: ApiKey, timeout: 3s, token: { value: ${key}2 } }]`
  const timeoutMs = async (config: string): Promise<number> =>
    (await load(t, [server(), authentication(`{ methods: ${methods} }`)], { config })).config.policy.auth
      .timeoutMs
  t.equal(await timeoutMs(''), 3000)
  t.equal(await timeoutMs('auth: { timeout: 1s }\n'), 1000)
})

t.test('what cannot be meant is refused where it stands', async (t) => {
  const cases: [yaml: string, wanted: RegExp][] = [
    ['{}', /names no method: oidc, jwt, apiKey or methods/],
    ['{ methods: [] }', /methods: is empty/],
    [
      '{ enabled: false, jwt: { audiences: [a], jwksURI: https://a.b } }',
      /enabled: is false, and there are methods/,
    ],
    [
      `{ methods: [{ method: None }, { method: Bearer, token: { value: ${key} } }] }`,
      /methods\[0\]: None must stand alone/,
    ],
    ['{ methods: [{ method: Token }] }', /method: "Token" is not one of None, Bearer/],
    ['{ methods: [{ method: Basic }] }', /methods\[0\]: basic is missing: Basic is about it/],
    [`{ methods: [{ method: None, token: { value: ${key} } }] }`, /token has no meaning for None/],
    [
      `{ methods: [{ method: Bearer, token: { value: ${key}, headerName: X-Token } }] }`,
      /headerName: a bearer token stands in Authorization/,
    ],
    [
      `{ methods: [{ method: ApiKey, token: { value: ${key}, headerName: Authorization } }] }`,
      /headerName: Authorization is for bearer tokens/,
    ],
    ['{ methods: [{ method: Bearer, token: {} }] }', /token: needs one of secretRef, value/],
    [
      `{ methods: [{ method: Basic, basic: { username: a, password: { value: x, headerName: y } } }] }`,
      /headerName: has no meaning here/,
    ],
    [
      '{ methods: [{ method: ClientCertificate, clientCert: { certificateRef: {}, caRef: { name: a, key: b } } }] }',
      /certificateRef belongs to the listener: it is listen\.tls/,
    ],
    [
      '{ methods: [{ method: OAuth2, oAuth2: { clientID: a, clientSecret: { value: x } } }] }',
      /oAuth2: issuer is missing/,
    ],
    ['{ jwt: { audiences: [a] } }', /jwt: jwksURI is missing/],
    ['{ jwt: { audiences: [a], jwksURI: http://id.example.com } }', /jwksUrl must begin with https/],
    ['{ oidc: { issuer: https://a.b, clientID: c } }', /oidc: clientSecretRef is missing/],
    ['{ apiKey: { secretRefs: [] } }', /secretRefs: is empty/],
    ['{ apiKeys: {} }', /unknown key: did you mean apiKey\?/],
  ]
  for (const [yaml, wanted] of cases) {
    const found = await problems(t, [server(), authentication(yaml)])
    t.match(found, [wanted], `${yaml}: ${found.join(' / ')}`)
    t.notMatch(found.join(), key)
  }
})
