import type { Layer } from '../core/pipeline.ts'
import type { Admitted } from '../core/types.ts'

/** The layer that lets messages wait until it is known in which era the server speaks. */
export function whenKnown(
  server: () => { readonly known: Promise<void> | undefined },
): Layer<Admitted, Admitted> {
  return (admitted, next) => {
    const proceed = (): void | Promise<void> => {
      const { known } = server()
      // After a reload it is another server that has to be known.
      if (known !== undefined) return known.then(proceed)
      const { era, exchange } = admitted
      // A modern client that has left has cancelled.
      if (era === 'modern' && !exchange.attached) exchange.finish('cancelled')
      else return next(admitted)
    }
    return server().known === undefined ? next(admitted) : proceed()
  }
}
