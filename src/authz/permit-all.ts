import { operationOf } from '../core/operation.ts'
import type { Draft, Handler } from '../core/pipeline.ts'
import type { Decoded, Permit, Permitted } from '../core/types.ts'

/** What is permitted where no rule says anything. */
export const free: Permit = Object.freeze({ verdicts: Object.freeze([{ layer: 'none', ids: [] }]) })

/** The layer that stands where there is no policy: every authenticated caller may do everything. */
export function permitAll(decoded: Decoded, next: Handler<Permitted>): void | Promise<void> {
  const permitted = decoded as Draft<Permitted>
  permitted.operation = operationOf(decoded.message)
  permitted.permit = free
  return next(permitted)
}
