/** A learned profile as the YAML file that a person goes on with. */

import type { LearnedProfile } from './learned.ts'
import type { LearnedPath } from './learned-files.ts'

/** @param about what was run and when, a line each */
export function learnedText(profile: LearnedProfile, about: readonly string[]): string {
  const { filesystem, hosts, cidrs, ports, env, review } = profile
  const network = hosts.length + cidrs.length > 0
  const lines = [
    ...about.map(comment),
    ...(review.length === 0 ? [] : ['#', '# To look at:', ...review.map((each) => comment(`- ${each}`))]),
    'permissionProfile:',
    '  # Beside what every program needs: system libraries, certificates, the folder of the program itself.',
    '  filesystem:',
    ...list(
      'read',
      filesystem.read.map((each) => [readEntry(each), each.why]),
    ),
    ...list(
      'write',
      filesystem.write.map((each) => [writeEntry(each), each.why]),
    ),
    `    proc: ${filesystem.proc}`,
    ...(network
      ? [
          '  network:',
          ...list(
            'allowHost',
            hosts.map(({ value, why }) => [scalar(value), why]),
          ),
          ...list(
            'allowCIDR',
            cidrs.map(({ value, why }) => [scalar(value), why]),
          ),
          ...list(
            'allowPort',
            ports.map(({ value, why }) => [String(value), why]),
          ),
        ]
      : ['  # No network: it made no TCP connection.']),
    '  # What variables a program reads cannot be seen. `allow` passes more of them than PATH, HOME and their like.',
    '  env:',
    '    allow: []',
    ...(env.length === 0 ? [] : ['    set:']),
    ...env.flatMap(({ name, value, why }) => [`      ${comment(why)}`, `      ${name}: ${scalar(value)}`]),
    ...limits(profile),
  ]
  return `${lines.join('\n')}\n`
}

function limits({ rssBytes, processes }: LearnedProfile): string[] {
  if (rssBytes === 0) return ['  # limits: it ended before it could be measured']
  const peak = `seen at once at most: ${mebibytes(rssBytes)}Mi of memory; processes: ${processes}`
  return [
    '  # Limits are not learned: a longer session needs more, and threads count as processes. As a start:',
    `  # ${peak}.`,
    '  # limits:',
    `  #   memory: ${Math.max(64, 2 ** Math.ceil(Math.log2(mebibytes(rssBytes) * 2)))}Mi`,
    `  #   processes: ${Math.max(64, processes * 16)}`,
  ]
}

function mebibytes(bytes: number): number {
  return Math.max(1, Math.ceil(bytes / 2 ** 20))
}

function list(key: string, entries: readonly (readonly [entry: string, why: string])[]): string[] {
  if (entries.length === 0) return [`    ${key}: []`]
  return [`    ${key}:`, ...entries.flatMap(([entry, why]) => [`      ${comment(why)}`, `      - ${entry}`])]
}

function readEntry({ path, execute, optional }: LearnedPath): string {
  const remarks = [...(execute ? [] : ['execute: false']), ...(optional ? ['optional: true'] : [])]
  return remarks.length === 0 ? scalar(path) : `{ path: ${scalar(path)}, ${remarks.join(', ')} }`
}

function writeEntry({ path, optional }: LearnedPath): string {
  return optional ? `{ path: ${scalar(path)}, optional: true }` : scalar(path)
}

/** Plain where that is certain to be read as the same text; else as JSON, which YAML reads. */
function scalar(text: string): string {
  const plain = /^(?:\/[A-Za-z0-9_@.+/-]*|[a-z_][a-z0-9_-]*(?:\.[a-z0-9_-]+)+|(?:\d+\.){3}\d+\/\d+)$/
  return plain.test(text) ? text : JSON.stringify(text)
}

/** One line, whatever is in a file's name. */
function comment(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not get through
  return `# ${text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\ufeff]/g, '?')}`
}
