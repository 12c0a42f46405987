import { members } from './json.ts'
import type { Message, Span } from './jsonrpc.ts'

/** What the server itself says of a tool in its list (`annotations`); what it does not say is absent. */
export interface ToolHints {
  readonly readOnlyHint?: boolean
  readonly destructiveHint?: boolean
  readonly idempotentHint?: boolean
  readonly openWorldHint?: boolean
}

export const hintNames = ['readOnlyHint', 'destructiveHint', 'idempotentHint', 'openWorldHint'] as const

/** Of a tool that is listed without annotations: it is known, and has none. */
export const noHints: ToolHints = Object.freeze({})

/**
 * What the `annotations` of a tool in a list say (2025-03-26 and later, server/tools); a hint that is neither true nor
 * false says nothing.
 *
 * @param tool where the tool stands; edits of the message are not looked at
 * @returns undefined where readers may differ about it: the annotations, or one of the hints, stand twice
 */
export function hintsOf(message: Message, tool: Span): ToolHints | undefined {
  const { bytes } = message
  const [annotations, ...others] = members(bytes, tool).filter(({ key }) => key === 'annotations')
  if (annotations === undefined) return noHints
  if (others.length > 0) return undefined
  const hints: { -readonly [K in keyof ToolHints]: ToolHints[K] } = {}
  const parts = members(bytes, annotations.value)
  for (const name of hintNames) {
    const [hint, ...more] = parts.filter(({ key }) => key === name).map(({ value }) => message.text(value))
    if (more.length > 0) return undefined
    if (hint === 'true' || hint === 'false') hints[name] = hint === 'true'
  }
  return hints
}
