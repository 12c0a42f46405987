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

/**
 * Whether a folder is too wide to be given as a whole: what is used in it is named one by one.
 *
 * @param homes of the user who runs the server
 */
export function isShared(folder: string, homes: readonly string[]): boolean {
  if (shared.has(folder) || ['/home', '/Users'].includes(parentOf(folder))) return true
  return homes.some((home) => within(home, folder))
}

/** In a home folder, by the names that desktops give them (xdg-user-dirs). */
export const userFolders: readonly string[] = [
  ...['Desktop', 'Documents', 'Downloads', 'Music', 'Pictures', 'Public', 'Templates', 'Videos'],
]
/** Drives, the runtime folders of users, and on WSL the home folders of Windows. */
const mounted = [
  /^\/mnt\/[^/]+(?:\/Users(?:\/[^/]+)?)?$/,
  /^(?:\/run)?\/media(?:\/[^/]+){0,2}$/,
  /^\/run\/user(?:\/[^/]+)?$/,
]
const windowsHome = /^\/mnt\/[^/]+\/Users\/[^/]+$/

/** Whether a folder is shared, or holds whatever a person keeps in it: a drive, `~/Documents`, `~/.config`. */
export function isPersonal(folder: string, homes: readonly string[]): boolean {
  if (isShared(folder, homes) || mounted.some((each) => each.test(folder))) return true
  const [around, name] = [parentOf(folder), baseOf(folder)]
  const inHome =
    homes.includes(around) ||
    around === '/root' ||
    ['/home', '/Users'].includes(parentOf(around)) ||
    windowsHome.test(around)
  return inHome && (name.startsWith('.') || userFolders.includes(name))
}
