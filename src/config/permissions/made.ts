import { NO_NETWORK, OPEN_NETWORK, profileWith } from '../../core/profile.ts'
import type {
  Degradation,
  EnvironmentPolicy,
  HostRule,
  NetworkPolicy,
  PathGrant,
  ProcessLimits,
  Profile,
  ReadGrant,
} from '../../core/sandbox.ts'
import type { Fault, Path } from '../parsed.ts'
import type { HostEntry } from './hosts.ts'

/** A part of a profile, and where it stands in what the profile is made of. */
type Written<T> = readonly [value: T, path: Path]

/** What every notation comes to. */
export interface Draft {
  readonly read: readonly Written<ReadGrant>[]
  readonly write: readonly Written<PathGrant>[]
  readonly proc: 'self' | 'all'
  readonly hosts: readonly Written<HostEntry>[]
  readonly cidrs: readonly Written<string>[]
  readonly ports: readonly Written<number>[]
  /** Where they stand. */
  readonly network: Path
  /** No rule for connections. */
  readonly open: boolean
  readonly checkSni: boolean
  readonly env: EnvironmentPolicy
  readonly limits: ProcessLimits
  readonly allowDegraded: readonly Degradation[]
  /** What the notation asks for and nobody here does, in words. */
  readonly notApplied: readonly string[]
  /** What works and should still be known. */
  readonly warnings: readonly Fault[]
}

export interface Made {
  readonly profile: Profile
  readonly warnings: readonly Fault[]
  /** Where a part of the profile was written: `['filesystem', 'read', 0]`, `['network', 'hosts', 2]`. */
  readonly source: (path: Path) => Path
}

export function made(name: string, draft: Draft): Made {
  const { read, write, proc, env, limits, allowDegraded, notApplied, warnings } = draft
  const { policy, sources } = networkOf(draft)
  const profile = profileWith(name, {
    filesystem: { scope: 'granted', read: read.map(partOf), write: write.map(partOf), proc },
    network: policy,
    env,
    limits,
    allowDegraded,
    notApplied,
  })
  const lists: Readonly<Record<string, readonly Path[]>> = {
    'filesystem.read': read.map(pathOf),
    'filesystem.write': write.map(pathOf),
    ...sources,
  }
  const source = (path: Path): Path => {
    const [section, part, index] = path
    const list = lists[`${section}.${part}`]
    if (list !== undefined) return list[Number(index)] ?? []
    return section === 'network' ? [...draft.network, ...path.slice(1)] : path
  }
  return { profile, warnings, source }
}

/** Rules that allow nothing are no network at all: then there is not even a socket to try with. */
function networkOf({ hosts, cidrs, ports, open, checkSni }: Draft): {
  readonly policy: NetworkPolicy
  readonly sources: Readonly<Record<string, readonly Path[]>>
} {
  const names = unique(
    hosts.flatMap(([entry, path]): Written<HostRule>[] => ('rule' in entry ? [[entry.rule, path]] : [])),
  )
  const networks = unique([
    ...cidrs,
    ...hosts.flatMap(([entry, path]): Written<string>[] => ('cidr' in entry ? [[entry.cidr, path]] : [])),
  ])
  if (open) return { policy: OPEN_NETWORK, sources: {} }
  if (names.length + networks.length === 0) return { policy: NO_NETWORK, sources: {} }
  const numbers = unique(ports)
  return {
    policy: {
      mode: 'allowlist',
      hosts: names.map(partOf),
      cidrs: networks.map(partOf),
      ports: numbers.map(partOf),
      checkSni,
    },
    sources: {
      'network.hosts': names.map(pathOf),
      'network.cidrs': networks.map(pathOf),
      'network.ports': numbers.map(pathOf),
    },
  }
}

function partOf<T>([value]: Written<T>): T {
  return value
}

function pathOf([, path]: Written<unknown>): Path {
  return path
}

/** The first of those that say the same. */
function unique<T>(entries: readonly Written<T>[]): readonly Written<T>[] {
  const seen = new Set<string>()
  return entries.filter(([value]) => {
    const text = JSON.stringify(value)
    return !seen.has(text) && seen.add(text)
  })
}
