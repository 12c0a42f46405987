/** Who is calling, in an audit event. */
import type { Principal } from '../core/types.ts'
import { quotedList, quotedUpTo } from './ascii-json.ts'

const max = { name: 256, id: 512 }
const maxGroups = 64
const maxMethods = 16
/** Of a chain of delegation (RFC 8693 section 4.1). */
const maxActors = 10

/** Parts of an event, each with a comma before it. */
export interface PrincipalText {
  /** Members of `subjects`. */
  readonly identity: string
  /** `auth`, and `delegation` where somebody acts for somebody else. */
  readonly auth: string
}

export const nobody: PrincipalText = { identity: '', auth: '' }

/** The same principal comes with every request of a caller; its text is made once. */
export class PrincipalTexts {
  readonly #texts = new WeakMap<Principal, PrincipalText>()

  textsOf(principal: Principal): PrincipalText {
    let texts = this.#texts.get(principal)
    if (texts === undefined) {
      const { subject, id, claims } = principal
      texts = {
        identity: `,"user":${quotedUpTo(subject, max.name)},"user_id":${quotedUpTo(id, max.id)}`,
        auth: authText(principal) + delegationText(claims['act']),
      }
      this.#texts.set(principal, texts)
    }
    return texts
  }
}

function authText({ method, groups, others }: Principal): string {
  const methods = [method, ...others.map((other) => other.method)]
  let text = `"methods":${quotedList(methods, maxMethods, max.name)},"groups":${quotedList(groups, maxGroups, max.name)}`
  if (others.length > 0) {
    const ids = others.map(({ id }) => id)
    text += `,"others":${quotedList(ids, maxMethods, max.id)}`
  }
  return `,"auth":{${text}}`
}

/** Who acts for the subject, the one at work first. */
function delegationText(act: unknown): string {
  const actors: string[] = []
  for (let actor = act; isObject(actor) && actors.length < maxActors; actor = actor['act']) {
    const { sub, iss } = actor
    if (typeof sub !== 'string') break
    actors.push(typeof iss === 'string' ? `${iss}|${sub}` : sub)
  }
  return actors.length === 0 ? '' : `,"delegation":{"actors":${quotedList(actors, maxActors, max.id)}}`
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
