import { operationOf } from '../core/operation.ts'
import type { Draft, Handler } from '../core/pipeline.ts'
import type { Decoded, Permit, Permitted } from '../core/types.ts'

const permit: Permit = Object.freeze({ verdicts: Object.freeze([{ layer: 'none', ids: [] }]) })

/** The layer that decides whether the caller may do this. Without rules every authenticated caller may. */
export function authorize(decoded: Decoded, next: Handler<Permitted>): void | Promise<void> {
  const permitted = decoded as Draft<Permitted>
  permitted.operation = operationOf(decoded.message)
  permitted.permit = permit
  return next(permitted)
}
