/** Rows 17, 57, 76, 84: profiles that must not start a server. Each is a file of its own, and what the refusal says. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { World } from './world.ts'

export interface RefusedStart {
  readonly row: number
  readonly title: string
  /** The profile, or its text. */
  readonly profile: (world: World) => object | string
  readonly says: RegExp
}

const reading = (world: World, ...more: readonly unknown[]) => ({
  filesystem: { read: [world.program, ...more] },
})

export const refusedStarts: readonly RefusedStart[] = [
  ...['LD_PRELOAD', 'LD_LIBRARY_PATH', 'NODE_OPTIONS', 'PYTHONPATH', 'GLIBC_TUNABLES', 'BASH_ENV'].flatMap(
    (name) => [
      {
        row: 17,
        title: `sets ${name}`,
        profile: (world: World) => ({ ...reading(world), env: { set: { [name]: '/tmp/evil.so' } } }),
        says: new RegExp(name),
      },
      {
        row: 17,
        title: `lets ${name} through`,
        profile: (world: World) => ({ ...reading(world), env: { allow: [name] } }),
        says: new RegExp(name),
      },
    ],
  ),
  ...['169.254.169.254', '127.0.0.1', '[::1]'].map((address) => ({
    row: 57,
    title: `has ${address} among its hosts`,
    profile: (world: World) => ({ ...reading(world), network: { allowHost: [address] } }),
    says: /is an address, not a name: write \S+ under allowCIDR/,
  })),
  {
    row: 76,
    title: 'grants a path that does not exist',
    profile: (world) => reading(world, join(world.base, 'missing')),
    says: /missing/,
  },
  {
    row: 76,
    title: 'grants a relative path',
    profile: (world) => reading(world, 'shown'),
    says: /absolute|relative/,
  },
  {
    row: 76,
    title: 'grants a path with dots',
    profile: (world) => reading(world, `${world.shown}/../secrets`),
    says: /\.\.|normal/,
  },
  {
    row: 76,
    title: 'grants a write path below a file',
    profile: (world) => ({ filesystem: { read: [world.program], write: [join(world.ca, 'x')] } }),
    says: /ca\.pem|exist|directory|folder/,
  },
  {
    row: 76,
    title: 'has a key that nobody knows',
    profile: (world) => ({ ...reading(world), nonsense: true }),
    says: /nonsense|unknown key/,
  },
  { row: 76, title: 'is no YAML', profile: () => 'permissionProfile: [', says: /permissions|\.yaml|flow/ },
  {
    row: 84,
    title: 'grants the folder of the configuration',
    profile: (world) => reading(world, world.secrets),
    says: /secrets/,
  },
  {
    row: 84,
    title: 'grants the configuration itself',
    profile: (world) => reading(world, world.config),
    says: /config\.yaml/,
  },
  {
    row: 84,
    title: 'grants the tokens',
    profile: (world) => reading(world, join(world.secrets, 'tokens')),
    says: /tokens/,
  },
  {
    row: 84,
    title: 'grants all above the configuration',
    profile: (world) => reading(world, world.base),
    says: /belongs to the sidecar/,
  },
  {
    row: 84,
    title: 'lets the folder of the configuration be written',
    profile: (world) => ({ filesystem: { read: [world.program], write: [world.secrets] } }),
    says: /secrets/,
  },
  {
    row: 84,
    title: 'grants the folder of the configuration by a symlink',
    profile: linkToSecrets,
    says: /secrets|link-to/,
  },
  {
    row: 84,
    title: 'grants the root',
    profile: (world) => reading(world, '/'),
    says: /whole file system/,
  },
]

function linkToSecrets(world: World): object {
  const folder = join(world.base, 'links')
  mkdirSync(folder, { recursive: true })
  symlinkSync(world.secrets, join(folder, 'link-to-secrets'))
  return reading(world, join(folder, 'link-to-secrets'))
}

/** @returns its path */
export function writeProfile(world: World, index: number, { profile }: RefusedStart): string {
  const path = join(world.base, `refused-${index}.yaml`)
  const what = profile(world)
  writeFileSync(path, typeof what === 'string' ? what : JSON.stringify({ permissionProfile: what }), {
    mode: 0o644,
  })
  return path
}
