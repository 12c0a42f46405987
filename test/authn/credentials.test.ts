import fc from 'fast-check'
import t from 'tap'
import type { Authenticator } from '../../src/authn/authenticator.ts'
import { objection, presents, schemeValue } from '../../src/authn/credentials.ts'
import type { PresentedCertificate } from '../../src/core/types.ts'
import { trusted } from '../support/attempts.ts'
import { cpuMs } from '../support/cost.ts'
import { holds, shown } from '../support/property.ts'

t.test('a scheme is told from others, in any letter case', async (t) => {
  const value = (authorization: string): string | undefined =>
    schemeValue(trusted({ Authorization: authorization }), 'Bearer')
  t.equal(value('Bearer abc'), 'abc')
  t.equal(value('bEARER   abc '), 'abc')
  t.equal(value('Bearer a b'), 'a b')
  for (const other of ['Bearer', '', 'Basic abc', 'BearerX abc', 'Bearer\tabc', ' Bearer abc', 'Bear abc']) {
    t.equal(value(other), undefined, shown(other))
  }
  t.equal(schemeValue(trusted({}), 'Bearer'), undefined)
  t.equal(schemeValue(trusted({ Authorization: 'Basic x' }), 'Basic'), 'x')
})

const method = (headers: string[], scheme?: 'Bearer' | 'Basic'): Authenticator => ({
  name: 'test',
  headers,
  scheme,
  authorizationServers: [],
  scopes: [],
  authenticate: () => undefined,
  vouchesFor: () => false,
})

t.test('a request presents what a method would look at', async (t) => {
  const bearer = method(['authorization'], 'Bearer')
  t.ok(presents(trusted({ Authorization: 'Bearer x' }), bearer))
  t.notOk(presents(trusted({ Authorization: 'Basic x' }), bearer), 'another scheme')
  t.notOk(presents(trusted({ 'X-API-Key': 'x' }), bearer))
  const key = method(['x-api-key'])
  t.ok(presents(trusted({ 'X-API-Key': 'x' }), key))
  t.notOk(presents(trusted({ 'X-API-Key': '' }), key))
  t.ok(presents(trusted({ Authorization: 'x' }), method(['authorization'])), 'a key in Authorization')
  const certificate = {} as PresentedCertificate
  t.ok(presents(trusted({}, { certificate }), method([])), 'of the connection')
  t.notOk(presents(trusted({}), method([])))
})

const names = new Set(['authorization', 'x-api-key'])
const objects = (rawHeaders: string[], query = ''): string | undefined =>
  objection({ rawHeaders, query }, names, 100)

t.test('a header with a credential stands once', async (t) => {
  t.equal(objects(['Host', 'a', 'Authorization', 'x', 'X-API-Key', 'y']), undefined)
  t.equal(
    objects(['Authorization', 'x', 'authorization', 'x']),
    'two authorization headers',
    'even if they agree',
  )
  t.equal(objects(['X-API-KEY', '', 'x-api-key', 'x']), 'two x-api-key headers')
  t.equal(objects(['Accept', 'x', 'Accept', 'x']), undefined, 'others may stand twice')
})

t.test('a large credential is refused unseen', async (t) => {
  t.equal(objects(['Authorization', 'x'.repeat(100)]), undefined)
  t.equal(
    objects(['Authorization', 'x'.repeat(101)]),
    '101 bytes in the header authorization; 100 are allowed',
  )
  t.equal(objects(['Cookie', 'x'.repeat(101)]), undefined)
})

t.test('a token in the URL is refused, however its name is spelled', async (t) => {
  const spelled = [
    ...['access_token=x', 'a=b&access_token=x', 'access_token', 'access_token=', 'ACCESS_TOKEN=x'],
    ...['Access_Token=x', 'access%5Ftoken=x', 'access%5ftoken', '%61ccess_token=x', 'a;access_token=x'],
    ...['%41%43%43%45%53%53%5F%54%4F%4B%45%4E=x', '&&access_token=x', '+access_token=x', 'access_token%20=x'],
  ]
  for (const query of spelled) t.match(objects([], query), 'access_token', query)
  const others = [
    ...['', 'sessionId=x', 'token=access_token', 'access_tokens=x', 'xaccess_token=x', 'access-token=x'],
    ...['%', '%zz', 'a=%26access_token%3Dx', 'access%255Ftoken=x', '=access_token', 'access%token'],
  ]
  for (const query of others) t.equal(objects([], query), undefined, query)
})

t.test('any spelling with escapes is found, and no query breaks the search', async (t) => {
  const letter = fc.tuple(fc.boolean(), fc.boolean())
  const letters = fc.array(letter, { minLength: 12, maxLength: 12 })
  holds(
    t,
    fc.property(letters, (how) => {
      const name = [...'access_token'].map((c, i) => {
        const [upper, escaped] = how[i] as [boolean, boolean]
        const one = upper ? c.toUpperCase() : c
        return escaped ? `%${one.charCodeAt(0).toString(16)}` : one
      })
      return objects([], `q=1&${name.join('')}=x`) !== undefined
    }),
  )
  const piece = fc.constantFrom(
    'access_token',
    'access',
    '_',
    '%5F',
    'token',
    'x',
    '=',
    '&',
    '%',
    '+',
    '%C3',
    '%20',
  )
  const query = fc.oneof(
    fc.array(piece, { maxLength: 8 }).map((pieces) => pieces.join('')),
    fc.string({ unit: 'binary' }).map((text) => text.replaceAll(';', '')),
  )
  holds(
    t,
    fc.property(query, (query) => {
      const named = [...new URLSearchParams(query).keys()].some((name) => /^\s*access_token\s*$/i.test(name))
      return (objects([], query) !== undefined) === named
    }),
    1000,
  )
})

t.test('blanks inside a credential cost no more than their number', async (t) => {
  const value = `a${' '.repeat(12_000)}b`
  const read = (): string | undefined =>
    schemeValue({ headers: { authorization: `Bearer \t ${value} \t` } }, 'Bearer')
  t.equal(read(), value)
  const ms = cpuMs(() => {
    for (let i = 0; i < 200; i++) read()
  })
  t.ok(ms < 1000, 'the square of it would take minutes')
})
