/** Programs that run a file which is named among their arguments, and which of these that is. */

/** What such a program looks for beside the file that it runs. */
export type Family = 'javascript' | 'python' | 'other'

interface Interpreter {
  /** Of its file: as it is called, or where links lead. */
  readonly name: RegExp
  readonly family: Family
  /** Options without a value of their own. One with its value behind `=` needs no mention. */
  readonly plain: RegExp
  /** Options whose value is the next argument. */
  readonly valued?: RegExp
  /** Options after which no file is run. */
  readonly ends?: RegExp
  /** A word before the file. */
  readonly command?: RegExp
}

const interpreters: readonly Interpreter[] = [
  {
    name: /^node(?:js)?(?:-?\d+(?:\.\d+)*)?$/,
    family: 'javascript',
    plain:
      /^--(?:no-[\w-]+|enable-source-maps|expose-gc|inspect(?:-brk|-wait)?|jitless|pending-deprecation|permission|preserve-symlinks(?:-main)?|throw-deprecation|trace-(?:deprecation|exit|uncaught|warnings)|watch|use-(?:bundled|openssl|system)-ca|experimental-(?:require-module|sqlite|strip-types|transform-types|vm-modules|wasm-modules))$/,
    valued:
      /^(?:-[rC]|--(?:require|import|loader|experimental-loader|conditions|env-file|env-file-if-exists|title))$/,
    ends: /^(?:-[ehipv]|-pe|--(?:eval|print|interactive|run|test|version|help))$/,
  },
  {
    name: /^(?:deno|bun)$/,
    family: 'javascript',
    plain: /^(?:-[Aq]|--(?:(?:allow|deny|no|unstable)-[\w-]+|bun|cached-only|hot|quiet|silent|smol|watch))$/,
    ends: /^(?:-[ep]|--(?:eval|print))$/,
    command: /^run$/,
  },
  {
    name: /^(?:python|pypy)[\d.]*[dt]*(?:-dbg)?$/,
    family: 'python',
    plain: /^-(?:[bBdEIOPqsSuvx]+|[WX].+)$/,
    valued: /^-[WX]$/,
    ends: /^-[bBdEIOPqsSuvx]*[cmhV]/,
  },
  {
    name: /^ruby-?[\d.]*$/,
    family: 'other',
    plain: /^-(?:[wv]|W\d?|[IrE].+)$/,
    valued: /^-[IrE]$/,
    ends: /^-e/,
  },
  { name: /^perl[\d.]*$/, family: 'other', plain: /^-(?:[wWtTX]+|[IMm].+)$/, valued: /^-I$/, ends: /^-[eE]/ },
  { name: /^php-?[\d.]*$/, family: 'other', plain: /^-[nq]$/, valued: /^-[cdz]$/, ends: /^-[aBEFrR]/ },
  {
    name: /^(?:sh|ash|bash|dash|[lm]?ksh|ksh93|zsh)$/,
    family: 'other',
    plain: /^-[eufx]+$/,
    valued: /^-[eufx]*o$/,
    ends: /^-[a-z]*[cs]$/,
  },
]

/** @param names of a program; the first that is known counts */
export function interpreterOf(...names: readonly string[]): Interpreter | undefined {
  const known = names.map((name) => interpreters.find((each) => each.name.test(name)))
  return known.find((each) => each !== undefined)
}

/**
 * The first of `args` that may be a file to run.
 *
 * @returns its index; `behind`: the option that may take it as its value; undefined: nothing is run by name
 */
export function fileAmong(
  args: readonly string[],
  { plain, valued, ends, command }: Interpreter,
): { readonly index: number; readonly behind?: string } | undefined {
  let behind: string | undefined
  let commands = 0
  for (let index = 0; index < args.length; index++) {
    const word = args[index] as string
    if (word === '--') return index + 1 < args.length ? { index: index + 1 } : undefined
    if (word === '-' || ends?.test(word) === true) return undefined
    if (valued?.test(word) === true) {
      index++
      behind = undefined
      continue
    }
    if (!word.startsWith('-')) {
      if (commands++ > 0 || command?.test(word) !== true)
        return behind === undefined ? { index } : { index, behind }
    }
    behind = !word.startsWith('-') || plain.test(word) || /^--[\w-]+=/.test(word) ? undefined : word
  }
  return undefined
}
