import t from 'tap'
import type { Authenticator } from '../../src/authn/authenticator.ts'
import { createGate, type GateLayer } from '../../src/authn/gate.ts'
import { answering } from '../support/attempts.ts'

const failures = { attempts: 3, windowMs: 1000 }
const layer = (name: string, ...authenticators: Authenticator[]): GateLayer => ({
  name,
  require: 'any',
  authenticators,
})
const token = { headers: ['authorization'], scheme: 'Bearer' } as const
const gateOf = (...layers: GateLayer[]) => createGate({ layers, timeoutMs: 5, failures })

t.test('a gate knows what its methods read and demand', async (t) => {
  const jwt = answering('jwt', undefined, { ...token, scopes: ['mcp', 'read'] })
  const oidc = answering('oidc', undefined, { ...token, scopes: ['mcp'] })
  const key = answering('apiKey', undefined, { scopes: ['of no token'] })
  const gate = gateOf(layer('one', jwt, key), layer('two', oidc, key))
  t.same([...gate.headers], ['authorization', 'x-apikey'])
  t.same([...gate.schemes], ['Bearer'])
  t.same(gate.scopes, ['mcp', 'read'])
  t.equal(gate.authenticators.length, 3)
  t.same(gateOf().layers, [])
})

t.test('static tokens are tried before other tokens, and nothing else changes its place', async (t) => {
  const jwt = answering('jwt', undefined, token)
  const oidc = answering('oidc', undefined, token)
  const bearer = answering('bearer', undefined, token)
  const basic = answering('basic', undefined, { headers: ['authorization'], scheme: 'Basic' })
  const key = answering('apiKey', undefined)
  const order = (...all: Authenticator[]): string[] =>
    (gateOf(layer('l', ...all)).layers[0] as GateLayer).authenticators.map(({ name }) => name)
  t.same(order(key, jwt, basic, oidc, bearer), ['apiKey', 'bearer', 'jwt', 'basic', 'oidc'])
  t.same(order(bearer, jwt), ['bearer', 'jwt'])
  t.same(order(basic, key), ['basic', 'apiKey'])
  t.same(order(key, bearer), ['apiKey', 'bearer'])
})

t.test('a gate that everybody could pass, or nobody, is not made', async (t) => {
  const error = { name: 'GateError' }
  t.throws(() => gateOf(layer('MCPRoute a/b')), { ...error, message: /^MCPRoute a\/b: .*needs a method/ })
  const layers = [layer('l', answering('a', undefined))]
  for (const wrong of [0, -1, Number.NaN]) {
    t.throws(() => createGate({ layers, timeoutMs: wrong, failures }), error)
    t.throws(() => createGate({ layers, timeoutMs: 1, failures: { ...failures, attempts: wrong } }), error)
    t.throws(() => createGate({ layers, timeoutMs: 1, failures: { ...failures, windowMs: wrong } }), error)
  }
})
