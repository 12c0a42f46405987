import { ConfigError, type LoadedConfig } from './load.ts'

/**
 * What is wrong with rules, told by where they stand in the files.
 *
 * @throws ConfigError for what `made` rejects with, where that names faults by their paths; anything else as it is
 */
export async function placing<T>(loaded: LoadedConfig, made: Promise<T>): Promise<T> {
  try {
    return await made
  } catch (thrown) {
    const { faults } = ((thrown as Error).cause ?? thrown) as {
      faults?: readonly { readonly path: readonly (string | number)[]; readonly message: string }[]
    }
    if (faults === undefined) throw thrown
    const { authzPlace } = await import('./authz-place.ts')
    const { permissionPlace } = await import('./permissions/place.ts')
    const place = (path: (typeof faults)[number]['path']): string =>
      path[0] === 'filesystem' ? permissionPlace(loaded, path) : authzPlace(loaded, path)
    throw new ConfigError(faults.map(({ path, message }) => ({ where: place(path), message })))
  }
}
