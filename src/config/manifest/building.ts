import type { Fetching } from '../../core/policy.ts'
import type { Problem } from '../error.ts'
import type { Origins } from '../origins.ts'
import type { Manifest } from './read.ts'
import type { References } from './references.ts'

/** What turning documents into policy takes, and what it leaves behind. */
export interface Building {
  readonly references: References
  readonly origins: Origins
  /** How issuers are asked; documents do not say. */
  readonly fetching: Fetching
  readonly problems: Problem[]
  /** What works and should still be known. */
  readonly warnings: Problem[]
  /** What a document asks for and nobody here does; for people. */
  readonly notEnforced: string[]
}

/** Notes what a document asks for in vain. */
export function reported(
  building: Building,
  { title }: Pick<Manifest, 'title'>,
  key: string,
  why: string,
): void {
  building.notEnforced.push(`${key} of ${title}: ${why}`)
}
