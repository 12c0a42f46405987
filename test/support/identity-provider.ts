/**
 * A real OpenID provider (oidc-provider) on 127.0.0.1: discovery, client credentials, authorization code with PKCE,
 * resource indicators (RFC 8707), JWT and opaque access tokens, introspection, revocation, dynamic registration of
 * clients, and keys that are rotated. Everybody who comes is logged in and consents.
 */
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Adapter, AdapterPayload, default as Provider } from 'oidc-provider'
import type { Test } from 'tap'
import type { Fetching } from '../../src/core/policy.ts'

export interface ProviderOptions {
  /** Serves https with these (PEM); its CA has to be trusted then. */
  readonly tls?: { readonly key: string; readonly cert: string }
  /** Scopes that a client may ask for. Default `mcp:read mcp:write`. */
  readonly scopes?: readonly string[]
  /** Of access tokens. Default 3600. */
  readonly ttlSeconds?: number
}

export interface TokenWish {
  /** The audience. */
  readonly resource: string
  /** Separated by spaces. */
  readonly scope?: string
}

export interface IdentityProvider {
  readonly issuer: string
  /** A client that may introspect, and ask for tokens on its own behalf. */
  readonly client: { readonly id: string; readonly secret: string }
  /** The same, with a secret that clients without form-encoding (RFC 6749 appendix B) can present, too. */
  readonly worker: { readonly id: string; readonly secret: string }
  /** For the methods under test: this provider may be asked. */
  readonly fetching: Fetching
  /** Of access tokens from now on. */
  format: 'jwt' | 'opaque'
  /** Who logs in next. */
  user: string
  /** Nobody gets an answer while true: connections are cut. */
  down: boolean
  /** How often a path was asked for. */
  asked(path: string): number
  /** An access token for the client itself. */
  clientCredentials(wish: TokenWish): Promise<string>
  /** An access token for {@link user}, by authorization code with PKCE. */
  authorizationCode(wish: TokenWish): Promise<string>
  /** What a browser does with an authorization URL: the URL it ends up at, which is not the provider's any more. */
  visit(url: string | URL): Promise<URL>
  revoke(token: string): Promise<void>
  /** A new signing key. The old one leaves the JWKS, unless `keepOld`. */
  rotate(options?: { readonly keepOld?: boolean }): void
}

type Jwk = Record<string, unknown>

const client = { id: 'sidecar', secret: 'sidecar-secret-0123456789+/ %' }
const worker = { id: 'worker', secret: 'worker-secret-0123456789' }
const app = { id: 'app', redirect: 'http://127.0.0.1:9/callback' }

function newKey(): Jwk {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const kid = randomBytes(6).toString('hex')
  return { ...privateKey.export({ format: 'jwk' }), kid, alg: 'ES256', use: 'sig' }
}

/** What the provider remembers, which outlives a rotation of its keys. */
function memory(): new (kind: string) => Adapter {
  const all = new Map<string, AdapterPayload>()
  return class implements Adapter {
    readonly #kind: string

    constructor(kind: string) {
      this.#kind = kind
    }

    async upsert(id: string, payload: AdapterPayload): Promise<void> {
      // Whoever registers with the scopes of its first token may ask for further ones later.
      if (this.#kind === 'Client') delete payload['scope']
      all.set(`${this.#kind}:${id}`, payload)
    }

    async find(id: string): Promise<AdapterPayload | undefined> {
      return all.get(`${this.#kind}:${id}`)
    }

    async findByUid(uid: string): Promise<AdapterPayload | undefined> {
      return [...all.values()].find((each) => each.kind === this.#kind && each.uid === uid)
    }

    async findByUserCode(): Promise<undefined> {}

    async consume(id: string): Promise<void> {
      const payload = await this.find(id)
      if (payload !== undefined) payload.consumed = Math.floor(Date.now() / 1000)
    }

    async destroy(id: string): Promise<void> {
      all.delete(`${this.#kind}:${id}`)
    }

    async revokeByGrantId(grantId: string): Promise<void> {
      for (const [key, payload] of all) if (payload.grantId === grantId) all.delete(key)
    }
  }
}

/** Started when it resolves, gone when the test ends. */
export async function identityProvider(t: Test, options: ProviderOptions = {}): Promise<IdentityProvider> {
  const { default: Library } = await import('oidc-provider')
  const { scopes = ['mcp:read', 'mcp:write'], ttlSeconds = 3600, tls } = options
  const asked = new Map<string, number>()
  let handler: RequestListener = (_, response) => void response.writeHead(503).end()
  const listener: RequestListener = (request, response) => {
    const path = new URL(request.url ?? '/', 'http://any').pathname
    asked.set(path, (asked.get(path) ?? 0) + 1)
    if (idp.down) request.socket.destroy()
    else handler(request, response)
  }
  const server = tls === undefined ? createServer(listener) : createTlsServer({ ...tls }, listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  })
  const scheme = tls === undefined ? 'http' : 'https'
  const issuer = `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`

  const adapter = memory()
  const build = (keys: readonly Jwk[]): void => {
    const provider: Provider = new Library(issuer, {
      adapter,
      jwks: { keys: [...keys] },
      clients: [
        ...[client, worker].map(({ id, secret }) => ({
          client_id: id,
          client_secret: secret,
          grant_types: ['client_credentials'],
          redirect_uris: [],
          response_types: [] as [],
          scope: scopes.join(' '),
        })),
        {
          client_id: app.id,
          token_endpoint_auth_method: 'none',
          application_type: 'native',
          redirect_uris: [app.redirect],
          grant_types: ['authorization_code', 'refresh_token'],
        },
      ],
      scopes: ['openid', 'offline_access', ...scopes],
      clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'none'],
      enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
      clientDefaults: { id_token_signed_response_alg: 'ES256' },
      cookies: { keys: ['a key for cookies of tests'] },
      ttl: {
        AccessToken: ttlSeconds,
        ClientCredentials: ttlSeconds,
        ...{
          AuthorizationCode: 60,
          Grant: 3600,
          IdToken: 3600,
          Interaction: 600,
          Session: 3600,
          RefreshToken: 3600,
        },
      },
      interactions: { url: (_, interaction) => `/login/${interaction.uid}` },
      findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
      pkce: { required: () => true },
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        introspection: { enabled: true, allowedPolicy: () => true },
        revocation: { enabled: true, allowedPolicy: () => true },
        registration: { enabled: true, initialAccessToken: false },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => [],
          useGrantedResource: () => true,
          getResourceServerInfo: (_, resource) => ({
            scope: scopes.join(' '),
            audience: resource,
            accessTokenFormat: idp.format,
            accessTokenTTL: ttlSeconds,
            jwt: { sign: { alg: 'ES256' } },
          }),
        },
      },
    })
    const provide = provider.callback()
    handler = (request, response) => {
      if (request.url?.startsWith('/login/') === true) {
        letIn(provider, request, response).catch(
          (err: Error) => void response.writeHead(500).end(err.message),
        )
      } else void provide(request, response)
    }
  }

  const letIn = async (
    provider: Provider,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> => {
    const { prompt, params, grantId, session } = await provider.interactionDetails(request, response)
    if (prompt.name === 'login') {
      return provider.interactionFinished(request, response, { login: { accountId: idp.user } })
    }
    const found = grantId === undefined ? undefined : await provider.Grant.find(grantId)
    const accountId = session?.accountId ?? idp.user
    const grant = found ?? new provider.Grant({ accountId, clientId: String(params['client_id']) })
    const scope = String(params['scope'] ?? '')
    grant.addOIDCScope(scope)
    for (const resource of [params['resource'] ?? []].flat()) grant.addResourceScope(String(resource), scope)
    const consent = { grantId: await grant.save() }
    await provider.interactionFinished(request, response, { consent }, { mergeWithLastSubmission: true })
  }

  const post = async (path: string, fields: Record<string, string>, as?: typeof client): Promise<Jwk> => {
    const basic = as && Buffer.from([as.id, as.secret].map(encodeURIComponent).join(':')).toString('base64')
    const response = await fetch(`${issuer}${path}`, {
      method: 'POST',
      body: new URLSearchParams(fields),
      ...(basic === undefined ? {} : { headers: { authorization: `Basic ${basic}` } }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${path} answered ${response.status}: ${text}`)
    return text === '' ? {} : (JSON.parse(text) as Jwk)
  }

  const idp: IdentityProvider = {
    issuer,
    client,
    worker,
    fetching: { caFile: undefined, timeoutMs: 5000, allowPrivate: true, allowHttp: tls === undefined },
    format: 'jwt',
    user: 'alice',
    down: false,
    asked: (path) => asked.get(path) ?? 0,
    clientCredentials: async ({ resource, scope = '' }) => {
      const answer = await post('/token', { grant_type: 'client_credentials', resource, scope }, client)
      return String(answer['access_token'])
    },
    authorizationCode: async ({ resource, scope = '' }) => {
      const verifier = randomBytes(32).toString('base64url')
      const state = randomBytes(8).toString('hex')
      const url = new URL('/auth', issuer)
      url.search = new URLSearchParams({
        ...{ client_id: app.id, redirect_uri: app.redirect, response_type: 'code', resource, state },
        scope: `openid ${scope}`.trim(),
        code_challenge: createHash('sha256').update(verifier).digest('base64url'),
        code_challenge_method: 'S256',
      }).toString()
      const { searchParams } = await idp.visit(url)
      const code = searchParams.get('code')
      if (code === null || searchParams.get('state') !== state) throw new Error(`no code: ${searchParams}`)
      const answer = await post('/token', {
        ...{ grant_type: 'authorization_code', client_id: app.id, redirect_uri: app.redirect, resource },
        code,
        code_verifier: verifier,
      })
      return String(answer['access_token'])
    },
    visit: async (first) => {
      const cookies = new Map<string, string>()
      let url = new URL(first)
      for (let hops = 0; url.origin === issuer && hops < 20; hops++) {
        const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ')
        const response = await fetch(url, { redirect: 'manual', headers: { cookie } })
        for (const line of response.headers.getSetCookie()) {
          const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? []
          if (value === '') cookies.delete(name)
          else cookies.set(name, value)
        }
        const location = response.headers.get('location')
        if (location === null) throw new Error(`${url} answered ${response.status}: ${await response.text()}`)
        await response.body?.cancel()
        url = new URL(location, url)
      }
      return url
    },
    revoke: async (token) => void (await post('/token/revocation', { token }, client)),
    rotate: ({ keepOld = false } = {}) => {
      keys = [newKey(), ...(keepOld ? keys : [])]
      build(keys)
    },
  }
  let keys: readonly Jwk[] = []
  idp.rotate()
  return idp
}
