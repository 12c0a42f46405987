import { access, constants, open, stat } from 'node:fs/promises'
import { isAbsolute, relative } from 'node:path'

/** Bytes. Far above any sensible configuration, and little enough to parse at once. */
export const MAX_FILE_BYTES = 2 ** 20

/** Reads a whole file as UTF-8 text. Rejects with the error of the file system, or a `TypeError` that says what is wrong. */
export type ReadFile = (path: string) => Promise<string>

/** Reads at most `MAX_FILE_BYTES`, also from a pipe, whose size nobody knows beforehand. */
export const readTextFile: ReadFile = async (path) => {
  const file = await open(path)
  try {
    const buffer = Buffer.allocUnsafe(MAX_FILE_BYTES + 1)
    let length = 0
    for (;;) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length, null)
      length += bytesRead
      if (bytesRead === 0) break
      if (length > MAX_FILE_BYTES) throw new TypeError('is larger than 1 MiB')
    }
    return decode(buffer.subarray(0, length))
  } finally {
    await file.close()
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new TypeError('is not UTF-8 text')
  }
}

/** A sentence for what the file system (or `readTextFile`) refused. */
export function explainReadError(error: unknown): string {
  if (error instanceof TypeError) return error.message
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  if (code === 'ENOENT') return 'does not exist'
  if (code === 'ENOTDIR') return 'does not exist: a part of the path is not a folder'
  if (code === 'EISDIR') return 'is a folder: name a file in it'
  if (code === 'EACCES' || code === 'EPERM') return 'may not be read by this user'
  return `cannot be read (${code ?? 'unknown reason'})`
}

/** As a person in `cwd` would name it. */
export function shortName(path: string, cwd: string): string {
  const short = relative(cwd, path)
  return short.startsWith('..') || isAbsolute(short) ? path : short
}

/** What keeps `path` from being a readable file, or a folder to start in; undefined when nothing does. */
export async function missing(kind: 'file' | 'folder', path: string): Promise<string | undefined> {
  try {
    const found = await stat(path)
    if (kind === 'folder' && !found.isDirectory()) return 'is not a folder'
    if (kind === 'file' && found.isDirectory()) return 'is a folder: name a file in it'
    await access(path, kind === 'file' ? constants.R_OK : constants.X_OK)
    return undefined
  } catch (error) {
    return explainReadError(error)
  }
}
