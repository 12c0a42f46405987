import t, { type Test } from 'tap'
import type { ConfigError } from '../../src/config/load.ts'
import { configFile } from '../support/config-file.ts'
import { type ForwardClock, forwardClock } from '../support/forward-clock.ts'
import { hmac, jwtOf, signingKey } from '../support/jwt-keys.ts'
import { type KubernetesApi, kubernetesApi, type TokenOptions } from '../support/kubernetes-api.ts'
import { listenTo, streamed } from '../support/modern.ts'
import { refused } from '../support/refusal.ts'
import { explained, shapeOf } from '../support/refusals.ts'
import { cut, html, json, redirect, silence } from '../support/scripted-issuer.ts'
import { startTestSidecar, type TestOptions, type TestSidecar, until } from '../support/sidecar.ts'
import { openSocket, openSse } from '../support/streams.ts'
import { openVoices } from '../support/voices.ts'
import { waysInto } from '../support/ways-in.ts'
import { follow, initialize, open, openSession, post, send } from '../support/wire.ts'

type Headers = Record<string, string>
type Mode = 'token-review' | 'jwks'

const modes = ['token-review', 'jwks'] as const
const bearer = (token: string): Headers => ({ Authorization: `Bearer ${token}` })
/** Permitted to everybody who is let in. */
const ping = { jsonrpc: '2.0', id: 1, method: 'ping' }
const letIn = 400
const knock = async (url: string, token: string): Promise<number> =>
  (await send(url, 'DELETE', bearer(token))).status
const reviewing = 'POST /apis/authentication.k8s.io/v1/tokenreviews'
const fetching = 'GET /openid/v1/jwks'

interface Cluster extends TestSidecar {
  readonly api: KubernetesApi
  readonly clock: ForwardClock
  /** How often the API server was asked so far, for a token or for its keys. */
  asked(): number
}

interface Setup {
  readonly method?: object
  readonly more?: object
  readonly options?: TestOptions
  readonly api?: KubernetesApi
}

/** A sidecar in a pod of a cluster. */
async function inCluster(t: Test, mode: Mode, setup: Setup = {}): Promise<Cluster> {
  const api = setup.api ?? (await kubernetesApi(t))
  const clock = forwardClock()
  const kubernetes = {
    ...{ mode, audiences: ['mcp'], apiServer: api.url, issuer: api.issuer },
    ...{ tokenFile: api.tokenFile, caFile: api.caFile, ...setup.method },
  }
  const flags = configFile(t, { listen: { webSocket: true }, auth: { kubernetes }, ...setup.more })
  const config = { server: { warmSpares: 0 } }
  const started = await startTestSidecar(t, { config, clock, ...setup.options, flags })
  const path = mode === 'jwks' ? fetching : reviewing
  return { ...started, api, clock, asked: () => api.asked.filter((each) => each === path).length }
}

const rules = [
  {
    principals: ['serviceaccount:team-a/reader'],
    permissions: [{ tools: ['echo'], actions: ['tools/call'] }],
  },
  {
    principals: ['group:system:serviceaccounts:team-b'],
    permissions: [{ tools: ['pid'], actions: ['tools/call'] }],
  },
]
const clusters = {
  'token-review': await inCluster(t, 'token-review', { more: { authorization: { rules } } }),
  jwks: await inCluster(t, 'jwks', { more: { authorization: { rules } } }),
}

for (const mode of modes) {
  const cluster = clusters[mode]
  const { api, url, base } = cluster

  t.test(
    `${mode}: accounts and groups are what rules say, on every transport and in both eras`,
    async (t) => {
      const callers: [TokenOptions, readonly string[]][] = [
        [{ namespace: 'team-a', name: 'reader' }, ['echo']],
        [{ namespace: 'team-a', name: 'writer' }, []],
        [{ namespace: 'team-b', name: 'reader', audiences: ['other', 'mcp'] }, ['pid']],
        [{ namespace: 'team-b', name: 'x.y-z', pod: undefined }, ['pid']],
      ]
      for (const [options, may] of callers) {
        const id = `serviceaccount:${options.namespace}/${options.name}`
        for (const voice of await openVoices(cluster, bearer(api.token(options))))
          for (const name of ['echo', 'pid']) {
            const { json } = await voice.ask('tools/call', { name, arguments: { text: 'x' } })
            t.equal('result' in json, may.includes(name), `${id}, ${voice.name}, ${name}`)
          }
        t.ok(
          cluster.logs.some(({ fields }) => fields['principal'] === id),
          id,
        )
      }
    },
  )

  t.test(`${mode}: a session is that of its account, whatever its token`, async (t) => {
    const session = await openSession(url, { headers: bearer(api.token()) })
    const { 'Mcp-Session-Id': id = '' } = session
    const as = (options: TokenOptions): Headers => ({ ...session, ...bearer(api.token(options)) })
    t.equal((await post(url, ping, as({ pod: 'reader-1' }))).status, 200, 'renewed, in another pod')
    for (const other of [{ name: 'writer' }, { namespace: 'team-b' }])
      refused(t, await post(url, ping, as(other)), 404, 'ERR_SESSION_UNKNOWN', 1)
    t.equal((await post(url, ping, { 'Mcp-Session-Id': id })).status, 401)
  })

  t.test(`${mode}: every token that does not hold gets the same 401, and the log says why`, async (t) => {
    const foreign = signingKey('cluster-1')
    const good = api.token()
    const [head = '', body = '', signature = ''] = good.split('.')
    const claims = JSON.parse(Buffer.from(body, 'base64url').toString())
    const { pem } = signingKey('x')
    const gone = api.token({ name: 'gone' })
    api.revoke(gone)
    const review = mode === 'token-review'
    const wrong: Record<string, [string, RegExp]> = {
      'an expired one': [api.token({ expiresIn: -3600 }), /expired/],
      'one for somebody else': [api.token({ audiences: ['vault'] }), /aud/],
      'one for the API server': [api.token({ audiences: [api.issuer] }), /aud/],
      'one without an audience': [api.token({ claims: { aud: undefined } }), /./],
      'one of a Secret': [api.legacyToken('team-a', 'reader'), review ? /aud/ : /issuer/],
      'one of another issuer': [
        foreign.token({ ...claims, iss: 'https://evil.example' }, { typ: undefined }),
        review ? /signature/ : /issuer/,
      ],
      'one with the key id of the cluster': [foreign.token(claims, { typ: undefined }), /signature/],
      'one with another account in it': [
        `${head}.${Buffer.from(JSON.stringify({ ...claims, sub: 'system:serviceaccount:kube-system:root' })).toString('base64url')}.${signature}`,
        /signature/,
      ],
      'alg none': [jwtOf({ alg: 'none' }, claims, () => ''), /./],
      'HS256 with a public key': [jwtOf({ alg: 'HS256', kid: 'cluster-1' }, claims, hmac(pem)), /./],
      'a token of something else': [
        foreign.token({ iss: api.issuer, aud: 'mcp', sub: 'alice', exp: claims.exp }),
        /not the token of a service account/,
      ],
      'no JWT': ['an-opaque-token-0123456789', /not the token of a service account/],
      ...(review ? { 'a revoked one': [gone, /invalidated/] as [string, RegExp] } : {}),
    }
    const shapes = new Set<string>()
    for (const [what, [token, reason]] of Object.entries(wrong)) {
      const { answer, why } = await explained(cluster.logs, () => post(url, initialize(), bearer(token)))
      refused(t, answer, 401, 'ERR_AUTH')
      t.match(why, reason, what)
      for (const way of Object.values(waysInto(base))) shapes.add(shapeOf(await way(bearer(token))))
    }
    t.equal(shapes.size, 1, [...shapes].join('\n'))
    t.equal(await knock(url, good), letIn)
    const everything = JSON.stringify(cluster.logs) + (await cluster.metrics())
    for (const token of [good, gone, ...Object.values(wrong).map(([each]) => each)])
      t.notOk(everything.includes(token.split('.')[2] || token), 'no token is logged')
  })

  t.test(`${mode}: many requests at once ask the API server once`, async (t) => {
    const cold = await inCluster(t, mode)
    const token = cold.api.token()
    const before = cold.asked()
    const statuses = await Promise.all(Array.from({ length: 40 }, () => knock(cold.url, token)))
    t.same([...new Set(statuses)], [letIn])
    t.equal(cold.asked() - before, mode === 'jwks' && before > 0 ? 0 : 1)
    t.ok(cold.asked() <= 1)
    for (let i = 0; i < 5; i++) await knock(cold.url, token)
    t.ok(cold.asked() <= 1, 'and later ones not at all')
  })

  t.test(`${mode}: what a token opened ends with it`, async (t) => {
    const there = await inCluster(t, mode)
    const short = bearer(there.api.token({ expiresIn: 60 }))
    const session = await openSession(there.url, { headers: short })
    const get = follow(await open(there.url, 'GET', { ...session, Accept: 'text/event-stream' }))
    const sse = await openSse(there.base, { headers: short, version: '2024-11-05' })
    const socket = await openSocket(there.base, { headers: short, version: '2025-06-18' })
    const listening = await streamed(there.url, listenTo('l', { toolsListChanged: true }), short)
    const isOpen = (): boolean[] => [
      ...[!get.isClosed(), !sse.isClosed(), socket.closed() === undefined, !listening.isClosed()],
    ]
    there.clock.forward(50_000)
    t.same(isOpen(), [true, true, true, true])
    there.clock.forward(45_000)
    await until(() => !isOpen().includes(true), `all are closed, not ${isOpen()}`)
    t.equal(socket.closed()?.code, 4401)
  })
}

t.test(
  'a review names our audiences, and an account whose API server answers nonsense is nobody',
  async (t) => {
    const { api, url } = clusters['token-review']
    t.same(api.reviews.at(-1)?.audiences, ['mcp'])
    const nonsense: Record<string, (status: Record<string, unknown>) => unknown> = {
      'no status': () => undefined,
      'no audiences': ({ audiences: _, ...status }) => status,
      'other audiences': (status) => ({ ...status, audiences: ['vault'] }),
      'authenticated as a word': (status) => ({ ...status, authenticated: 'true' }),
      'a user that is no account': (status) => ({
        ...status,
        user: { username: 'alice', groups: ['system:masters'] },
      }),
      'no user': ({ user: _, ...status }) => status,
    }
    for (const [what, tamper] of Object.entries(nonsense)) {
      api.tamper = tamper
      t.equal(await knock(url, api.token({ name: 'tampered' })), 401, what)
    }
    api.tamper = undefined
  },
)

t.test('a revoked token is refused as soon as the answer about it is old', async (t) => {
  const { api, url, clock, asked } = await inCluster(t, 'token-review', { method: { cache: '20s' } })
  const token = api.token()
  t.equal(await knock(url, token), letIn)
  api.revoke(token)
  clock.forward(15_000)
  t.equal(await knock(url, token), letIn, 'still believed')
  t.equal(asked(), 1)
  clock.forward(6000)
  t.equal(await knock(url, token), 401)
  t.equal(asked(), 2)
})

t.test('our own token and the CA may change at any time', async (t) => {
  for (const mode of modes) {
    const { api, url, clock } = await inCluster(t, mode, { method: { cache: '1s' } })
    t.equal(await knock(url, api.token()), letIn)
    // In mode jwks keys are looked for again when one is unknown, and not more often than every 30 seconds.
    const later = (): void => clock.forward(31_000)
    for (const change of [api.rotate, api.rotateCa, api.rotateKey]) {
      change()
      later()
      t.equal(await knock(url, api.token()), letIn, `${mode}, ${change.name}`)
    }
  }
})

t.test('our own token that is refused is read again at once', async (t) => {
  const { api, url } = await inCluster(t, 'token-review')
  t.equal(await knock(url, api.token()), letIn)
  api.rotate()
  await knock(url, api.token())
  t.equal(await knock(url, api.token()), letIn)
})

t.test('a burst of forged tokens is looked at no further than an address may fail', async (t) => {
  const { api, url, asked } = await inCluster(t, 'token-review', { options: { failedAttempts: 5 } })
  const claims = JSON.parse(Buffer.from(api.token().split('.')[1] ?? '', 'base64url').toString())
  const forger = signingKey('cluster-1')
  const forged = (jti: number): string => forger.token({ ...claims, jti: `${jti}` }, { typ: undefined })
  const statuses = await Promise.all(Array.from({ length: 100 }, (_, i) => knock(url, forged(i))))
  t.same([...new Set(statuses)].toSorted(), [401, 429])
  t.ok(asked() < 40, `${asked()} questions for a hundred forged tokens`)
  const before = asked()
  t.equal(await knock(url, forged(100)), 429)
  t.equal(asked(), before, 'and no further one')
})

const failures: Record<string, [KubernetesApi['answer'], RegExp]> = {
  'answers HTML': [html, /HTML/],
  'answers 500': [json({ kind: 'Status', message: 'etcd is away' }, 500), /status 500.*etcd is away/],
  'answers 429': [json({ kind: 'Status', message: 'slow down' }, 429), /status 429/],
  redirects: [redirect('https://evil.example/'), /redirect/],
  'cuts the connection': [cut, /socket hang up|ECONNRESET|ended the connection/],
  'says nothing': [silence, /did not answer in full within 3000 ms/],
  'answers too much': [json({ text: 'x'.repeat(1_100_000) }, 201), /more than \d+ bytes/],
  'answers a list': [json([], 201), /no JSON object/],
}

t.test(
  'while the API server cannot be asked, tokens are refused, nobody is blamed, and it ends',
  async (t) => {
    const cluster = await inCluster(t, 'token-review', {
      // Longer than this process may ever stand still.
      method: { timeout: '3s', cache: '20s' },
      options: { failedAttempts: 3 },
    })
    const { api, url, clock, logs } = cluster
    const known = api.token({ name: 'known' })
    t.equal(await knock(url, known), letIn)
    const shapes = new Set<string>()
    for (const [what, [answer, reason]] of Object.entries(failures)) {
      api.answer = answer === silence ? () => clock.forward(3000) : answer
      const { answer: got, why } = await explained(cluster.logs, () =>
        post(url, initialize(), bearer(api.token())),
      )
      shapes.add(shapeOf(got))
      refused(t, got, 401, 'ERR_AUTH')
      t.match(why, reason, what)
      t.equal(await knock(url, known), letIn, 'who is known goes on')
    }
    api.answer = undefined
    api.permitted = false
    const { why } = await explained(cluster.logs, () => post(url, initialize(), bearer(api.token())))
    t.match(why, /must be allowed to create tokenreviews .*system:auth-delegator/)
    api.permitted = true
    t.equal(shapes.size, 1)
    t.equal(await knock(url, api.token()), letIn, 'it is over')
    t.ok(logs.some(({ level, text }) => level === 'warn' && /tokens cannot be reviewed/.test(text)))
    t.ok(logs.some(({ level, text }) => level === 'info' && /can be reviewed .* again/.test(text)))
    api.answer = html
    clock.forward(21_000)
    t.equal(await knock(url, known), 401, 'nothing is believed longer than was said')
  },
)

t.test(
  'keys that were fetched once outlast an outage, and tokens of an unknown key wait for its end',
  async (t) => {
    const { api, url, clock, asked } = await inCluster(t, 'jwks', { options: { failedAttempts: 3 } })
    t.equal(await knock(url, api.token()), letIn)
    for (const answer of [html, cut, json({}, 500)]) {
      api.answer = answer
      clock.forward(31_000)
      t.equal(await knock(url, api.token()), letIn)
    }
    api.answer = undefined
    const before = asked()
    const stranger = signingKey('unknown')
    const claims = JSON.parse(Buffer.from(api.token().split('.')[1] ?? '', 'base64url').toString())
    await Promise.all(
      Array.from({ length: 20 }, () => knock(url, stranger.token(claims, { typ: undefined }))),
    )
    t.ok(asked() - before <= 1, `${asked() - before} fetches for twenty tokens of an unknown key`)
  },
)

t.test('an API server that is away when the sidecar starts is waited for', async (t) => {
  for (const mode of modes) {
    const api = await kubernetesApi(t)
    api.answer = cut
    const { url, clock } = await inCluster(t, mode, { api })
    t.equal(await knock(url, api.token()), 401)
    api.answer = undefined
    clock.forward(31_000)
    t.equal(await knock(url, api.token()), letIn, mode)
  }
})

t.test('an API server with a certificate of another CA is told nothing', async (t) => {
  const [api, impostor] = [await kubernetesApi(t), await kubernetesApi(t)]
  for (const mode of modes) {
    const cluster = await inCluster(t, mode, { api, method: { apiServer: impostor.url } })
    const { why } = await explained(cluster.logs, () => post(cluster.url, initialize(), bearer(api.token())))
    t.match(why, /self.signed|unable to|signature/i)
  }
  t.same(impostor.asked, [])
})

t.test('what cannot work is refused when the sidecar starts', async (t) => {
  const api = await kubernetesApi(t)
  await t.rejects(inCluster(t, 'token-review', { api, method: { caFile: `${api.folder}/namespace` } }), {
    name: 'StartError',
    message: /the CA file \S+ holds no certificate in PEM/,
  })
  for (const method of [
    { audiences: [] },
    { apiServer: api.url.replace('https', 'http') },
    { tokenFile: `${api.folder}/none` },
  ]) {
    const thrown = await inCluster(t, 'token-review', { api, method }).catch((error: unknown) => error)
    t.match((thrown as ConfigError).problems, [{ where: /config\.yaml:\d+:\d+$/ }])
  }
})
