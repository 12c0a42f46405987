/** What is on this host's disk, asked once for each path. */
import { realpathSync, statSync } from 'node:fs'
import type { FileFact, FileFacts } from './profile.ts'

export function fileFacts(): FileFacts {
  const known = new Map<string, FileFact>()
  return {
    at(path) {
      const fact = known.get(path) ?? look(path)
      known.set(path, fact)
      return fact
    },
  }
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
