/** What is on this host's disk, asked once for each path. */
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  realpathSync,
  statSync,
} from 'node:fs'
import { userInfo } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { userFolders } from './path-names.ts'
import type { FileFact, FileFacts } from './profile.ts'
import type { ProgramFacts } from './program-parts.ts'

/** Where the kernel gives up, too. */
const mostLinks = 40
/** Enough for the first line of a script. Bytes. */
const startBytes = 4096
/** Of a file that is read as a whole, such as a package.json. Bytes. */
const mostTextBytes = 1024 ** 2

export function fileFacts(): FileFacts & ProgramFacts {
  const known = new Map<string, FileFact>()
  const at = (path: string): FileFact => {
    const fact = known.get(path) ?? look(path)
    known.set(path, fact)
    return fact
  }
  return { at, links, runs, start, text, owner }
}

function look(path: string): FileFact {
  try {
    const real = realpathSync(path)
    const found = statSync(real)
    if (found.isDirectory()) return { kind: 'folder', real }
    return { kind: found.isFile() ? 'file' : 'other', real }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return { kind: code === 'ENOENT' || code === 'ENOTDIR' ? 'missing' : 'unreadable' }
  }
}

function links(path: string): readonly string[] {
  const found: string[] = []
  let here = '/'
  let rest = path.split('/').filter(Boolean)
  while (rest.length > 0 && found.length < mostLinks) {
    const [part = '', ...others] = rest
    rest = others
    if (part === '..') {
      here = dirname(here)
      continue
    }
    const next = join(here, part)
    const target = linkTarget(next)
    if (target === undefined) {
      here = next
      continue
    }
    found.push(next)
    if (target.startsWith('/')) here = '/'
    rest = [...target.split('/').filter((each) => each !== '' && each !== '.'), ...rest]
  }
  return found
}

/** Undefined for what is no link, or not there. */
function linkTarget(path: string): string | undefined {
  try {
    return lstatSync(path).isSymbolicLink() ? readlinkSync(path) : undefined
  } catch {
    return undefined
  }
}

function runs(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

function start(path: string): string {
  return (
    read(path, (descriptor) => {
      const bytes = Buffer.alloc(startBytes)
      return bytes.toString('latin1', 0, readSync(descriptor, bytes, 0, startBytes, 0))
    }) ?? ''
  )
}

function text(path: string): string | undefined {
  return read(path, (descriptor) => {
    const found = fstatSync(descriptor)
    if (!found.isFile() || found.size > mostTextBytes) return undefined
    const bytes = Buffer.alloc(found.size)
    return bytes.toString('utf8', 0, readSync(descriptor, bytes, 0, found.size, 0))
  })
}

/** Does not wait for whoever has the other end of a pipe. */
function read(path: string, from: (descriptor: number) => string | undefined): string | undefined {
  try {
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      return from(descriptor)
    } finally {
      closeSync(descriptor)
    }
  } catch {
    return undefined
  }
}

function owner(path: string): number | undefined {
  try {
    return lstatSync(path).uid
  } catch {
    return undefined
  }
}

/**
 * The home folders of this user, as HOME and as the system has them, and where links among their folders of documents lead;
 * each as it is written and with links followed.
 *
 * @param home the variable; passed over where it is no absolute path
 */
export function homeFolders(home: string | undefined): readonly string[] {
  const named = [home, systemHome()].flatMap((each) => (each?.startsWith('/') ? [resolve(each)] : []))
  const homes = named.flatMap((each) => [each, ...realPath(each)])
  const documents = homes.flatMap((each) => userFolders.flatMap((name) => linked(join(each, name))))
  return [...new Set([...homes, ...documents])]
}

/** Undefined for a user whom the system does not know, as in containers. */
function systemHome(): string | undefined {
  try {
    return userInfo().homedir
  } catch {
    return undefined
  }
}

function linked(path: string): readonly string[] {
  return linkTarget(path) === undefined ? [] : realPath(path)
}

/** Empty where it does not exist or may not be looked at. */
function realPath(path: string): readonly string[] {
  try {
    return [realpathSync(path)]
  } catch {
    return []
  }
}
