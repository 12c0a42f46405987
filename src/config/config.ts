import type { Policy } from '../core/policy.ts'
import type { Profile } from '../core/sandbox.ts'
import type { LOG_LEVELS } from './values.ts'

export type LogLevel = (typeof LOG_LEVELS)[number]

/**
 * The whole configuration, checked and in one unit per kind: milliseconds (`Ms`) and bytes (`Bytes`).
 * Paths are absolute, names of hosts and origins in lower case. Limits, defaults and meaning of each value stand in
 * `fields.ts`, from which docs/configuration.md is made.
 */
export interface Config {
  readonly server: {
    /** The program and its arguments; never empty, never given to a shell. */
    readonly command: readonly string[]
    /** Undefined: the folder the sidecar was started in; with a socket, the one the launcher was started in. */
    readonly cwd: string | undefined
    /** Of a launcher in another container, which starts the server there. Undefined: it is started here. */
    readonly socket: string | undefined
    /** The complete list of names to pass on, base set included; a name may end in `*` (any rest). */
    readonly envAllow: readonly string[]
    readonly envSet: Readonly<Record<string, string>>
    readonly era: 'auto' | 'modern' | 'legacy'
    readonly topology: 'auto' | 'per-session' | 'shared'
    readonly poolSize: number
    readonly stateKeyFile: string | undefined
    readonly startTimeoutMs: number
    readonly warmSpares: number
  }
  readonly listen: {
    readonly host: string
    /** 0 takes any free port. */
    readonly port: number
    /** `host` (any port) or `host:port`, IPv6 in brackets. */
    readonly allowedHosts: readonly string[]
    /** As a browser writes them: `scheme://host` or `scheme://host:port`. */
    readonly allowedOrigins: readonly string[]
    /** PEM files, read when the listener is made and when they change. Undefined: plain HTTP. */
    readonly tls:
      | { readonly certFile: string; readonly keyFile: string; readonly minVersion: 'TLSv1.2' | 'TLSv1.3' }
      | undefined
    /** Addresses and networks whose word on the client's address and certificate is taken. */
    readonly trustedProxies: readonly string[]
    /** The header that they write. Undefined: either. */
    readonly forwardedHeader: 'forwarded' | 'x-forwarded-for' | undefined
    readonly streamableHttp: boolean
    readonly httpSse: boolean
    readonly webSocket: boolean
    readonly keepAliveMs: number
  }
  readonly admin: { readonly host: string; readonly port: number }
  /** Neither of the two: nothing was chosen, which only a loopback address allows. */
  readonly auth: { readonly none: boolean; readonly bearerTokenFile: string | undefined }
  readonly limits: {
    readonly requestBodyBytes: number
    readonly serverMessageBytes: number
    readonly sessions: number
    /** At most `sessions`. */
    readonly sessionsPerPrincipal: number
    readonly processes: number
    readonly processesPerPrincipal: number
    readonly inFlight: number
    readonly inFlightPerPrincipal: number
    readonly subscriptionsPerPrincipal: number
    readonly connections: number
    readonly requestTimeoutMs: number
    readonly maxRequestTimeoutMs: number
    readonly clientInputMs: number
    readonly idleSessionMs: number
    readonly sessionQueueBytes: number
    readonly replayBufferBytes: number
    readonly batch: number
    readonly headerTimeoutMs: number
    readonly bodyTimeoutMs: number
  }
  readonly shutdownGraceMs: number
  readonly log: { readonly level: LogLevel; readonly format: 'auto' | 'json' | 'pretty' }
  /** OME documents, and where what they refer to is mounted. */
  readonly manifests: readonly string[]
  readonly secretsDir: string
  readonly configMapsDir: string
  /** Who may come in and what they may do: made of all of `auth`, `authorization`, limits, `audit` and the documents. */
  readonly policy: Policy
  /** What the server may touch, by setting or document. Undefined: nothing was chosen. */
  readonly permissions: Profile | undefined
  /** Absolute paths that no profile may open: configuration, keys, secrets and the audit log of the sidecar itself. */
  readonly protectedPaths: readonly string[]
}

/** What is made of several settings. */
export type MadeKey = 'policy' | 'permissions' | 'protectedPaths'

/** Dotted paths of the values: a record with any key (`envSet`) and a list are values, the other objects are sections. */
type Leaves<T, Prefix extends string = ''> = {
  [K in keyof T & string]: T[K] extends readonly unknown[]
    ? `${Prefix}${K}`
    : T[K] extends object
      ? string extends keyof T[K]
        ? `${Prefix}${K}`
        : Leaves<T[K], `${Prefix}${K}.`>
      : `${Prefix}${K}`
}[keyof T & string]

/** `'limits.requestBodyBytes'` and so on: the name of each value inside `Config`. */
export type ConfigKey = Leaves<Omit<Config, MadeKey>>

/** The type of the value that a dotted path names. */
export type ValueAt<T, Key extends string> = Key extends `${infer Head}.${infer Rest}`
  ? Head extends keyof T
    ? ValueAt<T[Head], Rest>
    : never
  : Key extends keyof T
    ? T[Key]
    : never
