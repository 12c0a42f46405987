import t, { type Test } from 'tap'
import type { Parsed } from '../../src/config/parsed.ts'
import type { ValueType } from '../../src/config/values.ts'
import {
  credentialHeader,
  fetchUrl,
  headerName,
  issuerUrl,
  network,
  plainHttp,
  redisUrl,
  resourceUrl,
  scope,
  trustedNetwork,
  word,
} from '../../src/config/words.ts'

function outcome(parsed: Parsed<unknown>): unknown {
  return parsed.ok ? parsed.value : parsed.faults.map(({ message }) => message).join('; ')
}

function table(t: Test, type: ValueType<string>, rows: Readonly<Record<string, string | RegExp>>): void {
  for (const [input, wanted] of Object.entries(rows)) {
    if (typeof wanted === 'string') t.equal(outcome(type.parse(input)), wanted, input)
    else t.match(outcome(type.parse(input)), wanted, input)
  }
}

t.test('names of headers are in lower case, and a credential has one of its own', async (t) => {
  table(t, headerName, { 'X-API-Key': 'x-api-key', 'X Y': /^is not the name/, 'X:': /^is not the name/ })
  table(t, credentialHeader, {
    'X-API-Key': 'x-api-key',
    Authorization: /^authorization has another meaning/,
    Cookie: /has another meaning/,
    'Mcp-Session-Id': /has another meaning/,
    'X-Forwarded-For': /has another meaning/,
    'a b': /^is not the name/,
  })
})

t.test('a scope is one token', async (t) => {
  table(t, scope, {
    'mcp:tools': 'mcp:tools',
    'a b': /write a list, one scope an item/,
    'a"b': /is not a scope/,
    'a\\b': /is not a scope/,
    ä: /is not a scope/,
  })
})

t.test('addresses and networks are checked, and trusting everybody is refused', async (t) => {
  table(t, network, {
    '10.0.0.0/8': '10.0.0.0/8',
    '::1': '::1',
    '0.0.0.0/0': '0.0.0.0/0',
    '10.0.0.0/33': /neither an IP address/,
    example: /neither an IP address/,
  })
  table(t, trustedNetwork, {
    '10.0.0.0/8': '10.0.0.0/8',
    '0.0.0.0/0': /^is every address/,
    '::/0': /^is every/,
  })
})

t.test('an issuer is kept letter by letter, a resource is written in one way', async (t) => {
  table(t, issuerUrl, {
    'https://ID.example.com/': 'https://ID.example.com/',
    'https://id.example.com/a?b': /has a query/,
    'https://id.example.com/a#b': /has a fragment/,
    'ftp://id.example.com': 'must begin with https:// or http://',
    'id.example.com': /is not a URL/,
  })
  table(t, resourceUrl, {
    'HTTPS://MCP.Example.com:443/mcp/': 'https://mcp.example.com/mcp',
    'https://mcp.example.com': 'https://mcp.example.com',
    'https://mcp.example.com/#': /has a fragment/,
    'https://mcp.example.com/?': /has a query/,
  })
})

t.test('no URL has credentials in it, and none is repeated', async (t) => {
  for (const type of [issuerUrl, resourceUrl, fetchUrl]) {
    const message = outcome(type.parse('https://me:hunter2@example.com/x'))
    t.match(message, /^has credentials in it/)
  }
  t.match(outcome(redisUrl.parse('redis://:hunter2@redis:6379')), /^has a password in it: put it into a file/)
  for (const input of ['https://me:hunter2@example.com', 'hunter2', 'redis://me:hunter2@r', 'ftp://hunter2/'])
    for (const type of [issuerUrl, resourceUrl, fetchUrl, redisUrl])
      t.notMatch(JSON.stringify(type.parse(input)), 'hunter2')
  table(t, redisUrl, {
    'rediss://r:6379/2': 'rediss://r:6379/2',
    'http://r': /must begin with rediss:\/\/ or redis/,
  })
})

t.test('plain http is for loopback addresses, and only where it is allowed', async (t) => {
  t.equal(plainHttp('https://id.example.com', false), undefined)
  t.match(plainHttp('http://id.example.com', true), /whoever is on the way/)
  t.match(plainHttp('http://127.0.0.1:8080/x', false), /allowHttp: true/)
  t.equal(plainHttp('http://127.0.0.1:8080/x', true), undefined)
  t.equal(plainHttp('http://[::1]/x', true), undefined)
})

t.test('no name is endless', async (t) => {
  t.match(outcome(word('text').parse('x'.repeat(513))), /is longer than 512/)
  t.equal(outcome(word('text').parse('x'.repeat(512))), 'x'.repeat(512))
})
