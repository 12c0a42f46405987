import { SidecarError } from '../core/errors.ts'
import type { Operation, Target } from '../core/operation.ts'
import type { AuthzPolicy } from '../core/policy.ts'
import { hintsOf } from '../core/tool-hints.ts'
import type { Clock, Decoded, Verdict } from '../core/types.ts'
import type { Decider, Decision, Question } from './decider.ts'
import { quoted } from './fault.ts'
import type { Listed } from './list-filter.ts'
import { callerName, compileLayer } from './rules.ts'
import { isTreacherous, spellings } from './uris.ts'

/** All layers of rules, and Cedar. */
export interface Judge {
  /** Of the layers, in the order in which they are asked. */
  readonly names: readonly string[]
  /**
   * Adds a verdict of each layer.
   *
   * @throws ERR_DENIED
   */
  permit(request: Decoded, operation: Operation, verdicts: Verdict[]): void
  /** What of a list this caller may see. */
  listing(request: Decoded): (item: Listed) => boolean
}

/** @returns undefined where there is nothing to judge by */
export function createJudge(
  policy: AuthzPolicy,
  { clock, cedar }: { readonly clock: Clock; readonly cedar: Decider | undefined },
): Judge | undefined {
  // Without rules it is not a layer: a default that nobody filled in must not deny everything.
  const layers = policy.layers
    .filter(({ rules }) => rules.length > 0)
    .map((layer) => compileLayer(layer, clock))
  if (layers.length === 0 && cedar === undefined) return undefined
  const policies = cedar === undefined ? undefined : new PolicyLayer(cedar)
  const names = [...layers.map(({ name }) => name), ...(policies === undefined ? [] : ['cedar'])]
  const unasked: readonly Verdict[] = names.map((layer) => Object.freeze({ layer, ids: Object.freeze([]) }))
  return {
    names,
    permit(request, operation, verdicts) {
      if (operation.kind !== 'use') {
        verdicts.push(...unasked)
        return
      }
      for (const layer of layers) verdicts.push(layer.permit(request, operation))
      if (policies !== undefined) verdicts.push(policies.permit(request, operation))
    },
    listing(request) {
      const listings = layers.map((layer) => layer.listing(request))
      return (item) => {
        const { type, name } = item
        if ((type === 'resource' || type === 'template') && isTreacherous(name)) return false
        return listings.every((mayList) => mayList(type, name)) && policies?.lists(request, item) !== false
      }
    },
  }
}

const actions = { tool: 'tools/call', prompt: 'prompts/get', resource: 'resources/read' } as const

/** Policies in a language of their own, as one layer among others. */
class PolicyLayer {
  readonly #decider: Decider

  constructor(decider: Decider) {
    this.#decider = decider
  }

  permit(request: Decoded, operation: Operation): Verdict {
    const { principal, message } = request
    const action = operation.action as Question['action']
    let ids: readonly string[] | undefined
    for (const target of operation.targets) {
      const hints = target.type === 'tool' ? request.toolHints : undefined
      for (const read of readings(target)) {
        const decision = this.#decide({ principal, action, target: read, message, request, hints })
        if (!decision.allow) throw refused(decision, request, operation, target, read)
        ids = ids === undefined ? decision.ids : [...new Set([...ids, ...decision.ids])]
      }
    }
    return { layer: 'cedar', ids: ids ?? [] }
  }

  /** A template is judged as a resource whose URI is its text: its braces are no part of any URI that is read. */
  lists(request: Decoded, item: Listed): boolean {
    const target: Target = { type: item.type === 'template' ? 'resource' : item.type, name: item.name }
    const hints = target.type === 'tool' ? hintsOf(item.message, item.span) : undefined
    const { principal } = request
    const action = actions[target.type]
    const asked = item.type === 'template' ? [target] : readings(target)
    return asked.every(
      (read) => this.#decide({ principal, action, target: read, message: undefined, request, hints }).allow,
    )
  }

  #decide(question: Question): Decision {
    // A policy that forbids by a hint would not match a tool of which nothing is known.
    if (this.#decider.readsHints && question.target.type === 'tool' && question.hints === undefined)
      return { allow: false, ids: [], errors: [unknownHints] }
    try {
      const decision = this.#decider.decide(question)
      return decision.allow && decision.errors.length > 0 ? { ...decision, allow: false } : decision
    } catch (thrown) {
      const error = thrown instanceof Error ? thrown.message : String(thrown)
      return { allow: false, ids: [], errors: [error] }
    }
  }
}

/** A policy that forbids names one spelling of a URI, and the server may take another for the same. */
function readings(target: Target): readonly Target[] {
  if (target.type !== 'resource') return [target]
  return spellings(target.name).map((name) => (name === target.name ? target : { type: 'resource', name }))
}

const unknownHints =
  'what the server says of it is not known: there is no list of tools, or it does not hold this one exactly once'

function refused(
  { ids, errors }: Decision,
  { principal }: Decoded,
  { action }: Operation,
  { type, name }: Target,
  read: Target,
): SidecarError {
  const meant = read.name === name ? '' : ` (read as ${quoted(read.name)})`
  const what = `cedar: ${action} of ${type} ${quoted(name)}${meant} to ${callerName(principal)}`
  let why = ids.length === 0 ? 'no policy permits it' : `denied by ${ids.map(quoted).join(', ')}`
  if (errors.length > 0) why = `error: ${errors.slice(0, 4).map(quoted).join('; ')}`
  return new SidecarError('ERR_DENIED', {
    detail: `${what}: ${why}`,
    verdict: { layer: 'cedar', ids, errors },
  })
}
