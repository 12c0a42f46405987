import t from 'tap'
import { problems } from './loading.ts'

const files = { keys: '', 'ca.pem': '', secret: '' }

t.test('what a method cannot mean is refused where it stands', async (t) => {
  const cases: [yaml: string, ...wanted: string[]][] = [
    [
      'apiKey: {}',
      '2:11: auth.apiKey: keyFile is missing: file with the keys, one NAME:KEY a line, at least 16 visible ASCII characters each',
    ],
    [
      'apiKey: { keyFile: keys, header: Authorization }',
      '2:36: auth.apiKey.header: authorization has another meaning in HTTP or MCP: choose a header of its own, such as X-API-Key',
    ],
    ['apiKey: { keyFile: none }', '2:22: the file of auth.apiKey.keyFile does not exist (looked in DIR)'],
    ['apiKey: { keyFiles: hunter2 }', '2:13: auth.apiKey: unknown key: did you mean keyFile?'],
    ['jwt: { issuer: x }', '2:8: auth.jwt: needs one of jwksUrl, jwksFile, publicKeyFile, secretFile'],
    [
      'jwt: { issuer: x, jwksFile: keys, secretFile: secret }',
      '2:37: auth.jwt: secretFile and jwksFile exclude each other: keep one of them',
    ],
    [
      'jwt: { issuer: x, jwksFile: keys, algorithms: [none] }',
      '2:50: auth.jwt.algorithms[0]: "none" is not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519, HS256, HS384, HS512',
    ],
    [
      'jwt: { issuer: x, jwksFile: keys, algorithms: [RS256, HS256] }',
      '2:57: auth.jwt.algorithms[1]: HS256 needs secretFile: with a public key anybody could make such tokens',
    ],
    [
      'jwt: { issuer: x, secretFile: secret, algorithms: [RS256] }',
      '2:54: auth.jwt.algorithms[0]: RS256 is not for a secret: write HS256, HS384 or HS512, or name a public key',
    ],
    [
      'jwt: { issuer: x, jwksUrl: http://id.example.com }',
      '2:30: auth.jwt.jwksUrl: must begin with https://: whoever is on the way could put in keys of their own',
    ],
    [
      'jwt: { issuer: x, jwksUrl: http://127.0.0.1/ }',
      '2:30: jwt: jwksUrl must begin with https://, or say allowHttp: true for this loopback address',
    ],
    [
      'jwt: [{ issuer: x, jwksFile: keys }, { issuer: y, jwksFile: none }]',
      '2:63: the file of auth.jwt[1].jwksFile does not exist (looked in DIR)',
    ],
    [
      'oidc: { issuer: https://id.example.com, clientId: me }',
      '2:53: auth.oidc.clientId: is named without a clientSecretFile',
    ],
    [
      'oidc: { issuer: https://id.example.com, clientSecretFile: secret }',
      '2:61: auth.oidc.clientSecretFile: is named without a clientId',
    ],
    [
      'oidc: { issuer: https://id.example.com, introspectionUrl: https://id.example.com/i }',
      '2:61: auth.oidc.introspectionUrl: needs clientId and clientSecretFile',
    ],
    [
      'oidc: { issuer: https://id.example.com, tokens: introspection }',
      '2:51: auth.oidc.tokens: introspection needs clientId and clientSecretFile',
    ],
    [
      'oidc: { issuer: https://id.example.com, clientId: a, clientSecretFile: secret, tokens: jwt }',
      '2:90: auth.oidc.tokens: jwt never introspects, and a clientId is there: say auto, or leave the client out',
    ],
    [
      'oidc: { issuer: https://id.example.com, algorithms: [HS256] }',
      '2:56: auth.oidc.algorithms[0]: "HS256" is not one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, Ed25519',
    ],
    [
      'kubernetes: { tokenFile: keys, caFile: ca.pem }',
      '2:15: auth.kubernetes: audiences is missing: accepted audiences of tokens; a pod asks for one of them',
    ],
    [
      'kubernetes: { audiences: [], tokenFile: keys, caFile: ca.pem }',
      '2:28: auth.kubernetes.audiences: is empty: it needs at least one item',
    ],
    [
      'kubernetes: { audiences: [a], tokenFile: keys, caFile: ca.pem, apiServer: http://127.0.0.1:8001 }',
      '2:77: auth.kubernetes.apiServer: must begin with https://: tokens are sent there',
    ],
    [
      'clientCertificate: { from: forwarded }',
      '2:22: auth.clientCertificate: caFile is missing: PEM file of the certification authorities that issue client certificates',
    ],
    [
      'clientCertificate: { caFile: ca.pem, header: X-Cert }',
      '2:48: auth.clientCertificate.header: is for forwarded certificates: say from: forwarded',
    ],
    [
      'clientCertificate: { caFile: ca.pem, names: [dns], trustDomains: [a] }',
      '2:68: auth.clientCertificate.trustDomains: are of SPIFFE ids: put spiffe into names',
    ],
    [
      'clientCertificate: { caFile: ca.pem, trustDomains: [spiffe://Example.org/ns] }',
      '2:55: auth.clientCertificate.trustDomains[0]: is not the name of a trust domain: write example.org',
    ],
    [
      'clientCertificate: { caFile: ca.pem, trustDomains: ["a b"] }',
      '2:55: auth.clientCertificate.trustDomains[0]: is not the name of a trust domain, such as example.org',
    ],
    [
      'resource: https://mcp.example.com/#x\n  bearer: { tokenFile: keys }',
      '2:13: auth.resource: has a fragment: leave out the # and what follows',
    ],
  ]
  for (const [yaml, ...wanted] of cases) {
    const found = await problems(t, { ...files, 'c.yaml': `auth:\n  ${yaml}\n` })
    t.same(
      found,
      wanted.map((each) => `c.yaml:${each}`),
      yaml,
    )
  }
})

t.test('the tokens of a pod must be there, since nothing works without them', async (t) => {
  const found = await problems(t, {
    'c.yaml': 'auth:\n  kubernetes: { audiences: [mcp], tokenFile: ./token, caFile: ./ca }\n',
  })
  t.same(found, [
    'c.yaml:2:46: the file of auth.kubernetes.tokenFile does not exist (looked in DIR)',
    'c.yaml:2:63: the file of auth.kubernetes.caFile does not exist (looked in DIR)',
  ])
})

t.test('no error repeats what may be a secret', async (t) => {
  for (const yaml of [
    'apiKey: hunter2',
    'apiKey: { keyFile: hunter2 }',
    'apiKey: { hunter2hunter2: x }',
    'basic: { passwordFile: { a: hunter2 } }',
    'jwt: { issuer: x, secretFile: hunter2 }',
    'jwt: { issuer: x, secret: hunter2 }',
    'jwt: { issuer: x, jwksUrl: "https://me:hunter2@id.example.com" }',
    'oidc: { issuer: "https://me:hunter2@id.example.com" }',
    'oidc: { issuer: https://id.example.com, clientId: me, clientSecret: hunter2 }',
    'oidc: hunter2',
    'jwt: [hunter2]',
  ]) {
    const found = await problems(t, { 'c.yaml': `auth:\n  ${yaml}\n` })
    t.ok(found.length > 0, yaml)
    t.notMatch(found.join('\n'), 'hunter2', yaml)
  }
})
