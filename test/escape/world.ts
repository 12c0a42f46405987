/** The surroundings of the attempts: folders, programs, victims and listeners outside the sandbox. */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ProfileName } from './attempt.ts'
import { buildPrograms, built, fixtures, maskedBuild } from './build.ts'
import { type Listeners, openListeners } from './listeners.ts'
import { profiles } from './profiles.ts'
import { Victim } from './victim.ts'

/** Paths; all but `home` are named in no profile unless it says so. */
export interface Places {
  readonly base: string
  /** Granted, read and execute: the attacker and its programs. */
  readonly program: string
  readonly attempts: string
  readonly server: string
  /** The same program with rights that nobody may gain by it: setuid root, or with a file capability. */
  readonly setuid: string
  readonly capable: string
  /** Granted, read without execute. */
  readonly shown: string
  /** Granted, write. */
  readonly data: string
  readonly secrets: string
  /** A secret of this text stands in it: canary. */
  readonly secret: string
  readonly home: string
  readonly key: string
  readonly config: string
  readonly token: string
  /** Where the sidecar's resolver writes each name it is asked for. */
  readonly lookups: string
  readonly ca: string
  /** Undefined without a python3 that this user may run. */
  readonly python: { readonly file: string; readonly read: readonly string[] } | undefined
}

export interface World extends Places {
  readonly uid: number
  /** For spawn: as whom. */
  readonly identity: { readonly uid?: number; readonly gid?: number }
  /** Of Landlock, where it is not the kernel's own. */
  readonly abi: number | undefined
  /** The program under test. */
  readonly sidecar: string
  readonly listeners: Listeners
  readonly victim: Victim
  readonly profile: (name: ProfileName) => string
  /** What reached anybody whom nothing may reach, in the order in which it did. */
  reached(): Promise<readonly string[]>
  close(): Promise<void>
}

/** An interpreter that is not in somebody's home. */
function findPython(): Places['python'] {
  for (const file of ['/usr/bin/python3', '/usr/local/bin/python3']) {
    if (existsSync(file)) return { file: realpathSync(file), read: [] }
  }
  return undefined
}

/** @param abi the newest Landlock that the launcher sees; default what there is */
export async function makeWorld(uid: number, abi?: number): Promise<World> {
  const root = process.getuid?.() === 0
  // Becoming who one is already takes a capability that root may have lost.
  const identity = process.getuid?.() === uid ? {} : { uid, gid: uid }
  const reached: string[] = []
  const base = mkdtempSync(join(realpathSync(tmpdir()), 'mcp-sidecar-escape-'))
  const own = (path: string, mode: number): string => {
    chmodSync(path, mode)
    if (root && uid !== 0) chownSync(path, uid, uid)
    return path
  }
  // A program in it is setuid root.
  own(base, 0o700)
  const folder = (name: string, mode = 0o700): string => {
    mkdirSync(join(base, name))
    return own(join(base, name), mode)
  }
  const file = (parent: string, name: string, text: string, mode = 0o600): string => {
    writeFileSync(join(parent, name), text)
    return own(join(parent, name), mode)
  }

  const program = folder('program', 0o755)
  const programs = buildPrograms()
  const put = (from: string, name: string): string => {
    copyFileSync(from, join(program, name))
    return own(join(program, name), 0o755)
  }
  const attempts = put(programs.attempts, 'attempts')
  const server = put(join(fixtures, 'attacker-server.mjs'), 'attacker-server.mjs')
  put(join(fixtures, 'probes.mjs'), 'probes.mjs')
  put(join(fixtures, 'attacker.py'), 'attacker.py')
  const setuid = put(programs.attempts, 'setuid')
  const capable = put(programs.attempts, 'capable')
  if (root) {
    if (uid !== 0) chownSync(setuid, 0, 0)
    chmodSync(setuid, 0o4755)
    execFileSync(programs.attempts, ['16', 'give-capability', capable])
  }

  const shown = folder('shown')
  const data = folder('data')
  const secrets = folder('secrets')
  const home = folder('home')
  mkdirSync(join(home, '.ssh'))
  own(join(home, '.ssh'), 0o700)
  const token = 'canary-token-of-alice-0123456789abcdef'
  const secret = file(secrets, 'secret', 'canary-in-file')
  const key = file(join(home, '.ssh'), 'id_escape', 'canary-in-key')
  file(secrets, 'tokens', `alice:${token}\n`)
  const config = file(
    secrets,
    'config.yaml',
    '# canary-in-config\nauth: { bearer: { tokenFile: ./tokens } }\nlog: { level: debug }\n',
  )
  const listeners = await openListeners(reached)
  const ca = file(shown, 'ca.pem', listeners.ca, 0o644)
  file(shown, 'file', 'shown\n', 0o644)
  copyFileSync(programs.attempts, join(shown, 'program'))
  own(join(shown, 'program'), 0o755)
  file(data, 'file', 'data\n')
  symlinkSync(secret, join(shown, 'link'))
  symlinkSync(secrets, join(data, 'folder-link'))
  const lookups = file(secrets, 'lookups', '')

  const victim = await Victim.start(programs.victim, folder('victim'), identity, reached)
  await listeners.forbidPath(join(data, 'inside.sock'))
  chmodSync(join(data, 'inside.sock'), 0o777)

  const paths: Places = {
    ...{
      base,
      program,
      attempts,
      server,
      setuid,
      capable,
      shown,
      data,
      secrets,
      secret,
      home,
      key,
      config,
      token,
    },
    ...{ lookups, ca, python: findPython() },
  }
  const texts = profiles(paths, { ...listeners, slowPort: victim.facts.slowPort })
  for (const [name, permissionProfile] of Object.entries(texts)) {
    file(secrets, `${name}.yaml`, JSON.stringify({ permissionProfile }))
  }
  return {
    ...paths,
    uid,
    identity,
    abi,
    sidecar:
      abi === undefined
        ? built
        : maskedBuild(join(built, '..', '..'), join(base, 'capped'), `test.abi ${abi}`),
    listeners,
    victim,
    profile: (name) => {
      const builtin = { none: 'none', network: 'network', full: 'full-access' }[name as string]
      return builtin ?? join(secrets, `${name}.yaml`)
    },
    reached: async () => {
      await Promise.all([listeners.settled(), victim.died ? undefined : victim.settled()])
      return victim.died ? [...reached, 'the victim died'] : [...reached]
    },
    close: async () => {
      await victim.close()
      await listeners.close()
      rmSync(base, { recursive: true, force: true })
      rmSync(stray(base, uid), { force: true })
    },
  }
}

/** What an attempt would leave in the folder for temporary files. */
export const stray = (base: string, uid: number): string => join(base, '..', `escape-${process.pid}-${uid}`)

/** Names that the sidecar's resolver was asked for. */
export const lookedUp = (world: Places): readonly string[] =>
  readFileSync(world.lookups, 'utf8').split('\n').filter(Boolean)
