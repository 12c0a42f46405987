/** One attempt to leave the sandbox: what is done, and how it must end. */
import type { Session } from './session.ts'
import type { EscapeSidecar } from './sidecar.ts'
import type { VictimFacts } from './victim.ts'
import type { World } from './world.ts'

/** Profiles that sidecars are started with (profiles.ts); `python` is `main` in front of a server in Python. */
export type ProfileName = 'main' | 'none' | 'network' | 'public' | 'proc' | 'bomb' | 'full' | 'off' | 'python'

/** Where attempts are made and what they aim at. Unconfined, bystanders take the place of sidecar and supervisor. */
export interface Place {
  readonly world: World
  readonly session: Session
  readonly victim: VictimFacts
  readonly pids: {
    readonly sidecar: number
    readonly supervisor: number
    readonly server: number
    readonly victim: number
  }
  /** Undefined when unconfined. */
  readonly sidecar: EscapeSidecar | undefined
}

export type Act = (place: Place) => Promise<string>

/** What must come of it without a sandbox: that is what shows that the attempt is real. */
export type Unconfined =
  /** These outcomes; others than `ok` show that the kernel looked at what was asked. */
  | { readonly outcomes: readonly string[] }
  /** Not tried: it would do harm, or has no meaning there. */
  | { readonly never: string }
  /** Tried, and no outcome is wrong: what it takes is not on every machine. */
  | { readonly varies: string }

export interface Attempt {
  /** In the list of escape attempts. */
  readonly row: number
  readonly title: string
  readonly profiles: readonly ProfileName[]
  /** Resolves with `ok` for success, else with an errno or another word. */
  readonly act: Act
  /** Outcomes of a sandbox that holds. */
  readonly held: readonly string[]
  /** What the victim or a listener sees of a success, and must not see here. */
  readonly seen: boolean
  /** The code that the enforcement report must have where the attempt succeeds. */
  readonly gap: string | undefined
  readonly unconfined: Unconfined
  /** Without the sandbox it succeeds only for root. */
  readonly root: boolean
  readonly needs: Need | undefined
}

/** What not every machine lets the suite set up; without it the attempt is left out, and that is said. */
export type Need = 'port 443'

export interface Options {
  readonly profiles?: readonly ProfileName[]
  readonly seen?: boolean
  readonly gap?: string
  /** Without the sandbox: a list of outcomes; default `ok`. */
  readonly free?: readonly string[]
  readonly root?: boolean
  readonly needs?: Need
  readonly never?: string
  readonly varies?: string
}

export type Args = readonly (string | number)[]

function attempt(
  row: number,
  title: string,
  act: Act,
  held: string | readonly string[],
  o: Options,
): Attempt {
  return {
    row,
    title,
    profiles: o.profiles ?? ['main'],
    act,
    held: [held].flat(),
    seen: o.seen ?? false,
    gap: o.gap,
    unconfined:
      o.never !== undefined
        ? { never: o.never }
        : o.varies !== undefined
          ? { varies: o.varies }
          : { outcomes: o.free ?? ['ok'] },
    root: o.root ?? false,
    needs: o.needs,
  }
}

/** With the program of test/fixtures/escape/attempts.c: its attempt's name and arguments. */
export const native = (
  row: number,
  title: string,
  args: (place: Place) => Args,
  held: string | readonly string[],
  options: Options = {},
): Attempt =>
  attempt(row, title, async (place) => (await place.session.attempt(row, args(place))).outcome, held, options)

/** In the process of the server itself, in its own language. */
export const inside = (
  row: number,
  title: string,
  code: (place: Place) => string,
  held: string | readonly string[],
  options: Options = {},
): Attempt => attempt(row, title, (place) => place.session.outcome(code(place)), held, options)

/** What takes more than one step; it resolves with its outcome. */
export const steps = (
  row: number,
  title: string,
  act: Act,
  held: string | readonly string[],
  options: Options = {},
): Attempt => attempt(row, title, act, held, options)
