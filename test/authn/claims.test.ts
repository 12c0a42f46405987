import fc from 'fast-check'
import t from 'tap'
import { type ClaimRules, identityOf } from '../../src/authn/claims.ts'
import { SidecarError } from '../../src/core/errors.ts'
import type { TokenChecks } from '../../src/core/policy.ts'
import type { Identity } from '../../src/core/types.ts'
import { holds } from '../support/property.ts'
import { checks } from '../support/token-requests.ts'

const now = 1_800_000_000_000
const seconds = now / 1000
const resource = 'https://mcp.example/mcp'
const issuer = 'https://issuer.example'
const good = { iss: issuer, sub: 'alice', aud: resource, exp: seconds + 60 }

const rules = (own: Partial<TokenChecks> = {}, more: Partial<ClaimRules> = {}): ClaimRules => ({
  method: 'jwt',
  checks: { ...checks, ...own },
  issuer,
  proof: 'p',
  deps: { resource: () => resource },
  ...more,
})

const who = (claims: object, own?: Partial<TokenChecks>, more?: Partial<ClaimRules>): Identity =>
  identityOf(claims as Record<string, unknown>, rules(own, more), now)

function why(claims: object, own?: Partial<TokenChecks>, more?: Partial<ClaimRules>): string {
  try {
    return `accepted: ${who(claims, own, more).id}`
  } catch (thrown) {
    if (thrown instanceof SidecarError) return `${thrown.code}: ${thrown.detail}`
    throw thrown
  }
}

t.test('the claims of a good token are an identity', async (t) => {
  t.same(
    who({
      ...good,
      scope: 'a b',
      groups: ['x'],
      iat: seconds,
      nbf: seconds,
      jti: '1',
      email: 'a@example.com',
    }),
    {
      id: 'jwt:https://issuer.example|alice',
      method: 'jwt',
      kind: 'user',
      subject: 'alice',
      groups: ['x'],
      scopes: ['a', 'b'],
      claims: {
        iss: issuer,
        sub: 'alice',
        aud: resource,
        scope: 'a b',
        groups: ['x'],
        email: 'a@example.com',
      },
      proof: 'p',
      expiresAt: now + 90_000,
    },
  )
  t.ok(Object.isFrozen(who(good)))
})

t.test('times hold, give or take the tolerance', async (t) => {
  t.match(why({ ...good, exp: seconds - 29 }), /^accepted/)
  t.equal(who({ ...good, exp: seconds - 29 }).expiresAt, now + 1000, 'until which it is let in')
  t.equal(why({ ...good, exp: seconds - 30 }), 'ERR_AUTH_INVALID: it expired 30 s ago')
  t.match(why({ ...good, exp: seconds - 1 }, { clockToleranceMs: 0 }), /expired 1 s ago/)
  t.match(why({ ...good, nbf: seconds + 30 }), /^accepted/)
  t.equal(why({ ...good, nbf: seconds + 31 }), 'ERR_AUTH_INVALID: it is not valid yet: its nbf is 31 s ahead')
  t.match(why({ ...good, iat: seconds + 31 }), /its iat is 31 s ahead/)
  t.match(why({ ...good, exp: undefined }), /it has no exp/)
  for (const exp of [
    '9999999999',
    Number.NaN,
    Number.POSITIVE_INFINITY,
    1e300,
    -1,
    null,
    {},
    [],
    true,
    now,
  ]) {
    t.match(why({ ...good, exp }), /its exp is not a time/, String(exp))
  }
  t.match(why({ ...good, nbf: 'now' }), /its nbf is not a time/)
})

t.test('the issuer is exactly the one configured', async (t) => {
  for (const iss of [`${issuer}/`, issuer.toUpperCase(), undefined, null, [issuer], 'https://evil.example']) {
    t.match(why({ ...good, iss }), /its issuer is/, String(iss))
  }
  const any = { issuer: undefined }
  t.equal(who({ ...good, iss: 'urn:any' }, {}, any).id, 'jwt:urn:any|alice')
  t.equal(who({ ...good, iss: undefined }, {}, any).id, 'jwt:|alice')
  for (const iss of ['a|b', 'a\n', 5, {}])
    t.match(why({ ...good, iss }, {}, any), /issuer is not a plain text/)
})

t.test('no two pairs of issuer and subject are one principal', async (t) => {
  const text = fc.string({ minLength: 1, maxLength: 6, unit: fc.constantFrom('a', '|', ':', 'jwt') })
  const idOf = (iss: string, sub: string): string => why({ ...good, iss, sub }, {}, { issuer: undefined })
  holds(
    t,
    fc.property(text, text, text, text, (iss, sub, iss2, sub2) => {
      const [one, two] = [idOf(iss, sub), idOf(iss2, sub2)]
      return !one.startsWith('accepted') || one !== two || (iss === iss2 && sub === sub2)
    }),
    1000,
  )
})

t.test('the audience is this server', async (t) => {
  t.match(why({ ...good, aud: ['other', resource] }), /^accepted/)
  t.match(
    why({ ...good, aud: 'HTTPS://MCP.example:443/mcp/' }),
    /^accepted/,
    'the same resource, spelled otherwise',
  )
  for (const aud of [
    'https://mcp.example',
    'https://mcp.example/mcp2',
    'https://mcp.example/MCP',
    'mcp',
    'http://mcp.example/mcp',
  ]) {
    t.match(why({ ...good, aud }), /its audience is .*, not https:\/\/mcp\.example\/mcp/, aud)
  }
  for (const aud of [undefined, null, [], {}, 5, [resource, 5]]) t.match(why({ ...good, aud }), /no audience/)
  const audiences = ['api://mcp', 'other']
  t.match(why({ ...good, aud: 'other' }, { audiences }), /^accepted/)
  t.match(
    why({ ...good, aud: resource }, { audiences }),
    /not one of api:\/\/mcp, other/,
    'configured ones replace it',
  )
  t.match(why({ ...good, aud: 'api://mcp/' }, { audiences }), /not one of/, 'and are compared as they are')
})

t.test('the subject names somebody', async (t) => {
  for (const sub of [undefined, null, '', 5, ['alice'], {}])
    t.match(why({ ...good, sub }), /its sub names nobody/)
  for (const sub of ['a\nb', 'a\0', 'a\u0085b', 'a\u2028b', 'a\ud800b'])
    t.match(why({ ...good, sub }), /control characters/)
  t.match(why({ ...good, sub: 'x'.repeat(257) }), /more than 256 characters/)
  t.equal(who({ ...good, sub: 'Zoë 😀' }).subject, 'Zoë 😀')
  t.equal(who({ ...good, email: 'a@b' }, { subjectClaim: 'email' }).subject, 'a@b')
  t.match(why(good, { subjectClaim: 'constructor' }), /its constructor names nobody/)
  t.match(why(good, { subjectClaim: '__proto__' }), /its __proto__ names nobody/)
})

t.test('required claims are there, with their value, or a list that holds it', async (t) => {
  const requiredClaims = { tenant: 'a', admin: true, level: 3, email: null }
  const claims = { ...good, tenant: ['b', 'a'], admin: true, level: 3, email: 'x' }
  t.match(why(claims, { requiredClaims }), /^accepted/)
  t.match(why({ ...claims, tenant: 'b' }, { requiredClaims }), /its claim tenant is not "a"/)
  t.match(why({ ...claims, admin: 'true' }, { requiredClaims }), /its claim admin is not true/)
  t.match(why({ ...claims, level: '3' }, { requiredClaims }), /level/)
  t.match(why({ ...claims, email: undefined }, { requiredClaims }), /it lacks the claim email/)
  t.match(why({ ...claims, email: null }, { requiredClaims }), /it lacks the claim email/)
  t.match(why(good, { requiredClaims: { toString: null } }), /it lacks the claim toString/)
})

t.test('scopes come from scope or scp, as a text or a list', async (t) => {
  t.same(who({ ...good, scope: 'a  b a' }).scopes, ['a', 'b'])
  t.same(who({ ...good, scp: ['a', 'b'] }).scopes, ['a', 'b'])
  t.same(who({ ...good, scp: 'a b' }).scopes, ['a', 'b'])
  t.same(who({ ...good, scope: 'a', scp: 'b' }).scopes, ['a'])
  t.same(who(good).scopes, [], 'a token without scopes has none')
  t.same(who({ ...good, scope: 'a "b" c\\d \u00e9' }).scopes, ['a'], 'what is no scope is none')
  for (const scope of [5, {}, [1], true]) t.match(why({ ...good, scope }), /its scope is neither/)
})

t.test('a token without the scopes that every token needs is told all of them', async (t) => {
  const scopes = ['mcp:read', 'mcp:write']
  t.match(why({ ...good, scope: 'mcp:write mcp:read' }, { scopes }), /^accepted/)
  try {
    who({ ...good, scope: 'mcp:read' }, { scopes })
    t.fail('it was accepted')
  } catch (thrown) {
    t.match(thrown, { code: 'ERR_SCOPE', data: { scopes }, detail: 'the token lacks the scope mcp:write' })
  }
  const grants = (granted: readonly string[], needed: string): boolean =>
    granted.includes('admin') && needed !== 'x'
  const deps = { resource: () => resource, grants }
  t.match(
    why({ ...good, scope: 'admin' }, { scopes }, { deps }),
    /^accepted/,
    'one scope may stand for others',
  )
  t.match(why({ ...good, scope: 'admin' }, { scopes: ['x'] }, { deps }), /^ERR_SCOPE/)
  t.match(why({ ...good, exp: 1 }, { scopes }), /^ERR_AUTH_INVALID/, 'a bad token is not told about scopes')
})

t.test('groups come from the claim named, or the first that is there', async (t) => {
  t.same(who({ ...good, roles: ['r'], 'cognito:groups': ['c'] }).groups, ['r'])
  t.same(who({ ...good, groups: [], roles: ['r'] }).groups, [])
  t.same(who({ ...good, 'cognito:groups': ['c'] }).groups, ['c'])
  t.same(who({ ...good, groups: 'a b' }).groups, ['a b'], 'a text is one group')
  t.same(who({ ...good, groups: ['a', 5, '', 'b\n', { c: 1 }] }).groups, ['a'])
  t.same(who({ ...good, groups: ['a'], teams: ['t'] }, { groupsClaim: 'teams' }).groups, ['t'])
  t.same(who({ ...good, groups: ['a'] }, { groupsClaim: 'teams' }).groups, [], 'and no other')
  t.same(who({ ...good, groups: { a: 1 } }).groups, [])
})

t.test('a service account is one only when its cluster says so', async (t) => {
  const sub = 'system:serviceaccount:team-a:bot'
  const kubernetes = { namespace: 'team-a', serviceaccount: { name: 'bot', uid: 'u' }, pod: { name: 'p' } }
  t.match(who({ ...good, sub, 'kubernetes.io': kubernetes }), {
    kind: 'serviceaccount',
    subject: 'team-a/bot',
    id: `jwt:${issuer}|${sub}`,
    groups: ['system:serviceaccounts', 'system:serviceaccounts:team-a'],
  })
  const forged = [
    undefined,
    'text',
    null,
    {},
    { ...kubernetes, namespace: 'team-b' },
    { ...kubernetes, serviceaccount: { name: 'other' } },
    { namespace: 'team-a', serviceaccount: null },
  ]
  for (const claim of forged) {
    t.match(who({ ...good, sub, 'kubernetes.io': claim }), { kind: 'user', subject: sub, groups: [] })
  }
  for (const odd of ['system:serviceaccount:a:b:c', 'system:serviceaccount:a', 'system:serviceaccount:A:b']) {
    t.match(who({ ...good, sub: odd, 'kubernetes.io': kubernetes }), { kind: 'user', subject: odd })
  }
})

t.test('tokens for other purposes, and those bound to a key, are refused', async (t) => {
  t.match(why({ ...good, token_use: 'id' }), /no access token: its token_use is "id"/)
  t.match(why({ ...good, typ: 'Refresh' }), /no access token: its typ is "Refresh"/)
  t.match(why({ ...good, token_use: 'access', typ: 'Bearer' }), /^accepted/)
  t.match(why({ ...good, cnf: { jkt: 'x' } }), /bound to a key/)
})

t.test('whatever JSON the claims are, the answer is an identity or a refusal', async (t) => {
  const names = fc.constantFrom(
    'iss',
    'sub',
    'aud',
    'exp',
    'nbf',
    'iat',
    'scope',
    'scp',
    'groups',
    'kubernetes.io',
    'cnf',
  )
  const value = fc.oneof(fc.jsonValue(), fc.constantFrom<unknown>(issuer, resource, 'alice', seconds + 9))
  holds(
    t,
    fc.property(fc.dictionary(names, value), (claims) => /^accepted|^ERR_/.test(why({ ...good, ...claims }))),
    500,
  )
})
