import fc from 'fast-check'
import t from 'tap'
import { createResourceMetadata, type ResourceMetadataOptions } from '../../src/authn/resource-metadata.ts'
import { holds } from '../support/property.ts'

const base: ResourceMetadataOptions = {
  resource: () => 'https://mcp.example/mcp',
  authorizationServers: ['https://issuer.example'],
  scopesSupported: [],
}
const wellKnown = '/.well-known/oauth-protected-resource'

t.test('the document names the resource and where to get tokens for it', async (t) => {
  t.same(createResourceMetadata(base).document(), {
    resource: 'https://mcp.example/mcp',
    authorization_servers: ['https://issuer.example'],
    bearer_methods_supported: ['header'],
  })
  const more = createResourceMetadata({
    ...base,
    authorizationServers: ['https://a.example', 'https://b.example', 'https://a.example'],
    scopesSupported: ['mcp:read', 'offline_access', 'mcp:read', 'mcp:write'],
    resourceName: 'Search',
  })
  t.match(more.document(), {
    authorization_servers: ['https://a.example', 'https://b.example'],
    scopes_supported: ['mcp:read', 'mcp:write'],
    resource_name: 'Search',
  })
})

t.test('it is served at the well-known path, and with the path of the resource appended', async (t) => {
  const { serves } = createResourceMetadata(base)
  t.ok(serves(wellKnown))
  t.ok(serves(`${wellKnown}/mcp`))
  for (const path of [
    `${wellKnown}/`,
    `${wellKnown}/sse`,
    `${wellKnown}/mcp/`,
    '/mcp',
    '/',
    '/.well-known/other',
  ]) {
    t.notOk(serves(path), path)
  }
  const root = createResourceMetadata({ ...base, resource: () => 'https://mcp.example/' })
  t.ok(root.serves(wellKnown))
  t.notOk(root.serves(`${wellKnown}/`))
})

t.test('without an authorization server there is no document, and challenges point to none', async (t) => {
  const none = createResourceMetadata({ ...base, authorizationServers: [], scopesSupported: ['a'] })
  t.equal(none.document(), undefined)
  t.notOk(none.serves(wellKnown))
  t.notOk(none.serves(`${wellKnown}/mcp`))
  t.equal(none.bearerChallenge(undefined, []), 'Bearer')
  t.equal(none.bearerChallenge(undefined, ['a', 'b']), 'Bearer scope="a b"')
})

t.test('a challenge says what was wrong, what is needed, and where to read on', async (t) => {
  const { bearerChallenge } = createResourceMetadata(base)
  const at = `resource_metadata="https://mcp.example${wellKnown}/mcp"`
  t.equal(bearerChallenge(undefined, []), `Bearer ${at}`)
  t.equal(bearerChallenge(undefined, ['mcp:read']), `Bearer scope="mcp:read", ${at}`)
  t.equal(
    bearerChallenge('invalid_token', []),
    `Bearer error="invalid_token", error_description="The access token is not valid here.", ${at}`,
  )
  t.equal(
    bearerChallenge('insufficient_scope', ['a', 'b', 'a', 'offline_access']),
    'Bearer error="insufficient_scope", error_description="The access token lacks a scope that this operation needs.", ' +
      `scope="a b", ${at}`,
  )
})

t.test('a resource keeps its port and query, and may change', async (t) => {
  let resource = 'http://127.0.0.1:8080/a/b'
  const metadata = createResourceMetadata({ ...base, resource: () => resource })
  t.match(
    metadata.bearerChallenge(undefined, []),
    `resource_metadata="http://127.0.0.1:8080${wellKnown}/a/b"`,
  )
  resource = 'https://mcp.example/x?tenant="1"'
  t.match(
    metadata.bearerChallenge(undefined, []),
    `resource_metadata="https://mcp.example${wellKnown}/x?tenant=%221%22"`,
  )
  t.ok(metadata.serves(`${wellKnown}/x`))
  t.notOk(metadata.serves(`${wellKnown}/a/b`))
  for (const wrong of ['mcp', 'ftp://mcp.example/', 'https://mcp.example/#a', 'https://user@mcp.example/']) {
    resource = wrong
    t.throws(
      () => metadata.document(),
      { name: 'TokenMethodError', message: /is not a URL of this server/ },
      wrong,
    )
  }
})

t.test('mistakes are told when it is built', async (t) => {
  for (const scope of ['', 'a b', 'a"b', 'a\\b', 'caf\u00e9', 'a\n']) {
    t.throws(
      () => createResourceMetadata({ ...base, scopesSupported: [scope] }),
      { message: /is no scope/ },
      scope,
    )
  }
  for (const server of ['issuer', 'urn:issuer', '']) {
    t.throws(() => createResourceMetadata({ ...base, authorizationServers: [server] }), {
      message: /is not an https URL/,
    })
  }
})

t.test('whatever the scopes are, a challenge is one header value that reads as it was meant', async (t) => {
  const { bearerChallenge } = createResourceMetadata(base)
  const scope = fc.string({ unit: 'binary', maxLength: 8 })
  holds(
    t,
    fc.property(fc.array(scope, { maxLength: 4 }), (scopes) => {
      const challenge = bearerChallenge('insufficient_scope', scopes)
      const good = [...new Set(scopes.filter((each) => /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(each)))]
      const read = /^Bearer (?:[a-z_]+="[^"\\]*"(?:, |$))+$/.test(challenge)
        ? /scope="([^"]*)"/.exec(challenge)?.[1]
        : 'x'
      return read === (good.length === 0 ? undefined : good.join(' '))
    }),
    500,
  )
})
