import fc from 'fast-check'
import t from 'tap'
import { principalOf } from '../../src/authn/principal.ts'
import { compilePrincipals } from '../../src/authz/principals.ts'
import { alice, anonymous, bob, identity, principal, robot } from '../support/authz.ts'
import { holds, shown } from '../support/property.ts'

const matches = (
  who: Parameters<ReturnType<typeof compilePrincipals>>[0],
  ...principals: string[]
): boolean => compilePrincipals(principals, 'team-a')(who)

t.test('each kind of principal fits its own kind of identity, by its exact name', async (t) => {
  const table: [string, readonly string[]][] = [
    ['user:alice', ['alice']],
    ['user:team-a/robot', []],
    ['user:Alice', []],
    ['user:anonymous', []],
    ['group:dev', ['alice']],
    ['group:ops', ['bob']],
    ['group:dev,ops', []],
    ['serviceaccount:robot', ['robot']],
    ['serviceaccount:team-a/robot', ['robot']],
    ['serviceaccount:team-a:robot', ['robot']],
    ['serviceaccount:system:serviceaccount:team-a:robot', ['robot']],
    ['serviceaccount:team-b/robot', []],
    ['serviceaccount:alice', []],
    ['*', ['alice', 'bob', 'robot']],
    ['anonymous', ['anonymous']],
  ]
  const everybody = { alice, bob, robot, anonymous }
  for (const [text, expected] of table) {
    const found = Object.entries(everybody).filter(([, who]) => matches(who, text))
    t.same(
      found.map(([name]) => name),
      expected,
      text,
    )
  }
  t.ok(matches(bob, 'user:alice', 'group:ops'), 'one of several is enough')
  t.notOk(matches(bob, 'user:alice', 'anonymous', 'serviceaccount:bob'))
})

t.test('a name without a namespace is one of the namespace of the layer', async (t) => {
  t.notOk(compilePrincipals(['serviceaccount:robot'], 'team-b')(robot))
  t.throws(() => compilePrincipals(['serviceaccount:robot'], undefined), /no namespace/)
  t.ok(compilePrincipals(['serviceaccount:team-a/robot'], undefined)(robot))
})

t.test('any identity that the request has proven counts', async (t) => {
  const both = principal(
    { subject: 'alice' },
    identity({ kind: 'serviceaccount', subject: 'team-a/robot', groups: ['machines'] }),
  )
  for (const text of ['user:alice', 'serviceaccount:robot', 'group:machines', '*']) {
    t.ok(matches(both, text), text)
  }
  t.notOk(matches(both, 'group:dev', 'anonymous', 'user:team-a/robot'))
})

t.test('nobody in particular is in no group, whatever groups it claims', async (t) => {
  const odd = { ...anonymous, groups: ['dev'], subject: 'alice' }
  t.notOk(matches(odd, 'group:dev', 'user:alice', 'serviceaccount:team-a/alice', '*'))
})

t.test('what names no principal is a mistake that says what would be right', async (t) => {
  const table: [string, RegExp][] = [
    ['', /names no principal: write user:ID/],
    ['alice', /names no principal/],
    ['User:alice', /names no principal/],
    ['role:dev', /names no principal/],
    ['**', /names no principal/],
    ['anonymous:x', /names no principal/],
    ['user:', /has no name/],
    ['group: dev', /blanks around it/],
    ['user:*', /names are exact/],
    ['group:dev-*', /names are exact/],
    ['serviceaccount:', /names no service account/],
    ['serviceaccount:a:b:c', /names no service account/],
    ['serviceaccount:a/b/c', /names no service account/],
    ['serviceaccount:a/b:c', /names no service account/],
    ['serviceaccount:/b', /names no service account/],
    ['serviceaccount:Team/robot', /names no service account/],
    ['serviceaccount:system:serviceaccount:robot', /names no service account/],
    ['serviceaccount:system:serviceaccount:a/robot', /names no service account/],
    [`serviceaccount:a/${'b.'.repeat(140)}c`, /names no service account/],
  ]
  for (const [text, message] of table) {
    t.throws(() => compilePrincipals([text], 'ns'), { message }, shown(text))
  }
  t.ok(
    compilePrincipals(
      ['serviceaccount:a/my.robot-1'],
      undefined,
    )(principal({ kind: 'serviceaccount', subject: 'a/my.robot-1' })),
  )
})

t.test('a principal more lets nobody out who was in', async (t) => {
  const texts = fc.constantFrom(
    ...['user:alice', 'user:bob', 'group:dev', 'group:ops', 'serviceaccount:robot', '*', 'anonymous'],
  )
  const who = fc.constantFrom(alice, bob, robot, anonymous)
  holds(
    t,
    fc.property(
      fc.array(texts),
      texts,
      who,
      (some, more, who) => !matches(who, ...some) || matches(who, ...some, more),
    ),
  )
})

t.test('an id is of one issuer or method alone', async (t) => {
  const rule = 'id:jwt:https://a.example|alice'
  const a = identity({ id: 'jwt:https://a.example|alice', subject: 'alice' })
  const b = identity({ id: 'jwt:https://b.example|alice', subject: 'alice' })
  const token = identity({ id: 'bearer:alice', method: 'bearer', subject: 'alice' })
  t.ok(matches(principalOf([a]), rule))
  t.notOk(matches(principalOf([b]), rule))
  t.notOk(matches(principalOf([token]), rule))
  t.ok(matches(principalOf([token]), 'id:bearer:alice'))
  t.ok(matches(principalOf([token, a]), rule), 'of several, the strongest')
  t.ok(matches(principalOf([token, a]), 'id:bearer:alice'), 'and any other')
  t.notOk(matches(principalOf([token, b]), rule))
  for (const text of ['id:', 'id: a', 'id:jwt:*']) t.throws(() => compilePrincipals([text], 'ns'), text)
})
