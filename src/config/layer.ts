import { resolve } from 'node:path'
import type { Problem } from './error.ts'
import type { Field, SettingKey } from './field.ts'
import { FIELDS } from './fields.ts'
import type { Parsed, Path } from './parsed.ts'
import type { ValueType } from './values.ts'

/** One value and where it was given. */
export interface Setting {
  readonly value: unknown
  /** `--port`, `MCP_SIDECAR_PORT`, `file:line:column`, `command line`, or `default`. */
  readonly where: string
  /** The same for a part of the value; differs from `where` only in a file. */
  readonly at: (path: Path) => string
  /** The same for a part that somebody gave; undefined where a default stands. */
  readonly given: (path: Path) => string | undefined
}

/** What one source (flags, variables, file) says. */
export class Layer {
  readonly settings = new Map<SettingKey, Setting>()
  /** Given, but wrong: no check that reads these values makes sense. */
  readonly failed = new Set<SettingKey>()
  readonly problems: Problem[] = []
  /** The source could not be read at all: it might have said anything. */
  unreadable = false

  /**
   * Enters a parsed value, or what is wrong with it. Relative paths are resolved against `folder`.
   */
  enter(
    key: SettingKey,
    parsed: Parsed<unknown>,
    folder: string,
    at: Setting['at'],
    given: Setting['given'] = at,
  ): void {
    if (parsed.ok) {
      const { type }: Field<unknown> = FIELDS[key]
      const value = absolute(type, parsed.value, folder)
      this.settings.set(key, { value, where: at([]), at, given })
      return
    }
    this.failed.add(key)
    for (const { path, message } of parsed.faults) this.problems.push({ where: at(path), message })
  }
}

/** The same value with all its paths absolute. */
export function absolute<T>(type: ValueType<T>, value: T, folder: string): T {
  return type.mapPaths === undefined ? value : type.mapPaths(value, (path) => resolve(folder, path), [])
}

/** `listen.allowedOrigins[2]`, `server.env.set.NAME`. */
export function dotted(name: string, path: Path): string {
  return path.reduce<string>(
    (text, part) => (typeof part === 'number' ? `${text}[${part}]` : `${text}.${part}`),
    name,
  )
}
