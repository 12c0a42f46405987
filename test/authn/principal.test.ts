import fc from 'fast-check'
import t from 'tap'
import type { GateLayer } from '../../src/authn/gate.ts'
import { principalOf, stillTrusted } from '../../src/authn/principal.ts'
import { anonymous, type Identity, type Principal } from '../../src/core/types.ts'
import { answering, identity } from '../support/attempts.ts'
import { holds } from '../support/property.ts'

const methods = ['jwt', 'clientCertificate', 'basic', 'apiKey', 'bearer', 'something']

t.test('one identity is the principal, the same each time', async (t) => {
  const alice = identity('alice', { expiresAt: 7 })
  const principal = principalOf([alice])
  t.same(principal, { ...alice, others: [] })
  t.equal(principalOf([alice]), principal)
  t.ok(Object.isFrozen(principal) && Object.isFrozen(principal.others))
})

t.test('of several the strongest is the principal, whatever their order', async (t) => {
  const all = methods.map((method) => identity(method, { method }))
  holds(
    t,
    fc.property(fc.shuffledSubarray(all, { minLength: 1 }), (some) => {
      const { method, others } = principalOf(some)
      const ranked = methods.filter((each) => some.some((identity) => identity.method === each))
      return fc.stringify([method, ...others.map((each) => each.method)]) === fc.stringify(ranked)
    }),
  )
})

t.test('tokens of any kind are equal: the first of them leads', async (t) => {
  for (const method of ['oidc', 'introspection', 'kubernetes', 'jwt']) {
    const first = identity('a', { method })
    const principal = principalOf([
      identity('k', { method: 'apiKey' }),
      first,
      identity('b', { method: 'jwt' }),
    ])
    t.equal(principal.subject, first.subject)
    t.equal(principal.id, `all:${first.id} & jwt:b & apiKey:k`, 'and the id names all')
    t.same(
      principal.others.map(({ id }) => id),
      ['jwt:b', 'apiKey:k'],
    )
    t.ok(Object.isFrozen(principal) && Object.isFrozen(principal.others))
  }
})

t.test(
  'callers who share the strongest identity are different principals, and no name runs into another',
  async (t) => {
    const gateway = identity('gateway', { method: 'clientCertificate' })
    const ids = new Set(
      ['bob', 'carol', 'a & apiKey:b', 'a && b'].map(
        (name) => principalOf([gateway, identity(name, { method: 'apiKey' })]).id,
      ),
    )
    const [a, b] = ['a', 'b'].map((name) => identity(name, { method: 'apiKey' })) as [Identity, Identity]
    ids.add(principalOf([gateway, a, b]).id)
    ids.add(principalOf([identity('x & apiKey:a', { method: 'clientCertificate' })]).id)
    t.equal(ids.size, 6)
  },
)

t.test('one credential that two layers have seen is one; another of the same caller is not', async (t) => {
  const alice = identity('alice', { method: 'jwt' })
  t.same(principalOf([alice, { ...alice }]).others, [])
  t.equal(principalOf([alice, { ...alice, proof: 'another token' }]).others.length, 1)
})

t.test('a principal ends when the first of its identities ends', async (t) => {
  const ends = (...times: (number | undefined)[]): number | undefined =>
    principalOf(times.map((expiresAt, i) => identity(`i${i}`, { expiresAt }))).expiresAt
  t.equal(ends(undefined, undefined), undefined)
  t.equal(ends(undefined, 5), 5)
  t.equal(ends(9, 5, undefined), 5)
  const principal = principalOf([
    identity('a', { method: 'jwt', expiresAt: 9 }),
    identity('b', { expiresAt: 5 }),
  ])
  t.equal(principal.others[0]?.expiresAt, 5, 'each keeps its own')
  const token = identity('a', { expiresAt: 9 })
  t.equal(principalOf([token, { ...token, expiresAt: 3 }]).expiresAt, 3, 'of one credential seen twice, too')
})

const [a, b, c] = ['a', 'b', 'c'].map((name) => answering(name, undefined)) as [
  ReturnType<typeof answering>,
  ReturnType<typeof answering>,
  ReturnType<typeof answering>,
]
const gate = (
  ...layers: [GateLayer['require'], ...GateLayer['authenticators'][]][]
): { layers: GateLayer[] } => ({
  layers: layers.map(([require, authenticators = []], i) => ({ name: `l${i}`, require, authenticators })),
})
const proven = (...names: string[]): Principal => principalOf(names.map((name) => identity(name)))

t.test('a principal is trusted while each layer is met by what is still vouched for', async (t) => {
  t.ok(stillTrusted(proven('a'), gate(['any', [a, b]])))
  t.notOk(stillTrusted(proven('c'), gate(['any', [a, b]])))
  t.ok(stillTrusted(proven('a', 'b'), gate(['all', [a, b]])))
  t.notOk(stillTrusted(proven('a'), gate(['all', [a, b]])))
  t.ok(stillTrusted(proven('a', 'c'), gate(['any', [a, b]], ['all', [c]])), 'others count, too')
  t.notOk(stillTrusted(proven('a'), gate(['any', [a, b]], ['any', [c]])), 'a layer was added')
  t.notOk(stillTrusted(proven('a'), gate(['all', []])), 'a layer without methods is never met')
})

t.test('whoever came in without or before authentication means nothing after the other', async (t) => {
  t.ok(stillTrusted(anonymous, gate()))
  t.notOk(stillTrusted(proven('a'), gate()), 'authentication was switched off')
  t.notOk(stillTrusted(anonymous, gate(['any', [a]])), 'authentication was switched on')
})
