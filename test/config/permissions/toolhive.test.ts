import t from 'tap'
import { ConfigError } from '../../../src/config/error.ts'
import { type ReadProfile, readProfile } from '../../../src/config/permissions/read.ts'

const read = (value: unknown): ReadProfile => readProfile(JSON.stringify(value), 'p.json', 'p.json')

function problems(value: unknown): string[] {
  try {
    read(value)
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems.map(({ where, message }) => `${where}: ${message}`)
  }
}

t.test('paths are those of the container; what is mounted there is said to be somebody else’s', async (t) => {
  const { profile } = read({
    name: 'notes',
    read: ['/app', '/home/me/notes:/notes', 'volume://cache:/cache', 'C:\\data:/windows', '/etc/../srv/'],
    write: ['/tmp:/tmp'],
    network: { outbound: {} },
  })
  t.equal(profile.name, 'p.json')
  t.same(
    profile.filesystem.read,
    ['/app', '/notes', '/cache', '/windows', '/srv'].map((path) => ({
      path,
      execute: true,
      optional: false,
    })),
  )
  t.same(profile.filesystem.write, [{ path: '/tmp', optional: false }])
  t.same(profile.notApplied, [
    'mount of /home/me/notes at /notes: whoever starts the container mounts it',
    'mount of volume://cache at /cache: whoever starts the container mounts it',
    'mount of C:\\data at /windows: whoever starts the container mounts it',
  ])
})

t.test('hosts and ports; a leading dot is the name itself and all below it', async (t) => {
  const { profile, warnings } = read({
    network: {
      outbound: {
        insecure_allow_all: false,
        allow_host: ['.example.com', 'a.b', '9.0.0.1'],
        allow_port: [443],
      },
    },
  })
  t.same(profile.network, {
    mode: 'allowlist',
    hosts: [
      { kind: 'exact', name: 'example.com' },
      { kind: 'below', name: 'example.com' },
      { kind: 'exact', name: 'a.b' },
    ],
    cidrs: ['9.0.0.1/32'],
    ports: [443],
    checkSni: false,
  })
  t.same([profile.notApplied, warnings], [[], []])
})

t.test('ports alone mean any public host there, and a warning', async (t) => {
  const { profile, warnings } = read({ network: { outbound: { allow_port: [443] } } })
  t.match(profile.network, { mode: 'allowlist', hosts: [{ kind: 'any' }], ports: [443], cidrs: [] })
  t.same(warnings, [
    {
      where: 'p.json:1:38',
      message:
        'network.outbound.allow_port: stands alone, which means any public host on these ports: name the hosts in allow_host',
    },
  ])
})

t.test('everything, nothing, and no word about it', async (t) => {
  const all = read({ network: { outbound: { insecure_allow_all: true, allow_host: ['a.b'] } } })
  t.equal(all.profile.network.mode, 'open')
  t.match(all.warnings, [
    { message: /insecure_allow_all: lets everything through: allow_host and allow_port say nothing/ },
  ])
  for (const network of [{}, { outbound: {} }, { outbound: null }, { outbound: { allow_host: null } }]) {
    const { profile } = read({ read: ['/a'], network })
    t.equal(profile.network.mode, 'none', JSON.stringify(network))
    t.same(profile.notApplied, [])
  }
  for (const absent of [{ read: ['/a'] }, { read: ['/a'], network: null }]) {
    const { profile } = read(absent)
    t.equal(profile.network.mode, 'none')
    t.same(profile.notApplied, [
      'network: is not there, which ToolHive takes for everything; here it is no network',
    ])
  }
})

t.test('what a container runtime would do is listed', async (t) => {
  const { profile } = read({
    network: {
      mode: 'host',
      outbound: { allow_host: ['a.b'], allow_transport: ['udp'] },
      inbound: { allow_host: ['c.d'] },
    },
    privileged: false,
  })
  t.equal(profile.network.mode, 'allowlist')
  t.same(profile.notApplied, [
    'network.mode: the network of a container is given by whoever starts it',
    'inbound-not-applied: nobody connects to a stdio server, whatever network.inbound says',
    'network.outbound.allow_transport: TCP alone is let through',
  ])
})

t.test('a mode without a network is less than the rules beside it, and counts', async (t) => {
  const { profile } = read({ network: { mode: 'none', outbound: { insecure_allow_all: true } } })
  t.equal(profile.network.mode, 'none')
})

t.test('what cannot be kept is refused, at its place', async (t) => {
  const cases: [value: unknown, ...wanted: string[]][] = [
    [
      { read: [], privileged: true },
      'p.json:1:25: privileged: is refused: nothing can be kept from a privileged process; leave it out',
    ],
    [
      { read: ['notes'] },
      'p.json:1:10: read[0]: "notes" is not an absolute path: paths start with / here, as the server sees them',
    ],
    [
      { read: ['/a:b'] },
      'p.json:1:10: read[0]: "b" is not an absolute path: paths start with / here, as the server sees them',
    ],
    [
      { read: ['/a:/b:/c'] },
      'p.json:1:10: read[0]: must be a path, host:container or volume://name:container',
    ],
    [{ read: [':/c'] }, 'p.json:1:10: read[0]: must be a path, host:container or volume://name:container'],
    [
      { read: ['C:\\data'] },
      'p.json:1:10: read[0]: "\\\\data" is not an absolute path: paths start with / here, as the server sees them',
    ],
    [{ read: ['/a', '/host:/a/'] }, 'p.json:1:15: read[1]: "/a" stands here twice'],
    [
      { write: ['/'] },
      'p.json:1:11: write[0]: is the whole file system: name folders, or use the builtin profile full-access',
    ],
    [{ read: [], wirte: [] }, 'p.json:1:12: unknown key: did you mean write?'],
    [
      { network: { outbound: { allow_hosts: [] } } },
      'p.json:1:25: network.outbound: unknown key: did you mean allow_host?',
    ],
    [
      { network: { outbound: { allow_host: ['*.*'] } } },
      'p.json:1:39: network.outbound.allow_host[0]: "*.*" has a * that is not its whole first label: write *.example.com, or * for any public name',
    ],
    [
      { network: { outbound: { allow_host: ['..a'] } } },
      'p.json:1:39: network.outbound.allow_host[0]: "..a" is not the name of a host',
    ],
    [
      { network: { outbound: { allow_host: ['169.254.169.254'] } } },
      'p.json:1:39: network.outbound.allow_host[0]: "169.254.169.254" is in 169.254.169.254/32, which no list of hosts opens: write 169.254.169.254/32 under allowCIDR (ToolHive\'s notation has none: write the profile in the sidecar\'s own)',
    ],
    [
      { network: { outbound: { allow_port: ['443'] } } },
      'p.json:1:39: network.outbound.allow_port[0]: is text: write 443 without quotes',
    ],
  ]
  for (const [value, ...wanted] of cases) t.same(problems(value), wanted, JSON.stringify(value))
})

t.test('each part is found where it was written', async (t) => {
  const { at } = read({
    write: ['/x'],
    network: { outbound: { allow_host: ['.a.b', '9.0.0.1'], allow_port: [1, 2] } },
  })
  t.equal(at(['filesystem', 'write', 0]), 'p.json:1:11')
  t.equal(at(['network', 'hosts', 1]), 'p.json:1:54')
  t.equal(at(['network', 'cidrs', 0]), 'p.json:1:61')
  t.equal(at(['network', 'ports', 1]), 'p.json:1:88')
})
