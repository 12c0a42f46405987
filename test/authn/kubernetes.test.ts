import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Authenticator } from '../../src/authn/authenticator.ts'
import { kubernetesAuthenticator } from '../../src/authn/kubernetes.ts'
import type { TokenDeps } from '../../src/authn/token-method.ts'
import { SidecarError } from '../../src/core/errors.ts'
import type { KubernetesMethod } from '../../src/core/policy.ts'
import type { Clock, Identity } from '../../src/core/types.ts'
import { systemClock } from '../../src/observe/clock.ts'
import { signingKey } from '../support/jwt-keys.ts'
import { type KubernetesApi, kubernetesApi } from '../support/kubernetes-api.ts'
import { html, json, redirect, silence } from '../support/scripted-issuer.ts'
import { attempt, type Log, recordingLog, whoIs } from '../support/token-requests.ts'

interface Given extends Partial<KubernetesMethod> {
  readonly deps?: Partial<TokenDeps>
}

function methodOf(cluster: KubernetesApi, given: Partial<KubernetesMethod> = {}): KubernetesMethod {
  return {
    ...{ method: 'kubernetes', mode: 'token-review', audiences: ['mcp'], apiServer: cluster.url },
    ...{ tokenFile: cluster.tokenFile, caFile: cluster.caFile, issuer: cluster.issuer },
    ...{ cacheMs: 60_000, timeoutMs: 5000 },
    ...given,
  }
}

function authenticator(
  cluster: KubernetesApi,
  { deps = {}, ...given }: Given = {},
): Authenticator & { readonly log: Log } {
  const log = recordingLog()
  const made = kubernetesAuthenticator(methodOf(cluster, given), {
    ...{ clock: systemClock, log, resource: () => 'https://sidecar.example/mcp' },
    ...deps,
  })
  return Object.assign(made, { log })
}

/** The real time, moved by a test. */
function movedClock(): Clock & { shift: number } {
  const clock: Clock & { shift: number } = {
    ...systemClock,
    shift: 0,
    now: () => systemClock.now() + clock.shift,
    epoch: () => Date.now() + clock.shift,
  }
  return clock
}

const reviewed = (cluster: KubernetesApi): number => cluster.reviews.length

for (const mode of ['token-review', 'jwks'] as const) {
  t.test(`${mode}: the token of a service account names it, its groups and its pod`, async (t) => {
    const cluster = await kubernetesApi(t)
    const method = authenticator(cluster, { mode })
    const { identity, works } = await attempt(
      method,
      cluster.token({ namespace: 'team-a', name: 'reader.v2' }),
    )
    t.equal(works, 1)
    t.match(identity, {
      id: 'serviceaccount:team-a/reader.v2',
      method: 'kubernetes',
      kind: 'serviceaccount',
      subject: 'team-a/reader.v2',
      groups: ['system:serviceaccounts', 'system:serviceaccounts:team-a', 'system:authenticated'],
      scopes: undefined,
    })
    t.same(identity?.claims, {
      sub: 'system:serviceaccount:team-a:reader.v2',
      namespace: 'team-a',
      serviceaccount: 'reader.v2',
      uid: 'uid-of-reader.v2',
      pod: 'reader.v2-0',
      podUid: 'uid-of-reader.v2-0',
      node: 'node-1',
      nodeUid: 'uid-of-node-1',
    })
    const inAnHour = Date.now() + 3_600_000 + (mode === 'jwks' ? 30_000 : 0)
    t.ok(Math.abs((identity?.expiresAt ?? 0) - inAnHour) < 5000, 'it ends with the token, tolerance included')
    t.ok(method.vouchesFor(identity as Identity))
    t.notMatch(JSON.stringify(identity), 'eyJ', 'and holds nothing of the token')
    const unbound = await attempt(method, cluster.token({ pod: undefined }))
    t.same(Object.keys(unbound.identity?.claims ?? {}), ['sub', 'namespace', 'serviceaccount', 'uid'])
    method.close?.()
  })

  t.test(`${mode}: a token is judged once while it is believed, and without a promise then`, async (t) => {
    const cluster = await kubernetesApi(t)
    const method = authenticator(cluster, { mode })
    const token = cluster.token()
    const first = await attempt(method, token)
    const asked = cluster.asked.length
    const second = await attempt(method, token)
    t.equal(second.identity, first.identity)
    t.match(second, { works: 0, atOnce: true })
    t.equal(cluster.asked.length, asked)
  })

  t.test(`${mode}: a credential of another kind is passed over, with a note and without work`, async (t) => {
    const cluster = await kubernetesApi(t)
    const method = authenticator(cluster, { mode })
    const user = signingKey('x').token({ sub: 'alice', iss: 'https://issuer.example', aud: 'mcp' })
    for (const token of [user, 'opaque-token-of-some-sort', 'a.b.c']) {
      const { identity, code, notes, works } = await attempt(method, token)
      t.same([identity, code, works], [undefined, undefined, 0])
      t.same(notes, ['kubernetes: it is not the token of a service account'])
    }
    t.match(await attempt(method, undefined), { identity: undefined, code: undefined, notes: [] })
    t.equal(cluster.asked.length, 0)
  })

  t.test(`${mode}: what is wrong with a token is refused, and the detail says what`, async (t) => {
    const cluster = await kubernetesApi(t)
    const method = authenticator(cluster, { mode })
    const forged = signingKey('cluster-1').token(
      {
        ...{ iss: cluster.issuer, aud: ['mcp'], sub: 'system:serviceaccount:kube-system:admin' },
        exp: Math.floor(Date.now() / 1000) + 3600,
      },
      { typ: undefined },
    )
    const cases: [string, string, RegExp, RegExp][] = [
      ['another key', forged, /signature is invalid/, /its signature is not that of any key/],
      ['expired', cluster.token({ expiresIn: -3600 }), /token has expired/, /it expired 360\d s ago/],
      [
        'another audience',
        cluster.token({ audiences: ['vault'] }),
        /token audiences \[.*vault/,
        /its audience is \["vault"\], not one of mcp/,
      ],
      [
        'the API server itself',
        cluster.token({ audiences: [cluster.issuer] }),
        /token audiences/,
        /its audience is/,
      ],
    ]
    for (const [name, token, byReview, byKeys] of cases) {
      const { code, detail } = await attempt(method, token)
      t.equal(code, 'ERR_AUTH_INVALID', name)
      t.match(detail, mode === 'jwks' ? byKeys : byReview, name)
      t.notMatch(detail, token.slice(0, 20))
    }
  })

  t.test(`${mode}: an address that has failed too often costs the cluster nothing`, async (t) => {
    const cluster = await kubernetesApi(t)
    const method = authenticator(cluster, { mode })
    const limited = (): never => {
      throw new SidecarError('ERR_RATE_LIMITED')
    }
    t.match(await attempt(method, cluster.token(), { beforeWork: limited }), { code: 'ERR_RATE_LIMITED' })
    t.equal(cluster.asked.filter((each) => each.startsWith('POST')).length, 0)
  })

  t.test(
    `${mode}: while the API server gives no usable answer, tokens are refused with the reason`,
    async (t) => {
      const cluster = await kubernetesApi(t)
      const { url } = cluster
      const status = (code: number): ReturnType<typeof json> =>
        json({ kind: 'Status', message: 'etcd is away' }, code)
      const cases: [string, KubernetesApi['answer'], RegExp][] = [
        ['HTML', html, /it answered with HTML or XML \("text\/html"\)/],
        [
          'a redirect',
          redirect('https://evil.example/'),
          /it answered with a redirect \(302\), and none is followed/,
        ],
        ['500', status(500), /it answered with status 500: "etcd is away"/],
        ['429', status(429), /it answered with status 429/],
        ['404', json({}, 404), /it answered with status 404/],
        ['a list', json([]), /it answered with what is no JSON object/],
        [
          'too much',
          (response) => void response.end('x'.repeat(1024 * 1024 + 1)),
          /it answered with more than 1048576 bytes/,
        ],
        [
          'half',
          (response) =>
            void response.writeHead(200, { 'content-length': '100' }).write('{', () => response.destroy()),
          /aborted|ended the connection|socket hang up/,
        ],
        ['nothing', (response) => void response.destroy(), /socket hang up|ECONNRESET/],
        ['silence', silence, /it did not answer in full within 300 ms/],
      ]
      for (const [name, answer, why] of cases) {
        const method = authenticator(cluster, { mode, ...(answer === silence && { timeoutMs: 300 }) })
        cluster.answer = answer
        const { code, detail } = await attempt(method, cluster.token())
        t.equal(code, 'ERR_AUTH_INVALID', name)
        t.match(detail, why, name)
        t.match(detail, `${mode === 'jwks' ? 'GET' : 'POST'} ${url}/`, name)
        method.close?.()
      }
      cluster.answer = undefined
      const gone = authenticator(cluster, { mode, apiServer: 'https://127.0.0.1:1' })
      t.match(await whoIs(gone, cluster.token()), /ECONNREFUSED/)
      const other = await kubernetesApi(t)
      const untrusted = authenticator(cluster, { mode, caFile: other.caFile })
      t.match(await whoIs(untrusted, cluster.token()), /signature|self-signed|unable to verify/)
    },
  )

  t.test(`${mode}: the permission that our own service account lacks is named`, async (t) => {
    const cluster = await kubernetesApi(t)
    cluster.permitted = false
    const method = authenticator(cluster, { mode })
    const permission =
      mode === 'jwks'
        ? 'get /openid/v1/jwks (ClusterRole system:service-account-issuer-discovery)'
        : 'create tokenreviews (ClusterRole system:auth-delegator)'
    const said = await whoIs(method, cluster.token())
    t.match(said, `the service account of this process must be allowed to ${permission} (403)`)
    t.match(said, 'is forbidden: User', 'in the words of the API server, too')
  })

  t.test(`${mode}: the time for authentication ends the wait, not the question`, async (t) => {
    const cluster = await kubernetesApi(t)
    const asked = new Promise<() => void>((resolve) => {
      cluster.answer = (response, request) => {
        resolve(() => {
          cluster.answer = undefined
          json({ kind: 'Status', message: 'late' }, 503)(response, request)
        })
      }
    })
    const controller = new AbortController()
    const outcome = attempt(authenticator(cluster, { mode }), cluster.token(), { signal: controller.signal })
    const answer = await asked
    controller.abort()
    t.match(await outcome, { code: 'ERR_AUTH_INVALID', detail: 'the time for authentication was over' })
    answer()
  })

  t.test(`${mode}: our own token and CA are read anew, as the kubelet replaces them`, async (t) => {
    const cluster = await kubernetesApi(t)
    const clock = movedClock()
    const method = authenticator(cluster, { mode, deps: { clock } })
    t.equal(await whoIs(method, cluster.token({ name: 'a' })), 'serviceaccount:team-a/a')
    cluster.rotate()
    cluster.rotateCa()
    clock.shift += 400_000
    // In mode jwks this fetches in the background; the next token is judged by what it brings.
    await whoIs(method, cluster.token({ name: 'b', expiresIn: 7200 }))
    t.equal(await whoIs(method, cluster.token({ name: 'c', expiresIn: 7200 })), 'serviceaccount:team-a/c')
    t.same(method.log.lines, [])
    method.close?.()
  })

  t.test(`${mode}: files and options that cannot work are refused when it is built`, async (t) => {
    const cluster = await kubernetesApi(t)
    const file = (text: string): string => {
      const path = join(t.testdir({}), 'file')
      writeFileSync(path, text)
      return path
    }
    const cases: [Partial<KubernetesMethod>, RegExp][] = [
      [{ audiences: [] }, /^kubernetes needs audiences/],
      [{ audiences: [''] }, /an audience is empty/],
      [{ apiServer: 'http://127.0.0.1:8001' }, /^apiServer must be an https URL/],
      [{ apiServer: 'kubernetes' }, /^apiServer must be an https URL/],
      [
        { apiServer: 'https://user:secret@kubernetes' },
        /^apiServer must be an https URL without credentials/,
      ],
      [{ tokenFile: '/nowhere/token' }, /^the token of this process \/nowhere\/token cannot be read/],
      [{ tokenFile: file('\n') }, /holds no token/],
      [{ caFile: '/nowhere/ca.crt' }, /^the CA file of the API server \/nowhere\/ca\.crt cannot be read/],
      [{ caFile: cluster.tokenFile }, /^the CA file .*token holds no certificate in PEM$/],
    ]
    for (const [given, message] of cases) {
      t.throws(() => authenticator(cluster, { mode, ...given }), { name: 'TokenMethodError', message })
    }
    t.doesNotThrow(() => authenticator(cluster, { mode, apiServer: 'https://kubernetes.default.svc/' }))
  })

  t.test(`${mode}: it leads nobody to an authorization server`, async (t) => {
    const cluster = await kubernetesApi(t)
    t.match(authenticator(cluster, { mode }), {
      ...{
        name: 'kubernetes',
        scheme: 'Bearer',
        headers: ['authorization'],
        scopes: [],
        authorizationServers: [],
      },
    })
  })
}

t.test('the API server is asked for our audiences, and only about service accounts', async (t) => {
  const cluster = await kubernetesApi(t)
  const method = authenticator(cluster, { audiences: ['mcp', 'https://mcp.example'] })
  const token = cluster.token({ audiences: ['https://mcp.example', 'vault'] })
  t.equal(await whoIs(method, token), 'serviceaccount:team-a/reader')
  t.same(cluster.reviews, [{ token, audiences: ['mcp', 'https://mcp.example'] }])
  t.same(cluster.asked, ['POST /apis/authentication.k8s.io/v1/tokenreviews'])
})

t.test('an answer is believed only if it says all that it must', async (t) => {
  const cluster = await kubernetesApi(t)
  const method = authenticator(cluster)
  const user = (name: unknown) => (status: object) => ({ ...status, user: { username: name } })
  const cases: [string, KubernetesApi['tamper'], RegExp][] = [
    ['not authenticated', (status) => ({ ...status, authenticated: false }), /does not accept the token$/],
    ['not quite', (status) => ({ ...status, authenticated: 'true' }), /does not accept the token$/],
    ['no status', () => undefined, /does not accept the token$/],
    ['a status that is none', () => 'yes', /does not accept the token$/],
    [
      'no audiences: an API server that knows none',
      ({ audiences: _, ...status }) => status,
      /accepts the token for undefined, not for one of mcp/,
    ],
    [
      'other audiences',
      (status) => ({ ...status, audiences: ['vault'] }),
      /accepts the token for \["vault"\], not for one of mcp/,
    ],
    [
      'audiences that are a text',
      (status) => ({ ...status, audiences: 'mcp' }),
      /accepts the token for "mcp"/,
    ],
    ['a user', user('alice'), /"alice" is not the name of a service account/],
    ['a node', user('system:node:node-1'), /is not the name of a service account/],
    ['no user', user(undefined), /undefined is not the name/],
    ['a list', user(['system:serviceaccount:a:b']), /is not the name/],
    ['a name of three parts', user('system:serviceaccount:a:b:c'), /is not the name/],
    ['without a namespace', user('system:serviceaccount::b'), /is not the name/],
    ['a path', user('system:serviceaccount:a/b:c'), /is not the name/],
    ['a line break', user('system:serviceaccount:a:b\n'), /is not the name/],
    ['capitals', user('system:serviceaccount:A:b'), /is not the name/],
    ['beyond measure', user(`system:serviceaccount:a:${'b.'.repeat(150)}b`), /is not the name/],
  ]
  for (const [name, tamper, why] of cases) {
    cluster.tamper = tamper
    const { code, detail } = await attempt(method, cluster.token())
    t.equal(code, 'ERR_AUTH_INVALID', name)
    t.match(detail, why, name)
  }
  cluster.tamper = (status) => ({
    ...status,
    user: { username: 'system:serviceaccount:a:b', groups: 'x', extra: [1] },
  })
  const { identity } = await attempt(method, cluster.token())
  t.same(identity?.groups, [], 'groups and facts that cannot be read are left out')
  t.same(identity?.claims, { sub: 'system:serviceaccount:a:b', namespace: 'a', serviceaccount: 'b' })
})

t.test('groups are bounded, and plain texts', async (t) => {
  const cluster = await kubernetesApi(t)
  const groups = ['a', 7, '', 'b\nc', 'x'.repeat(513), ...Array.from({ length: 200 }, (_, i) => `g${i}`)]
  cluster.tamper = (status) => ({ ...status, user: { username: 'system:serviceaccount:a:b', groups } })
  const { identity } = await attempt(authenticator(cluster), cluster.token())
  t.equal(identity?.groups.length, 96)
  t.same(identity?.groups.slice(0, 3), ['a', 'g0', 'g1'])
})

t.test('nothing that could be a token gets from the answer into the log', async (t) => {
  const cluster = await kubernetesApi(t)
  const token = cluster.token()
  cluster.tamper = () => ({ error: `cannot parse ${token}` })
  const { detail } = await attempt(authenticator(cluster), token)
  t.equal(detail, 'the API server does not accept the token: "cannot parse [redacted]"')
  cluster.answer = json({ kind: 'Status', message: `no such token: ${token}` }, 500)
  const method = authenticator(cluster)
  t.match(await whoIs(method, token), /status 500: "no such token: \[redacted\]"$/)
  t.notMatch(method.log.lines.join(), 'eyJ')
})

t.test('a token that was revoked is refused once its review is no longer believed', async (t) => {
  const cluster = await kubernetesApi(t)
  const clock = movedClock()
  const method = authenticator(cluster, { cacheMs: 10_000, deps: { clock } })
  const token = cluster.token()
  t.equal(await whoIs(method, token), 'serviceaccount:team-a/reader')
  cluster.revoke(token)
  clock.shift += 9_000
  t.equal(await whoIs(method, token), 'serviceaccount:team-a/reader')
  clock.shift += 2_000
  t.match(await whoIs(method, token), /has been invalidated/)
  t.match(await whoIs(method, token), /has been invalidated/, 'a refusal is not remembered')
  t.equal(reviewed(cluster), 3)
})

t.test('a review is not believed beyond the end of the token', async (t) => {
  const cluster = await kubernetesApi(t)
  const clock = movedClock()
  const method = authenticator(cluster, { cacheMs: 3_600_000, deps: { clock } })
  const token = cluster.token({ expiresIn: 600 })
  await attempt(method, token)
  clock.shift += 599_000
  t.match(await attempt(method, token), { works: 0 })
  clock.shift += 2_000
  t.match(await attempt(method, token), { works: 1 })
})

t.test('however many requests bring a token at once, it is reviewed once', async (t) => {
  const cluster = await kubernetesApi(t)
  const method = authenticator(cluster)
  const token = cluster.token()
  const answers = await Promise.all(Array.from({ length: 20 }, () => whoIs(method, token)))
  t.same([...new Set(answers)], ['serviceaccount:team-a/reader'])
  t.equal(reviewed(cluster), 1)
  const [a, b] = [cluster.token({ name: 'a' }), cluster.token({ name: 'b' })]
  t.same(await Promise.all([whoIs(method, a), whoIs(method, b)]), [
    'serviceaccount:team-a/a',
    'serviceaccount:team-a/b',
  ])
})

t.test(
  'the token of a Secret has no audience, so that an API server accepts it for itself alone',
  async (t) => {
    const cluster = await kubernetesApi(t)
    const legacy = cluster.legacyToken('team-a', 'reader')
    t.match(await whoIs(authenticator(cluster), legacy), /token audiences .* is invalid/)
    const own = await attempt(authenticator(cluster, { audiences: [cluster.issuer] }), legacy)
    t.equal(own.identity?.id, 'serviceaccount:team-a/reader')
    t.equal(own.identity?.expiresAt, undefined, 'it has no end')
  },
)

t.test('an outage is logged once, and its end', async (t) => {
  const cluster = await kubernetesApi(t)
  const method = authenticator(cluster)
  cluster.answer = json({ message: 'etcd is away' }, 503)
  await whoIs(method, cluster.token())
  await whoIs(method, cluster.token())
  cluster.answer = undefined
  await whoIs(method, cluster.token())
  await whoIs(method, cluster.token())
  t.match(method.log.lines, [
    /^warn tokens cannot be reviewed by https:\/\/127\.0\.0\.1:\d+: they are refused POST .*status 503: "etcd is away"$/,
    /^info tokens can be reviewed by .* again$/,
  ])
  t.equal(method.log.lines.length, 2)
})

t.test('when our own token is refused, the next review uses the one that is there by then', async (t) => {
  const cluster = await kubernetesApi(t)
  const method = authenticator(cluster)
  t.equal(await whoIs(method, cluster.token({ name: 'a' })), 'serviceaccount:team-a/a')
  cluster.rotate()
  t.match(
    await whoIs(method, cluster.token({ name: 'b' })),
    `does not accept the token of this process, ${cluster.tokenFile} (401)`,
  )
  t.equal(await whoIs(method, cluster.token({ name: 'c' })), 'serviceaccount:team-a/c')
})

t.test('files that are gone for a moment leave the last ones in use', async (t) => {
  const cluster = await kubernetesApi(t)
  const clock = movedClock()
  const good = { [cluster.tokenFile]: '', [cluster.caFile]: '' }
  let away = false
  const { readFileSync } = await import('node:fs')
  const readText = (file: string): string => {
    if (away) throw new Error('ENOENT')
    return file in good ? readFileSync(file, 'utf8') : ''
  }
  const method = authenticator(cluster, { deps: { clock, readText } })
  away = true
  clock.shift += 10_000
  t.equal(await whoIs(method, cluster.token()), 'serviceaccount:team-a/reader')
})

t.test('jwks: what the token says of itself must agree, and its issuer be the cluster', async (t) => {
  const cluster = await kubernetesApi(t)
  const method = authenticator(cluster, { mode: 'jwks' })
  const facts = { namespace: 'team-a', serviceaccount: { name: 'reader', uid: 'x' } }
  const cases: [Record<string, unknown>, RegExp][] = [
    [
      { 'kubernetes.io': { ...facts, namespace: 'team-b' } },
      /kubernetes\.io does not name the service account that its sub names/,
    ],
    [{ 'kubernetes.io': undefined }, /kubernetes\.io does not name the service account/],
    [{ sub: 'alice' }, /"alice" is not the name of a service account/],
    [{ sub: 'system:serviceaccount:team-a:reader:x' }, /is not the name of a service account/],
    [{ exp: undefined }, /it has no exp/],
  ]
  for (const [claims, why] of cases) t.match(await whoIs(method, cluster.token({ claims })), why)
  const { notes } = await attempt(method, cluster.token({ claims: { iss: 'https://other.example' } }))
  t.match(notes, [/^kubernetes: its issuer is "https:\/\/other\.example", not https:\/\/kubernetes\.default/])
  t.match((await attempt(method, cluster.legacyToken('team-a', 'reader'))).notes, [
    /its issuer is "kubernetes\/serviceaccount"/,
  ])
})

t.test('jwks: keys are fetched with our own token, once, and again when they are rotated', async (t) => {
  const cluster = await kubernetesApi(t)
  const clock = movedClock()
  const method = authenticator(cluster, { mode: 'jwks', deps: { clock } })
  t.equal(await whoIs(method, cluster.token({ name: 'a' })), 'serviceaccount:team-a/a')
  t.equal(await whoIs(method, cluster.token({ name: 'b' })), 'serviceaccount:team-a/b')
  t.same(cluster.asked, ['GET /openid/v1/jwks'])
  const old = cluster.token({ name: 'old' })
  cluster.rotateKey()
  clock.shift += 60_000
  t.equal(await whoIs(method, cluster.token({ name: 'c' })), 'serviceaccount:team-a/c')
  t.match(await whoIs(method, old), /there is no key with kid "cluster-1"/)
})

t.test('jwks: with prefetch the keys are there before the first token', async (t) => {
  const cluster = await kubernetesApi(t)
  const asked = new Promise<void>((resolve) => {
    cluster.answer = (response, request) => {
      cluster.answer = undefined
      json({ keys: [] }, 503)(response, request)
      resolve()
    }
  })
  authenticator(cluster, { mode: 'jwks', deps: { prefetch: true } })
  await asked
  t.same(cluster.asked, ['GET /openid/v1/jwks'])
})
