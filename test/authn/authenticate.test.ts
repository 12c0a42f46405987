import fc from 'fast-check'
import t from 'tap'
import { type Authenticator, authenticate, stillTrusted } from '../../src/authn/authenticate.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { anonymous, type Principal, type Trusted } from '../../src/core/types.ts'
import { holds } from '../support/property.ts'

const principal = (id: string): Principal => ({ id, method: 'test', proof: 'p' })

type Answer = 'knows' | 'nothing' | 'refuses' | 'breaks'

/** An authenticator that answers like this, at once or later. */
function answering(name: string, answer: Answer, later = false): Authenticator {
  const authenticate = (): Principal | undefined => {
    if (answer === 'refuses') throw new SidecarError('ERR_AUTH_INVALID', { detail: `${name} says no` })
    if (answer === 'breaks') throw new TypeError(`${name} is broken`)
    return answer === 'knows' ? principal(name) : undefined
  }
  return {
    name,
    challenge: (error) => (error === undefined ? name : `${name} error="${error}"`),
    authenticate: later ? async () => authenticate() : authenticate,
    vouchesFor: ({ id }) => id === name,
  }
}

const request = { requestId: 'r', headers: {} } as unknown as Trusted

interface Passed {
  readonly principals: Principal[]
  readonly error: SidecarError | undefined
}

/** Runs the layer once, to its end. */
async function run(all: readonly Authenticator[]): Promise<Passed> {
  const principals: Principal[] = []
  const layer = authenticate<Trusted>(() => all)
  try {
    await layer(request, (identified) => void principals.push(identified.principal))
    return { principals, error: undefined }
  } catch (thrown) {
    if (thrown instanceof SidecarError) return { principals, error: thrown }
    return { principals, error: SidecarError.from(thrown) }
  }
}

const challengeOf = ({ error }: Passed): string | undefined => error?.headers['WWW-Authenticate']

t.test('without authenticators everyone is the one anonymous principal', async (t) => {
  const { principals, error } = await run([])
  t.same(principals, [anonymous])
  t.equal(error, undefined)
  t.throws(() => Object.assign(anonymous, { id: 'root' }), TypeError)
})

t.test('the first that knows the credential names the principal, once', async (t) => {
  for (const later of [false, true]) {
    const { principals } = await run([
      answering('a', 'nothing', later),
      answering('b', 'knows', later),
      answering('c', 'knows', later),
    ])
    t.same(principals, [principal('b')])
  }
})

t.test('without anything to wait for the layer is synchronous', async (t) => {
  const seen: string[] = []
  const layer = authenticate<Trusted>(() => [answering('a', 'knows')])
  t.equal(
    layer(request, ({ principal }) => void seen.push(principal.id)),
    undefined,
  )
  t.same(seen, ['a'])
})

t.test('who brings no credential is challenged with all there are', async (t) => {
  const passed = await run([answering('a', 'nothing'), answering('b', 'nothing')])
  t.equal(passed.error?.code, 'ERR_AUTH_MISSING')
  t.equal(challengeOf(passed), 'a, b')
  t.same(passed.principals, [])
})

t.test('a credential that does not hold ends it: the others are not asked', async (t) => {
  const passed = await run([answering('a', 'refuses'), answering('b', 'knows')])
  t.equal(passed.error?.code, 'ERR_AUTH_INVALID')
  t.equal(challengeOf(passed), 'a error="invalid_token", b error="invalid_token"')
  t.equal(passed.error?.detail, 'a says no', 'for the log')
  t.notMatch(passed.error?.message, 'says no')
  t.same(passed.principals, [])
})

t.test('a broken authenticator lets nobody in', async (t) => {
  for (const later of [false, true]) {
    const passed = await run([answering('a', 'breaks', later), answering('b', 'knows')])
    t.equal(passed.error?.code, 'ERR_INTERNAL')
    t.same(passed.principals, [])
  }
})

t.test('whether an authenticator answers at once or later makes no difference to the client', async (t) => {
  const kind = fc.constantFrom<Answer>('knows', 'nothing', 'refuses')
  const each = fc.record({ answer: kind, later: fc.boolean() })
  await fc.assert(
    fc.asyncProperty(fc.array(each, { minLength: 1, maxLength: 4 }), async (kinds) => {
      const make = (late: boolean): Authenticator[] =>
        kinds.map(({ answer, later }, i) => answering(`a${i}`, answer, late && later))
      const [now, later] = [await run(make(false)), await run(make(true))]
      return (
        fc.stringify(now.principals) === fc.stringify(later.principals) &&
        now.error?.code === later.error?.code &&
        challengeOf(now) === challengeOf(later)
      )
    }),
    { numRuns: 200 },
  )
  t.pass('holds for 200 values')
})

t.test('nobody passes whom no authenticator knows, whatever the others say', async (t) => {
  const kind = fc.constantFrom<Answer>('nothing', 'refuses', 'breaks')
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(kind, fc.boolean()), { minLength: 1, maxLength: 4 }),
      async (kinds) => {
        const { principals, error } = await run(
          kinds.map(([answer, later], i) => answering(`a${i}`, answer, later)),
        )
        return principals.length === 0 && error !== undefined
      },
    ),
    { numRuns: 100 },
  )
  t.pass('holds for 100 values')
})

t.test('the authenticators are those of the moment', async (t) => {
  let all: Authenticator[] = []
  const seen: string[] = []
  const layer = authenticate<Trusted>(() => all)
  await layer(request, ({ principal }) => void seen.push(principal.id))
  all = [answering('a', 'nothing')]
  t.throws(() => layer(request, () => void t.fail('it went on')), { code: 'ERR_AUTH_MISSING' })
  t.same(seen, ['anonymous'])
})

t.test('a principal is trusted while somebody vouches for it', async (t) => {
  holds(
    t,
    fc.property(fc.subarray(['a', 'b', 'c']), fc.constantFrom('a', 'b', 'c', 'd'), (names, id) => {
      const all = names.map((name) => answering(name, 'knows'))
      return stillTrusted(principal(id), all) === names.includes(id)
    }),
  )
  t.ok(stillTrusted(anonymous, []))
  t.notOk(
    stillTrusted(principal('a'), []),
    'authentication was switched off: its name means nothing any more',
  )
  t.notOk(stillTrusted(anonymous, [answering('a', 'knows')]), 'authentication was switched on')
})
