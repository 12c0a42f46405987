import { DEFAULT_LIMITS, NO_VARIABLES } from '../../core/profile.ts'
import { degradations, type ProcessLimits } from '../../core/sandbox.ts'
import { dangerousVariable, envSet, passedNames } from '../environment.ts'
import { defaulted, object, optional, type TypeOf } from '../object.ts'
import type { Fault } from '../parsed.ts'
import { type Scale, SIZE } from '../units.ts'
import { choice, flag, integer, list, quantity } from '../values.ts'
import { hostRule } from './hosts.ts'
import { type Made, made } from './made.ts'
import { cidr } from './networks.ts'
import { grants, readGrant, writeGrant } from './paths.ts'

/** Sizes as Kubernetes writes them, too: `512Mi` is `512MiB`. */
const MEMORY: Scale = { ...SIZE, factors: { ...SIZE.factors, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30 } }

const filesystem = object({
  read: defaulted(
    grants(readGrant),
    [],
    'Paths that may be read, listed and executed, each with all below it.',
  ),
  write: defaulted(
    grants(writeGrant),
    [],
    'Paths that may be read, listed and changed; nothing in them is executed unless a path in `read` holds it, too.',
  ),
  proc: defaulted(
    choice('self', 'all'),
    'self',
    '`self`: of /proc the folder of the process itself. `all`: of all processes, with their names and arguments.',
  ),
})

export const ports = list(integer(1, 65_535))

const network = object(
  {
    allowHost: defaulted(
      list(hostRule),
      [],
      'Hosts that may be reached: a name; `*.example.com` for the names below it, one or more labels, not the name itself; `*` for any public name. Addresses go into `allowCIDR`.',
    ),
    allowCIDR: defaulted(
      list(cidr),
      [],
      'Networks that may be reached by address, and into which the name of an allowed host may lead. Loopback, private and link-local addresses are open only to a network that lies inside such a range, those of cloud metadata only to the exact address.',
    ),
    allowPort: defaulted(ports, [], 'TCP ports of these hosts and networks; empty: any.'),
    insecureAllowAll: defaulted(flag, false, 'No rule for connections at all, local ones included.'),
    checkSni: defaulted(
      flag,
      false,
      'The name in the TLS handshake must be the one that was asked for: on port 443, and for targets given by name.',
    ),
  },
  {
    check: ({ insecureAllowAll, ...rest }) => {
      const { allowHost, allowCIDR, allowPort } = rest
      const rules = (['allowHost', 'allowCIDR', 'allowPort', 'checkSni'] as const).filter((name) =>
        name === 'checkSni' ? rest[name] : rest[name].length > 0,
      )
      if (insecureAllowAll)
        return rules.map((name) => ({
          path: [name],
          message: 'says nothing beside insecureAllowAll: keep one of them',
        }))
      return allowPort.length > 0 && allowHost.length === 0 && allowCIDR.length === 0
        ? [{ path: ['allowPort'], message: 'allows nothing without allowHost or allowCIDR' }]
        : []
    },
  },
)

const env = object(
  {
    allow: defaulted(
      passedNames('env.set'),
      [],
      'Names of variables to pass from the environment of the sidecar, beside the base set.',
    ),
    set: defaulted(
      envSet,
      {},
      'Variables with these values. No secrets: the digest of the profile, which is public, is made of them, too.',
    ),
    allowLoaderVariables: defaulted(
      flag,
      false,
      'Lets `allow` and `set` name variables that change what code runs, as `server.env.allowDangerous` does.',
    ),
  },
  { check: (value) => (value.allowLoaderVariables ? [] : loaderFaults(value)) },
)

function loaderFaults({
  allow,
  set,
}: {
  readonly allow: readonly string[]
  readonly set: Readonly<Record<string, string>>
}): readonly Fault[] {
  const advice = 'changes what code runs: remove it, or say env.allowLoaderVariables: true'
  const passed = allow.flatMap((name, index) => {
    const dangerous = dangerousVariable(name)
    if (dangerous === undefined) return []
    const what = name.endsWith('*') ? `${name} lets ${dangerous} through, which` : name
    return [{ path: ['allow', index], message: `${what} ${advice}` }]
  })
  const given = Object.keys(set).filter((name) => dangerousVariable(name) !== undefined)
  return [...passed, ...given.map((name) => ({ path: ['set', name], message: `${name} ${advice}` }))]
}

const limits = object({
  memory: optional(
    quantity(MEMORY, '1MiB', '1024GiB'),
    'no limit but that of the container',
    'Resident memory of all processes together; each may reserve a gigabyte more (RLIMIT_DATA). `512Mi` is `512MiB`.',
  ),
  processes: defaulted(
    integer(1, 1_000_000),
    DEFAULT_LIMITS.processes,
    'Processes and threads of one server.',
  ),
  openFiles: defaulted(
    integer(16, 1_000_000),
    DEFAULT_LIMITS.openFiles,
    'Open files of each process; at most 512 less than the sidecar may have, or half of that where it is less than 1024.',
  ),
  fileSize: optional(
    quantity(MEMORY, '1B', '1024GiB'),
    'no limit but the disk',
    'Largest file that may be written, files in memory included.',
  ),
  cpuSeconds: defaulted(
    integer(0, 1_000_000_000),
    0,
    'CPU time of each process over all its life; 0: no limit.',
  ),
})

const NOT_HERE = 'is how ToolHive writes it: put that profile into a file and name the file, or write'

/** A profile as the file of the sidecar writes it. */
export const profileSettings = object(
  {
    filesystem: optional(filesystem, 'nothing but what every program needs', 'Paths that may be used.'),
    network: optional(
      network,
      'no network',
      'Where connections may lead. Nothing may listen, whatever it says.',
    ),
    env: optional(env, 'the base set', 'Variables of the process, beside those of `server.env`.'),
    limits: optional(limits, 'the defaults of its members', 'What the processes of one server may use.'),
    allowDegraded: defaulted(
      list(choice(...degradations)),
      [],
      'What may be missing where the kernel does not offer it: `net-port-only`: rules for connections by port alone; `container-seccomp-off`: the seccomp profile of the container; `no-enforcement`: everything, where there is no launcher.',
    ),
  },
  {
    known: {
      read: `${NOT_HERE} filesystem: { read: [...] }`,
      write: `${NOT_HERE} filesystem: { write: [...] }`,
      privileged: 'is refused: nothing can be kept from a privileged process; leave it out',
      builtin: 'is how an MCPServer writes it: write permissions: none, network or full-access',
      inline: 'is how an MCPServer writes it: write filesystem and network',
      permissionProfile: 'stands only around a profile in a file of its own: leave it out',
    },
  },
)

export type ProfileSettings = TypeOf<typeof profileSettings>

/** @param name of the file or document */
export function ownProfile(settings: ProfileSettings, name: string): Made {
  const { filesystem: files, network: net, env: variables, limits: bounds, allowDegraded } = settings
  return made(name, {
    read: files?.read.map((grant, index) => [grant, ['filesystem', 'read', index]]) ?? [],
    write: files?.write.map((grant, index) => [grant, ['filesystem', 'write', index]]) ?? [],
    hosts: net?.allowHost.map((rule, index) => [{ rule }, ['network', 'allowHost', index]]) ?? [],
    cidrs: net?.allowCIDR.map((each, index) => [each, ['network', 'allowCIDR', index]]) ?? [],
    ports: net?.allowPort.map((port, index) => [port, ['network', 'allowPort', index]]) ?? [],
    network: ['network'],
    open: net?.insecureAllowAll ?? false,
    checkSni: net?.checkSni ?? false,
    proc: files?.proc ?? 'self',
    env: variables ?? NO_VARIABLES,
    limits: bounds === undefined ? DEFAULT_LIMITS : limitsOf(bounds),
    allowDegraded,
    notApplied: [],
    warnings: [],
  })
}

function limitsOf(bounds: TypeOf<typeof limits>): ProcessLimits {
  const { memory, processes, openFiles, fileSize, cpuSeconds } = bounds
  return {
    memoryBytes: memory,
    processes,
    openFiles,
    fileSizeBytes: fileSize,
    cpuSeconds: cpuSeconds === 0 ? undefined : cpuSeconds,
  }
}
