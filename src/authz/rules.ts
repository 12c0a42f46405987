import { SidecarError } from '../core/errors.ts'
import { anyGlob } from '../core/glob.ts'
import type { Operation, Target } from '../core/operation.ts'
import type { AccessRule, Condition, RuleLayer, RulePermission } from '../core/policy.ts'
import type { Clock, Decoded, Principal, Received, Verdict } from '../core/types.ts'
import { type ConditionCheck, compileCondition } from './conditions.ts'
import { quoted } from './fault.ts'
import { compilePrincipals, type PrincipalMatcher } from './principals.ts'

/** An object that a list names. A template stands for every URI it can become. */
export type ListedType = Target['type'] | 'template'

type NameCheck = (name: string) => boolean

interface Rule {
  readonly id: string
  readonly source: AccessRule
  readonly isFor: PrincipalMatcher
  readonly conditions: readonly ConditionCheck[]
  readonly uses: Readonly<Record<Target['type'], NameCheck>>
  readonly lists: Readonly<Record<ListedType, NameCheck>>
  /** Of the layer, with this rule as the one that permitted. */
  readonly verdict: Verdict
}

/** One layer of rules, ready to decide. */
export interface CompiledLayer {
  readonly name: string
  /** @throws ERR_DENIED unless all targets may be used */
  permit(request: Decoded, operation: Operation): Verdict
  /** What of a list this caller may see. */
  listing(request: Decoded): (type: ListedType, name: string) => boolean
}

const useActions = { tool: 'tools/call', resource: 'resources/read', prompt: 'prompts/get' } as const

/**
 * @param layer with one rule or more, checked by `checkAuthz`
 * @throws Error where a rule cannot be read
 */
export function compileLayer(layer: RuleLayer, clock: Pick<Clock, 'epoch'>): CompiledLayer {
  const rules = layer.rules.map((rule) => compileRule(rule, layer, clock))
  const all = layer.evaluation === 'all'
  const allVerdict: Verdict = Object.freeze({ layer: layer.name, ids: rules.map(({ id }) => id) })

  /** The rule that settles it: of `any` the first that permits, of `all` the first that does not. */
  const settling = (request: Decoded, target: Target): Rule | undefined => {
    for (let i = 0; i < rules.length; i++) {
      const rule = rules[i] as Rule
      if (permits(rule, request, target) !== all) return rule
    }
    return undefined
  }
  const permitAll = (request: Decoded, operation: Operation): Verdict => {
    for (const target of operation.targets) {
      if (settling(request, target) !== undefined) throw denied(layer, rules, request, target, operation)
    }
    return allVerdict
  }
  const permitAny = (request: Decoded, operation: Operation): Verdict => {
    const permitting: Rule[] = []
    for (const target of operation.targets) {
      const rule = settling(request, target)
      if (rule === undefined) throw denied(layer, rules, request, target, operation)
      if (!permitting.includes(rule)) permitting.push(rule)
    }
    if (permitting.length === 1) return (permitting[0] as Rule).verdict
    return { layer: layer.name, ids: permitting.map(({ id }) => id) }
  }

  return {
    name: layer.name,
    permit: all ? permitAll : permitAny,
    listing(request) {
      const open = rules.filter((rule) => rule.isFor(request.principal) && isMet(rule.conditions, request))
      if (!all) return (type, name) => open.some((rule) => rule.lists[type](name))
      return (type, name) => open.length === rules.length && open.every((rule) => rule.lists[type](name))
    },
  }
}

function permits(rule: Rule, request: Decoded, target: Target): boolean {
  return (
    rule.isFor(request.principal) && rule.uses[target.type](target.name) && isMet(rule.conditions, request)
  )
}

function isMet(conditions: readonly ConditionCheck[], request: Received): boolean {
  for (let i = 0; i < conditions.length; i++) if (!(conditions[i] as ConditionCheck)(request)) return false
  return true
}

function compileRule(rule: AccessRule, layer: RuleLayer, clock: Pick<Clock, 'epoch'>): Rule {
  const { id, permissions } = rule
  const using = (type: Target['type']): RulePermission[] =>
    permissions.filter((each) => includes(each, useActions[type]))
  const tools = anyGlob(using('tool').flatMap((each) => each.tools))
  const resourceGlobs = using('resource').flatMap((each) => each.resources)
  const resources = anyGlob(resourceGlobs)
  const prompts = anyGlob(using('prompt').flatMap((each) => each.prompts))
  const listable = permissions.filter((each) => includes(each, 'tools/list') || includes(each, 'tools/call'))
  return {
    id,
    source: rule,
    isFor: compilePrincipals(rule.principals, layer.namespace),
    conditions: rule.conditions.map((condition) => compileCondition(condition, clock)),
    uses: { tool: tools, resource: resources, prompt: prompts },
    lists: {
      tool: anyGlob(listable.flatMap((each) => each.tools)),
      resource: resources,
      prompt: prompts,
      template: couldBecome(resourceGlobs),
    },
    verdict: Object.freeze({ layer: layer.name, ids: Object.freeze([id]) }),
  }
}

function includes({ actions }: RulePermission, action: RulePermission['actions'][number]): boolean {
  return actions.includes(action) || actions.includes('*')
}

/**
 * Whether a URI template (RFC 6570) may become a URI that some pattern fits, as far as the text before the first
 * expression and the text before the first `*` tell: one must begin with the other. It may list a template of which
 * nothing can be read, and leaves out none of which something can.
 */
function couldBecome(patterns: readonly string[]): NameCheck {
  const exact = anyGlob(patterns)
  return (template) => {
    const brace = template.indexOf('{')
    if (brace < 0) return exact(template)
    const fixed = template.slice(0, brace)
    return patterns.some((pattern) => {
      const star = pattern.indexOf('*')
      if (star < 0) return pattern.startsWith(fixed)
      const head = pattern.slice(0, star)
      return head.startsWith(fixed) || fixed.startsWith(head)
    })
  }
}

/** Rules that a refusal explains. */
const maxExplained = 8

function denied(
  layer: RuleLayer,
  rules: readonly Rule[],
  request: Decoded,
  target: Target,
  operation: Operation,
): SidecarError {
  const failed = rules.filter((rule) => !permits(rule, request, target))
  const reasons = failed.slice(0, maxExplained).map((rule) => `${rule.id}: ${whyNot(rule, request, target)}`)
  const more = failed.length > maxExplained ? `; and ${failed.length - maxExplained} more` : ''
  const what = layer.evaluation === 'all' ? 'not every rule permits' : 'no rule permits'
  const subject = `${operation.action} of ${target.type} ${quoted(target.name)} to ${callerName(request.principal)}`
  return new SidecarError('ERR_DENIED', {
    detail: `${layer.name}: ${what} ${subject} (${reasons.join('; ')}${more})`,
    // Where one permit is enough, no rule in particular refused.
    verdict: { layer: layer.name, ids: layer.evaluation === 'all' ? failed.map(({ id }) => id) : [] },
  })
}

function whyNot(rule: Rule, request: Decoded, target: Target): string {
  if (!rule.isFor(request.principal)) return 'not for this caller'
  if (!rule.uses[target.type](target.name)) return 'not for this object'
  const unmet = rule.conditions.findIndex((holds) => !holds(request))
  if (unmet < 0) return 'its conditions hold by now'
  const { type, operator } = rule.source.conditions[unmet] as Condition
  return `its condition ${type} ${operator} does not hold`
}

/** All that the caller has proven to be, for the log. */
export function callerName({ id, others }: Principal): string {
  return [id, ...others.map((each) => each.id)].map(quoted).join(' with ')
}
