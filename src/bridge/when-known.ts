import type { Layer } from '../core/pipeline.ts'
import type { Admitted } from '../core/types.ts'

/** The layer that lets messages wait until it is known in which era the server speaks. */
export function whenKnown(
  server: () => { readonly known: Promise<void> | undefined },
): Layer<Admitted, Admitted> {
  return (admitted, next) => {
    const { known } = server()
    if (known === undefined) return next(admitted)
    return known.then(() => {
      const { era, exchange } = admitted
      // A modern client that has left has cancelled.
      if (era === 'modern' && !exchange.attached) exchange.finish('cancelled')
      else return next(admitted)
    })
  }
}
