/** Decisions by Cedar policies. The engine is a WebAssembly module of 4 MB, loaded when there are policies. */
import { setFlagsFromString } from 'node:v8'
import type { CedarPolicy } from '../core/policy.ts'
import { hintNames } from '../core/tool-hints.ts'
import type { Engine, EngineError, EntityJson, Problem } from './cedar-ast.ts'
import { Calls, type Plan, planOf } from './cedar-calls.ts'
import { readPolicies, sentence } from './cedar-policies.ts'
import { checkSchema, checkVocabulary, reservedTypes } from './cedar-schema.ts'
import { readsAttributes, sliceAction } from './cedar-slices.ts'
import type { Decider, Decision, Question } from './decider.ts'
import { KnownEntities } from './entities.ts'

/** Policies, entities or a schema that cannot be used; {@link problems} has everything that is wrong. */
export class CedarError extends Error {
  override readonly name = 'CedarError'
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[]) {
    super(problems.map(({ where, message }) => `${where}: ${message}`).join('\n'))
    this.problems = problems
  }
}

/** Most entities of the configuration. */
const maxEntities = 10_000

/**
 * Reads and checks policies, and makes what decides by them: allowed is what a `permit` and no `forbid` matches, in an
 * evaluation without any error. May be called anew with other policies; earlier deciders stay good.
 *
 * @throws CedarError
 */
export async function loadCedar(policy: CedarPolicy): Promise<Decider> {
  // V8 ends the process when it gives up optimized code that has such a call in it (Node.js 20 under load).
  setFlagsFromString('--no-turbo-inline-js-wasm-calls')
  const engine = (await import('@cedar-policy/cedar-wasm/nodejs')) as unknown as Engine
  const problems: Problem[] = []
  const { groupEntityType } = policy
  if (!isTypeName(engine, groupEntityType) || reservedTypes.has(groupEntityType)) {
    const where = 'groupEntityType'
    problems.push({
      where,
      message: `${JSON.stringify(groupEntityType)} is no name for an entity type of groups`,
    })
  }
  const policies = readPolicies(engine, policy.policies, problems)
  if (policies.length === 0 && problems.length === 0)
    problems.push({ where: 'policies', message: 'there is no policy, so that nothing would be allowed' })
  const schema =
    policy.schema === undefined ? undefined : checkSchema(engine, policies, policy.schema, problems)
  const known = readEntities(engine, policy.entities, schema, problems)
  if (known !== undefined) {
    checkServer(policy.server, known, problems)
    if (schema === undefined) checkVocabulary(policies, known, groupEntityType, problems)
  }
  if (problems.length > 0 || known === undefined) throw new CedarError(problems)
  const calls = new Calls(policy, known)
  const toolFacts = calls.facts('call_tool', 'Tool', { operation: 'call', feature: 'tool' })
  const facts = [
    toolFacts,
    calls.facts('get_prompt', 'Prompt', { operation: 'get', feature: 'prompt' }),
    calls.facts('read_resource', 'Resource', { operation: 'read', feature: 'resource' }),
  ]
  const [tools, prompts, resources] = facts.map((each): ActionPlans => {
    const plans = sliceAction(policies, each, known)
    const named = new Map([...plans.named].map(([name, slice]) => [name, slice && planOf(slice, each)]))
    return { named, others: plans.others && planOf(plans.others, each) }
  }) as [ActionPlans, ActionPlans, ActionPlans]
  const readsHints = readsAttributes(policies, toolFacts, known, hintNames)
  const plans = { 'tools/call': tools, 'prompts/get': prompts, 'resources/read': resources }
  const decider = new CedarDecider(engine, calls, plans, readsHints)
  decider.install()
  return decider
}

function isTypeName(engine: Engine, name: string): boolean {
  return (
    /^[A-Za-z_]\w*$/.test(name) &&
    engine.policyToJson(`permit(principal in ${name}::"x", action, resource);`).type === 'success'
  )
}

function readEntities(
  engine: Engine,
  text: string,
  schema: string | object | undefined,
  problems: Problem[],
): KnownEntities | undefined {
  const refuse = (message: string): undefined => {
    problems.push({ where: 'entities', message })
    return undefined
  }
  let entities: unknown = []
  try {
    if (text.trim() !== '') entities = JSON.parse(text)
  } catch (thrown) {
    return refuse(`not JSON: ${thrown instanceof Error ? thrown.message : String(thrown)}`)
  }
  if (!Array.isArray(entities)) return refuse('not a list of entities')
  if (entities.length > maxEntities) return refuse(`more than ${maxEntities} entities`)
  const list = entities as EntityJson[]
  let answer: ReturnType<Engine['checkParseEntities']>
  try {
    answer = engine.checkParseEntities({ entities: list, ...(schema === undefined ? {} : { schema }) })
  } catch (thrown) {
    return refuse(`not Cedar's JSON form of entities: ${String(thrown)}`)
  }
  if (answer.type === 'success') return new KnownEntities(list)
  for (const error of answer.errors) refuse(sentence(error))
  return undefined
}

/** The server is above every resource, so that no resource may be above the server. */
function checkServer(server: string, known: KnownEntities, problems: Problem[]): void {
  const message = 'the server is inside a Tool, Prompt or Resource, which is inside the server'
  const above = known.above([{ type: 'MCP', id: server }])
  if ([...above].some((key) => /^(?:Tool|Prompt|Resource)::/.test(key)))
    problems.push({ where: 'entities', message })
}

interface ActionPlans {
  readonly named: ReadonlyMap<string, Plan | undefined>
  readonly others: Plan | undefined
}

const nothing: Decision = Object.freeze({ allow: false, ids: Object.freeze([]), errors: Object.freeze([]) })

/**
 * The engine keeps each policy set under an id for ever. There are two families of ids, taken in turn, so that reloading
 * needs no more memory than two deciders do; one that has lost its family to a later one takes the next when asked.
 */
const families: { owner: object | undefined; size: number }[] = [
  { owner: undefined, size: 0 },
  { owner: undefined, size: 0 },
]
let turn = 0

class CedarDecider implements Decider {
  readonly readsHints: boolean
  readonly #engine: Engine
  readonly #calls: Calls
  readonly #plans: Readonly<Record<Question['action'], ActionPlans>>
  /** In the order of their ids. */
  readonly #all: readonly Plan[]
  #ids: ReadonlyMap<Plan, string> = new Map()
  #family = 0

  constructor(
    engine: Engine,
    calls: Calls,
    plans: Readonly<Record<Question['action'], ActionPlans>>,
    readsHints: boolean,
  ) {
    this.readsHints = readsHints
    this.#engine = engine
    this.#calls = calls
    this.#plans = plans
    this.#all = Object.values(plans)
      .flatMap(({ named, others }) => [...named.values(), others])
      .filter((plan) => plan !== undefined)
  }

  /** Hands the policies to the engine. @throws CedarError */
  install(): void {
    const index = turn++ % families.length
    const family = families[index] as (typeof families)[number]
    family.owner = undefined
    const ids = new Map<Plan, string>()
    family.size = Math.max(this.#all.length, family.size)
    for (let i = 0; i < family.size; i++) {
      const id = `mcp-sidecar ${index}.${i}`
      const plan = this.#all[i]
      const answer = this.#engine.preparsePolicySet(id, { staticPolicies: plan?.slice.policies ?? {} })
      if (answer.type === 'failure')
        throw new CedarError(answer.errors.map((error) => ({ where: 'policies', message: sentence(error) })))
      if (plan !== undefined) ids.set(plan, id)
    }
    family.size = this.#all.length
    family.owner = this
    this.#family = index
    this.#ids = ids
  }

  decide(question: Question): Decision {
    const { named, others } = this.#plans[question.action]
    const { name } = question.target
    const plan = named.get(name) ?? (named.has(name) ? undefined : others)
    if (plan === undefined) return nothing
    try {
      if (families[this.#family]?.owner !== this) this.install()
      const call = this.#calls.make(question, plan, this.#ids.get(plan) as string)
      if (typeof call === 'string') return refused([call])
      return plan.evaluate(call) ?? decision(this.#engine.statefulIsAuthorized(call))
    } catch (thrown) {
      return refused([
        `the engine failed: ${thrown instanceof Error ? spoken(thrown.message) : 'for no known reason'}`,
      ])
    }
  }
}

function decision(answer: ReturnType<Engine['statefulIsAuthorized']>): Decision {
  if (answer.type !== 'success') return refused(answer.errors.map(({ message }) => spoken(message)))
  const { decision: effect, diagnostics } = answer.response
  const { reason, errors } = diagnostics
  // An error takes its policy out of the count, be it the one that forbids.
  if (errors.length > 0) {
    const texts = errors.map(
      ({ policyId, error }: { policyId: string; error: EngineError }) =>
        `${policyId}: ${spoken(error.message)}`,
    )
    return { allow: false, ids: reason, errors: texts }
  }
  return { allow: effect === 'allow', ids: reason, errors: nothing.errors }
}

function refused(errors: readonly string[]): Decision {
  return {
    allow: false,
    ids: nothing.ids,
    errors: errors.length > 0 ? errors : ['the engine gave no reason'],
  }
}

/** Messages, or their beginnings, that hold names of attributes, entities, types and functions, and no values. */
const harmless =
  /^(?:(?:type error: expected|record does not have the attribute|`[^`]*` does not have the attribute|entity `)[\s\S]*|error while evaluating `\w+` extension function)/

/** What the engine says, without values of arguments and claims, for the log. */
function spoken(message: string): string {
  const [known] = harmless.exec(message) ?? []
  return known?.slice(0, 300) ?? message.replace(/[`:"\d][\s\S]*$/, '...').slice(0, 100)
}
