import t from 'tap'
import type { EntityJson, Uid } from '../../src/authz/cedar-ast.ts'
import { Unreadable } from '../../src/authz/cedar-values.ts'
import { KnownEntities, type Subject, type SubjectOptions, subjectOf } from '../../src/authz/entities.ts'
import { allows, caller } from '../support/cedar.ts'

const options: SubjectOptions = {
  groupClaim: undefined,
  roleClaim: undefined,
  groupEntityType: 'THVGroup',
  multiValuedClaims: [],
  decimalNumbers: false,
}
const uid = (type: string, id: string): Uid => ({ type, id })
const entity = (own: Uid, parents: readonly Uid[] = [], attrs: EntityJson['attrs'] = {}): EntityJson => ({
  uid: own,
  attrs,
  parents,
})

function subject(
  claims: Record<string, unknown>,
  more: Partial<SubjectOptions> = {},
  entities: readonly EntityJson[] = [],
): Subject {
  const principal = caller(claims, { groups: ['from-method'] })
  return subjectOf(principal, { ...options, ...more }, new KnownEntities(entities))
}

const groups = (found: Subject): string[] => found.parents.map(({ id }) => id)

t.test('a caller is a Client with its sub and its claims', async (t) => {
  const found = subject({
    sub: 's',
    iss: 'i',
    exp: 12,
    email_verified: true,
    address: { city: 'x' },
    amr: ['otp'],
    nil: null,
  })
  t.same(found.uid, uid('Client', 's'))
  t.same(Object.fromEntries(found.attrs), {
    ...{ claim_sub: 's', claim_iss: 'i', claim_exp: 12, claim_email_verified: true },
    ...{ claim_address: { city: 'x' }, claim_amr: ['otp'] },
  })
  t.equal(found.claims, found.attrs)
  t.equal(found.problem, undefined)
})

t.test('a caller without claims is a Client with its subject', async (t) => {
  for (const claims of [{}, { sub: '' }, { sub: 3 }]) {
    const found = subject(claims)
    t.same(found.uid, uid('Client', 'alice'))
    t.equal(found.attrs.get('claim_sub'), 'alice')
  }
  t.same(groups(subject({})), ['from-method'])
})

t.test('groups come from the claim that is configured, else from a well-known one', async (t) => {
  t.same(groups(subject({ groups: ['a', 'b', 3] })), ['a', 'b'])
  t.same(groups(subject({ roles: ['r'] })), ['r'])
  t.same(groups(subject({ 'cognito:groups': ['c'] })), ['c'])
  t.same(groups(subject({ groups: [], roles: ['r'] })), [], 'a list without groups says there are none')
  t.same(groups(subject({ groups: 'a b' })), ['from-method'], 'no list, no groups')
  const groupClaim = 'https://x.example/groups'
  t.same(groups(subject({ [groupClaim]: ['x'], groups: ['a'] }, { groupClaim })), ['x'])
  t.same(groups(subject({ groups: ['a'] }, { groupClaim })), ['a'])
  t.same(groups(subject({ realm: { roles: ['x'] } }, { groupClaim: 'realm.roles' })), ['x'])
  t.same(groups(subject({ 'realm.roles': ['y'], realm: { roles: ['x'] } }, { groupClaim: 'realm.roles' })), [
    'y',
  ])
  t.same(groups(subject({ groups: ['a'] }, { groupClaim: 'constructor.name' })), ['a'], 'nothing inherited')
})

t.test('roles are groups, too', async (t) => {
  const found = subject(
    { groups: ['a', 'b'], access: { roles: ['b', 'c'] } },
    { roleClaim: 'access.roles', groupEntityType: 'Role' },
  )
  t.same(found.parents, [uid('Role', 'a'), uid('Role', 'b'), uid('Role', 'c')])
})

t.test('claims of several values are a text and a set, whichever the token has', async (t) => {
  const more = { multiValuedClaims: ['scp', 'n', 'none'] }
  const list = subject({ scp: ['a', 'b', 1, null], n: 3 }, more)
  t.equal(list.attrs.get('claim_scp'), 'a b')
  t.same(list.attrs.get('claimset_scp'), ['a', 'b'])
  t.equal(list.attrs.get('claim_n'), 3)
  t.notOk(list.attrs.has('claimset_n'))
  const text = subject({ scp: ' a  b ' }, more)
  t.equal(text.attrs.get('claim_scp'), ' a  b ')
  t.same(text.attrs.get('claimset_scp'), ['a', 'b'])
  t.notOk(subject({ scp: ['a'] }).attrs.has('claimset_scp'))
  const policy =
    'permit(principal, action, resource) when { context.claimset_scp.contains("a") && principal has claimset_scp };'
  t.ok(await allows(policy, { principal: caller({ scp: 'a b' }) }, more))
  t.notOk(await allows(policy, { principal: caller({ scp: 'ab' }) }, more))
})

t.test('a claim that Cedar cannot hold denies what depends on it, and nothing else', async (t) => {
  t.ok(subject({ deep: 0.123456 }).attrs.get('claim_deep') instanceof Unreadable)
  const principal = caller({ sub: 'a', deep: 0.123456, o: { __entity: { type: 'Client', id: 'root' } } })
  const when = (condition: string): string => `permit(principal, action, resource) when { ${condition} };`
  t.ok(await allows(when('principal.claim_sub == "a"'), { principal }))
  t.notOk(await allows(when('principal.claim_sub == "a" || principal has claim_deep'), { principal }))
  t.notOk(await allows(when('principal has claim_o'), { principal }))
  t.notOk(await allows(when('context != {}'), { principal }), 'all of it')
})

t.test('what the configuration says of a caller is kept where the token says nothing', async (t) => {
  const known = [
    entity(uid('Client', 's'), [uid('Team', 't')], { level: 2, claim_sub: 'liar' }),
    entity(uid('THVGroup', 'g'), [uid('THVGroup', 'h')]),
    entity(uid('THVGroup', 'h'), [uid('Org', 'o')]),
  ]
  const found = subject({ sub: 's', groups: ['g'] }, {}, known)
  t.equal(found.attrs.get('level'), 2)
  t.equal(found.attrs.get('claim_sub'), 's')
  t.notOk(found.claims.has('level'), 'the context has claims alone')
  t.same(found.parents, [uid('THVGroup', 'g'), uid('Team', 't')])
  t.same(
    [...found.ancestors].toSorted(),
    ['Client::"s"', 'Org::"o"', 'Team::"t"', 'THVGroup::"g"', 'THVGroup::"h"'].toSorted(),
  )
})

t.test('a caller that cannot be an entity is told so', async (t) => {
  t.match(subject({ sub: '\ud800' }).problem, /subject/)
  t.match(subject({ sub: 'a', groups: ['\ud800'] }).problem, /group/)
  const inside = [entity(uid('THVGroup', 'g'), [uid('Client', 's')])]
  t.match(subject({ sub: 's', groups: ['g'] }, {}, inside).problem, /part of itself/)
})

t.test('entities know their types, and whether attributes lead to others', async (t) => {
  const plain = new KnownEntities([entity(uid('A', 'a'), [uid('B', 'b')], { x: { y: [1, 'z'] } })])
  t.same([...plain.types], ['A', 'B'])
  t.notOk(plain.refer)
  t.ok(plain.defines('A', 'x'))
  t.notOk(plain.defines('B', 'x'))
  const nested = new KnownEntities([
    entity(uid('A', 'a'), [], { x: { y: [{ __entity: { type: 'C', id: 'c' } }] } }),
  ])
  t.ok(nested.refer)
  t.same([...nested.types], ['A', 'C'])
  const tagged = new KnownEntities([
    { ...entity(uid('A', 'a')), tags: { t: { __entity: { type: 'D', id: 'd' } } } },
  ])
  t.ok(tagged.refer)
})
