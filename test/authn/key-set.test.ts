import { generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import {
  algorithmsFor,
  configuredKeys,
  fetchedKeys,
  publicAlgorithms,
  secretKey,
} from '../../src/authn/key-set.ts'
import { Credential } from '../../src/core/secret.ts'
import { signingKey } from '../support/jwt-keys.ts'
import { authority } from '../support/pki.ts'

const key = signingKey('one')
const rsa = signingKey('two', 'RS256')
const jwks = (...keys: object[]): string => JSON.stringify({ keys })
const configured = (text: string, algorithms = publicAlgorithms): unknown =>
  configuredKeys(text, 'keys.pem', algorithms)
const found = (set: ReturnType<typeof fetchedKeys>, alg: string, kid?: string): Promise<boolean> =>
  set.find({ alg, ...(kid === undefined ? {} : { kid }) }).then(
    () => true,
    () => false,
  )

t.test('a JWKS, public keys and certificates in PEM are keys', async (t) => {
  configured(jwks(key.jwk, rsa.jwk))
  configured(`${key.pem}\n# a comment\n${rsa.pem}`)
  configured(authority('CA').certificate)
  const pem = configuredKeys(key.pem, 'keys.pem', publicAlgorithms)
  t.ok(await found(pem, 'ES256'))
  t.notOk(await found(pem, 'RS256'))
})

t.test('what cannot be used is refused with its place, and is not repeated', async (t) => {
  const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey
  const p192 = generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey
  const secret = 'aHVudGVyMi1odW50ZXIy'
  const cases: [string, RegExp][] = [
    ['', /^keys\.pem: it is neither a JWKS \(JSON\) nor PEM/],
    [secret, /neither a JWKS/],
    ['{}', /no list of keys/],
    [jwks(), /there is no key in it/],
    [jwks({ kty: 'oct', k: secret }), /key 1 is a shared secret/],
    [jwks(key.jwk, { ...rsa.jwk, d: secret }), /key 2 is a private key/],
    [key.privatePem, /there is a private key in it/],
    [jwks({ ...key.jwk, use: 'enc' }), /key 1 is for "enc"/],
    [jwks({ ...key.jwk, x: 'AA' }), /key 1 is malformed/],
    [jwks({ kty: 'EC', crv: 'P-192', x: 'AA', y: 'AA' }), /key 1 is of a kind/],
    [jwks(small.export({ format: 'jwk' })), /key 1 has 1024 bits; 2048 are needed/],
    [p192.export({ format: 'pem', type: 'spki' }).toString(), /key 1 is of a kind/],
    ['-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----', /the PUBLIC KEY cannot be used/],
    ['-----BEGIN PUBLIC KEY-----\nAAAA', /the PEM has no end/],
    [jwks(...Array.from({ length: 101 }, () => key.jwk)), /101 keys, more than 100/],
  ]
  for (const [text, expected] of cases) {
    const error = t.throws(() => configured(text), { name: 'TokenMethodError', message: expected }) as Error
    t.notMatch(error.message, secret)
  }
  t.throws(() => configured(key.pem, ['RS256']), { message: /none of the keys is for RS256/ })
})

t.test('fetched keys that are of no use are left out', async (t) => {
  const set = fetchedKeys(
    {
      keys: [
        { kty: 'oct', k: 'AAAA', kid: 'h' },
        { ...rsa.jwk, d: 'AAAA', kid: 'leaked' },
        null,
        5,
        [],
        { kty: 5 },
        key.jwk,
      ],
    },
    undefined,
  )
  t.ok(await found(set, 'ES256', 'one'))
  t.notOk(await found(set, 'RS256', 'leaked'), 'a key that everybody can read vouches for nobody')
  t.notOk(await found(set, 'HS256', 'h'))
  for (const odd of [{}, { keys: {} }, [], null])
    t.throws(() => fetchedKeys(odd, undefined), { message: /no list of keys/ })
})

t.test('the same keys are the same set', async (t) => {
  const first = fetchedKeys({ keys: [key.jwk] }, undefined)
  t.equal(fetchedKeys({ keys: [key.jwk] }, first), first)
  t.not(fetchedKeys({ keys: [key.jwk, rsa.jwk] }, first), first)
  t.not(fetchedKeys({ keys: [] }, first), first)
})

t.test('algorithms are for the kind of the keys', async (t) => {
  t.same(algorithmsFor([], 'public'), publicAlgorithms)
  t.notOk(publicAlgorithms.some((each) => /^HS|none/i.test(each)))
  for (const wrong of ['none', 'HS256', 'NONE', 'rs256', '']) {
    t.throws(() => algorithmsFor([wrong], 'public'), {
      name: 'TokenMethodError',
      message: /no algorithm for a public key/,
    })
  }
  const secret = (bytes: number): ReturnType<typeof secretKey> => secretKey(new Credential('x'.repeat(bytes)))
  t.same(algorithmsFor([], secret(32)), ['HS256'])
  t.same(algorithmsFor([], secret(64)), ['HS256', 'HS384', 'HS512'])
  t.throws(() => algorithmsFor([], secret(31)), {
    message: /the secret for HS256 has 31 bytes; 32 are needed/,
  })
  t.throws(() => algorithmsFor(['HS512'], secret(63)), { message: /HS512 has 63 bytes; 64/ })
  for (const wrong of ['RS256', 'none']) {
    t.throws(() => algorithmsFor([wrong], secret(64)), { message: /no algorithm for a shared secret/ })
  }
})
