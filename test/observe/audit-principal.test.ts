import t from 'tap'
import { anonymous, type Identity, type Principal } from '../../src/core/types.ts'
import { PrincipalTexts } from '../../src/observe/audit-principal.ts'

const identity = (more: Partial<Identity>): Identity => ({ ...anonymous, ...more })
const principal = (more: Partial<Principal>): Principal => ({ ...anonymous, ...more })

function shown(who: Principal): Record<string, unknown> {
  const { identity, auth } = new PrincipalTexts().textsOf(who)
  return JSON.parse(`{"subjects":{${identity.slice(1)}}${auth}}`) as Record<string, unknown>
}

t.test('it says who, and how that was proven', async (t) => {
  const who = principal({
    id: 'https://issuer|alice',
    subject: 'alice',
    method: 'jwt',
    groups: ['dev', 'ops'],
    claims: { email: 'alice@example.com', sub: 'alice' },
    proof: 'the proof',
    others: [identity({ id: 'spiffe://td/x', method: 'clientCertificate' })],
  })
  t.strictSame(shown(who), {
    subjects: { user: 'alice', user_id: 'https://issuer|alice' },
    auth: { methods: ['jwt', 'clientCertificate'], groups: ['dev', 'ops'], others: ['spiffe://td/x'] },
  })
  t.strictSame(shown(anonymous), {
    subjects: { user: 'anonymous', user_id: 'anonymous' },
    auth: { methods: ['none'], groups: [] },
  })
})

t.test('who acts for whom, up to ten of them (RFC 8693)', async (t) => {
  const act = {
    sub: 'agent',
    iss: 'https://issuer',
    act: { sub: 'service', act: { client: 'x', act: { sub: 'y' } } },
  }
  t.same(shown(principal({ claims: { act } }))['delegation'], { actors: ['https://issuer|agent', 'service'] })
  let endless: Record<string, unknown> = { sub: 'last' }
  for (let i = 0; i < 50; i++) endless = { sub: `a${i}`, act: endless }
  const { actors } = shown(principal({ claims: { act: endless } }))['delegation'] as { actors: string[] }
  t.equal(actors.length, 10)
  for (const odd of [null, 'x', 7, [], {}, { sub: 7 }])
    t.equal(shown(principal({ claims: { act: odd } }))['delegation'], undefined)
})

t.test('its size is bounded, whatever a token says', async (t) => {
  const long = 'x'.repeat(100_000)
  const who = principal({
    id: long,
    subject: long,
    groups: Array.from({ length: 1000 }, (_, i) => `${i}${long}`),
    claims: { act: { sub: long } },
    others: Array.from({ length: 50 }, () => identity({ id: long, method: 'apiKey' })),
  })
  t.ok(JSON.stringify(shown(who)).length < 50_000)
})

t.test('the text of a principal is made once', async (t) => {
  const texts = new PrincipalTexts()
  t.equal(texts.textsOf(anonymous), texts.textsOf(anonymous))
})
