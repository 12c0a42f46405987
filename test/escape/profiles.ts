/** The permission profiles of the escape suite, as files of the documented notation. */
import type { ProfileName } from './attempt.ts'
import { allowedAddress } from './listeners.ts'
import type { Places } from './world.ts'

interface Ports {
  readonly tcpPort: number
  readonly httpPort: number
  readonly tlsPort: number
  readonly slowPort: number
}

/** What the sidecar's resolver answers; no other name has an address. A list of lists is answered in turn. */
export const namesFor = (
  sniAddress: string | undefined,
): Readonly<Record<string, readonly (string | readonly string[])[]>> => ({
  'sni.test': sniAddress === undefined ? [] : [sniAddress],
  'allowed.test': [allowedAddress],
  '*.wild.test': [allowedAddress],
  // Allowed names whose addresses are not.
  'loop.test': ['127.0.0.1'],
  'loop6.test': ['::1'],
  'meta.test': ['169.254.169.254'],
  'private.test': ['10.0.0.1'],
  'rebind.test': [[allowedAddress], ['127.0.0.1']],
  'mixed.test': ['127.0.0.1', allowedAddress],
  // Names that a machine has for itself.
  localhost: ['127.0.0.1'],
  'localhost.localdomain': ['127.0.0.1'],
  'ip6-localhost': ['::1'],
  // Allowed, and never connected to.
  'quiet.test': [allowedAddress],
  // Names of others.
  'wild.test': [allowedAddress],
  'other.test': [allowedAddress],
  'evil-allowed.test': [allowedAddress],
  'allowed.test.evil.test': [allowedAddress],
})

const allowHost = [
  ...['allowed.test', '*.wild.test', 'loop.test', 'loop6.test', 'meta.test', 'private.test', 'rebind.test'],
  'mixed.test',
  'quiet.test',
]

const MiB = (count: number): string => `${count}MiB`

/**
 * What each file says. `network`, `full` and `none` are builtins and have no file, `off` is no profile at all.
 */
export function profiles(
  { program, shown, data, ca, python }: Places,
  { tcpPort, httpPort, tlsPort, slowPort }: Ports,
): Partial<Record<ProfileName, object>> {
  const read = [program, { path: shown, execute: false }]
  const set = { NODE_EXTRA_CA_CERTS: ca, SSL_CERT_FILE: ca, ESCAPE_MARK: 'set by the profile' }
  const network = {
    allowHost,
    allowCIDR: [`${allowedAddress}/32`],
    allowPort: [tcpPort, httpPort, tlsPort, slowPort],
  }
  const limits = { memory: MiB(4096), processes: 200, openFiles: 512, fileSize: MiB(16) }
  const main = { filesystem: { read, write: [data] }, network, env: { set }, limits }
  return {
    main,
    python: {
      ...main,
      filesystem: { read: python === undefined ? read : [...read, ...python.read], write: [data] },
    },
    // All of /proc, and all of loopback as far as anybody can open it.
    proc: {
      ...main,
      filesystem: { read, write: [data], proc: 'all' },
      network: { allowCIDR: ['127.0.0.0/8'], allowHost: ['loop.test', 'sni.test'], checkSni: true },
    },
    // All names, and all addresses that no range of special ones holds: what is refused here, its range refuses.
    public: {
      filesystem: { read },
      network: { allowHost: ['*'], allowCIDR: ['0.0.0.0/0', '::/0'] },
    },
    // Node 24 takes 600 MiB of private data before its first line runs, most of it never touched.
    bomb: {
      filesystem: { read, write: [data] },
      limits: { memory: MiB(768), processes: 100, openFiles: 128, fileSize: MiB(4) },
    },
  }
}
