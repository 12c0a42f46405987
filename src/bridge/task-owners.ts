/** Of one principal; the oldest make way. */
const maxTasks = 1000

/** Whose task each task is, so that nobody else can read, feed or cancel it (D19). */
export class TaskOwners {
  /** Task ids by principal id, in the order they came. */
  readonly #tasks = new Map<string, Set<string>>()

  add(taskId: string, principalId: string): void {
    // An id that two principals got is nobody's secret any more; it stays with the first.
    for (const [owner, tasks] of this.#tasks) if (owner !== principalId && tasks.has(taskId)) return
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
