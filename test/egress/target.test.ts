import fc from 'fast-check'
import t from 'tap'
import { absoluteTarget, authority, canonicalHost, hostText, TargetError } from '../../src/egress/target.ts'
import { holds, shown } from '../support/property.ts'

const text = (host: string): string => hostText(canonicalHost(host))

t.test('each spelling of an address is that address', async (t) => {
  const spellings: Record<string, string> = {
    '127.0.0.1': '127.0.0.1',
    '2130706433': '127.0.0.1',
    '0177.1': '127.0.0.1',
    '0x7f.1': '127.0.0.1',
    '0X7F000001': '127.0.0.1',
    '127.1': '127.0.0.1',
    '127.0.0.1.': '127.0.0.1',
    '0': '0.0.0.0',
    '0x': '0.0.0.0',
    '0xa9fea9fe': '169.254.169.254',
    '169.16689662': '169.254.169.254',
    '１２７．０．０．１': '127.0.0.1',
    '127。0。0。1': '127.0.0.1',
    '[::ffff:169.254.169.254]': '169.254.169.254',
    '[::FFFF:a9fe:a9fe]': '169.254.169.254',
    '[0:0:0:0:0:ffff:127.0.0.1]': '127.0.0.1',
    '[::1]': '::1',
    '::1': '::1',
    '[0000:0::0001]': '::1',
    '[2001:DB8::A]': '2001:db8::a',
  }
  for (const [written, address] of Object.entries(spellings)) {
    t.same(canonicalHost(written), { kind: 'address', address }, written)
  }
})

t.test('each spelling of a name is that name', async (t) => {
  const spellings: Record<string, string> = {
    'example.com': 'example.com',
    'EXAMPLE.com': 'example.com',
    'example.com.': 'example.com',
    'bücher.de': 'xn--bcher-kva.de',
    'BÜCHER.de.': 'xn--bcher-kva.de',
    'xn--bcher-kva.de': 'xn--bcher-kva.de',
    'exаmple.com': 'xn--exmple-4nf.com',
    'exam\u00adple.com': 'example.com',
    'ｅｘａｍｐｌｅ．ｃｏｍ': 'example.com',
    my_service: 'my_service',
    'a.b-c.d0': 'a.b-c.d0',
  }
  for (const [written, name] of Object.entries(spellings)) {
    t.same(canonicalHost(written), { kind: 'name', name }, shown(written))
  }
})

t.test('what is no host is refused', async (t) => {
  const wrong = [
    ...['', '.', '..', 'a..b', '.a', 'a..', 'a.com..', ' ', 'a b', 'a\tb', 'a\0', '\0a', 'a\r\nb', 'a\x7f'],
    ...[
      '%65xample.com',
      'ex%61mple.com',
      '127.0.0.1%00',
      'fe80::1%eth0',
      '[fe80::1%eth0]',
      '[fe80::1%25eth0]',
    ],
    ...[
      'allowed@evil',
      'a/b',
      'a\\b',
      'a?b',
      'a#b',
      'a:80',
      'a,b',
      '*.a',
      '*',
      'a!b',
      "a'b",
      'a"b',
      'a<b',
      '(a)',
    ],
    ...['[::1', '::1]', '[127.0.0.1]', '[a]', '[]', '[[::1]]', '[::1]a', 'a[::1]', '1:2:3', '::g'],
    ...['256.0.0.1', '1.2.3.4.5', 'foo.0x', 'foo.1', '1.2.3.256', '4294967296', '09.1', 'xn--a', 'xn--'],
    ...['℀.com', 'a\u0080b', 'a\u2028b', '\ufffe', '\ud800'],
    ...[`${'a'.repeat(64)}.com`, `${'a.'.repeat(127)}ab`],
  ]
  for (const each of wrong) t.throws(() => canonicalHost(each), { name: 'TargetError' }, shown(each))
})

t.test('a canonical host is its own canonical form', async (t) => {
  const piece = fc.oneof(
    fc.string({ unit: 'grapheme', maxLength: 8 }),
    fc.domain(),
    fc.ipV4Extended(),
    fc.ipV6(),
    fc.webAuthority(),
    fc.constantFrom('.', '。', '-', '_', '%41', '[', ']', ':', '0x', '١', 'ß', '\u200d', '\u00ad'),
  )
  holds(
    t,
    fc.property(fc.array(piece, { maxLength: 3 }), (pieces) => {
      let host: string
      try {
        host = text(pieces.join(''))
      } catch (cause) {
        return cause instanceof TargetError
      }
      return text(host) === host && /^[a-z0-9._:-]+$/.test(host) && !host.endsWith('.')
    }),
    2000,
  )
})

t.test('however an IPv4 address is written, it is found', async (t) => {
  const radix = fc.constantFrom(
    (n: number) => String(n),
    (n: number) => `0x${n.toString(16)}`,
    (n: number) => `0X${n.toString(16).toUpperCase()}`,
    (n: number) => `0${n.toString(8)}`,
  )
  holds(
    t,
    fc.property(
      fc.ipV4(),
      fc.array(radix, { minLength: 4, maxLength: 4 }),
      fc.integer({ min: 1, max: 4 }),
      (ip, radixes, parts) => {
        const bytes = ip.split('.').map(Number)
        const head = bytes.slice(0, parts - 1)
        const last = bytes.slice(parts - 1).reduce((sum, byte) => sum * 256 + byte, 0)
        const written = [...head, last].map((n, i) => (radixes[i] as (n: number) => string)(n)).join('.')
        const groups = [bytes.slice(0, 2), bytes.slice(2)]
          .map(([a = 0, b = 0]) => (a * 256 + b).toString(16))
          .join(':')
        return text(written) === ip && text(`[::ffff:${ip}]`) === ip && text(`[::ffff:${groups}]`) === ip
      },
    ),
    1000,
  )
})

t.test('an authority is one host and one port', async (t) => {
  t.same(authority('Example.com:443'), { host: { kind: 'name', name: 'example.com' }, port: 443 })
  t.same(authority('[::1]:8080'), { host: { kind: 'address', address: '::1' }, port: 8080 })
  for (const wrong of [
    ...[
      '',
      ':',
      'a',
      'a:',
      ':80',
      'a:0',
      'a:00',
      'a:080',
      'a:65536',
      'a:999999',
      'a:-1',
      'a:+1',
      'a:8 0',
      'a:80:80',
    ],
    ...[
      '::1:80',
      '[::1]',
      '[::1]80',
      'user@a:80',
      'http://a:80',
      'a:80/',
      'a:80?',
      'a:http',
      'a:８０',
      'a:0x50',
    ],
  ]) {
    t.throws(() => authority(wrong), { name: 'TargetError' }, shown(wrong))
  }
})

t.test('an absolute target is an http URL without credentials', async (t) => {
  t.match(absoluteTarget('http://Example.com/a?b=c'), { port: 80, authority: 'example.com', path: '/a?b=c' })
  t.match(absoluteTarget('HTTP://example.com.:8080'), {
    port: 8080,
    authority: 'example.com:8080',
    path: '/',
  })
  t.match(absoluteTarget('http://[::1]:81?x'), { port: 81, authority: '[::1]:81', path: '/?x' })
  t.match(absoluteTarget('http://0x7f.1/'), { authority: '127.0.0.1', path: '/' })
  t.match(absoluteTarget('http://example.com//evil.com@x/..'), {
    authority: 'example.com',
    path: '//evil.com@x/..',
  })
  for (const wrong of [
    ...[
      '/',
      '*',
      'example.com',
      'https://example.com/',
      'ftp://a/',
      'http:/a',
      'http:a',
      'http://',
      'http:///a',
    ],
    ...[
      'http://u@a/',
      'http://u:p@a/',
      'http://allowed@evil/',
      'http://a#b',
      'http://a/b#c',
      'http://a\\b/',
      'http://a:/',
    ],
    ...[
      'http://a%2eb/',
      'http://a:80:90/',
      ' http://a/',
      '//a/',
      'http://[::1/',
      'http://a,b/',
      'HTTP:\\\\a',
    ],
  ]) {
    t.throws(() => absoluteTarget(wrong), { name: 'TargetError' }, shown(wrong))
  }
})
