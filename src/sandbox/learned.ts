/** From what a server did to the smallest profile that covers it. Pure but for what it is told of the disk. */
import { specialRangeOf } from '../core/special-addresses.ts'
import { type LearnedFiles, learnedFiles } from './learned-files.ts'
import { isTemporary, type PathSurroundings } from './learned-paths.ts'
import type { Attempt, Connection, Seen } from './observed.ts'
import { within } from './path-names.ts'

export interface Surroundings extends PathSurroundings {
  /** Of the interfaces of this machine: nothing leads there but a rule for the address itself. */
  readonly ownAddresses: ReadonlySet<string>
}

/** With what was seen, for a comment. */
export interface Explained<T> {
  readonly value: T
  readonly why: string
}

export interface LearnedProfile {
  readonly filesystem: LearnedFiles
  readonly hosts: readonly Explained<string>[]
  readonly cidrs: readonly Explained<string>[]
  readonly ports: readonly Explained<number>[]
  readonly env: readonly (Explained<string> & { readonly name: string })[]
  readonly rssBytes: number
  readonly processes: number
  /** What a person should look at, one sentence each. */
  readonly review: readonly string[]
}

/** So many names below one domain could be a wildcard. */
const wildcardNames = 3

const attemptTexts: Readonly<Record<Attempt, string>> = {
  unix: 'use a unix socket, which no profile allows (libc does so for names and users, and goes on without)',
  udp: 'use UDP, which no profile allows; names are looked up over TCP (node: dns.lookup, not dns.resolve)',
  bind: 'listen on a port, which no profile allows',
  listen: 'listen, which no profile allows',
  socket: 'open a socket of a kind that no profile allows',
}

export function learnedProfile(seen: Seen, around: Surroundings): LearnedProfile {
  const filesystem = learnedFiles(seen, around)
  const { connections } = seen
  const names = connections.filter(({ host }) => !isAddress(host))
  const hosts = byHost(names).map(([host, all]) => ({ value: host, why: portsText(all) }))
  const ports = [...new Set(connections.map(({ port }) => port))].toSorted((a, b) => a - b)
  return {
    filesystem,
    hosts,
    cidrs: cidrsOf(connections, around),
    ports: ports.map((port) => {
      const at = connections.filter((each) => each.port === port).map(({ host }) => host)
      return { value: port, why: listed([...new Set(at)]) }
    }),
    env: variables(filesystem, around),
    rssBytes: seen.rssBytes,
    processes: seen.processes,
    review: [
      ...filesystem.review,
      ...wildcards(hosts.map(({ value }) => value)),
      ...(hosts.length + ports.length > 2 && ports.length > 1
        ? ['every port is allowed for every host and network: a profile does not pair them']
        : []),
      ...[...seen.unreached].map(([target, why]) => `it did not reach ${target} (${why}): not allowed`),
      ...[...seen.lookedUp].map((name) => `it looked up ${name} and did not connect to it: not allowed`),
      ...[...seen.attempts].map(([what, numbers]) => attemptText(what, numbers)),
      ...(seen.incomplete ? ['there was more than can be held: something is missing here'] : []),
    ],
  }
}

function isAddress(host: string): boolean {
  return host.includes(':') || /^[\d.]+$/.test(host)
}

function byHost(connections: readonly Connection[]): (readonly [string, readonly Connection[]])[] {
  const hosts = [...new Set(connections.map(({ host }) => host))].toSorted()
  return hosts.map((host) => [host, connections.filter((each) => each.host === host)])
}

function portsText(connections: readonly Connection[]): string {
  const count = connections.reduce((sum, each) => sum + each.count, 0)
  const ports = connections.map(({ port }) => port).toSorted((a, b) => a - b)
  return `${count === 1 ? '1 connection' : `${count} connections`} to port ${ports.join(', ')}`
}

/** Of addresses that were given as such, and of those that names led to and that are closed to names by default. */
function cidrsOf(connections: readonly Connection[], { ownAddresses }: Surroundings): Explained<string>[] {
  const found = new Map<string, string>()
  const single = (address: string): string => `${address}/${address.includes(':') ? 128 : 32}`
  for (const [host, all] of byHost(connections)) {
    if (isAddress(host)) found.set(single(host), portsText(all))
    else
      for (const address of new Set(all.flatMap(({ addresses }) => [...addresses]))) {
        const range = specialRangeOf(address)
        const closed = range?.cidr ?? (ownAddresses.has(address) ? 'this machine' : undefined)
        const cidr = single(address)
        if (closed !== undefined && !found.has(cidr))
          found.set(cidr, `where ${host} leads, in ${closed}: names do not lead there unless it is named`)
      }
  }
  return [...found].map(([value, why]) => ({ value, why })).toSorted((a, b) => (a.value < b.value ? -1 : 1))
}

/** Where the server looks for its home and for temporary files is part of what it did. */
function variables(
  { read, write }: LearnedFiles,
  { home }: Surroundings,
): (Explained<string> & { readonly name: string })[] {
  // Only then are they set to something else.
  if (write.length === 0) return []
  const paths = [...read, ...write].map(({ path }) => path)
  const used = home === undefined ? undefined : paths.find((path) => path !== home && within(path, home))
  const temporary = write.find(({ path }) => isTemporary(path))
  return [
    ...(home === undefined || used === undefined || within(used, `${home}/node_modules`)
      ? []
      : [{ name: 'HOME', value: home, why: 'it used files there; else it is the first path of write' }]),
    ...(temporary === undefined
      ? []
      : [{ name: 'TMPDIR', value: temporary.path, why: 'as it was; else it is the first path of write' }]),
  ]
}

function wildcards(names: readonly string[]): string[] {
  const domains = names.map((name) => name.slice(name.indexOf('.') + 1)).filter((each) => each.includes('.'))
  return [...new Set(domains)]
    .filter((domain) => domains.filter((each) => each === domain).length >= wildcardNames)
    .map(
      (domain) => `several names are below ${domain}: "*.${domain}" would cover them, and all others there`,
    )
}

function attemptText(what: Attempt, numbers: ReadonlySet<number>): string {
  const ports = numbers.size === 0 ? '' : ` (${listed([...numbers].map(String))})`
  return `it tried to ${attemptTexts[what]}${ports}`
}

function listed(values: readonly string[]): string {
  const shown = values.slice(0, 5).join(', ')
  return values.length > 5 ? `${shown} and ${values.length - 5} more` : shown
}
