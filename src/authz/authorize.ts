import type { Draft, Handler } from '../core/pipeline.ts'
import type { Decoded, Permit, Permitted } from '../core/types.ts'

const permit: Permit = Object.freeze({ layer: 'none' })

/** The layer that decides whether the caller may do this. Without rules every authenticated caller may. */
export function authorize(decoded: Decoded, next: Handler<Permitted>): void | Promise<void> {
  const permitted = decoded as Draft<Permitted>
  permitted.permit = permit
  return next(permitted)
}
