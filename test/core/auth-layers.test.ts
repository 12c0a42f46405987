import fc from 'fast-check'
import t from 'tap'
import { impossible } from '../../src/core/auth-layers.ts'
import type {
  AuthLayer,
  AuthMethod,
  CertificateMethod,
  Fetching,
  JwtMethod,
  KubernetesMethod,
  OidcMethod,
  TokenChecks,
} from '../../src/core/policy.ts'
import { Credential } from '../../src/core/secret.ts'
import { holds } from '../support/property.ts'

const checks: TokenChecks = {
  audiences: [],
  algorithms: [],
  clockToleranceMs: 0,
  requiredClaims: {},
  scopes: [],
  subjectClaim: 'sub',
  groupsClaim: undefined,
}
const fetching: Fetching = { caFile: undefined, timeoutMs: 1, allowPrivate: false, allowHttp: false }

const bearer = (file: string): AuthMethod => ({ method: 'bearer', source: { file }, header: undefined })
const text = (value: string): AuthMethod => ({
  method: 'bearer',
  source: { text: new Credential(value) },
  header: undefined,
})
const apiKey = (file: string, header = 'x-api-key'): AuthMethod => ({
  method: 'apiKey',
  source: { file },
  header,
})
const basic = (file: string): AuthMethod => ({ method: 'basic', source: { file } })
const jwt = (issuer?: string, more: Partial<JwtMethod> = {}): AuthMethod => ({
  ...checks,
  ...{ method: 'jwt', issuer, keys: { url: 'https://keys', fetching } },
  ...more,
})
const shared = { keys: { secret: { file: 'hmac' } } }
const oidc = (issuer: string, more: Partial<OidcMethod> = {}): AuthMethod => ({
  ...checks,
  ...{ method: 'oidc', issuer, clientId: undefined, clientSecret: undefined, introspectionUrl: undefined },
  ...{ tokens: 'auto', cacheMs: 1, fetching },
  ...more,
})
const kubernetes = (mode: KubernetesMethod['mode'], issuer = 'https://cluster'): AuthMethod => ({
  ...{ method: 'kubernetes', mode, audiences: [], apiServer: '', tokenFile: '', caFile: '', issuer },
  ...{ cacheMs: 1, timeoutMs: 1 },
})
const certificate = (from: CertificateMethod['from'], header = 'x-client-cert'): AuthMethod => ({
  ...{ method: 'clientCertificate', from, caFile: 'ca', crlFile: undefined, names: ['spiffe'] },
  ...{ trustDomains: [], allow: [], header },
})

/** Two methods that one request is to satisfy, and whether one could. */
const pairs: readonly [string, AuthMethod, AuthMethod, 'possible' | RegExp][] = [
  ['Basic and a static token', basic('u'), bearer('t'), /one wants .*password/],
  ['Basic and JWT', basic('u'), jwt('https://a'), /one wants/],
  ['Basic and OIDC', basic('u'), oidc('https://a'), /one wants/],
  ['Basic and Kubernetes', basic('u'), kubernetes('token-review'), /one wants/],
  ['two files of users', basic('u'), basic('v'), /different ones/],
  ['one file of users twice', basic('u'), basic('u'), 'possible'],
  ['two files of tokens', bearer('s'), bearer('t'), /different ones/],
  ['one file of tokens twice', bearer('t'), bearer('t'), 'possible'],
  ['two texts of tokens', text('a'), text('b'), /different ones/],
  ['one text of tokens twice', text('a'), text('a'), 'possible'],
  ['a file and a text', bearer('t'), text('t'), /different ones/],
  ['a static token and JWT', bearer('t'), jwt(), /static bearer token/],
  ['a static token and OIDC', bearer('t'), oidc('https://a'), /one wants/],
  ['a static token and Kubernetes', bearer('t'), kubernetes('jwks'), /one wants/],
  ['a static token and a key of its own header', bearer('t'), apiKey('k'), 'possible'],
  ['a static token and a certificate', bearer('t'), certificate('tls'), 'possible'],
  ['Basic and a key', basic('u'), apiKey('k'), 'possible'],
  ['Basic and a key in the same header', basic('u'), apiKey('k', 'authorization'), /one wants/],
  ['a token and a key in the same header', bearer('t'), apiKey('t', 'authorization'), /one wants/],
  ['two files of keys in one header', apiKey('k'), apiKey('l'), /x-api-key.*different ones/],
  ['two files of keys in two headers', apiKey('k'), apiKey('l', 'x-other'), 'possible'],
  [
    'a key and a forwarded certificate in one header',
    apiKey('k', 'x-cert'),
    certificate('forwarded', 'x-cert'),
    /one wants/,
  ],
  [
    'a certificate of the connection and a forwarded one',
    certificate('tls'),
    certificate('forwarded'),
    'possible',
  ],
  ['two demands on one certificate', certificate('tls'), certificate('tls'), 'possible'],
  ['JWT of two issuers', jwt('https://a'), jwt('https://b'), /one issuer/],
  ['JWT of one issuer', jwt('https://a'), jwt('https://a'), 'possible'],
  ['JWT of any issuer and of one', jwt(), jwt('https://a'), 'possible'],
  ['JWT and OIDC of two issuers', jwt('https://a'), oidc('https://b'), /one issuer/],
  ['JWT and OIDC of one issuer', jwt('https://a'), oidc('https://a'), 'possible'],
  ['OIDC of two issuers', oidc('https://a'), oidc('https://b', { tokens: 'introspection' }), /one issuer/],
  ['JWT and the keys of a cluster', jwt('https://a'), kubernetes('jwks'), /one issuer/],
  ['JWT and the keys of its cluster', jwt('https://cluster'), kubernetes('jwks'), 'possible'],
  ['JWT and whatever the API server accepts', jwt('https://a'), kubernetes('token-review'), 'possible'],
  ['keys of two clusters', kubernetes('jwks'), kubernetes('jwks', 'https://other'), /one issuer/],
  ['a shared secret and public keys', jwt('https://a', shared), jwt('https://a'), /shared secret/],
  ['a shared secret and OIDC', jwt('https://a', shared), oidc('https://a'), /shared secret/],
  ['a shared secret and a cluster', jwt(undefined, shared), kubernetes('jwks'), /shared secret/],
  [
    'a shared secret and introspection',
    jwt('https://a', shared),
    oidc('https://a', { tokens: 'introspection' }),
    'possible',
  ],
  ['a shared secret twice', jwt('https://a', shared), jwt('https://a', shared), 'possible'],
  [
    'two algorithms',
    jwt('https://a', { algorithms: ['RS256'] }),
    jwt('https://a', { algorithms: ['ES256'] }),
    /one algorithm/,
  ],
  [
    'algorithms that meet',
    jwt('https://a', { algorithms: ['RS256', 'ES256'] }),
    jwt('https://a', { algorithms: ['ES256'] }),
    'possible',
  ],
  ['one algorithm and any', jwt('https://a', { algorithms: ['RS256'] }), jwt('https://a'), 'possible'],
  [
    'two algorithms, but any opaque token',
    oidc('https://a', { algorithms: ['RS256'] }),
    oidc('https://a', { algorithms: ['ES256'] }),
    'possible',
  ],
  [
    'two algorithms of JWT and OIDC',
    jwt('https://a', { algorithms: ['RS256'] }),
    oidc('https://a', { algorithms: ['ES256'] }),
    /one algorithm/,
  ],
  [
    'an algorithm and introspection',
    jwt('https://a', { algorithms: ['RS256'] }),
    oidc('https://a', { algorithms: ['ES256'], tokens: 'introspection' }),
    'possible',
  ],
]

const layer = (name: string, require: AuthLayer['require'], ...methods: AuthMethod[]): AuthLayer => ({
  name,
  require,
  methods,
})

for (const [name, a, b, expected] of pairs) {
  t.test(`${name}: ${expected === 'possible' ? 'possible' : 'impossible'}`, async (t) => {
    for (const [one, other] of [
      [a, b],
      [b, a],
    ] as const) {
      const ways = {
        'in one layer that requires all': [layer('auth', 'all', one, other)],
        'in two layers': [layer('gateway', 'any', one), layer('MCPRoute team/x', 'any', other)],
        'in two layers that require all': [layer('gateway', 'all', one), layer('route', 'all', other)],
      }
      for (const [way, layers] of Object.entries(ways)) {
        const found = impossible(layers)
        if (expected === 'possible') t.equal(found, undefined, way)
        else t.match(found, expected, way)
      }
    }
    const twoBasics = a.method === 'basic' && b.method === 'basic'
    const one = impossible([layer('auth', 'any', a, b)])
    if (twoBasics) t.match(one, /^auth: with more than one basic method/)
    else t.equal(one, undefined, 'one of both is always possible')
  })
}

t.test('the message names both methods, their layers and the header', async (t) => {
  const layers = [
    layer('gateway', 'any', basic('u')),
    layer('MCPRoute team/x', 'all', jwt('https://a'), apiKey('k')),
  ]
  t.equal(
    impossible(layers),
    'no request can satisfy both basic (gateway) and jwt of https://a (MCPRoute team/x): the header authorization ' +
      'carries one credential, and one wants a user with a password, the other a token of an issuer',
  )
})

t.test('no message repeats a secret', async (t) => {
  t.notMatch(impossible([layer('a', 'all', text('hunter2-hunter2'), text('other'))]), 'hunter2')
})

t.test('a layer that requires any is met by whichever of its methods goes with the others', async (t) => {
  const gateway = layer('gateway', 'any', basic('u'), jwt('https://a'))
  t.equal(impossible([gateway, layer('route', 'any', bearer('t'), jwt('https://a'))]), undefined)
  t.equal(impossible([gateway, layer('route', 'any', bearer('t'), apiKey('k'))]), undefined)
  t.match(
    impossible([gateway, layer('route', 'any', bearer('t'), jwt('https://b'))]),
    /^no request can satisfy/,
  )
  const third = layer('own', 'any', apiKey('k'), basic('u'))
  t.equal(impossible([gateway, layer('route', 'any', basic('u'), bearer('t')), third]), undefined)
  t.match(
    impossible([gateway, third, layer('route', 'all', apiKey('l'), jwt('https://a'))]),
    /^no request can satisfy/,
    'jwt from the gateway, so that our own must be the key, which the route wants to be another',
  )
})

t.test('a layer without methods is a mistake, no layer is none', async (t) => {
  t.equal(impossible([]), undefined)
  for (const require of ['any', 'all'] as const) {
    t.match(impossible([layer('auth', require)]), /^auth: no method is given/)
  }
})

const some = fc.constantFrom(
  ...[basic('u'), bearer('t'), jwt('https://a'), jwt('https://b'), oidc('https://a'), jwt(), apiKey('k')],
  ...[apiKey('l'), certificate('tls'), kubernetes('jwks', 'https://a'), bearer('s')],
)
const anyLayers = fc.array(
  fc.record({
    name: fc.constant('l'),
    require: fc.constantFrom<AuthLayer['require']>('any', 'all'),
    methods: fc.uniqueArray(some, { minLength: 1, maxLength: 3 }),
  }),
  { minLength: 1, maxLength: 3 },
)

/** Every set of methods that would do. */
function choices([first, ...rest]: readonly AuthLayer[]): AuthMethod[][] {
  if (first === undefined) return [[]]
  const own = first.require === 'all' ? [first.methods] : first.methods.map((method) => [method])
  return own.flatMap((mine) => choices(rest).map((others) => [...mine, ...others]))
}

t.test('possible is what has a choice of methods without a contradiction between two of them', async (t) => {
  const agree = (all: readonly AuthMethod[]): boolean =>
    all.every((a, i) => all.slice(i + 1).every((b) => impossible([layer('p', 'all', a, b)]) === undefined))
  holds(
    t,
    fc.property(anyLayers, (layers) => (impossible(layers) === undefined) === choices(layers).some(agree)),
    500,
  )
})

t.test('the order of layers and methods makes no difference', async (t) => {
  holds(
    t,
    fc.property(anyLayers, (layers) => {
      const turned = layers.map((each) => ({ ...each, methods: each.methods.toReversed() })).toReversed()
      return (impossible(layers) === undefined) === (impossible(turned) === undefined)
    }),
  )
})
