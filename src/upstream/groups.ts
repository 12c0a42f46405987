import { SidecarError } from '../core/errors.ts'
import type { CallLease, CallPool, LeaseWish, Principal, Timer, UpstreamOwner } from '../core/types.ts'
import { Group, type GroupOptions } from './group.ts'
import type { Link } from './link.ts'
import type { ProcessContext } from './process.ts'

export interface GroupsOptions extends GroupOptions {
  /** Processes nobody has used for so long are ended. Milliseconds. */
  readonly idleMs: number
  /** At the limit: ends an unused session of this principal, if there is one. */
  readonly giveUpSession: (principalId: string) => boolean
}

/** Where processes come from, and who else wants some. */
export interface ProcessSource {
  /** A process nobody has spoken to. @throws ERR_OVERLOADED, ERR_DRAINING */
  take(): Link
}

/**
 * Legacy processes for calls that stand alone, as those of modern clients do: a group for each principal, so that no
 * answer of one can ever reach another's call.
 */
export class LegacyGroups implements CallPool {
  readonly #source: ProcessSource
  readonly #options: GroupsOptions
  readonly #context: ProcessContext
  readonly #groups = new Map<string, Group>()
  readonly #sweep: Timer
  #closed = false
  #retired = false

  constructor(source: ProcessSource, options: GroupsOptions, context: ProcessContext) {
    this.#source = source
    this.#options = options
    this.#context = context
    const everyMs = Math.max(50, Math.min(10_000, options.idleMs / 4))
    const sweep: Timer = context.clock.after(everyMs, () => {
      this.#endIdle(context.clock.now() - (this.#retired ? 0 : options.idleMs))
      sweep.refresh()
    })
    this.#sweep = sweep
  }

  queuedBytesOf({ id }: Principal): number {
    return this.#groups.get(id)?.queuedBytes ?? 0
  }

  lease(owner: UpstreamOwner, wish: LeaseWish): CallLease {
    if (this.#closed) throw new SidecarError('ERR_DRAINING')
    const { id } = owner.principal
    let group = this.#groups.get(id)
    if (group === undefined) {
      group = new Group(id, { take: () => this.#take(id) }, this.#options, this.#context)
      this.#groups.set(id, group)
    }
    return group.lease(owner, wish)
  }

  /** Ends one process that nobody needs at the moment, the longest unused; false if all are needed. */
  makeRoom(): boolean {
    let oldest: Group | undefined
    for (const group of this.#groups.values()) {
      if (group.idleSince === undefined) continue
      if (oldest?.idleSince === undefined || group.idleSince < oldest.idleSince) oldest = group
    }
    return oldest?.endIdle(Number.POSITIVE_INFINITY, 1) === 1
  }

  /** Processes go as soon as nobody needs them. */
  retire(): void {
    this.#retired = true
    this.#endIdle(this.#context.clock.now())
  }

  /** Every process is given up; calls in flight fail. */
  close(): void {
    this.#closed = true
    this.#sweep.cancel()
    for (const group of this.#groups.values()) group.close()
    this.#groups.clear()
  }

  #take(principalId: string): Link {
    try {
      return this.#source.take()
    } catch (thrown) {
      const full = SidecarError.from(thrown).code === 'ERR_OVERLOADED'
      if (!full || !(this.makeRoom() || this.#options.giveUpSession(principalId))) throw thrown
      return this.#source.take()
    }
  }

  #endIdle(before: number): void {
    for (const [id, group] of this.#groups) {
      group.endIdle(before)
      if (group.empty) this.#groups.delete(id)
    }
  }
}
