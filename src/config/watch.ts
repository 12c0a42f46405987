import { createHash } from 'node:crypto'
import { type FSWatcher, readFileSync, realpathSync, statSync, watch } from 'node:fs'
import { dirname, resolve } from 'node:path'

/** Milliseconds of quiet to wait for: an editor or a kubelet makes several changes for one. */
const SETTLE_MS = 100
/** Milliseconds after which it is looked at in any case: another file in the folder may never be quiet. */
const LONGEST_WAIT_MS = 1000
/** Milliseconds between looks while a folder cannot be watched (no such right, or no watches left). */
const POLL_MS = 5000

const EMPTY = hashOf('')

export interface Watcher {
  /** From now on these files. What is known of those that stay is kept, so that no change of theirs is lost. */
  update(paths: readonly string[]): void
  close(): void
}

/**
 * Calls `onChange` with the absolute paths of the files whose content is another than before, about 100 ms after
 * the change, 1 s when the file was emptied. A file that vanishes is no change; one that comes back with other content
 * is. Content is compared with what it was when the watch began, so begin before loading. Folders are watched rather
 * than files: editors and the kubelet replace a file (or the `..data` link beside it), which a watch on the file itself
 * does not survive. Keeps no process alive. The files are read synchronously and are taken to be small.
 */
export function watchFiles(
  paths: readonly string[],
  onChange: (changed: readonly string[]) => void,
): Watcher {
  const files = new Map(paths.map((path) => [resolve(path), contentHash(path)]))
  const folders = new Map<string, { readonly identity: string; readonly watcher: FSWatcher }>()
  /** Since when a file is empty that was not. */
  const emptied = new Map<string, number>()
  let settle: NodeJS.Timeout | undefined
  let retry: NodeJS.Timeout | undefined
  let deadline = 0
  let closed = false

  const stir = (): void => {
    if (closed) return
    const now = performance.now()
    if (deadline === 0) deadline = now + LONGEST_WAIT_MS
    clearTimeout(settle)
    settle = setTimeout(look, Math.max(0, Math.min(SETTLE_MS, deadline - now))).unref()
  }

  /** Looks again without being stirred. Each look asks for it anew while there is a reason. */
  const lookAgain = (waitMs: number): void => {
    clearTimeout(retry)
    retry = setTimeout(look, waitMs).unref()
  }

  /** Some writers empty a file first and fill it later, and an empty configuration is one without any protection. */
  const mayStillBeFilled = (file: string): boolean => {
    const now = performance.now()
    const since = emptied.get(file) ?? now
    emptied.set(file, since)
    const rest = since + LONGEST_WAIT_MS - now
    if (rest > 0) lookAgain(rest)
    return rest > 0
  }

  /** Watches what now has to be watched; true when a watch is new, so that a change may have come before it. */
  const follow = (): boolean => {
    const wanted = new Set([...files.keys()].flatMap(foldersOf))
    for (const [folder, { identity, watcher }] of folders) {
      // A folder that was removed and made again has the same name, but the old watch sees nothing of it.
      if (wanted.has(folder) && identityOf(folder) === identity) continue
      watcher.close()
      folders.delete(folder)
    }
    let added = false
    for (const folder of wanted) {
      const identity = identityOf(folder)
      if (folders.has(folder) || identity === undefined) continue
      try {
        const watcher = watch(folder, { persistent: false }, stir)
        watcher.on('error', () => {
          watcher.close()
          folders.delete(folder)
          stir()
        })
        folders.set(folder, { identity, watcher })
        added = true
      } catch {
        lookAgain(POLL_MS)
      }
    }
    return added
  }

  const look = (): void => {
    deadline = 0
    clearTimeout(retry)
    if (follow()) stir()
    const changed: string[] = []
    for (const [file, before] of files) {
      const now = contentHash(file)
      if (now !== EMPTY) emptied.delete(file)
      if (now === undefined || now === before || (now === EMPTY && mayStillBeFilled(file))) continue
      files.set(file, now)
      changed.push(file)
    }
    if (changed.length > 0) onChange(changed)
  }

  follow()
  return {
    update: (next) => {
      const wanted = new Set(next.map((path) => resolve(path)))
      for (const file of files.keys()) if (!wanted.has(file)) files.delete(file)
      for (const file of wanted) if (!files.has(file)) files.set(file, contentHash(file))
      follow()
    },
    close: () => {
      closed = true
      clearTimeout(settle)
      clearTimeout(retry)
      for (const { watcher } of folders.values()) watcher.close()
      folders.clear()
    },
  }
}

/** The folder of the file as named and, when it is a link, of what it points to; the nearest one that exists. */
function foldersOf(file: string): string[] {
  const folders = [existing(dirname(file))]
  try {
    folders.push(dirname(realpathSync(file)))
  } catch {
    // Not there yet: the folder of its name will tell.
  }
  return folders
}

function existing(folder: string): string {
  return identityOf(folder) !== undefined || dirname(folder) === folder ? folder : existing(dirname(folder))
}

function identityOf(folder: string): string | undefined {
  try {
    const found = statSync(folder)
    // The number of a removed folder is soon given to another one; its time of birth is not.
    return found.isDirectory() ? `${found.dev}:${found.ino}:${found.birthtimeMs}` : undefined
  } catch {
    return undefined
  }
}

/** Undefined when there is no such file, or none that can be read. */
function contentHash(file: string): string | undefined {
  try {
    // Reading a pipe would wait for its writer.
    return statSync(file).isFile() ? hashOf(readFileSync(file)) : undefined
  } catch {
    return undefined
  }
}

function hashOf(content: string | Uint8Array): string {
  return createHash('sha256').update(content).digest('hex')
}
