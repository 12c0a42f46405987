import type { Setting } from './layer.ts'
import type { Path } from './parsed.ts'
import type { Part, ValueType } from './values.ts'

/** What a part of the policy was made of. */
export interface Origin {
  /** `file:line:column` of what stands at a path inside, or of the nearest thing around it. */
  readonly at: (path: Path) => string
  /** The same for what somebody gave; undefined where a default stands. */
  readonly given: (path: Path) => string | undefined
  /** Its members, as a person would write them. */
  readonly parts: () => readonly Part[]
}

/** The origin of `value`, which stands at `path` in `setting`. */
export function originOf<T>(
  setting: Pick<Setting, 'at' | 'given'>,
  path: Path,
  type: ValueType<T>,
  value: T,
): Origin {
  return {
    at: (inner) => setting.at([...path, ...inner]),
    given: (inner) => setting.given([...path, ...inner]),
    parts: () => type.parts?.(value) ?? [{ path: [], shown: type.show(value) }],
  }
}

/** Where the parts of a policy (a layer, a method, a rule, a limit) come from. */
export class Origins {
  readonly #origins = new Map<object, Origin>()

  /** Remembers where `part` comes from, and returns it. */
  note<T extends object>(part: T, origin: Origin): T {
    this.#origins.set(part, origin)
    return part
  }

  of(part: object): Origin | undefined {
    return this.#origins.get(part)
  }
}
