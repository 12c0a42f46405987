/** What is on this host's disk, asked once for each path. */
import {
  accessSync,
  closeSync,
  constants,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  realpathSync,
  statSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import type { FileFact, FileFacts } from './profile.ts'
import type { ProgramFacts } from './program.ts'

/** Where the kernel gives up, too. */
const mostLinks = 40
/** Enough for the first line of a script, and for the name in a package.json. Bytes. */
const startBytes = 4096

export function fileFacts(): FileFacts & ProgramFacts {
  const known = new Map<string, FileFact>()
  const at = (path: string): FileFact => {
    const fact = known.get(path) ?? look(path)
    known.set(path, fact)
    return fact
  }
  return { at, links, runs, start }
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
  try {
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      const bytes = Buffer.alloc(startBytes)
      return bytes.toString('latin1', 0, readSync(descriptor, bytes, 0, startBytes, 0))
    } finally {
      closeSync(descriptor)
    }
  } catch {
    return ''
  }
}
