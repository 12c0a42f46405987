import t from 'tap'
import { allowedHost, listenHost, origin } from '../../src/config/addresses.ts'
import type { ValueType } from '../../src/config/values.ts'

function check(t: Tap, type: ValueType<string>, cases: readonly (readonly [string, string])[]): void {
  for (const [input, expected] of cases) {
    const parsed = type.parse(input)
    t.equal(parsed.ok ? parsed.value : parsed.faults[0]?.message, expected, input)
  }
}
type Tap = Pick<typeof t, 'equal'>

t.test('an address to listen on is an IP address or a name', async (t) => {
  check(t, listenHost, [
    ['127.0.0.1', '127.0.0.1'],
    ['::1', '::1'],
    ['::', '::'],
    ['FE80::1', 'fe80::1'],
    ['LocalHost', 'localhost'],
    ['my-host.example.com', 'my-host.example.com'],
    ['1password.local', '1password.local'],
    ['*', '"*" is not an address: write 0.0.0.0 (IPv4) or :: (IPv6 too)'],
    ['0.0.0.0:8080', 'has a port in it: write 0.0.0.0, the port is a key of its own'],
    ['localhost:1', 'has a port in it: write localhost, the port is a key of its own'],
    ['[::1]:80', 'has a port in it: write ::1, the port is a key of its own'],
    ['[::1]', 'write ::1, without brackets'],
    ['http://localhost', '"http://localhost" is not an IP address or host name'],
    ['a b', '"a b" is not an IP address or host name'],
    ['-a', '"-a" is not an IP address or host name'],
    ['a..b', '"a..b" is not an IP address or host name'],
    ['', 'is empty: give it a value or leave it out'],
  ])
})

t.test('numbers that a resolver would read as an address are refused', async (t) => {
  for (const input of [
    '127.1',
    '2130706433',
    '0x7f.1',
    '0x7f000001',
    '0177.0.0.01',
    '1.2.3.4.5',
    '300.1.1.1',
  ])
    t.notOk(listenHost.parse(input).ok, input)
})

t.test('an allowed host is a host, with or without a port', async (t) => {
  check(t, allowedHost, [
    ['MCP.example.com', 'mcp.example.com'],
    ['mcp.example.com:8443', 'mcp.example.com:8443'],
    ['10.0.0.1:80', '10.0.0.1:80'],
    ['[::1]', '[::1]'],
    ['[::1]:8080', '[::1]:8080'],
    ['::1', 'an IPv6 address stands in brackets here: write [::1]'],
    ['*', 'wildcards are not allowed: any name would then pass, and the check is what stops DNS rebinding'],
    [
      '*.example.com',
      'wildcards are not allowed: any name would then pass, and the check is what stops DNS rebinding',
    ],
    ['https://example.com', 'has a scheme: write only host or host:port'],
    ['example.com:99999', '"example.com:99999" is not a host or host:port'],
    ['example.com:', '"example.com:" is not a host or host:port'],
    ['example.com/x', '"example.com/x" is not a host or host:port'],
  ])
})

t.test('an allowed origin is taken as browsers write it', async (t) => {
  const notOne = 'is not an origin: write scheme://host or scheme://host:port'
  const anyPage =
    'wildcards are not allowed: any web page could then use the server through its visitor’s browser'
  check(t, origin, [
    ['https://app.example.com', 'https://app.example.com'],
    ['HTTPS://App.Example.com:443', 'https://app.example.com'],
    ['http://localhost:3000', 'http://localhost:3000'],
    ['http://[::1]:3000', 'http://[::1]:3000'],
    ['https://bücher.example', 'https://xn--bcher-kva.example'],
    ['vscode-webview://0f2c', 'vscode-webview://0f2c'],
    ['chrome-extension://abcdefgh', 'chrome-extension://abcdefgh'],
    ['*', anyPage],
    ['https://*.example.com', anyPage],
    ['null', 'null is the origin of every sandboxed page, so it cannot be trusted'],
    ['https://app.example.com/', 'has a path: write https://app.example.com'],
    ['https://app.example.com/x?y', 'has a path: write https://app.example.com'],
    ['https://me:hunter2@example.com', 'has credentials in it: write scheme://host or scheme://host:port'],
    ['app.example.com', `"app.example.com" ${notOne}`],
    ['https://', `"https://" ${notOne}`],
    ['https://a:99999', `"https://a:99999" ${notOne}`],
    ['app://a:99999', `"app://a:99999" ${notOne}`],
    ['app://a b', `"app://a b" ${notOne}`],
  ])
})
