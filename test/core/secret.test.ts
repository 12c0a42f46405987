import { inspect } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import { fingerprint, Secret, sha256 } from '../../src/core/secret.ts'
import { holds } from '../support/property.ts'

t.test('no way of showing a secret shows it', async (t) => {
  const text = 'hunter2-hunter2-hunter2'
  const secret = new Secret(text)
  const digest = sha256(text)
  const shown = [
    String(secret),
    `${secret}`,
    `a ${secret as unknown as string}`,
    JSON.stringify(secret),
    JSON.stringify({ secret, list: [secret] }),
    inspect(secret),
    inspect({ secret }, { showHidden: true, depth: 9 }),
    inspect(secret, { customInspect: false, showHidden: true }),
    JSON.stringify(Object.entries(secret)),
    JSON.stringify(Object.getOwnPropertyNames(secret)),
    JSON.stringify({ ...secret }),
    JSON.stringify(structuredClone(secret)),
    String(new Error(`with ${secret}`).stack),
  ]
  for (const each of shown) {
    t.notMatch(each, text)
    t.notMatch(each, digest.toString('hex'))
    t.notMatch(each, digest.toString('base64'))
  }
  t.equal(`${secret}`, '[redacted]')
  t.equal(JSON.stringify({ secret }), '{"secret":"[redacted]"}')
  t.equal(inspect([secret]), '[ [redacted] ]')
})

t.test('a secret matches its own digest and no other', async (t) => {
  holds(
    t,
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (mine, other) => {
      const secret = new Secret(mine)
      return secret.matches(sha256(mine)) && secret.matches(sha256(other)) === (mine === other)
    }),
  )
})

t.test('the digest is SHA-256 of the UTF-8 text', async (t) => {
  t.equal(sha256('').toString('hex'), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')
  t.equal(sha256('abc').toString('hex'), 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad')
  t.equal(
    sha256('\u00e9').toString('hex'),
    '4a99557e4033c3539de2eb65472017cad5f9557f7a0625a09f1c3f6e2ba69c4c',
  )
})

t.test('a fingerprint is twelve hex digits of it', async (t) => {
  t.equal(fingerprint('abc'), 'ba7816bf8f01')
  holds(
    t,
    fc.property(fc.string(), (text) => sha256(text).toString('hex').startsWith(fingerprint(text))),
  )
})
