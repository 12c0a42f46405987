import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Client, ClientCredentialsProvider, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import t from 'tap'
import { configFile } from '../support/config-file.ts'
import { official } from '../support/everything.ts'
import { forwardClock } from '../support/forward-clock.ts'
import { identityProvider } from '../support/identity-provider.ts'
import { Application, connectTo } from '../support/oauth-client.ts'
import { startTestSidecar } from '../support/sidecar.ts'

const scopes = ['mcp:read', 'mcp:write', 'mcp:admin', 'mcp:audit']
const idp = await identityProvider(t, { scopes })
const clock = forwardClock()
const files = { secret: `${idp.client.secret}\n` }
const oidc = {
  issuer: idp.issuer,
  clientId: idp.client.id,
  clientSecretFile: 'secret',
  scopes: ['mcp:read'],
}
const auth = { fetching: { allowHttp: true, allowPrivateAddresses: true }, oidc }
const authorization = {
  scopes: [
    { tools: ['get-sum', 'echo'], scopes: ['mcp:write'] },
    { methods: ['tools/call'], tools: ['get-sum'], scopes: ['mcp:audit'] },
  ],
  impliedScopes: { 'mcp:admin': ['mcp:read', 'mcp:write', 'mcp:audit'] },
}
const { url } = await startTestSidecar(t, {
  command: official('server-everything'),
  flags: configFile(t, { auth, authorization }, files),
  clock,
})

for (const pinned of [false, true]) {
  t.test(`a stock client goes from a URL to a tool call, ${pinned ? '2026-07-28' : 'with a session'}`, async (t) => {
    const application = new Application(idp.visit)
    const { client, loggedIn } = await connectTo(url, application, pinned)
    t.equal(application.asked.length, 1)
    t.equal(application.asked[0]?.searchParams.get('resource'), url)
    t.equal(application.asked[0]?.searchParams.get('scope'), 'mcp:read')
    t.ok(await client.listTools())
    const sum = () => client.callTool({ name: 'get-sum', arguments: { a: 1, b: 2 } })
    t.match(await loggedIn(sum), { content: [{ text: /3/ }] })
    console.log(application.asked.map(String))
    await client.close()
  })
}
