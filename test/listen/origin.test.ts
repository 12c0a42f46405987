import fc from 'fast-check'
import t from 'tap'
import { SidecarError } from '../../src/core/errors.ts'
import type { Received, Trusted } from '../../src/core/types.ts'
import {
  checkOrigin,
  corsHeaders,
  type HostAndOrigin,
  hostAndOrigin,
  type OriginOptions,
  preflightHeaders,
} from '../../src/listen/origin.ts'
import { holds, shown } from '../support/property.ts'

const defaults: OriginOptions = {
  host: '127.0.0.1',
  authenticated: false,
  allowedHosts: [],
  allowedOrigins: [],
}
const policyOf = (options: Partial<OriginOptions> = {}): HostAndOrigin =>
  hostAndOrigin({ ...defaults, ...options })

/** ERR_HOST, ERR_ORIGIN or served. */
function verdict(policy: HostAndOrigin, host: string | undefined, origin?: string): string {
  try {
    policy.check(host, origin)
    return 'served'
  } catch (thrown) {
    if (thrown instanceof SidecarError) return thrown.code
    throw thrown
  }
}

const loopbackHosts = [
  'localhost',
  'LOCALHOST:8080',
  'localhost.',
  '127.0.0.1',
  '127.0.0.1:8080',
  '127.9.9.9',
  '[::1]',
  '[::1]:80',
]
const rebound = [
  ...[
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    'evil.example:8080',
    'LOCALHOST.EVIL.EXAMPLE',
  ],
  ...[
    'localhost@evil.example',
    'evil.example#localhost',
    'evil.example/localhost',
    'localhost\\@evil.example',
  ],
  ...[
    'xn--localhost-.example',
    '10.0.0.1',
    '[::2]',
    '0.0.0.0',
    '[::]',
    'a.local',
    'localhost,evil.example',
    '',
  ],
]

t.test('on a loopback address only loopback names are served', async (t) => {
  for (const host of ['127.0.0.1', '::1', 'localhost']) {
    const policy = policyOf({ host })
    for (const name of loopbackHosts) t.equal(verdict(policy, name), 'served', `${name} on ${host}`)
    for (const name of rebound) t.equal(verdict(policy, name), 'ERR_HOST', `${shown(name)} on ${host}`)
    t.equal(verdict(policy, undefined), 'ERR_HOST', 'no Host at all')
  }
  t.equal(verdict(policyOf({ authenticated: true }), 'evil.example'), 'ERR_HOST', 'authenticated or not')
})

t.test('whatever is served on a loopback address is loopback for a browser, too', async (t) => {
  const part = fc.constantFrom(
    'localhost',
    '127.0.0.1',
    '[::1]',
    '.',
    '@',
    ':',
    '80',
    '/',
    '\\',
    '#',
    '?',
    '%2e',
    'evil',
    'example',
    ' ',
    '\t',
    '127',
    '1',
    '0x7f',
    '[',
    ']',
    '::ffff:',
    ',',
  )
  const authority = fc.oneof(
    fc.string(),
    fc.array(part, { maxLength: 6 }).map((parts) => parts.join('')),
  )
  const policy = policyOf()
  holds(
    t,
    fc.property(authority, (host) => {
      if (verdict(policy, host) !== 'served' || !URL.canParse(`http://${host}/`)) return true
      return /^(localhost\.?|127(\.\d+){3}|\[::1\]|\[::ffff:7f[0-9a-f]*:[0-9a-f]*\])$/.test(
        new URL(`http://${host}/`).hostname,
      )
    }),
    2000,
  )
  holds(
    t,
    fc.property(authority, (host) => {
      if (verdict(policy, 'localhost', `http://${host}`) !== 'served') return true
      return /^(localhost\.?|127(\.\d+){3}|\[::1\]|\[::ffff:7f[0-9a-f]*:[0-9a-f]*\])$/.test(
        new URL(`http://${host}`).hostname,
      )
    }),
    2000,
  )
})

t.test('on a loopback address pages of this machine may call, and programs', async (t) => {
  const policy = policyOf()
  t.equal(verdict(policy, 'localhost'), 'served', 'programs send no Origin')
  for (const origin of [
    'http://localhost:6274',
    'https://localhost',
    'http://127.0.0.1:3000',
    'http://[::1]:3000',
  ])
    t.equal(verdict(policy, 'localhost', origin), 'served', origin)
  const others = [
    ...[
      'null',
      '',
      'http://evil.example',
      'https://localhost.evil.example',
      'http://localhost@evil.example',
      'localhost',
    ],
    ...[
      'http://evil.example:80/localhost',
      'http://localhost/',
      'http://localhost/x',
      'file://',
      'file://localhost',
    ],
    ...[
      'chrome-extension://localhost',
      'http://localhost, http://evil.example',
      'http://localhost http://evil.example',
    ],
    ...[
      'http://10.0.0.1',
      'http://evil.example#@localhost',
      'ws://localhost',
      '//localhost',
      'http://',
      'http:localhost',
    ],
  ]
  for (const origin of others) t.equal(verdict(policy, 'localhost', origin), 'ERR_ORIGIN', shown(origin))
})

t.test(
  'on another address without authentication, names that an outsider can point here are refused',
  async (t) => {
    const policy = policyOf({ host: '0.0.0.0' })
    const inside = [
      '10.0.0.1:8080',
      '[fd00::1]',
      'sidecar',
      'tools.ns.svc',
      'tools.ns.svc.cluster.local:80',
      'localhost',
      'TOOLS.NS.SVC.',
    ]
    for (const host of inside) t.equal(verdict(policy, host), 'served', host)
    const outside = [
      'evil.example',
      'svc.evil.example',
      'a.svc.evil',
      'a.cluster.local.evil.example',
      'a.local',
      '1.2.3.4.example',
      '1.2.3',
      'a.svcc',
    ]
    for (const host of outside) t.equal(verdict(policy, host), 'ERR_HOST', host)
    holds(
      t,
      fc.property(fc.domain(), fc.integer({ min: 1, max: 65_535 }), (domain, port) => {
        fc.pre(!/\.(svc|cluster\.local)$/i.test(domain))
        return verdict(policy, domain) === 'ERR_HOST' && verdict(policy, `${domain}:${port}`) === 'ERR_HOST'
      }),
    )
  },
)

t.test('on another address pages may call only from allowed origins', async (t) => {
  for (const authenticated of [true, false]) {
    const policy = policyOf({ host: '0.0.0.0', authenticated, allowedOrigins: ['https://app.example'] })
    t.equal(verdict(policy, '10.0.0.1', 'https://app.example'), 'served')
    t.equal(verdict(policy, '10.0.0.1', 'HTTPS://APP.example'), 'served')
    for (const origin of [
      'http://app.example',
      'https://app.example:8443',
      'https://app.example.evil.example',
      'http://localhost',
      'null',
      'http://10.0.0.1',
    ])
      t.equal(verdict(policy, '10.0.0.1', origin), 'ERR_ORIGIN', origin)
  }
})

t.test('with authentication any name is served, unless names are configured', async (t) => {
  const any = policyOf({ host: '0.0.0.0', authenticated: true })
  t.equal(verdict(any, 'anything.example'), 'served')
  t.equal(verdict(any, 'not a host'), 'ERR_HOST')
  t.equal(verdict(any, undefined), 'ERR_HOST')
  const named = policyOf({ host: '0.0.0.0', authenticated: true, allowedHosts: ['tools.example'] })
  t.equal(verdict(named, 'tools.example'), 'served')
  t.equal(verdict(named, 'anything.example'), 'ERR_HOST')
  t.equal(verdict(named, 'localhost'), 'ERR_HOST')
})

t.test('a configured name is served in any letter case; with a port only at that port', async (t) => {
  for (const host of ['127.0.0.1', '0.0.0.0']) {
    const policy = policyOf({ host, allowedHosts: ['Tools.Example', 'other.example:8443'] })
    for (const name of [
      'tools.example',
      'TOOLS.EXAMPLE:80',
      'tools.example.',
      'other.example:8443',
      'Other.Example:8443',
    ])
      t.equal(verdict(policy, name), 'served', name)
    for (const name of [
      'other.example',
      'other.example:80',
      'x.tools.example',
      'tools.example.evil.example',
      'tools.example@evil.example',
    ])
      t.equal(verdict(policy, name), 'ERR_HOST', name)
  }
})

t.test('the verdict does not depend on what was asked before', async (t) => {
  const host = fc.option(fc.constantFrom(...loopbackHosts, ...rebound, 'tools.example'), { nil: undefined })
  const origin = fc.option(fc.constantFrom('http://localhost', 'http://evil.example', 'null'), {
    nil: undefined,
  })
  const options = fc.record({
    host: fc.constantFrom('127.0.0.1', '0.0.0.0'),
    authenticated: fc.boolean(),
    allowedHosts: fc.constantFrom([], ['tools.example']),
  })
  holds(
    t,
    fc.property(options, fc.array(fc.tuple(host, origin), { maxLength: 8 }), (options, asked) => {
      const policy = policyOf(options)
      return asked.every(
        ([host, origin]) => verdict(policy, host, origin) === verdict(policyOf(options), host, origin),
      )
    }),
    500,
  )
})

t.test('a refusal tells the log what was sent and where to allow it, and the client nothing', async (t) => {
  t.throws(() => policyOf().check('evil.example\u001b', undefined), {
    code: 'ERR_HOST',
    detail: 'Host "evil.example\\u001b" (listen.allowedHosts, --allow-host)',
    message: 'This Host is not served here.',
  })
  t.throws(() => policyOf().check('localhost', 'http://evil.example'), {
    code: 'ERR_ORIGIN',
    detail: 'Origin "http://evil.example" (listen.allowedOrigins, --allow-origin)',
  })
})

t.test('the layer asks the policy of the moment and hands on the origin', async (t) => {
  let policy = policyOf()
  const layer = checkOrigin<Received>(() => policy)
  const received = (host: string, origin?: string): Received =>
    ({ requestId: 'r', headers: origin === undefined ? { host } : { host, origin } }) as unknown as Received
  const passed: (string | undefined)[] = []
  const next = (trusted: Pick<Trusted, 'origin'>): void => void passed.push(trusted.origin)
  await layer(received('localhost'), next)
  await layer(received('localhost', 'http://localhost:1'), next)
  t.throws(() => layer(received('tools.example'), next), { code: 'ERR_HOST' })
  policy = policyOf({ allowedHosts: ['tools.example'] })
  await layer(received('tools.example'), next)
  t.same(passed, [undefined, 'http://localhost:1', undefined])
})

t.test('CORS names the one origin that asked, never all, and no credentials of the browser', async (t) => {
  const headers = corsHeaders('https://app.example')
  t.equal(headers['Access-Control-Allow-Origin'], 'https://app.example')
  t.equal(headers['Vary'], 'Origin')
  t.match(headers['Access-Control-Expose-Headers'], 'Mcp-Session-Id')
  t.notMatch(JSON.stringify({ ...headers, ...preflightHeaders(undefined) }), /Allow-Credentials|\*/)
})

t.test('a preflight allows every method and header that MCP clients use', async (t) => {
  const allowed = preflightHeaders(undefined)['Access-Control-Allow-Headers']?.toLowerCase().split(', ') ?? []
  for (const header of [
    'authorization',
    'content-type',
    'accept',
    'mcp-session-id',
    'mcp-protocol-version',
    'last-event-id',
  ])
    t.ok(allowed.includes(header), header)
  t.same(preflightHeaders(undefined)['Access-Control-Allow-Methods']?.split(', '), ['GET', 'POST', 'DELETE'])
})

t.test('headers that a tool has named may be sent, and no others of that look', async (t) => {
  const allowed = (requested: string): string[] =>
    (preflightHeaders(requested)['Access-Control-Allow-Headers'] ?? '').split(', ')
  t.ok(allowed('authorization, Mcp-Param-Region,mcp-param-tier').includes('mcp-param-region'))
  t.ok(allowed('mcp-param-tier').includes('mcp-param-tier'))
  t.notOk(allowed('x-evil, mcp-param-').some((name) => ['x-evil', 'mcp-param-'].includes(name)))
  t.notMatch(preflightHeaders('mcp-param-a\r\nx: y')['Access-Control-Allow-Headers'], /[\r\n]/)
  const many = Array.from({ length: 5000 }, (_, i) => `mcp-param-${i}`).join(',')
  t.ok((preflightHeaders(many)['Access-Control-Allow-Headers'] ?? '').length < 4000)
})

t.test('a header of credentials that was configured may be sent by pages', async (t) => {
  const { 'Access-Control-Allow-Headers': headers } = preflightHeaders(undefined, [
    'x-notes-key',
    'x-api-key',
  ])
  t.match(headers, /\bx-notes-key\b/)
  t.equal(headers?.match(/x-api-key/g)?.length, 1)
})
