/** One thing that is wrong. */
export interface Problem {
  /** `file:line:column`, `--flag`, the name of a variable, or `command line`. */
  readonly where: string
  /** What is wrong and what would be right; never holds a value that may be a secret. */
  readonly message: string
}

/** The configuration cannot be used. Holds everything that is wrong, not only the first thing. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly Problem[]

  constructor(problems: readonly Problem[]) {
    super(problems.map(({ where, message }) => `${where}: ${message}`).join('\n'))
    this.problems = problems
  }
}
