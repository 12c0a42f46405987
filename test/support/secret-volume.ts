/** A folder of files as the kubelet mounts a Secret, which is how cert-manager's certificates reach a pod. */
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { folder } from './processes.ts'

export interface SecretVolume {
  /** The path of a file in it, which stays the same. */
  path(name: string): string
  /** All files of one moment at once: those named are others now. */
  replace(files: Readonly<Record<string, string>>): void
}

/** Each file is a link through `..data`, which is replaced in one step (atomic_writer.go of Kubernetes). */
export function secretVolume(t: Test, files: Readonly<Record<string, string>>): SecretVolume {
  const place = folder(t)
  let now: Record<string, string> = {}
  let versions = 0
  const write = (): void => {
    const before = `..2026_11_22_10_00_00.${versions}`
    const version = `..2026_11_22_10_00_00.${++versions}`
    mkdirSync(join(place, version))
    for (const [name, text] of Object.entries(now))
      writeFileSync(join(place, version, name), text, { mode: 0o600 })
    symlinkSync(version, join(place, '..data_tmp'))
    renameSync(join(place, '..data_tmp'), join(place, '..data'))
    rmSync(join(place, before), { recursive: true, force: true })
  }
  now = { ...files }
  write()
  for (const name of Object.keys(files)) symlinkSync(join('..data', name), join(place, name))
  return {
    path: (name) => join(place, name),
    replace: (others) => {
      now = { ...now, ...others }
      write()
    },
  }
}
