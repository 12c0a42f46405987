/** The files that the sidecar consists of: whoever may change them decides what is enforced from the next start on. */
import { accessSync, constants, existsSync, statSync } from 'node:fs'
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
  const root = packageRoot()
  if (root === undefined) return []
  const packages = foldersAbove(dirname(root)).map((folder) => join(folder, 'node_modules'))
  const loaded = [...parts.map((part) => join(root, part)), ...packages].filter((path) => existsSync(path))
  return [...loaded, process.execPath, ...(launcher === undefined ? [] : [launcher])]
}

/**
 * What is kept from being changed goes by its path, so that a file with another name elsewhere is not. Asked of two files,
 * since whatever installs packages as hard links does so with all of their files.
 *
 * @param files default: of this package
 */
export function isLinkedElsewhere(files: readonly string[] = samples()): boolean {
  return files.some((file) => {
    try {
      const { nlink, uid } = statSync(file)
      return nlink > 1 && (uid === process.getuid?.() || isWritable(file))
    } catch {
      return false
    }
  })
}

function samples(): readonly string[] {
  const root = packageRoot()
  return [fileURLToPath(import.meta.url), ...(root === undefined ? [] : [join(root, 'package.json')])]
}

function isWritable(file: string): boolean {
  try {
    accessSync(file, constants.W_OK)
    return true
  } catch {
    return false
  }
}

function packageRoot(): string | undefined {
  const around = foldersAbove(dirname(fileURLToPath(import.meta.url)))
  return around.find((folder) => existsSync(join(folder, 'package.json'))) ?? around[1]
}

/** From the folder itself up to the top. */
function foldersAbove(folder: string): readonly string[] {
  const parent = dirname(folder)
  return parent === folder ? [folder] : [folder, ...foldersAbove(parent)]
}
