import type { Message } from '../core/jsonrpc.ts'
import type { Operation, Target } from '../core/operation.ts'
import type { ToolHints } from '../core/tool-hints.ts'
import type { Decoded, Principal } from '../core/types.ts'

/** One use of one object, to be judged. */
export interface Question {
  readonly principal: Principal
  /** An object that is only listed is judged by the action that uses it. */
  readonly action: NonNullable<Operation['action']>
  readonly target: Target
  /** The request, whose `params.arguments` (a span, not yet read) are judged with it; undefined for an object of a list. */
  readonly message: Message | undefined
  /** The request it came with: address, headers, era. */
  readonly request: Decoded
  /** Of a tool, as the server lists it; undefined for others, and for a tool where nobody {@link Decider.readsHints}. */
  readonly hints: ToolHints | undefined
}

export interface Decision {
  readonly allow: boolean
  /** The policies that decided. */
  readonly ids: readonly string[]
  /** What went wrong, for the log; whatever went wrong denies, so `allow` is then false. */
  readonly errors: readonly string[]
}

/** Decides by policies in a language of their own. Synchronous, and asked for each call and each object of a list. */
export interface Decider {
  /** Some policy on the use of tools looks at what the server says of them: it must be known before one is asked about. */
  readonly readsHints: boolean
  decide(question: Question): Decision
}
