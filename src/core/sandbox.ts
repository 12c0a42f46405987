/** What a server process may touch, and what is really enforced of it. Shared by the stages that read, enforce and report. */
import type { Credential } from './secret.ts'

/** Words of `allowDegraded`: what an operator accepts to go without. */
export const degradations = ['net-port-only', 'container-seccomp-off', 'no-enforcement'] as const
export type Degradation = (typeof degradations)[number]

export interface PathGrant {
  /** Absolute and normalised; may be a symlink, which is followed once, when the server is started. */
  readonly path: string
  /** Skipped where it does not exist; else that is an error. */
  readonly optional: boolean
}

export interface ReadGrant extends PathGrant {
  /** Programs below it may be run. */
  readonly execute: boolean
}

export interface FilesystemPolicy {
  /** `all`: everything but the protected paths (the builtin full-access). */
  readonly scope: 'granted' | 'all'
  readonly read: readonly ReadGrant[]
  /** What is written may be read, too, and never executed unless a read grant holds it as well. */
  readonly write: readonly PathGrant[]
  readonly proc: 'self' | 'all'
}

/** One entry of `allowHost`, canonical: lower case, ASCII, without a trailing dot. */
export type HostRule =
  | { readonly kind: 'exact'; readonly name: string }
  /** One or more labels below `name`, never `name` itself. */
  | { readonly kind: 'below'; readonly name: string }
  | { readonly kind: 'any' }

export interface NetworkPolicy {
  /** `none`: no IP sockets. `allowlist`: what the rules name, through broker and proxy. `open`: no rule at all. */
  readonly mode: 'none' | 'allowlist' | 'open'
  readonly hosts: readonly HostRule[]
  /** CIDRs without host bits, canonical. */
  readonly cidrs: readonly string[]
  /** TCP; empty: any. */
  readonly ports: readonly number[]
  /** The name in a TLS ClientHello on port 443 must be the one that was asked for; of a target given by address none was. */
  readonly checkSni: boolean
}

export interface EnvironmentPolicy {
  /** Names, or `PREFIX*`, passed beside the defaults. */
  readonly allow: readonly string[]
  readonly set: Readonly<Record<string, string>>
  /** Names that change what programs load (LD_*, NODE_OPTIONS, ...) are let through. */
  readonly allowLoaderVariables: boolean
}

/** Undefined: no limit of ours. */
export interface ProcessLimits {
  /** Bytes of resident memory of all processes together; each may reserve a gigabyte more (RLIMIT_DATA). */
  readonly memoryBytes: number | undefined
  readonly processes: number | undefined
  readonly openFiles: number | undefined
  readonly fileSizeBytes: number | undefined
  /** Of each process; a server that lives long accumulates them. */
  readonly cpuSeconds: number | undefined
}

/** A permission profile, whatever it was written as. */
export interface Profile {
  /** `none`, `network`, `full-access`, or the name of the file or document. */
  readonly name: string
  /** Of its canonical form: the same profile in another notation has the same. `sha256:` and 64 hex digits. */
  readonly digest: string
  readonly filesystem: FilesystemPolicy
  readonly network: NetworkPolicy
  readonly env: EnvironmentPolicy
  readonly limits: ProcessLimits
  readonly allowDegraded: readonly Degradation[]
  /** What its notation asks for and nobody here does, in words. */
  readonly notApplied: readonly string[]
}

export type Mechanism =
  | 'env'
  | 'caps'
  | 'nnp'
  | 'rlimits'
  | 'landlock.fs'
  | 'landlock.net'
  | 'landlock.scope'
  | 'seccomp'
  | 'broker'
  | 'proxy'
  | 'dns'
  | 'watchdog'

export interface MechanismReport {
  readonly mechanism: Mechanism
  readonly requested: boolean
  readonly active: boolean
  /** Measured by the process itself before the server's program ran. */
  readonly selfTest?: 'pass' | 'fail' | 'not-run'
  readonly abi?: number
  readonly reason?: string
  readonly covers: readonly string[]
  /** Codes of what it does not cover, such as `metadata`. */
  readonly gaps: readonly string[]
}

/** `refused`: the server was not started. `off`: nothing is enforced. */
export type EnforcementVerdict = 'enforced' | 'weakened' | 'refused' | 'off'

/** What this kernel and this container are. */
export interface HostFacts {
  readonly release: string
  readonly arch: string
  /** 0: no Landlock. */
  readonly landlockAbi: number
  readonly userNotify: boolean
  /** `kernel.yama.ptrace_scope`; undefined without Yama. */
  readonly yama: number | undefined
  /** Mode of the filter that was there before: 0 none, 2 a filter. */
  readonly containerSeccomp: number
  readonly uid: number
}

export interface EnforcementReport {
  readonly schema: 1
  readonly verdict: EnforcementVerdict
  readonly profile: { readonly name: string; readonly digest: string } | undefined
  readonly kernel: HostFacts | undefined
  readonly mechanisms: readonly MechanismReport[]
  readonly notApplied: readonly string[]
  readonly degraded: readonly Degradation[]
  /** Files and folders of the server's program, which may be read and executed; absent where the launcher looks for them. */
  readonly program?: readonly string[] | undefined
  /** Processes of before a reload that are being ended: other permissions hold for them. Absent when there are none. */
  readonly retiring?: number | undefined
  /** Why it is refused, and what would help. */
  readonly refusal?: { readonly mechanism: string; readonly reason: string; readonly wayOut: string }
}

/** One decision about a connection of a server. */
export interface EgressVerdict {
  /** Of the child: the name of its profile. */
  readonly child: string
  /** Which of the processes with this profile: they are numbered as they are started. Undefined without a token. */
  readonly process?: number
  readonly allowed: boolean
  readonly protocol: 'connect' | 'http' | 'socks5' | 'broker' | 'dns'
  /** Canonical, as far as it could be made so; cut to 255 characters. */
  readonly host: string
  readonly port: number
  /** What allowed or refused it: `host:*.example.com`, `cidr:10.0.0.0/8`, `denied-range:169.254.0.0/16`, `no-rule`, `own-port`. */
  readonly rule: string
  /** The address that was dialled. */
  readonly address: string | undefined
  /** What came of it. Undefined where it was refused, and for a lookup that was answered. */
  readonly outcome?: 'connected' | 'failed' | undefined
  /** For the log, where `rule` does not say it all. */
  readonly reason?: string
}

/** What a server process has to tell the proxy. */
export interface EgressChild {
  /** `http://child:TOKEN@127.0.0.1:PORT`, for the proxy variables of the child. */
  readonly proxyUrl: Credential
  readonly token: Credential
  readonly address: string
  /** Ends its connections; the token is void. */
  close(): void
}

/** One start of a server process. */
export interface Launch {
  readonly command: readonly string[]
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>
  /** For descriptor 3; undefined when the command is started as it is. */
  readonly policy: Buffer | undefined
  /** Of the server itself, as the launcher reports it; undefined before, and without a launcher. */
  readonly pid: number | undefined
  /**
   * Takes each line of descriptor 4.
   *
   * @returns `serve` once the server may be given messages; `end` when it must not be, and {@link reason} says why;
   *   undefined when the line decides nothing
   * @throws Error for a line that cannot be understood
   */
  status(line: string): 'serve' | 'end' | undefined
  /** Why it ended, or was not started, as far as that is known beyond its exit code. */
  readonly reason: string | undefined
  /** It is gone; what it was given is void. */
  ended(): void
}

/** Starts of server processes within what their profile allows. */
export interface Confinement {
  /** What may keep a server from answering here, in words; undefined where it may do what it wants. */
  readonly hint: string | undefined
  /** @param env what the server would get without it */
  launch(command: readonly string[], env: Readonly<Record<string, string>>): Launch
}
