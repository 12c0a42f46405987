import type { PathUse } from '../values.ts'

/** A path that a setting names. */
export interface OwnPath {
  readonly path: string
  readonly use: PathUse
}

/** Where Kubernetes mounts the token of the pod, which makes whoever reads it the workload. */
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io'

/**
 * What belongs to the sidecar and no server may have: the files that settings and documents name, the folders of Secrets
 * and ConfigMaps, the audit log. They need not exist.
 *
 * @param paths of the settings, absolute
 * @param more the configuration file itself, and what documents refer to
 */
export function protectedPaths(paths: readonly OwnPath[], more: readonly string[]): readonly string[] {
  // A folder to enter is that of the server.
  const own = paths.filter(({ use }) => use !== 'folder').map(({ path }) => path)
  return [...new Set([...own, ...more, SERVICE_ACCOUNT])]
}
