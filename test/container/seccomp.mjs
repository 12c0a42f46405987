/** A system call filter as strict as the default of moby and containerd, derived from the one that podman brings. */
import { readFileSync, writeFileSync } from 'node:fs'

const EPERM = 1
const ENOSYS = 38
/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. */
const NAMESPACE_FLAGS = 0x7e020000

/** What podman lets every container do and moby only one with the capability for it, or none at all. */
const REFUSED = [
  ...[
    'fsconfig',
    'fsmount',
    'fsopen',
    'fspick',
    'mount',
    'mount_setattr',
    'move_mount',
    'open_tree',
    'pivot_root',
  ],
  ...['umount', 'umount2', 'setns', 'unshare', 'keyctl', 'pidfd_getfd', 'reboot', 'syslog'],
]

/**
 * Podman's own profile permits user namespaces, most container platforms do not. What works only thanks to that must
 * fail in the test as it would fail there.
 */
export function writeStrictProfile(path) {
  const profile = JSON.parse(readFileSync('/usr/share/containers/seccomp.json', 'utf8'))
  const changed = new Set([...REFUSED, 'clone', 'clone3'])
  const rules = profile.syscalls
    .map((rule) => ({ ...rule, names: rule.names.filter((name) => !changed.has(name)) }))
    .filter((rule) => rule.names.length > 0)
  const withoutNamespaces = { index: 0, value: NAMESPACE_FLAGS, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }
  rules.push(
    { names: REFUSED, action: 'SCMP_ACT_ERRNO', errnoRet: EPERM },
    { names: ['clone'], action: 'SCMP_ACT_ALLOW', args: [withoutNamespaces] },
    // Its flags lie in memory where a filter cannot read them; libc falls back to clone when told it does not exist.
    { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
  )
  writeFileSync(
    path,
    JSON.stringify({ ...profile, defaultErrnoRet: EPERM, defaultErrno: 'EPERM', syscalls: rules }),
  )
}
