import type { Pool } from '../core/types.ts'
import type { ServerCommand } from './process.ts'

export interface PoolOptions {
  readonly command: ServerCommand
  readonly maxProcesses: number
  readonly warmSpares: number
  readonly startTimeoutMs: number
  readonly maxMessageBytes: number
  /** The sidecar's own version, for `clientInfo`. */
  readonly version: string
}

/** A pool with its life cycle, as main and the admin endpoints see it. */
export interface ServerPool extends Pool {
  start(): void
  /** The server answers. */
  readonly ready: boolean
  readonly processes: number
  /** Bytes that wait for server processes to read them. */
  readonly queuedBytes: number
  /** Leases nothing more; processes end with the sessions that use them. */
  retire(): void
  /** Stops every process and resolves when all are gone. */
  close(): Promise<void>
}
