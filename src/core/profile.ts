/** Profiles by name, the defaults of all profiles, and what makes two of them the same. */
import { createHash } from 'node:crypto'
import type { EnvironmentPolicy, FilesystemPolicy, NetworkPolicy, ProcessLimits, Profile } from './sandbox.ts'

/**
 * Of a profile that says nothing else. Processes and open files are bounded, because a fork bomb or a leak of descriptors
 * takes the sidecar and its neighbours down with it, and servers stay far below. Memory and file sizes differ too much
 * between servers to guess, and the container has limits of its own for them. CPU time adds up over the life of a server.
 */
export const DEFAULT_LIMITS: ProcessLimits = {
  memoryBytes: undefined,
  processes: 256,
  openFiles: 1024,
  fileSizeBytes: undefined,
  cpuSeconds: undefined,
}

export const NO_FILES: FilesystemPolicy = { scope: 'granted', read: [], write: [], proc: 'self' }

export const NO_NETWORK: NetworkPolicy = { mode: 'none', hosts: [], cidrs: [], ports: [], checkSni: false }

/** As `insecureAllowAll`. */
export const OPEN_NETWORK: NetworkPolicy = { ...NO_NETWORK, mode: 'open' }

export const NO_VARIABLES: EnvironmentPolicy = { allow: [], set: {}, allowLoaderVariables: false }

/** A profile with nothing but defaults. */
const nothing: Omit<Profile, 'digest' | 'name'> = {
  filesystem: NO_FILES,
  network: NO_NETWORK,
  env: NO_VARIABLES,
  limits: DEFAULT_LIMITS,
  allowDegraded: [],
  notApplied: [],
}

/** The profile with these parts; what is left out grants nothing, and limits are those of all. */
export function profileWith(name: string, parts: Partial<Omit<Profile, 'digest' | 'name'>> = {}): Profile {
  const whole = { ...nothing, ...parts }
  return { name, digest: digestOf(whole), ...whole }
}

export const builtinNames = ['none', 'network', 'full-access'] as const
export type BuiltinName = (typeof builtinNames)[number]

const builtins: Readonly<Record<BuiltinName, Profile>> = {
  none: profileWith('none'),
  // Any public destination. Private ones would each need a network of their own inside a denied range.
  network: profileWith('network', {
    network: { ...NO_NETWORK, mode: 'allowlist', hosts: [{ kind: 'any' }], cidrs: ['0.0.0.0/0', '::/0'] },
  }),
  'full-access': profileWith('full-access', {
    filesystem: { ...NO_FILES, scope: 'all', proc: 'all' },
    network: OPEN_NETWORK,
  }),
}

/** `none`, `network` (alias `network-only`) or `full-access`; undefined for any other name. */
export function builtinProfile(name: string): Profile | undefined {
  const known = builtinNames.find((each) => each === name || (name === 'network-only' && each === 'network'))
  return known && builtins[known]
}

/** What counts as the profile, in one spelling: order and repetition mean nothing, nor do names and remarks. */
function digestOf({
  filesystem,
  network,
  env,
  limits,
  allowDegraded,
}: Omit<Profile, 'digest' | 'name' | 'notApplied'>): string {
  const { scope, read, write, proc } = filesystem
  const canonical = {
    filesystem: {
      scope,
      read: sorted(read.map(({ path, optional, execute }) => [path, execute, optional])),
      write: sorted(write.map(({ path, optional }) => [path, optional])),
      proc,
    },
    network: {
      mode: network.mode,
      hosts: sorted(network.hosts.map((rule) => [rule.kind, rule.kind === 'any' ? '' : rule.name])),
      cidrs: sorted(network.cidrs),
      ports: sorted(network.ports),
      checkSni: network.checkSni,
    },
    env: {
      allow: sorted(env.allow),
      set: sorted(Object.entries(env.set)),
      allowLoaderVariables: env.allowLoaderVariables,
    },
    limits: [
      limits.memoryBytes ?? null,
      limits.processes ?? null,
      limits.openFiles ?? null,
      limits.fileSizeBytes ?? null,
      limits.cpuSeconds ?? null,
    ],
    allowDegraded: sorted(allowDegraded),
  }
  return `sha256:${createHash('sha256').update(JSON.stringify(canonical)).digest('hex')}`
}

/** Each once, in an order that depends on them alone. */
function sorted(values: readonly unknown[]): string[] {
  return [...new Set(values.map((value) => JSON.stringify(value)))].sort()
}
