import fc from 'fast-check'
import t from 'tap'
import { redactor, sensitiveNames } from '../../src/observe/redact.ts'
import { cpuMs } from '../support/cost.ts'
import { holds } from '../support/property.ts'

const { mask, json } = redactor([])
const shown = (value: unknown): unknown => JSON.parse(json(Buffer.from(JSON.stringify(value)), 10_000).text)
const jwt = 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl'

t.test('names that speak of secrets are known in any spelling', async (t) => {
  const hides = sensitiveNames(['Kunden-Nummer', '__'])
  for (const name of [
    ...[
      'password',
      'Password',
      'PASS_WORD',
      'db.password',
      'userPasswordHash',
      'githubToken',
      'access_token',
    ],
    ...[
      'X-Api-Key',
      'apikey',
      'api key',
      'Authorization',
      'proxy-authorization',
      'Set-Cookie',
      'client_secret',
    ],
    ...['private_key', 'privateKeyPem', 'aws_secret_access_key', 'credentials', 'pin', 'PIN', 'pwd', 'auth'],
    ...['kundennummer', 'KUNDEN_NUMMER', '__', '\uff50assword', 'to\u212aen', 'to\u200bken'],
  ]) {
    t.equal(hides(name), true, JSON.stringify(name))
  }
  for (const name of ['name', 'q', 'author', 'shipping', 'passenger', 'key', 'nummer', '', '_'])
    t.equal(hides(name), false, JSON.stringify(name))
})

t.test('values under such names are not shown, whatever they are', async (t) => {
  t.same(
    shown({
      q: 'x',
      password: 'p',
      deep: [{ api_key: { a: [1] }, n: 1 }],
      Token: ['a'],
      pin: 1234,
      cookie: null,
    }),
    {
      q: 'x',
      password: '[redacted]',
      deep: [{ api_key: '[redacted]', n: 1 }],
      Token: '[redacted]',
      pin: '[redacted]',
      cookie: '[redacted]',
    },
  )
  t.equal(
    json(Buffer.from('{"pass\\u0077ord":"p","a":1,"password":"q"}'), 1000).text,
    '{"password":"[redacted]","a":1,"password":"[redacted]"}',
    'an escape in the name hides nothing from us, and twice is twice',
  )
})

t.test('what has the shape of a credential is masked wherever it stands', async (t) => {
  const masked: Record<string, string> = {
    [jwt]: '[redacted]',
    [`a ${jwt}, b`]: 'a [redacted], b',
    [jwt.slice(0, 15)]: '[redacted]',
    'Bearer abc.def': 'Bearer [redacted]',
    'bearer  x': 'bearer [redacted]',
    'Authorization: Basic dXNlcjpwYXNz': 'Authorization: [redacted]',
    'Basic dXNlcjpwYXNz!': 'Basic [redacted]!',
    ghp_0123456789abcdef: '[redacted]',
    'key AKIAIOSFODNN7EXAMPLE.': 'key [redacted].',
    'postgres://user:pa55@db/x': 'postgres://user:[redacted]@db/x',
    'https://h/x?a=1&access_token=abc&b=2': 'https://h/x?a=1&access_token=[redacted]&b=2',
    'password=hunter2 next': 'password=[redacted] next',
    'password: two words\nnext': 'password: [redacted]\nnext',
    '{"user":"u","password":"two \\"words\\" more","n":1}': '{"user":"u","password":[redacted],"n":1}',
    "{'secret': 'a b', 'c': 1}": "{'secret': [redacted], 'c': 1}",
    '{\\"password\\":\\"a b\\",\\"c\\":1}': '{\\"password\\":[redacted],\\"c\\":1}',
    'Cookie: a=b; c=d': 'Cookie: [redacted]',
    'token="never ends': 'token=[redacted]',
  }
  for (const [text, expected] of Object.entries(masked)) t.equal(mask(text), expected, text)
  t.equal(
    mask('-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----'),
    '[redacted]-----END RSA PRIVATE KEY-----',
  )
  t.equal(mask('-----BEGIN PRIVATE KEY-----\nMII'), '[redacted]')
})

t.test('ordinary text stays as it is', async (t) => {
  for (const text of [
    ...[
      'hello world',
      'a: b',
      'x=1&y=2',
      'https://example.com/a?b=c#d',
      'Basic English',
      'eyJ',
      'user@host',
      '',
    ],
    ...['12:30', 'file:///etc/hosts', '{"a":"b"}'],
  ]) {
    t.equal(mask(text), text)
  }
})

const secret = 'S3cr3tS3cr3tS3cr3t'

t.test('a secret under a secret name is found in no output, cut or not, however it is nested', async (t) => {
  const filler = fc.oneof(fc.string({ unit: 'binary', maxLength: 30 }), fc.integer(), fc.constant(null))
  const value = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { depthSize: 'small' },
      filler,
      fc.record({ access_token: fc.constant(secret), rest: tie('value') }),
      fc.tuple(filler, tie('value'), fc.constant({ 'Api-Key': { deep: [secret] } })),
      fc.record({ text: fc.constant(JSON.stringify({ a: 1, password: `${secret} "and" more` })) }),
      fc.record({ text: fc.constant(JSON.stringify(JSON.stringify({ password: secret }))) }),
      fc.constant(`PASSWORD=${secret}`),
      fc.constant(`Authorization: Digest ${secret}`),
    ),
  })).value
  holds(
    t,
    fc.property(value, fc.integer({ min: 0, max: 300 }), (any, max) => {
      const { text } = json(Buffer.from(JSON.stringify(any)), max)
      return !text.includes('S3cr3t')
    }),
    2000,
  )
})

t.test('long hostile texts take no long time', async (t) => {
  const n = 200_000
  for (const text of [
    'a'.repeat(n),
    'a '.repeat(n),
    'a:'.repeat(n),
    'password='.repeat(n / 8),
    'password="'.repeat(n / 8),
    '\\'.repeat(n),
    `password=${'\\"'.repeat(n)}`,
    'a.b-c_'.repeat(n / 4),
    'bearer '.repeat(n / 8),
    '://'.repeat(n),
    '-----BEGIN PRIVATE KEY-----'.repeat(n / 20),
    `eyJ${'.'.repeat(n)}`,
    '-'.repeat(n),
    ' '.repeat(n),
  ]) {
    const ms = cpuMs(() => mask(text), 1)
    t.ok(ms < 1500, `${JSON.stringify(text.slice(0, 20))} took ${Math.round(ms)} ms`)
  }
})
