/** What a session is given. */
import type { Clock, Logger, Metrics, Pool } from '../core/types.ts'
import type { ModernContext } from './modern-clients.ts'

export interface SessionOptions {
  /** Bytes a client may leave unread before its server process is slowed down, or its session ends. */
  readonly queueBytes: number
  /** Longest message of the server: so much more may be on its way when the limit is reached. */
  readonly maxMessageBytes: number
  readonly replayBytes: number
  /** How long the client has to answer a question of the server. Milliseconds. */
  readonly inputMs: number
}

export interface SessionContext {
  /** The one of the moment: a session that initializes after a reload gets the new server. */
  readonly pool: () => Pool
  readonly clock: Clock
  readonly log: Logger
  readonly metrics: Metrics
  readonly options: SessionOptions
  /** For connections of modern clients. */
  readonly modern: ModernContext
}
