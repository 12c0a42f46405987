import type { Profile } from '../../src/core/sandbox.ts'

/** A profile that grants nothing, with what a test cares for. */
export function profile(more: Partial<Profile> = {}): Profile {
  return {
    name: 'p',
    digest: `sha256:${'0'.repeat(64)}`,
    filesystem: { scope: 'granted', read: [], write: [], proc: 'self' },
    network: { mode: 'none', hosts: [], cidrs: [], ports: [], checkSni: false },
    env: { allow: [], set: {}, allowLoaderVariables: false },
    limits: {
      memoryBytes: undefined,
      processes: undefined,
      openFiles: undefined,
      fileSizeBytes: undefined,
      cpuSeconds: undefined,
    },
    allowDegraded: [],
    notApplied: [],
    ...more,
  }
}
