import type { Lifecycle, Pool } from '../core/types.ts'
import type { ServerCommand } from './process.ts'

export interface PoolOptions {
  readonly command: ServerCommand
  readonly maxProcesses: number
  readonly warmSpares: number
  readonly startTimeoutMs: number
  readonly maxMessageBytes: number
  /** The sidecar's own version, for `clientInfo`. */
  readonly version: string
  /** Calls when the tools of the server may have changed: for one principal, or for all. */
  readonly onToolsChanged: (principalId: string | undefined) => void
}

export interface PerSessionOptions extends PoolOptions {
  /** Most sessions of one principal that have a process. */
  readonly maxPerPrincipal: number
}

/** A pool with its life cycle. */
export interface ServerPool extends Pool, Lifecycle {}
