/** The files that the sidecar consists of: whoever may change them decides what is enforced from the next start on. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** What is loaded from the folder of the package, as it is installed or as it is checked out. */
const parts = ['package.json', 'dist', 'src', 'bin', 'node_modules']

/**
 * Absolute paths without symbolic links: this package, the folders of packages that it loads others from, Node.js, and the
 * launcher.
 *
 * @param launcher undefined where there is none
 */
export function ownCode(launcher: string | undefined): readonly string[] {
  const around = foldersAbove(dirname(fileURLToPath(import.meta.url)))
  const root = around.find((folder) => existsSync(join(folder, 'package.json'))) ?? around[1]
  if (root === undefined) return []
  const packages = foldersAbove(dirname(root)).map((folder) => join(folder, 'node_modules'))
  const loaded = [...parts.map((part) => join(root, part)), ...packages].filter((path) => existsSync(path))
  return [...loaded, process.execPath, ...(launcher === undefined ? [] : [launcher])]
}

/** From the folder itself up to the top. */
function foldersAbove(folder: string): readonly string[] {
  const parent = dirname(folder)
  return parent === folder ? [folder] : [folder, ...foldersAbove(parent)]
}
