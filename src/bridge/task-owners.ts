/** Of one principal; the oldest make way. */
const maxTasks = 1000

/** Whose task each task is, so that nobody else can read, feed or cancel it. */
export class TaskOwners {
  /** Task ids by principal id, in the order they came. */
  readonly #tasks = new Map<string, Set<string>>()

  add(taskId: string, principalId: string): void {
    // A server that started again may use an id again; its task is the one that it told of last.
    for (const [owner, tasks] of this.#tasks) if (owner !== principalId) tasks.delete(taskId)
    let own = this.#tasks.get(principalId)
    if (own === undefined) {
      own = new Set()
      this.#tasks.set(principalId, own)
    }
    own.add(taskId)
    if (own.size > maxTasks) own.delete(own.values().next().value as string)
  }

  owns(taskId: string, principalId: string): boolean {
    return this.#tasks.get(principalId)?.has(taskId) === true
  }
}
