import t from 'tap'
import { createDiscovery } from '../../src/authn/discovery.ts'
import { createFetcher } from '../../src/authn/fetching.ts'
import type { Clock } from '../../src/core/types.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { ManualClock } from '../support/modern-calls.ts'
import {
  html,
  json,
  redirect,
  type ScriptedIssuer,
  scriptedIssuer,
  silence,
} from '../support/scripted-issuer.ts'
import { recordingLog } from '../support/token-requests.ts'

const oidc = '/.well-known/openid-configuration'
const oauth = '/.well-known/oauth-authorization-server'

function discoveryOf(server: ScriptedIssuer, path = '', fetching: Clock = systemClock) {
  const log = recordingLog()
  const clock = new ManualClock()
  const fetcher = createFetcher(server.fetching, { clock: fetching })
  return { log, clock, discovery: createDiscovery(`${server.url}${path}`, fetcher, { clock, log }) }
}

const why = (work: Promise<unknown>): Promise<string> =>
  work.then(
    (value) => `found ${value}`,
    (thrown: { code?: string; detail?: string }) => `${thrown.code}: ${thrown.detail}`,
  )

t.test('the document is found where OpenID Connect has it, else where RFC 8414 does', async (t) => {
  const server = await scriptedIssuer(t)
  server.answers[oidc] = json({ issuer: server.url, jwks_uri: 'https://issuer.example/keys' })
  t.equal(await discoveryOf(server).discovery.endpoint('jwks_uri'), 'https://issuer.example/keys')
  server.answers[`/tenant${oidc}`] = json({ issuer: `${server.url}/tenant`, jwks_uri: 'https://a' })
  t.equal(await discoveryOf(server, '/tenant').discovery.endpoint('jwks_uri'), 'https://a')
  delete server.answers[oidc]
  server.answers[oauth] = json({ issuer: server.url, jwks_uri: 'https://b' })
  t.equal(await discoveryOf(server).discovery.endpoint('jwks_uri'), 'https://b')
  server.answers[`${oauth}/realm`] = json({ issuer: `${server.url}/realm`, jwks_uri: 'https://c' })
  server.answers['*'] = html
  t.equal(await discoveryOf(server, '/realm').discovery.endpoint('jwks_uri'), 'https://c')
})

t.test('a document of another issuer is not believed', async (t) => {
  const server = await scriptedIssuer(t)
  for (const issuer of ['https://evil.example', `${server.url}/`, undefined, 5]) {
    server.answers[oidc] = json({ issuer, jwks_uri: 'https://evil.example/keys' })
    const { discovery, log } = discoveryOf(server)
    t.match(await why(discovery.endpoint('jwks_uri')), /^ERR_AUTH_INVALID: .*it says that its issuer is/)
    t.match(log.lines, [/configure exactly that/])
  }
  t.notOk(server.asked.includes(`GET ${oauth}`), 'and that is no reason to look further')
})

t.test('an issuer that redirects, answers HTML or is slow has no document', async (t) => {
  const server = await scriptedIssuer(t)
  server.answers['*'] = redirect('https://evil.example/')
  t.match(
    await why(discoveryOf(server).discovery.endpoint('jwks_uri')),
    /openid-configuration: it answered with a redirect.*authorization-server: it answered with a redirect/,
  )
  server.answers['*'] = html
  t.match(await why(discoveryOf(server).discovery.endpoint('jwks_uri')), /HTML/)
  server.answers['*'] = (response) => void response.end(JSON.stringify({ pad: 'x'.repeat(300_000) }))
  t.match(await why(discoveryOf(server).discovery.endpoint('jwks_uri')), /more than 262144 bytes/)
  server.answers['*'] = silence
  const before = server.asked.length
  const fetching = new ManualClock()
  const slow = why(discoveryOf(server, '', fetching).discovery.endpoint('jwks_uri'))
  while (server.asked.length === before) await new Promise((resolve) => setTimeout(resolve, 5))
  fetching.pass(server.fetching.timeoutMs)
  t.match(await slow, /did not answer in full within 5000 ms/)
  t.equal(server.asked.length, before + 1, 'who is slow is not asked twice')
})

t.test('what is not in the document is missing', async (t) => {
  const server = await scriptedIssuer(t)
  server.answers[oidc] = json({ issuer: server.url, jwks_uri: 5 })
  const { discovery } = discoveryOf(server)
  t.match(await why(discovery.endpoint('jwks_uri')), /has no jwks_uri/)
  t.match(await why(discovery.endpoint('introspection_endpoint')), /has no introspection_endpoint/)
})

t.test('it is renewed after 10 minutes, in the background', async (t) => {
  const server = await scriptedIssuer(t)
  const document = { issuer: server.url, jwks_uri: 'https://a' }
  server.answers[oidc] = json(document)
  const { discovery, clock } = discoveryOf(server)
  discovery.start()
  t.equal(await discovery.endpoint('jwks_uri'), 'https://a')
  server.answers[oidc] = json({ ...document, jwks_uri: 'https://b' })
  clock.pass(10 * 60_000 - 1)
  t.equal(await discovery.endpoint('jwks_uri'), 'https://a')
  t.equal(server.asked.length, 1)
  clock.pass(1)
  t.equal(await discovery.endpoint('jwks_uri'), 'https://a')
  while ((await discovery.endpoint('jwks_uri')) !== 'https://b')
    await new Promise((resolve) => setTimeout(resolve, 5))
  t.equal(server.asked.length, 2)
})
