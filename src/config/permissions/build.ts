import { basename, dirname } from 'node:path'
import { builtinProfile } from '../../core/profile.ts'
import type { Profile } from '../../core/sandbox.ts'
import { explainReadError, type ReadFile, shortName } from '../disk.ts'
import { ConfigError, type Problem } from '../error.ts'
import type { Given } from '../given.ts'
import type { Origins } from '../origins.ts'
import { ownProfile } from './profile-values.ts'

export interface PermissionsContext {
  readonly given: Given
  readonly origins: Origins
  readonly read: ReadFile
  readonly cwd: string
  /** Takes what is wrong. */
  readonly problems: Problem[]
  readonly warnings: Problem[]
}

/** The profile that flag, variable or file ask for; undefined when none does. */
export async function buildPermissions(context: PermissionsContext): Promise<Profile | undefined> {
  const { given, origins } = context
  const setting = given.setting('permissions')
  const value = given.value('permissions')
  if (value === undefined) return undefined
  if ('file' in value) return await readFile(value.file, setting.where, context)
  if ('builtin' in value) {
    const profile = builtinProfile(value.builtin)
    // A profile by name is the same object each time, and so is no key for where it comes from.
    return profile && origins.note({ ...profile }, { ...setting, parts: () => [] })
  }
  const { profile, source } = ownProfile(value.inline, 'permissions')
  return origins.note(profile, {
    at: (path) => setting.at(source(path)),
    given: (path) => setting.given(source(path)),
    parts: () => [],
  })
}

async function readFile(
  file: string,
  where: string,
  { read, cwd, origins, problems, warnings }: PermissionsContext,
): Promise<Profile | undefined> {
  let text: string
  try {
    text = await read(file)
  } catch (error) {
    const message = `the profile ${shortName(file, cwd)} ${explainReadError(error)} (looked in ${dirname(file)})`
    problems.push({ where, message })
    return undefined
  }
  const { readProfile } = await import('./read.ts')
  try {
    const found = readProfile(text, shortName(file, cwd), basename(file))
    warnings.push(...found.warnings)
    return origins.note(found.profile, { at: found.at, given: found.given, parts: () => [] })
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    problems.push(...error.problems)
    return undefined
  }
}
