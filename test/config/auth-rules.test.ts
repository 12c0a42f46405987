import t from 'tap'
import { problems } from './loading.ts'

const files = { keys: '', users: '', 'ca.pem': '', 'other.pem': '' }

t.test('none and a method exclude each other, wherever they come from', async (t) => {
  const yaml = 'auth:\n  apiKey: { keyFile: keys }\n  jwt: { issuer: x, jwksFile: keys }\n'
  t.same(await problems(t, { ...files, 'c.yaml': yaml }, { flags: { auth: 'none' } }), [
    'c.yaml:2:11: auth.apiKey is configured here, and auth is none (--auth): keep one of the two',
    'c.yaml:3:8: auth.jwt is configured here, and auth is none (--auth): keep one of the two',
  ])
})

t.test('settings without a method would promise a protection that is not', async (t) => {
  const message = 'is set and there is no method: add one, such as auth.bearer.tokenFile, or say auth: none'
  t.same(await problems(t, { 'c.yaml': 'auth:\n  timeout: 5s\n' }), [`c.yaml:2:12: auth.timeout ${message}`])
  t.same(await problems(t, { 'c.yaml': 'auth:\n  failures: { attempts: 3 }\n' }), [
    `c.yaml:2:25: auth.failures.attempts ${message}`,
  ])
  t.same(await problems(t, { 'c.yaml': 'auth:\n  timeout: 5s\n' }, { flags: { auth: 'none' } }), [])
})

t.test('any method makes an address fit for other machines', async (t) => {
  const outside = 'permissions: none\nlisten: { host: 0.0.0.0 }\n'
  for (const method of ['apiKey: { keyFile: keys }', 'basic: { passwordFile: users }'])
    t.same(await problems(t, { ...files, 'c.yaml': `${outside}auth: { ${method} }\n` }), [], method)
  t.match(await problems(t, { 'c.yaml': outside }), [/can be reached from other machines/])
})

t.test('a combination that no request can satisfy is refused', async (t) => {
  const yaml = 'auth:\n  require: all\n  basic: { passwordFile: users }\n  bearer: { tokenFile: keys }\n'
  t.match(await problems(t, { ...files, 'c.yaml': yaml }), [
    /^c\.yaml:4:24: no request can satisfy both bearer \(auth\) and basic \(auth\): the header authorization/,
  ])
  t.same(await problems(t, { ...files, 'c.yaml': yaml.replace('all', 'any') }), [])
})

t.test('certificates need somebody who presents them', async (t) => {
  t.same(await problems(t, { ...files, 'c.yaml': 'auth:\n  clientCertificate: { caFile: ca.pem }\n' }), [
    'c.yaml:2:22: clientCertificate: certificates are presented over TLS: configure listen.tls',
  ])
  const forwarded = 'auth:\n  clientCertificate: { from: forwarded, caFile: ca.pem }\n'
  t.same(await problems(t, { ...files, 'c.yaml': forwarded }), [
    'c.yaml:2:30: clientCertificate: forwarded certificates need listen.trustedProxies: who may forward them',
  ])
  t.same(
    await problems(t, { ...files, 'c.yaml': `${forwarded}listen: { trustedProxies: [10.0.0.0/8] }\n` }),
    [],
  )
})

t.test('tokens are for this server, which must be known by name on other addresses', async (t) => {
  const outside = 'permissions: none\nlisten: { host: 0.0.0.0 }\nauth:\n'
  const jwt = '  jwt: { issuer: x, jwksFile: keys }\n'
  const message =
    'tokens for other servers would be accepted: name audiences, or this server as auth.resource'
  t.same(await problems(t, { ...files, 'c.yaml': `${outside}${jwt}` }), [`c.yaml:4:8: jwt: ${message}`])
  const oidc =
    '  oidc:\n  - issuer: https://a.example.com\n    audiences: [a]\n  - issuer: https://b.example.com\n'
  t.same(await problems(t, { ...files, 'c.yaml': `${outside}${oidc}` }), [`c.yaml:7:5: oidc: ${message}`])
  t.same(
    await problems(t, { ...files, 'c.yaml': `${outside}${jwt}  resource: https://mcp.example.com/mcp\n` }),
    [],
  )
  t.same(await problems(t, { ...files, 'c.yaml': `auth:\n${jwt}` }), [], 'on a loopback address it is')
})

t.test(
  'plain http to an issuer is for loopback addresses with permission, from wherever that comes',
  async (t) => {
    const yaml = 'auth:\n  fetching: { allowHttp: true }\n  oidc: { issuer: http://127.0.0.1:1 }\n'
    t.same(await problems(t, { 'c.yaml': yaml }), [])
    t.same(await problems(t, { 'c.yaml': yaml.replace('true', 'false') }), [
      'c.yaml:3:19: oidc: issuer must begin with https://, or say allowHttp: true for this loopback address',
    ])
  },
)

t.test('sessions of one caller are at most those of all', async (t) => {
  t.same(await problems(t, { 'c.yaml': 'limits: { sessions: 10, sessionsPerPrincipal: 11 }\n' }), [
    'c.yaml:1:47: limits.sessionsPerPrincipal 11 is more than limits.sessions 10',
  ])
  t.same(await problems(t, { 'c.yaml': 'limits: { sessions: 10 }\n' }), [], 'and the default follows')
})
