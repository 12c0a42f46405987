import t from 'tap'
import { ConfigError } from '../../../src/config/error.ts'
import { readProfile } from '../../../src/config/permissions/read.ts'
import { builtinProfile } from '../../../src/core/profile.ts'
import type { Profile } from '../../../src/core/sandbox.ts'

const read = (text: string): Profile => readProfile(text, 'p.yaml', 'p').profile

function problems(text: string): string[] {
  try {
    readProfile(text, 'p.yaml', 'p')
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems.map(({ where, message }) => `${where}: ${message}`)
  }
}

const full = `permissionProfile:
  filesystem:
    read: [/app, { path: /etc/pg_service.conf, execute: false }]
    write: [/data, { path: /cache, optional: true }]
    proc: all
  network:
    allowHost: [db.example.com, '*.api.example.com', db.example.com]
    allowCIDR: [10.20.0.0/16, 10.9.0.1/32, 10.20.0.0/16]
    allowPort: [443, 5432, 443]
    checkSni: true
  env: { allow: [PGUSER, APP_*], set: { NODE_ENV: production } }
  limits: { memory: 512Mi, processes: 64, openFiles: 2048, fileSize: 256MiB, cpuSeconds: 60 }
  allowDegraded: [net-port-only]
`

t.test('a profile in our notation, with all there is', async (t) => {
  const { digest, ...profile } = read(full)
  t.match(digest, /^sha256:[0-9a-f]{64}$/)
  t.same(profile, {
    name: 'p',
    filesystem: {
      scope: 'granted',
      read: [
        { path: '/app', optional: false, execute: true },
        { path: '/etc/pg_service.conf', optional: false, execute: false },
      ],
      write: [
        { path: '/data', optional: false },
        { path: '/cache', optional: true },
      ],
      proc: 'all',
    },
    network: {
      mode: 'allowlist',
      hosts: [
        { kind: 'exact', name: 'db.example.com' },
        { kind: 'below', name: 'api.example.com' },
      ],
      cidrs: ['10.20.0.0/16', '10.9.0.1/32'],
      ports: [443, 5432],
      checkSni: true,
    },
    env: { allow: ['PGUSER', 'APP_*'], set: { NODE_ENV: 'production' }, allowLoaderVariables: false },
    limits: {
      memoryBytes: 512 * 2 ** 20,
      processes: 64,
      openFiles: 2048,
      fileSizeBytes: 256 * 2 ** 20,
      cpuSeconds: 60,
    },
    allowDegraded: ['net-port-only'],
    notApplied: [],
  })
})

t.test('the bare mapping is the same profile, and so is its JSON', async (t) => {
  const bare = full.replace('permissionProfile:\n', '').replaceAll(/^ {2}/gm, '')
  t.same(read(bare), read(full))
  const json = JSON.stringify({
    filesystem: { write: ['/data'] },
    limits: { memory: '1Gi' },
  })
  t.match(read(json), { filesystem: { write: [{ path: '/data' }] }, limits: { memoryBytes: 2 ** 30 } })
})

t.test('what is left out grants nothing, and has the limits of all profiles', async (t) => {
  const profile = read('filesystem: { read: [/app] }')
  t.same(profile.network, { mode: 'none', hosts: [], cidrs: [], ports: [], checkSni: false })
  t.same(profile.env, { allow: [], set: {}, allowLoaderVariables: false })
  t.same(profile.limits, {
    memoryBytes: undefined,
    processes: 256,
    openFiles: 1024,
    fileSizeBytes: undefined,
    cpuSeconds: undefined,
  })
  t.same(read('filesystem: { read: [/app] }\nlimits: { processes: 9 }').limits.openFiles, 1024)
  t.equal(read('network: {}').network.mode, 'none')
  t.equal(read('network: { allowCIDR: [10.0.0.1/32] }').network.mode, 'allowlist')
  t.equal(read('network: { insecureAllowAll: true }').network.mode, 'open')
})

t.test('the digest is of what is granted, in whatever order, notation and name', async (t) => {
  const same = [
    'filesystem: { read: [/a, /b] }\nnetwork: { allowHost: [x.y, "*.z.y"], allowPort: [443, 80] }',
    'network: { allowHost: ["*.Z.y", x.y., x.y], allowPort: [80, 443] }\nfilesystem: { read: [{ path: /b }, /a], proc: self }\nlimits: { cpuSeconds: 0 }',
    '{"read": ["/b/", "/host:/a"], "network": {"outbound": {"allow_host": ["x.y", "*.z.y"], "allow_port": [443, 80]}}}',
  ]
  const digests = same.map((text) => read(text).digest)
  t.equal(new Set(digests).size, 1)
  const [first = ''] = same
  for (const other of [
    first.replace('/a', '/c'),
    first.replace('443', '442'),
    first.replace('x.y', 'y.y'),
    first.replace('read', 'write'),
    `${first}\nallowDegraded: [no-enforcement]`,
    `${first}\nenv: { set: { A: b } }`,
    `${first}\nlimits: { processes: 255 }`,
  ])
    t.not(read(other).digest, digests[0], other)
  t.equal(read('network: {}').digest, builtinProfile('none')?.digest)
  t.equal(
    read('network: { allowHost: ["*"], allowCIDR: ["0.0.0.0/0", "::/0"] }').digest,
    builtinProfile('network')?.digest,
  )
})

t.test('builtin profiles', async (t) => {
  t.match(builtinProfile('none'), {
    name: 'none',
    network: { mode: 'none' },
    filesystem: { scope: 'granted', read: [], write: [] },
  })
  t.match(builtinProfile('network'), {
    name: 'network',
    network: { mode: 'allowlist', hosts: [{ kind: 'any' }] },
  })
  t.equal(builtinProfile('network-only'), builtinProfile('network'))
  t.match(builtinProfile('full-access'), {
    network: { mode: 'open' },
    filesystem: { scope: 'all' },
    limits: { processes: 256 },
  })
  for (const name of ['', 'None', 'full', 'constructor', '__proto__'])
    t.equal(builtinProfile(name), undefined, name)
})

t.test('everything that is wrong is said, each at its line and column', async (t) => {
  const cases: [text: string, ...wanted: string[]][] = [
    ['', 'p.yaml:1:1: is empty: the profile that grants nothing is the builtin none'],
    ['{}', 'p.yaml:1:1: is empty: the profile that grants nothing is the builtin none'],
    [
      '[a]',
      'p.yaml:1:1: must be a section of keys (filesystem, env, limits, allowDegraded, network), not a list',
    ],
    [
      'none',
      'p.yaml:1:1: must be a section of keys (filesystem, env, limits, allowDegraded, network), not text',
    ],
    [
      'permissionProfile:\n',
      'p.yaml:1:1: must be a section of keys (filesystem, env, limits, allowDegraded, network), not nothing',
    ],
    ['permissionProfile: { env: {} }\nenv: {}', 'p.yaml:2:1: stands beside permissionProfile: put it inside'],
    [
      'apiVersion: ome.io/v1alpha1\nkind: MCPServer',
      'p.yaml:1:1: this is an OME document: name its file with --manifest (or in manifests)',
    ],
    [
      'permissions:\n  filesystem: {}',
      'p.yaml:1:1: permissions is a key of the configuration: in a file of its own a profile is written without it',
    ],
    ['filesytem: {}', 'p.yaml:1:1: unknown key: did you mean filesystem?'],
    ['x: {}', 'p.yaml:1:1: unknown key: there are filesystem, network, env, limits, allowDegraded'],
    ['filesystem: { raed: [] }', 'p.yaml:1:15: filesystem: unknown key: did you mean read?'],
    [
      'filesystem: {}\nread: [/a]',
      'p.yaml:2:1: read is how ToolHive writes it: put that profile into a file and name the file, or write filesystem: { read: [...] }',
    ],
    [
      'filesystem: null',
      'p.yaml:1:13: filesystem: must be a section of keys (read, write, proc), not nothing: fill it or leave it out',
    ],
    [
      'filesystem:\n  read:\n  - /app\n  - app',
      'p.yaml:4:5: filesystem.read[1]: "app" is not an absolute path: paths start with / here, as the server sees them',
    ],
    [
      'filesystem: { write: [{ path: /a/../b }] }',
      'p.yaml:1:31: filesystem.write[0].path: "/a/../b" is not the plain spelling of a path: write /b',
    ],
    [
      'filesystem: { write: [{ path: /a, execute: true }] }',
      'p.yaml:1:35: filesystem.write[0]: unknown key: there are path, optional',
    ],
    [
      'filesystem: { read: /app }',
      'p.yaml:1:21: filesystem.read: must be a list, not text: put it in square brackets',
    ],
    ['filesystem: { proc: none }', 'p.yaml:1:21: filesystem.proc: "none" is not one of self, all'],
    ['network: { allowHosts: [a] }', 'p.yaml:1:12: network: unknown key: did you mean allowHost?'],
    [
      'network: { allowHost: [a, a.*] }',
      'p.yaml:1:27: network.allowHost[1]: "a.*" has a * that is not its whole first label: write *.example.com, or * for any public name',
    ],
    [
      'network: { allowHost: [a, 169.254.169.254] }',
      'p.yaml:1:27: network.allowHost[1]: "169.254.169.254" is an address, not a name: write 169.254.169.254/32 under allowCIDR',
    ],
    [
      'network: { allowCIDR: [10.0.0.1/8] }',
      'p.yaml:1:24: network.allowCIDR[0]: "10.0.0.1/8" has bits behind its prefix: write 10.0.0.0/8, or 10.0.0.1/32',
    ],
    [
      'network: { allowHost: [a], allowPort: [0, 65536, "443"] }',
      'p.yaml:1:40: network.allowPort[0]: 0 is out of range: 1 to 65535',
      'p.yaml:1:43: network.allowPort[1]: 65536 is out of range: 1 to 65535',
      'p.yaml:1:50: network.allowPort[2]: is text: write 443 without quotes',
    ],
    [
      'network: { allowPort: [443] }',
      'p.yaml:1:23: network.allowPort: allows nothing without allowHost or allowCIDR',
    ],
    [
      'network: { insecureAllowAll: true, allowHost: [a], checkSni: true }',
      'p.yaml:1:47: network.allowHost: says nothing beside insecureAllowAll: keep one of them',
      'p.yaml:1:62: network.checkSni: says nothing beside insecureAllowAll: keep one of them',
    ],
    [
      'network: { insecureAllowAll: yes }',
      'p.yaml:1:30: network.insecureAllowAll: "yes" is neither true nor false',
    ],
    [
      'env: { allow: [A=b] }',
      'p.yaml:1:16: env.allow[0]: only names stand here: write A, values go into env.set',
    ],
    [
      'env: { allow: ["*"] }',
      'p.yaml:1:16: env.allow[0]: "*" would pass everything, the secrets of the sidecar too: name the variables',
    ],
    [
      'env: { allow: [A-B] }',
      'p.yaml:1:16: env.allow[0]: "A-B" is not a variable name (letters, digits and _, a * only at the end)',
    ],
    ['env: { set: { A: 1 } }', 'p.yaml:1:18: env.set.A: must be text, not a number: put quotes around it'],
    [
      'env: { allow: [LD_PRELOAD, NODE*], set: { PYTHONPATH: /x } }',
      'p.yaml:1:16: env.allow[0]: LD_PRELOAD changes what code runs: remove it, or say env.allowLoaderVariables: true',
      'p.yaml:1:28: env.allow[1]: NODE* lets NODE_OPTIONS through, which changes what code runs: remove it, or say env.allowLoaderVariables: true',
      'p.yaml:1:55: env.set.PYTHONPATH: PYTHONPATH changes what code runs: remove it, or say env.allowLoaderVariables: true',
    ],
    ['limits: { memory: 512 }', 'p.yaml:1:19: limits.memory: 512 has no unit: write 512MiB'],
    ['limits: { memory: 512M }', 'p.yaml:1:19: limits.memory: "512M" is not a size: write 512MiB'],
    ['limits: { memory: 1KiB }', 'p.yaml:1:19: limits.memory: "1KiB" is out of range: 1MiB to 1024GiB'],
    ['limits: { processes: 0 }', 'p.yaml:1:22: limits.processes: 0 is out of range: 1 to 1000000'],
    ['limits: { openFiles: 1.5 }', 'p.yaml:1:22: limits.openFiles: 1.5 is not a whole number'],
    ['limits: { cpuSeconds: -1 }', 'p.yaml:1:23: limits.cpuSeconds: -1 is out of range: 0 to 1000000000'],
    [
      'limits: { cpu: 1 }',
      'p.yaml:1:11: limits: unknown key: there are memory, processes, openFiles, fileSize, cpuSeconds',
    ],
    [
      'allowDegraded: [all]',
      'p.yaml:1:17: allowDegraded[0]: "all" is not one of net-port-only, container-seccomp-off, no-enforcement',
    ],
    ['env: {}\nenv: {}', 'p.yaml:2:1: this key is there twice: keep one of the two'],
    [
      'env: {}\n---\nenv: {}',
      'p.yaml:2:1: a second document begins here (---): the file holds only one; OME documents are named with --manifest',
    ],
    [
      'network: { allowHost: [*.a.b] }',
      'p.yaml:1:24: aliases (*name) point nowhere or stand for more than 100 nodes: write the values out, and put quotes around text that begins with *',
    ],
    // Both ends of the file, in the order of the file.
    [
      'network: { allowPort: [0] }\nfilesystem: { read: [a] }',
      'p.yaml:1:24: network.allowPort[0]: 0 is out of range: 1 to 65535',
      'p.yaml:2:22: filesystem.read[0]: "a" is not an absolute path: paths start with / here, as the server sees them',
    ],
    ['permissionProfile:\n  env: { alow: [] }', 'p.yaml:2:10: env: unknown key: did you mean allow?'],
  ]
  for (const [text, ...wanted] of cases) t.same(problems(text), wanted, text)
})

t.test('loader variables are let through when that is said', async (t) => {
  const { env } = read(
    'env: { allow: [LD_PRELOAD], set: { NODE_OPTIONS: -r x }, allowLoaderVariables: true }',
  )
  t.same(env, { allow: ['LD_PRELOAD'], set: { NODE_OPTIONS: '-r x' }, allowLoaderVariables: true })
})

t.test('values of variables, which may be secrets after all, are in no message', async (t) => {
  for (const text of [
    'env: { set: { A: [hunter2] } }',
    'env: { allow: [A=hunter2] }',
    'env: { set: { LD_PRELOAD: hunter2 } }',
  ])
    t.notMatch(problems(text).join(), /hunter2/)
})

t.test('each part of a profile is found where it was written', async (t) => {
  const { at, given } = readProfile(full, 'p.yaml', 'p')
  t.equal(at(['filesystem', 'read', 1]), 'p.yaml:3:18')
  t.equal(at(['filesystem', 'write', 0]), 'p.yaml:4:13')
  t.equal(at(['network', 'hosts', 1]), 'p.yaml:7:33')
  t.equal(at(['network', 'cidrs', 1]), 'p.yaml:8:31')
  t.equal(at(['network', 'ports', 1]), 'p.yaml:9:22')
  t.equal(at(['limits', 'openFiles']), 'p.yaml:12:54')
  const small = readProfile('network:\n  allowHost: [a, b]', 'p.yaml', 'p')
  t.equal(small.at(['network', 'hosts', 1]), 'p.yaml:2:18')
  t.equal(small.given(['limits', 'processes']), undefined)
  t.equal(given(['network', 'checkSni']), 'p.yaml:10:15')
})
