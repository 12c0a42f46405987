import type { X509Certificate } from 'node:crypto'

/** One identity that a request has proven. Never holds the credential. */
export interface Identity {
  /** Unique among all identities, whichever way they were proven; `anonymous` when authentication is off. */
  readonly id: string
  /** How it was proven, as in the configuration: `none`, `bearer`, `apiKey`, `basic`, `jwt`, ... */
  readonly method: string
  /** What rules mean by `user:`, `serviceaccount:` (then the subject is `NAMESPACE/NAME`) and `anonymous`. */
  readonly kind: 'user' | 'serviceaccount' | 'anonymous'
  /** The name that rules compare: `sub` of a token, the user of Basic, the name of a static token or certificate. */
  readonly subject: string
  readonly groups: readonly string[]
  /** OAuth scopes; undefined where the credential has no notion of them. */
  readonly scopes: readonly string[] | undefined
  /** Of a token, without what names the token itself; policies may ask for them. */
  readonly claims: Readonly<Record<string, unknown>>
  /** Tells one credential of this identity from another without revealing it; sessions end when it is withdrawn. */
  readonly proof: string
  /** When the credential ends, in milliseconds since 1970. */
  readonly expiresAt: number | undefined
}

/** Who is calling: the strongest identity of the request, and what else it has proven. With several, the id names all. */
export interface Principal extends Identity {
  /** Where the id names several identities: that of the strongest alone. */
  readonly ownId?: string
  readonly others: readonly Identity[]
}

export const anonymous: Principal = Object.freeze({
  id: 'anonymous',
  method: 'none',
  kind: 'anonymous',
  subject: 'anonymous',
  groups: [],
  scopes: undefined,
  claims: {},
  proof: '',
  expiresAt: undefined,
  others: [],
})

/** A certificate that the client presented, and what the TLS handshake made of it. */
export interface PresentedCertificate {
  readonly x509: X509Certificate
  /** Why it was not accepted (an OpenSSL code such as `CERT_HAS_EXPIRED`); undefined when it was. */
  readonly refusal: string | undefined
}
