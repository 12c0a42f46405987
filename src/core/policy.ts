/**
 * What the configuration asks of the stages that keep strangers and misuse out. config/ makes these values from the file,
 * flags and OME documents; authn/, authz/, limit/ and observe/ carry them out. Durations are in milliseconds.
 */
import type { Credential } from './secret.ts'

/** A secret: a file that is read when the method is built (a final line break is not part of it), or its text. */
export type SecretSource = { readonly file: string } | { readonly text: Credential }

/** Static bearer tokens, or API keys in a header of their own: `NAME:SECRET` lines. */
export interface StaticMethod {
  readonly method: 'bearer' | 'apiKey'
  readonly source: SecretSource
  /** In lower case; undefined for `Authorization: Bearer`. */
  readonly header: string | undefined
}

/** Basic (RFC 7617): `NAME:scrypt$...` lines, as `mcp-sidecar hash` makes them. */
export interface BasicMethod {
  readonly method: 'basic'
  readonly source: SecretSource
}

/** What every kind of token is held against. */
export interface TokenChecks {
  /** Any one of them must be in `aud`; empty: the resource of this server (RFC 8707). */
  readonly audiences: readonly string[]
  /** JWS algorithms to accept; `none` is never one of them. Empty: RS256, PS256, ES256, EdDSA and their larger kin. */
  readonly algorithms: readonly string[]
  /** How far clocks may differ. */
  readonly clockToleranceMs: number
  /** A claim must be there; with a value, it must have that value, or be a list that holds it. */
  readonly requiredClaims: Readonly<Record<string, string | number | boolean | null>>
  /** Scopes that every token must carry. */
  readonly scopes: readonly string[]
  /** The claim that names the caller. */
  readonly subjectClaim: string
  /** The claim with the groups; undefined: the first of `groups`, `roles`, `cognito:groups` that is there. */
  readonly groupsClaim: string | undefined
}

/** How keys are fetched. */
export interface Fetching {
  /** PEM bundle that the TLS certificate of the other side must lead to; undefined: the roots of Node.js. */
  readonly caFile: string | undefined
  readonly timeoutMs: number
  /** Whether addresses of private networks and this machine may be asked. */
  readonly allowPrivate: boolean
  /** Plain http is for loopback addresses, and only with this. */
  readonly allowHttp: boolean
}

export interface JwtMethod extends TokenChecks {
  readonly method: 'jwt'
  /** Undefined: any issuer that the keys vouch for (OME routes without one). */
  readonly issuer: string | undefined
  /** `file`: a JWKS or PEM public key. `secret`: for HS256 to HS512 alone. */
  readonly keys:
    | { readonly url: string; readonly fetching: Fetching }
    | { readonly file: string }
    | { readonly text: string }
    | { readonly secret: SecretSource }
}

export interface OidcMethod extends TokenChecks {
  readonly method: 'oidc'
  readonly issuer: string
  /** With its secret: opaque tokens are introspected (RFC 7662). */
  readonly clientId: string | undefined
  readonly clientSecret: SecretSource | undefined
  /** Instead of what discovery names. */
  readonly introspectionUrl: string | undefined
  /** `jwt`: only JWT; `introspection`: every token is introspected; `auto`: JWT by its keys, others introspected. */
  readonly tokens: 'auto' | 'jwt' | 'introspection'
  /** An introspection answer is believed so long. */
  readonly cacheMs: number
  readonly fetching: Fetching
}

export interface KubernetesMethod {
  readonly method: 'kubernetes'
  /** `token-review` asks the API server; `jwks` verifies with the cluster's own keys, which sees no revocation. */
  readonly mode: 'token-review' | 'jwks'
  readonly audiences: readonly string[]
  readonly apiServer: string
  /** Of this process, to call the API server with. Read anew when it is used: the kubelet rotates it. */
  readonly tokenFile: string
  readonly caFile: string
  /** `iss` in mode `jwks`. */
  readonly issuer: string
  readonly cacheMs: number
  readonly timeoutMs: number
}

export interface CertificateMethod {
  readonly method: 'clientCertificate'
  /** `tls`: presented to our own listener. `forwarded`: in a header of a proxy that is trusted. */
  readonly from: 'tls' | 'forwarded'
  /** Trust anchors (PEM bundle). A forwarded certificate is verified against them, too. */
  readonly caFile: string
  /** PEM revocation lists. */
  readonly crlFile: string | undefined
  /** Which names make an identity, in this order of preference. */
  readonly names: readonly ('spiffe' | 'uri' | 'dns' | 'email' | 'cn')[]
  /** Of SPIFFE ids; empty: any. */
  readonly trustDomains: readonly string[]
  /** Globs over the chosen name; empty: any. */
  readonly allow: readonly string[]
  /** For `forwarded`, in lower case: `x-forwarded-client-cert` (Envoy), or a header with the PEM, URL-encoded. */
  readonly header: string
}

export type AuthMethod =
  | StaticMethod
  | BasicMethod
  | JwtMethod
  | OidcMethod
  | KubernetesMethod
  | CertificateMethod

/** One demand for authentication. Layers are all to be met: the gateway's, the route's, our own. */
export interface AuthLayer {
  /** Where it comes from, for people: `auth`, `MCPRoute team-a/search`. */
  readonly name: string
  /** `any`: the first method that recognises its credential decides. `all`: each must accept. */
  readonly require: 'any' | 'all'
  readonly methods: readonly AuthMethod[]
}

export interface AuthPolicy {
  /** Empty: nobody is asked, everyone is anonymous. */
  readonly layers: readonly AuthLayer[]
  /** For all methods of one request together. */
  readonly timeoutMs: number
  /** Failed attempts of one address before further ones are refused unseen. */
  readonly failures: { readonly attempts: number; readonly windowMs: number }
  /** This server as clients name it (RFC 8707, RFC 9728); undefined: the URL that is listened on. */
  readonly resource: string | undefined
  /** Of the RFC 9728 document; those of the token methods are added. */
  readonly authorizationServers: readonly string[]
  readonly scopesSupported: readonly string[]
}

/** A condition on the request (OME `conditions`); all of a rule must hold. */
export interface Condition {
  readonly type: 'IPAddress' | 'TimeOfDay' | 'RequestHeader'
  /** Of `RequestHeader`: the header. */
  readonly key: string | undefined
  readonly value: string
  readonly operator: 'Equal' | 'NotEqual' | 'In' | 'NotIn' | 'Matches' | 'NotMatches'
}

export const ruleActions = ['tools/call', 'tools/list', 'resources/read', 'prompts/get', '*'] as const
export type RuleAction = (typeof ruleActions)[number]

export interface RulePermission {
  /** Globs (`*` stands for any text). */
  readonly tools: readonly string[]
  readonly resources: readonly string[]
  readonly prompts: readonly string[]
  readonly actions: readonly RuleAction[]
}

export interface AccessRule {
  /** Names it in the audit log; `rule-1` and so on where nobody gave a name. */
  readonly id: string
  /** `user:ID`, `group:NAME`, `serviceaccount:NAME | NS/NAME | NS:NAME | system:serviceaccount:NS:NAME`, `id:ID`, `*`, `anonymous`. */
  readonly principals: readonly string[]
  readonly permissions: readonly RulePermission[]
  readonly conditions: readonly Condition[]
}

/** Rules of one origin. Each layer must permit. */
export interface RuleLayer {
  readonly name: string
  /** `any`: one rule that permits is enough; `all`: each rule must permit. */
  readonly evaluation: 'any' | 'all'
  readonly rules: readonly AccessRule[]
  /** A `serviceaccount:` without a namespace means this one. */
  readonly namespace: string | undefined
}

/** Which scopes an operation needs, beside those that every token needs. */
export interface ScopeDemand {
  /** MCP methods, with `*` for any text; empty: those of the objects named. */
  readonly methods: readonly string[]
  readonly tools: readonly string[]
  readonly resources: readonly string[]
  readonly prompts: readonly string[]
  readonly scopes: readonly string[]
}

export interface CedarPolicy {
  /** Texts with their file, for errors; each may hold several policies. */
  readonly policies: readonly { readonly name: string; readonly text: string }[]
  /** Cedar's JSON form of entities. */
  readonly entities: string
  /** A Cedar schema to validate against, in Cedar's own or its JSON form; undefined: the built-in vocabulary. */
  readonly schema: string | undefined
  readonly groupClaim: string | undefined
  readonly roleClaim: string | undefined
  /** Default `THVGroup`. */
  readonly groupEntityType: string
  readonly multiValuedClaims: readonly string[]
  /** Numbers as ToolHive hands them over: all as `decimal`. */
  readonly decimalNumbers: boolean
  /** `MCP::"<server>"`, the parent of every resource. */
  readonly server: string
}

export interface AuthzPolicy {
  readonly layers: readonly RuleLayer[]
  readonly cedar: CedarPolicy | undefined
  readonly scopes: readonly ScopeDemand[]
  /** A scope on the left stands for those on the right, too. */
  readonly impliedScopes: Readonly<Record<string, readonly string[]>>
  /** Names of the only tools there are, each list one demand; a tool outside any of them does not exist. */
  readonly toolsFilters: readonly (readonly string[])[]
  /** Only these are advertised and served; undefined: all. */
  readonly capabilities:
    | { readonly tools: boolean; readonly resources: boolean; readonly prompts: boolean }
    | undefined
}

export const rateDimensions = ['user', 'ip', 'tool', 'principal', 'namespace'] as const

export interface RateLimit {
  /** Names it in logs and errors. */
  readonly name: string
  readonly dimension: (typeof rateDimensions)[number]
  /** Globs; empty: every request (dimension `tool`: every tools/call). */
  readonly tools: readonly string[]
  readonly requests: number
  readonly windowMs: number
}

export interface RatePolicy {
  readonly limits: readonly RateLimit[]
  /** Of callers that are no Kubernetes service account. */
  readonly namespace: string
  /** Undefined: counted in this process alone. */
  readonly redis:
    | {
        readonly url: string
        readonly password: SecretSource | undefined
        readonly caFile: string | undefined
        readonly prefix: string
        /** While Redis is away: `local` counts here, `refuse` answers 503. */
        readonly whenAway: 'local' | 'refuse'
        readonly timeoutMs: number
      }
    | undefined
}

/** Times for some calls that differ from those for all. The first that fits counts. */
export interface TimeoutRule {
  /** MCP methods, with `*` for any text; empty: tools/call. */
  readonly methods: readonly string[]
  /** Globs over names of tools; empty: any. */
  readonly tools: readonly string[]
  readonly timeoutMs: number
  readonly maxMs: number
}

/** What audit events are about: as in ToolHive (pkg/audit/event.go), and then ours. */
export const auditTypes = [
  'mcp_initialize',
  'mcp_tool_call',
  'mcp_tools_list',
  'mcp_resource_read',
  'mcp_resources_list',
  'mcp_prompt_get',
  'mcp_prompts_list',
  'mcp_notification',
  'mcp_ping',
  'mcp_logging',
  'mcp_completion',
  /** Any other request of a client. */
  'mcp_request',
  /** A stream was opened, or ended: the GET stream, an HTTP+SSE stream, a WebSocket. */
  'sse_connection',
  /** An HTTP request that was refused before a message could be read from it. */
  'http_request',
  /** A response of a client to what the server asked. */
  'mcp_response',
  /** The server asked the client for something. */
  'server_request',
  'session_start',
  'session_end',
  'process_start',
  'process_exit',
  /** What holds for a server process that was just started, or why it was not. */
  'sandbox_report',
  /** A connection of the server, or a name that it asked for, was let out or refused. */
  'egress',
  'config_reload',
  'sidecar_start',
  'sidecar_stop',
] as const
export type AuditType = (typeof auditTypes)[number]

export interface AuditPolicy {
  /** `stdout`, or a file. */
  readonly destination: 'stdout' | { readonly file: string }
  /** Of the audit event types; empty: all. */
  readonly eventTypes: readonly string[]
  readonly excludeEventTypes: readonly string[]
  readonly includeRequestData: boolean
  readonly includeResponseData: boolean
  readonly maxDataBytes: number
  /** Names of members whose values are never written, whatever the letter case, beside the built-in ones. */
  readonly redact: readonly string[]
  /** When the sink fails: `block` refuses calls until it works again, `continue` counts what was lost. */
  readonly onFailure: 'block' | 'continue'
  readonly component: string
}

/** Everything that decides who may come in and what they may do. */
export interface Policy {
  readonly auth: AuthPolicy
  readonly authz: AuthzPolicy
  readonly rates: RatePolicy
  readonly timeouts: readonly TimeoutRule[]
  readonly audit: AuditPolicy | undefined
  /** What a document asks for and somebody else has to do, or this version does not; for people. */
  readonly notEnforced: readonly string[]
}
