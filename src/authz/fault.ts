/** A mistake in a policy, and where it stands. */
export interface AuthzFault {
  /** Below the AuthzPolicy: `['layers', 0, 'rules', 2, 'conditions', 0]`. */
  readonly path: readonly (string | number)[]
  /** What is wrong and what would be right, with the layer and the rule by name. */
  readonly message: string
}

/** A policy that cannot be carried out; {@link faults} has each mistake. */
export class AuthzPolicyError extends Error {
  override readonly name = 'AuthzPolicyError'
  readonly faults: readonly AuthzFault[]

  constructor(faults: readonly AuthzFault[]) {
    super(faults.map(({ path, message }) => `${path.join('.')}: ${message}`).join('\n'))
    this.faults = faults
  }
}

/** What is wrong with one part of a policy: what `compile` throws; undefined if it throws nothing. */
export function problemOf(compile: () => unknown): string | undefined {
  try {
    compile()
    return undefined
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown)
  }
}

/** A text of a policy or a client as it may stand in a message for the operator: quoted, and cut at 200 characters. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}...` : text)
}
