/** A stock SDK v2 client that finds out by itself how to log in. Its browser follows every link. */
import {
  Client,
  type OAuthClientMetadata,
  type OAuthClientProvider,
  type OAuthDiscoveryState,
  SSEClientTransport,
  type StoredOAuthClientInformation,
  type StoredOAuthTokens,
  StreamableHTTPClientTransport,
  UnauthorizedError,
} from '@modelcontextprotocol/client'

const redirectUrl = 'http://127.0.0.1:9/callback'

/** What an application keeps for its user: nothing at first. */
export class Application implements OAuthClientProvider {
  readonly redirectUrl = redirectUrl
  readonly clientMetadata: OAuthClientMetadata = {
    client_name: 'an application',
    redirect_uris: [redirectUrl],
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code'],
    response_types: ['code'],
  }
  /** The authorization URLs that the user was sent to. */
  readonly asked: URL[] = []
  /** Every token it has had. */
  readonly had: string[] = []
  readonly #visit: (url: URL) => Promise<URL>
  #client: StoredOAuthClientInformation | undefined
  #tokens: StoredOAuthTokens | undefined
  #verifier = ''
  #discovered: OAuthDiscoveryState | undefined
  #landed: URL | undefined

  constructor(visit: (url: URL) => Promise<URL>) {
    this.#visit = visit
  }

  clientInformation(): StoredOAuthClientInformation | undefined {
    return this.#client
  }

  saveClientInformation(client: StoredOAuthClientInformation): void {
    this.#client = client
  }

  tokens(): StoredOAuthTokens | undefined {
    return this.#tokens
  }

  saveTokens(tokens: StoredOAuthTokens): void {
    this.#tokens = tokens
    this.had.push(tokens.access_token)
  }

  saveCodeVerifier(verifier: string): void {
    this.#verifier = verifier
  }

  codeVerifier(): string {
    return this.#verifier
  }

  saveDiscoveryState(discovered: OAuthDiscoveryState): void {
    this.#discovered = discovered
  }

  discoveryState(): OAuthDiscoveryState | undefined {
    return this.#discovered
  }

  async redirectToAuthorization(url: URL): Promise<void> {
    this.asked.push(url)
    this.#landed = await this.#visit(url)
  }

  /** What the authorization server has sent the browser back with. */
  callback(): URLSearchParams {
    const { searchParams } = this.#landed as URL
    this.#landed = undefined
    return searchParams
  }
}

export interface Connected {
  readonly client: Client
  /** Carries out `work`, logging in first if it has to, as often as it has to. */
  loggedIn<T>(work: () => Promise<T>): Promise<T>
}

const maxLogins = 3

type Over = 'legacy' | 'modern' | 'HTTP+SSE'

/** Connects to a URL, and knows nothing else. */
export async function connectTo(url: string, application: Application, over: Over): Promise<Connected> {
  for (let logins = 0; ; logins++) {
    const Transport = over === 'HTTP+SSE' ? SSEClientTransport : StreamableHTTPClientTransport
    const transport = new Transport(new URL(url), { authProvider: application })
    const client = new Client(
      { name: 'oauth-test', version: '1' },
      over === 'modern' ? { versionNegotiation: { mode: { pin: '2026-07-28' } } } : {},
    )
    const loggedIn = async <T>(work: () => Promise<T>): Promise<T> => {
      for (let again = 0; ; again++) {
        try {
          return await work()
        } catch (thrown) {
          if (!(thrown instanceof UnauthorizedError) || again >= maxLogins) throw thrown
          await transport.finishAuth(application.callback())
        }
      }
    }
    try {
      await client.connect(transport)
      return { client, loggedIn }
    } catch (thrown) {
      if (!(thrown instanceof UnauthorizedError) || logins >= maxLogins) throw thrown
      await transport.finishAuth(application.callback())
    }
  }
}
