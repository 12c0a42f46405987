/**
 * The API server of a Kubernetes cluster, as far as service-account tokens go: TokenReview, the keys of the issuer and its
 * discovery document, over TLS; and the volume in which the kubelet gives a pod its own token.
 *
 *     const cluster = await kubernetesApi(t)
 *     const method = { apiServer: cluster.url, tokenFile: cluster.tokenFile, caFile: cluster.caFile, issuer: cluster.issuer, ... }
 *     const token = cluster.token({ namespace: 'team-a', name: 'reader', audiences: ['mcp'] })
 *     cluster.revoke(token)
 *     cluster.rotate()          // another token of our own, through the ..data link
 *     cluster.permitted = false // RBAC no longer lets us review
 *     cluster.answer = html     // from ./scripted-issuer.ts, for everything that is asked
 */
import { createVerify } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { signingKey } from './jwt-keys.ts'
import { authority } from './pki.ts'
import { json } from './scripted-issuer.ts'

export interface TokenOptions {
  readonly namespace?: string
  readonly name?: string
  readonly audiences?: readonly string[]
  /** Seconds from now; default an hour. */
  readonly expiresIn?: number
  /** Default `POD-0`; undefined: not bound to a pod. */
  readonly pod?: string | undefined
  /** Further claims, or others; those that are undefined are left out. */
  readonly claims?: Readonly<Record<string, unknown>>
}

export interface KubernetesApi {
  /** `https://127.0.0.1:PORT`. */
  readonly url: string
  readonly issuer: string
  /** As it is mounted in a pod: `token`, `ca.crt`, `namespace`, each a link through `..data`. */
  readonly folder: string
  readonly tokenFile: string
  readonly caFile: string
  /** `METHOD path` of every request so far. */
  readonly asked: string[]
  /** `spec` of every review so far. */
  readonly reviews: { readonly token: string; readonly audiences: readonly string[] }[]
  /** Whether RBAC lets our own service account review tokens and read the keys. */
  permitted: boolean
  /** Instead of everything else. */
  answer: ((response: ServerResponse, request: IncomingMessage) => void) | undefined
  /** Changes the TokenReview that is about to be answered. */
  tamper: ((status: Record<string, unknown>) => unknown) | undefined
  /** A projected token, as the kubelet asks for it. */
  token(options?: TokenOptions): string
  /** One of a Secret, which has no end and no audience. */
  legacyToken(namespace: string, name: string): string
  /** Its pod or account is gone. */
  revoke(token: string): void
  /** The kubelet writes another token of our own; the API server knows the last one no longer. */
  rotate(): void
  /** The API server has another CA, and the kubelet writes it, too. */
  rotateCa(): void
  /** Tokens to come are signed with another key, the only one that is published. */
  rotateKey(): void
}

type Json = Record<string, unknown>

/** Listening when it resolves, gone when the test ends. */
export async function kubernetesApi(t: Test): Promise<KubernetesApi> {
  const issuer = 'https://kubernetes.default.svc.cluster.local'
  const folder = mkdtempSync(join(tmpdir(), 'serviceaccount-'))
  let ca = authority('kubernetes')
  let key = signingKey('cluster-1')
  const keys = new Map([[key.kid, key]])
  const revoked = new Set<string>()
  const asked: string[] = []
  const reviews: { token: string; audiences: readonly string[] }[] = []
  let own = ''
  let versions = 0

  const token: KubernetesApi['token'] = (options = {}) => {
    const { namespace = 'team-a', name = 'reader', audiences = ['mcp'], expiresIn = 3600 } = options
    const pod = 'pod' in options ? options.pod : `${name}-0`
    const now = Math.floor(Date.now() / 1000)
    const claims = {
      aud: audiences,
      exp: now + expiresIn,
      iat: now,
      iss: issuer,
      jti: `jti-${++versions}`,
      'kubernetes.io': {
        namespace,
        ...(pod === undefined
          ? {}
          : { node: { name: 'node-1', uid: 'uid-of-node-1' }, pod: { name: pod, uid: `uid-of-${pod}` } }),
        serviceaccount: { name, uid: `uid-of-${name}` },
        warnafter: now + 3607,
      },
      nbf: now,
      sub: `system:serviceaccount:${namespace}:${name}`,
      ...options.claims,
    }
    return key.token(claims, { typ: undefined })
  }

  /** As the kubelet does it (atomic_writer.go): a folder for all files of one moment, and one link that is replaced. */
  const project = (): void => {
    own = token({ namespace: 'mcp-system', name: 'mcp-sidecar', audiences: [issuer] })
    const version = `..2026_11_22_10_00_00.${++versions}`
    mkdirSync(join(folder, version))
    const files = { token: own, 'ca.crt': ca.certificate, namespace: 'mcp-system' }
    for (const [name, text] of Object.entries(files)) {
      writeFileSync(join(folder, version, name), text)
      if (!existsSync(join(folder, name))) symlinkSync(join('..data', name), join(folder, name))
    }
    const data = join(folder, '..data')
    const before = existsSync(data) ? readlinkSync(data) : undefined
    symlinkSync(version, join(folder, '..data_tmp'))
    renameSync(join(folder, '..data_tmp'), data)
    if (before !== undefined) rmSync(join(folder, before), { recursive: true })
  }
  // The first links dangle until `..data` is there.
  project()

  const serving = (): { cert: string; key: string } => {
    const { chain, key: secret } = ca.issue({
      cn: 'kube-apiserver',
      dns: ['kubernetes.default.svc'],
      ips: ['127.0.0.1'],
      usage: 'server',
    })
    return { cert: chain, key: secret }
  }

  const readToken = (text: string): Json | undefined => {
    const [header = '', body = '', signature = ''] = text.split('.')
    try {
      const { kid } = JSON.parse(Buffer.from(header, 'base64url').toString()) as { kid: string }
      const pem = keys.get(kid)?.pem
      if (pem === undefined) return undefined
      const good = createVerify('sha256')
        .update(`${header}.${body}`)
        .verify({ key: pem, dsaEncoding: 'ieee-p1363' }, signature, 'base64url')
      return good ? (JSON.parse(Buffer.from(body, 'base64url').toString()) as Json) : undefined
    } catch {
      return undefined
    }
  }

  const statusOf = (text: string, audiences: readonly string[]): Json => {
    const claims = readToken(text)
    const refused = (why: string): Json => ({ user: {}, error: `[invalid bearer token, ${why}]` })
    if (claims === undefined) return refused('signature is invalid')
    if (revoked.has(text)) return refused('service account token has been invalidated')
    const legacy = claims['iss'] === 'kubernetes/serviceaccount'
    if (!legacy && (claims['exp'] as number) * 1000 <= Date.now())
      return refused('service account token has expired')
    const granted = legacy ? [issuer] : ((claims['aud'] ?? []) as string[])
    const common = granted.filter((each) => audiences.includes(each))
    if (common.length === 0)
      return refused(`token audiences ${JSON.stringify(granted)} is invalid for the target audiences`)
    const [, , namespace = '', name = ''] = (claims['sub'] as string).split(':')
    const bound = claims['kubernetes.io'] as Record<string, { name: string; uid: string }> | undefined
    const extra: Json = { 'authentication.kubernetes.io/credential-id': [`JTI=${String(claims['jti'])}`] }
    for (const kind of ['pod', 'node']) {
      const object = bound?.[kind]
      if (object === undefined) continue
      extra[`authentication.kubernetes.io/${kind}-name`] = [object.name]
      extra[`authentication.kubernetes.io/${kind}-uid`] = [object.uid]
    }
    return {
      authenticated: true,
      user: {
        username: claims['sub'],
        uid: `uid-of-${name}`,
        groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
        extra,
      },
      audiences: common,
    }
  }

  const failure = (code: number, reason: string, message: string): Json => ({
    ...{ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure' },
    ...{ message, reason, code },
  })

  const reply = (request: IncomingMessage, body: string): Json => {
    if (request.headers.authorization !== `Bearer ${own}`) return failure(401, 'Unauthorized', 'Unauthorized')
    if (!api.permitted) {
      const who = 'User "system:serviceaccount:mcp-system:mcp-sidecar"'
      const message = `tokenreviews.authentication.k8s.io is forbidden: ${who} cannot create resource "tokenreviews"`
      return failure(403, 'Forbidden', message)
    }
    switch (`${request.method} ${request.url}`) {
      case 'POST /apis/authentication.k8s.io/v1/tokenreviews': {
        const review = JSON.parse(body) as Json & { spec: { token: string; audiences: string[] } }
        reviews.push(review.spec)
        const status = statusOf(review.spec.token, review.spec.audiences ?? [issuer])
        return { ...review, status: api.tamper === undefined ? status : api.tamper(status) }
      }
      case 'GET /openid/v1/jwks':
        return { keys: [key.jwk] }
      case 'GET /.well-known/openid-configuration':
        return {
          ...{ issuer, jwks_uri: `${issuer}/openid/v1/jwks`, response_types_supported: ['id_token'] },
          ...{ subject_types_supported: ['public'], id_token_signing_alg_values_supported: ['ES256'] },
        }
    }
    return failure(404, 'NotFound', 'the server could not find the requested resource')
  }
  const listener: RequestListener = (request, response) => {
    asked.push(`${request.method} ${request.url}`)
    let body = ''
    request
      .setEncoding('utf8')
      .on('data', (chunk: string) => {
        body += chunk
      })
      .on('end', () => {
        if (api.answer === undefined) {
          const replied = reply(request, body)
          // Creating something answers 201, a review included.
          const status =
            replied['status'] === 'Failure' ? replied['code'] : request.method === 'POST' ? 201 : 200
          json(replied, status as number)(response, request)
        } else api.answer(response, request)
      })
  }

  const server = createServer(serving(), listener)
  server.on('tlsClientError', () => {})
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true })
    server.closeAllConnections()
    return new Promise((closed) => server.close(closed))
  })
  const api: KubernetesApi = {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    issuer,
    folder,
    tokenFile: join(folder, 'token'),
    caFile: join(folder, 'ca.crt'),
    asked,
    reviews,
    permitted: true,
    answer: undefined,
    tamper: undefined,
    token,
    legacyToken: (namespace, name) => {
      const prefix = 'kubernetes.io/serviceaccount'
      const claims = {
        iss: 'kubernetes/serviceaccount',
        [`${prefix}/namespace`]: namespace,
        [`${prefix}/secret.name`]: `${name}-token-abcde`,
        [`${prefix}/service-account.name`]: name,
        [`${prefix}/service-account.uid`]: `uid-of-${name}`,
        sub: `system:serviceaccount:${namespace}:${name}`,
      }
      return key.token(claims, { typ: undefined })
    },
    revoke: (text) => void revoked.add(text),
    rotate: project,
    rotateCa: () => {
      ca = authority('kubernetes')
      const { cert, key: secret } = serving()
      server.setSecureContext({ cert, key: secret })
      project()
    },
    rotateKey: () => {
      key = signingKey(`cluster-${keys.size + 1}`)
      keys.clear()
      keys.set(key.kid, key)
      // Our own token was signed with the last one.
      project()
    },
  }
  return api
}
