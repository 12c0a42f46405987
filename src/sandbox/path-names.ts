/** Absolute, normalised paths, by their names alone. */

/** Whether `inner` is `outer`, or lies below it. */
export function within(inner: string, outer: string): boolean {
  return inner === outer || inner.startsWith(outer.endsWith('/') ? outer : `${outer}/`)
}

export function parentOf(path: string): string {
  const end = path.lastIndexOf('/')
  return end <= 0 ? '/' : path.slice(0, end)
}

export function baseOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}

export function joined(folder: string, name: string): string {
  return folder === '/' ? `/${name}` : `${folder}/${name}`
}

/** The folder itself and all above it, the nearest first. */
export function foldersAbove(folder: string): readonly string[] {
  return folder === '/' ? ['/'] : [folder, ...foldersAbove(parentOf(folder))]
}

/** Folders that hold things of everybody. */
const shared = new Set([
  ...['/', '/bin', '/boot', '/dev', '/etc', '/home', '/lib', '/lib64', '/media', '/mnt', '/opt', '/root'],
  ...['/run', '/sbin', '/srv', '/sys', '/tmp', '/usr', '/usr/local', '/usr/share', '/var', '/var/cache'],
  ...['/var/lib', '/var/log', '/var/run', '/var/spool', '/var/tmp', '/dev/shm', '/Users'],
])

/** Whether a folder is too wide to be given as a whole: what is used in it is named one by one. */
export function isShared(folder: string, home: string | undefined): boolean {
  if (shared.has(folder) || ['/home', '/Users'].includes(parentOf(folder))) return true
  return home !== undefined && within(home, folder)
}
