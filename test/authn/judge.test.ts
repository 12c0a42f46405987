import t from 'tap'
import { RequestAttempt } from '../../src/authn/attempt.ts'
import type { Authenticator } from '../../src/authn/authenticator.ts'
import { Failures } from '../../src/authn/failures.ts'
import { type AuthGate, createGate } from '../../src/authn/gate.ts'
import { type Finding, judge, missing } from '../../src/authn/judge.ts'
import { SidecarError } from '../../src/core/errors.ts'
import { answering, identity, trusted } from '../support/attempts.ts'
import { ManualClock } from '../support/modern-calls.ts'

type Layers = ['any' | 'all', ...Authenticator[]][]
const gateOf = (...layers: Layers): AuthGate =>
  createGate({
    layers: layers.map(([require, ...authenticators], i) => ({ name: `L${i}`, require, authenticators })),
    timeoutMs: 1000,
    failures: { attempts: 3, windowMs: 1000 },
  })
const request = trusted({ 'X-A': '1', 'X-B': '1', 'X-C': '1' })
const found = (gate: AuthGate): Finding[] | Promise<Finding[]> =>
  judge(gate, request, new RequestAttempt(request, gate, new Failures(new ManualClock())))
const shownAs = (findings: readonly Finding[]): string[] =>
  findings.map((each) => (each instanceof SidecarError ? `${each.code}: ${each.detail}` : each.id))

const invalid = new SidecarError('ERR_AUTH_INVALID', { detail: 'a wrong one' })
const [alice, bob] = [identity('alice'), identity('bob')]

t.test('it is said what is missing, before anybody is asked', async (t) => {
  const a = answering('a', undefined)
  const b = answering('b', undefined)
  const z = answering('z', undefined)
  const y = answering('y', undefined)
  t.equal(missing(gateOf(['any', a, z]), request), undefined)
  t.equal(missing(gateOf(['any', z, y]), request), 'L0: no credential for z or y')
  t.equal(missing(gateOf(['all', a, b]), request), undefined)
  t.equal(missing(gateOf(['all', a, z, y]), request), 'L0: no credential for z, y')
  t.equal(missing(gateOf(['any', a], ['any', z]), request), 'L1: no credential for z')
})

t.test('any: the first that recognises or refuses decides, the next are not asked', async (t) => {
  for (const later of [false, true]) {
    const said = <T>(answer: T): T | Promise<T> => (later ? Promise.resolve(answer) : answer)
    const c = answering('c', bob)
    t.same(
      shownAs(await found(gateOf(['any', answering('a', said(undefined)), answering('b', said(alice)), c]))),
      ['test:alice'],
    )
    t.same(shownAs(await found(gateOf(['any', answering('a', said(invalid)), c]))), [
      'ERR_AUTH_INVALID: a wrong one',
    ])
    t.equal(c.asked, 0)
    t.same(
      shownAs(await found(gateOf(['any', answering('a', said(undefined)), answering('b', said(undefined))]))),
      ['ERR_AUTH_INVALID: L0: nobody recognised the credential'],
    )
  }
})

t.test('all: each is asked, whatever the others say', async (t) => {
  for (const later of [false, true]) {
    const said = <T>(answer: T): T | Promise<T> => (later ? Promise.resolve(answer) : answer)
    const c = answering('c', alice)
    t.same(
      shownAs(
        await found(gateOf(['all', answering('a', said(invalid)), answering('b', said(undefined)), c])),
      ),
      [
        'ERR_AUTH_INVALID: a wrong one',
        'ERR_AUTH_INVALID: L0, b: nobody recognised the credential',
        'test:alice',
      ],
    )
    t.equal(c.asked, 1)
  }
})

t.test('every layer judges, at the same time', async (t) => {
  let answer = (_: typeof alice): void => {}
  const slow = answering('a', new Promise<typeof alice>((resolve) => (answer = resolve)))
  const other = answering('b', bob)
  const findings = found(gateOf(['any', slow], ['any', other], ['all', answering('c', invalid)]))
  t.ok(findings instanceof Promise)
  t.equal(other.asked, 1, 'nobody waits for the slow one')
  answer(alice)
  t.same(shownAs(await findings), ['test:alice', 'test:bob', 'ERR_AUTH_INVALID: a wrong one'])
})

t.test('without anything to wait for there is no promise', async (t) => {
  t.same(shownAs(found(gateOf(['any', answering('a', alice)])) as Finding[]), ['test:alice'])
  const two = gateOf(['any', answering('a', alice)], ['all', answering('b', bob), answering('c', invalid)])
  t.same(shownAs(found(two) as Finding[]), ['test:alice', 'test:bob', 'ERR_AUTH_INVALID: a wrong one'])
})

t.test('a method that breaks is a finding, too', async (t) => {
  const broken = new TypeError('it is broken')
  for (const answer of [broken, Promise.resolve(broken)]) {
    t.same(shownAs(await found(gateOf(['any', answering('a', answer)]))), ['ERR_INTERNAL: it is broken'])
  }
})
