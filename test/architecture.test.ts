/**
 * The architecture as rules over import lines (docs/architecture.md). Each rule is a function from the sources to
 * what breaks it; a failure names the rule and its reason.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('..', import.meta.url))

const stages = [
  ...['config', 'listen', 'authn', 'authz', 'limit', 'session', 'era', 'bridge', 'upstream', 'observe'],
  ...['sandbox', 'egress', 'deploy'],
]

/** Where each third-party package may be imported: a file, or a folder with everything in it. */
const homes: Readonly<Record<string, readonly string[]>> = {
  '@cedar-policy/cedar-wasm': ['src/authz/cedar.ts'],
  commander: ['src/cli.ts'],
  ioredis: ['src/limit/'],
  jose: ['src/authn/'],
  'lru-cache': ['src/authn/'],
  'node-forge': ['src/deploy/certificates.ts'],
  oauth4webapi: ['src/authn/'],
  pino: ['src/observe/logger.ts'],
  'prom-client': ['src/observe/metrics.ts'],
  'rate-limiter-flexible': ['src/limit/'],
  re2js: ['src/authz/'],
  ws: ['src/listen/websocket.ts', 'src/upstream/attach.ts'],
  yaml: ['src/config/'],
  zod: ['src/config/'],
}

/** What of Node.js is pure enough for core, and of the rest the types. */
const pureModules: Readonly<Record<string, readonly string[] | 'all'>> = {
  'node:buffer': 'all',
  'node:crypto': 'all',
  'node:net': ['isIP', 'isIPv4', 'isIPv6', 'BlockList', 'SocketAddress'],
  'node:util': 'all',
}
const typeModules = ['node:http']

const maxLines = 350

interface Import {
  /** The file it stands in. */
  readonly from: string
  /** A path below the root for our own files, else the module as it is named. */
  readonly to: string
  readonly names: readonly string[]
  readonly typeOnly: boolean
}

type Sources = ReadonlyMap<string, string>

const statement = /^(?:import|export)\s+(type\s)?(?:([^'";]*?)\sfrom\s+)?'([^']+)'/gm
const dynamic = /\bimport\(\s*(?:'([^']+)'|([^)]*))\s*\)/g

const commentOrText = /('(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|\/\/.*$/gm

/** Without comments, so that they may speak of anything. */
function code(text: string): string {
  return text.replace(commentOrText, (_, quoted: string | undefined) => quoted ?? '')
}

function importsOf(sources: Sources): Import[] {
  return [...sources].flatMap(([from, text]) => {
    const resolve = (to: string): string => (to.startsWith('.') ? posix.join(dirname(from), to) : to)
    const fixed = [...code(text).matchAll(statement)].map(([, type, names, to]) => ({
      from,
      to: resolve(to as string),
      names: (names ?? '').match(/[A-Za-z_$][\w$]*/g) ?? [],
      typeOnly: type !== undefined,
    }))
    const later = [...code(text).matchAll(dynamic)].map(([, to, expression]) => ({
      from,
      to: resolve(to ?? `import(${expression})`),
      names: [],
      typeOnly: false,
    }))
    return [...fixed, ...later]
  })
}

const isOurs = (path: string): boolean => path.startsWith('src/') || path.startsWith('bin/')
const packageOf = (module: string): string => module.split('/', module.startsWith('@') ? 2 : 1).join('/')

/** Files of the composition, which may import any stage and, of each other, those that stand after them. */
const composition = [
  'cli',
  'learn',
  'report',
  'main',
  'sidecar',
  'world',
  'security',
  'server',
  'confinement',
]

/** bin, a file of the composition, core, or the stage; undefined for what has no place. */
function layerOf(path: string): string | undefined {
  if (path.startsWith('bin/')) return 'bin'
  const name = basename(path, '.ts')
  if (path === `src/${name}.ts` && composition.includes(name)) return name
  const folder = /^src\/([^/]+)\//.exec(path)?.[1]
  return folder === 'core' || (folder !== undefined && stages.includes(folder)) ? folder : undefined
}

const isPure = (path: string): boolean => ['core', 'era'].includes(layerOf(path) ?? '')

/** Whether files of one layer may import the other's. */
function mayImport(from: string, to: string): boolean {
  if (from === to) return true
  if (from === 'bin') return to === 'cli'
  const at = composition.indexOf(from)
  if (at >= 0) return composition.indexOf(to) > at || to === 'core' || stages.includes(to)
  // The translators are state machines; what drives them with time and processes is their shell.
  if (from === 'bridge') return to === 'era' || to === 'core'
  return stages.includes(from) && to === 'core'
}

interface Rule {
  readonly rule: string
  readonly reason: string
  /** What breaks it, one text each. */
  check(sources: Sources): string[]
}

const show = ({ from, to }: Import): string => `${from} imports ${to}`

const rules: readonly Rule[] = [
  {
    rule: 'every file has its place: bin, cli, main, core or a stage',
    reason:
      'a folder that is no stage is a wall nobody drew; add it to docs/architecture.md and to this test first',
    check: (sources) => [...sources.keys()].filter((path) => layerOf(path) === undefined),
  },
  {
    rule: 'imports go one way: bin, cli, main, stages, core',
    reason:
      'stages that import each other cannot be understood, tested or replaced alone; what two share is a type in core',
    check: (sources) =>
      importsOf(sources)
        .filter(({ to }) => isOurs(to))
        .filter(({ from, to }) => !mayImport(layerOf(from) ?? from, layerOf(to) ?? to))
        .map(show),
  },
  {
    rule: 'our own files are imported by their path, with its ending, and exist',
    reason: 'what this test cannot follow it cannot guard',
    check: (sources) =>
      importsOf(sources)
        .filter(({ to }) => (isOurs(to) ? !sources.has(to) : /^[./]|^import\(|^#|^file:/.test(to)))
        .map(show),
  },
  {
    rule: 'core and era are pure',
    reason:
      'what everything rests on, and what translates: no I/O, no clock, no packages, so that properties alone test it',
    check: (sources) =>
      importsOf(sources)
        .filter(({ from, to }) => isPure(from) && !isOurs(to))
        .filter(({ to, names, typeOnly }) => {
          if (typeOnly && (typeModules.includes(to) || to in pureModules)) return false
          const allowed = pureModules[to]
          return !(
            allowed === 'all' ||
            (allowed !== undefined && names.every((name) => allowed.includes(name)))
          )
        })
        .map(show),
  },
  {
    rule: 'core and era have no clock and no I/O from globals either',
    reason: 'now is an argument; what happens must not depend on when and where',
    check: (sources) =>
      [...sources]
        .filter(([path]) => isPure(path))
        .flatMap(([path, text]) => {
          const globals =
            /\b(?:Date\.now|new Date|performance\.|set(?:Timeout|Interval|Immediate)\(|process\.|fetch\(|console\.|Math\.random|queueMicrotask\()/g
          return [...code(text).matchAll(globals)].map(([found]) => `${path} uses ${found}`)
        }),
  },
  {
    rule: 'only cli, main and bin read process.env and process.argv',
    reason: 'configuration has one way in; a variable read elsewhere is in no reference and in no validation',
    check: (sources) =>
      [...sources]
        .filter(([path]) => !['bin', 'cli', 'main'].includes(layerOf(path) ?? ''))
        .filter(([, text]) =>
          /\bprocess\s*(?:\??\.|\[\s*['"])\s*(?:env|argv)\b|['"](?:node:)?process['"]|\}\s*=\s*process\b/.test(
            code(text),
          ),
        )
        .map(([path]) => path),
  },
  {
    rule: 'one library, one home',
    reason: 'a package imported in one place can be replaced, mocked and audited there',
    check: (sources) =>
      importsOf(sources)
        .filter(({ to }) => !isOurs(to) && !to.startsWith('node:') && !/^[./]|^import\(/.test(to))
        .filter(({ from, to }) => {
          const places = homes[packageOf(to)] ?? []
          return !places.some((place) => (place.endsWith('/') ? from.startsWith(place) : from === place))
        })
        .map(show),
  },
  {
    rule: 'modules of Node.js are named with node:',
    reason: 'a package of the same name could stand in their place',
    check: (sources) =>
      importsOf(sources)
        .filter(({ to }) =>
          /^(?:assert|buffer|child_process|crypto|events|fs|http|https|net|os|path|process|stream|timers|tls|url|util|zlib)(?:\/|$)/.test(
            to,
          ),
        )
        .map(show),
  },
  {
    rule: 'imports form no cycle, types included',
    reason: 'files in a cycle can only be read, and loaded, all at once',
    check: cycles,
  },
  {
    rule: 'no file is named utils, helpers, manager or common',
    reason: 'such a name says nothing, so everything ends up there',
    check: (sources) =>
      [...sources.keys()].filter((path) =>
        /(?:^|[/.-])(?:util|utils|helper|helpers|manager|managers|common)(?=[/.-]|$)/i.test(path),
      ),
  },
  {
    rule: `no file has ${maxLines} lines or more`,
    reason: 'what does not fit into a few screens is doing several things',
    check: (sources) =>
      [...sources].flatMap(([path, text]) => {
        const lines = text.trimEnd().split('\n').length
        return lines < maxLines ? [] : [`${path} has ${lines}`]
      }),
  },
]

/** Groups of files that import each other around, each once. */
function cycles(sources: Sources): string[] {
  const edges = new Map<string, string[]>()
  for (const { from, to } of importsOf(sources)) {
    if (sources.has(to)) edges.set(from, [...(edges.get(from) ?? []), to])
  }
  // Tarjan: the files that are reachable from each other.
  const order = new Map<string, number>()
  const low = new Map<string, number>()
  const open: string[] = []
  const groups: string[] = []
  const visit = (file: string): void => {
    order.set(file, order.size)
    low.set(file, order.get(file) as number)
    open.push(file)
    for (const next of edges.get(file) ?? []) {
      if (!order.has(next)) visit(next)
      if (open.includes(next)) low.set(file, Math.min(low.get(file) as number, low.get(next) as number))
    }
    if (low.get(file) !== order.get(file)) return
    const group = open.splice(open.indexOf(file))
    if (group.length > 1 || edges.get(file)?.includes(file) === true)
      groups.push(group.toSorted().join(' <-> '))
  }
  for (const file of sources.keys()) if (!order.has(file)) visit(file)
  return groups
}

/** Every TypeScript file below these folders, by its path from the root. */
function readSources(...folders: string[]): Sources {
  const files = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => posix.join(folder, name.replaceAll('\\', '/'))),
  )
  return new Map(files.toSorted().map((file) => [file, readFileSync(join(root, file), 'utf8')]))
}

const sources = readSources('src', 'bin')

for (const { rule, reason, check } of rules) {
  t.test(rule, async (t) => {
    t.same(check(sources), [], `${rule}: ${reason}`)
  })
}

t.test('every home is that of a package the project depends on, or of one that is planned', async (t) => {
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    dependencies: Record<string, string>
  }
  const used = new Set(
    importsOf(sources)
      .filter(({ to }) => !isOurs(to) && !to.startsWith('node:'))
      .map(({ to }) => packageOf(to)),
  )
  t.same(
    Object.keys(dependencies).toSorted(),
    [...used].toSorted(),
    'what is imported is what is depended on',
  )
})

t.test(
  'every source file can be loaded, and loading does nothing (so coverage counts all of them)',
  async (t) => {
    const handles = process.getActiveResourcesInfo().length
    for (const path of sources.keys()) {
      if (path.startsWith('bin/')) continue
      await t.resolves(import(new URL(`../${path}`, import.meta.url).href), path)
    }
    t.ok(process.getActiveResourcesInfo().length <= handles, 'nothing was opened or started')
  },
)

t.test('the rules find what breaks them', async (t) => {
  const broken: Record<string, [Record<string, string>, string]> = {
    'a stage that imports another': [
      { 'src/authz/a.ts': "import { x } from '../limit/b.ts'", 'src/limit/b.ts': '' },
      'imports go one way',
    ],
    'a type is an import, too': [
      { 'src/authz/a.ts': "import type { X } from '../limit/b.ts'", 'src/limit/b.ts': '' },
      'imports go one way',
    ],
    'across several lines': [
      { 'src/core/a.ts': "import {\n  x,\n  y,\n} from '../limit/b.ts'", 'src/limit/b.ts': '' },
      'imports go one way',
    ],
    'exported on': [
      { 'src/core/a.ts': "export * from '../main.ts'", 'src/main.ts': '' },
      'imports go one way',
    ],
    'loaded later': [
      { 'src/limit/a.ts': "await import('../cli.ts')", 'src/cli.ts': '' },
      'imports go one way',
    ],
    'for its effect alone': [
      { 'src/limit/a.ts': "import '../main.ts'", 'src/main.ts': '' },
      'imports go one way',
    ],
    'main reaches up': [
      { 'src/main.ts': "import { x } from './cli.ts'", 'src/cli.ts': '' },
      'imports go one way',
    ],
    'bin reaches past cli': [
      { 'bin/a.ts': "import { x } from '../src/main.ts'", 'src/main.ts': '' },
      'imports go one way',
    ],
    'a stage nobody knows': [{ 'src/misc/a.ts': '' }, 'every file has its place'],
    'a path that is made up': [{ 'src/limit/a.ts': 'await import(name)' }, 'our own files'],
    'a file that is not there': [{ 'src/limit/a.ts': "import { x } from './b.js'" }, 'our own files'],
    'core that reads files': [
      { 'src/core/a.ts': "import { readFileSync } from 'node:fs'" },
      'core and era are pure',
    ],
    'core that opens sockets': [
      { 'src/core/a.ts': "import { connect, isIP } from 'node:net'" },
      'core and era are pure',
    ],
    'core that serves': [
      { 'src/core/a.ts': "import { createServer } from 'node:http'" },
      'core and era are pure',
    ],
    'core with a package': [{ 'src/core/a.ts': "import * as z from 'zod'" }, 'core and era are pure'],
    'a translator with a clock': [{ 'src/era/a.ts': 'setTimeout(then, 1)' }, 'core and era have no clock'],
    'a stage that translates': [
      { 'src/session/a.ts': "import '../era/b.ts'", 'src/era/b.ts': '' },
      'imports go one',
    ],
    'core with a clock': [{ 'src/core/a.ts': 'const now = Date.now()' }, 'core and era have no clock'],
    'a stage that reads the environment': [
      { 'src/limit/a.ts': "process.env['X']" },
      'only cli, main and bin',
    ],
    'by another way': [{ 'src/limit/a.ts': 'const { env } = process' }, 'only cli, main and bin'],
    'after what looks like a comment': [
      { 'src/limit/a.ts': "const any = '*/*'; const all = `/*`; process.env['X'] /* y */" },
      'only cli, main and bin',
    ],
    'or as a module': [{ 'src/limit/a.ts': "import { argv } from 'node:process'" }, 'only cli, main and bin'],
    'a library away from home': [{ 'src/limit/a.ts': "import { pino } from 'pino'" }, 'one library'],
    'the types of one': [{ 'src/observe/metrics.ts': "import type { Logger } from 'pino'" }, 'one library'],
    'a part of one': [
      { 'src/limit/a.ts': "import { x } from '@cedar-policy/cedar-wasm/nodejs'" },
      'one library',
    ],
    'a library without a home': [{ 'src/limit/a.ts': "import x from 'left-pad'" }, 'one library'],
    'a module without node:': [{ 'src/limit/a.ts': "import { join } from 'path'" }, 'modules of Node.js'],
    'a cycle of three': [
      {
        'src/limit/a.ts': "import './b.ts'",
        'src/limit/b.ts': "import type { X } from './c.ts'",
        'src/limit/c.ts': "import './a.ts'",
      },
      'imports form no cycle',
    ],
    'a file that imports itself': [{ 'src/limit/a.ts': "import './a.ts'" }, 'imports form no cycle'],
    'a name that says nothing': [{ 'src/limit/utils.ts': '' }, 'no file is named'],
    'the same in a longer one': [{ 'src/limit/token-helpers.ts': '' }, 'no file is named'],
    'a folder of that name': [{ 'src/common/a.ts': '' }, 'no file is named'],
    'a long file': [{ 'src/limit/a.ts': 'x\n'.repeat(350) }, 'no file has'],
  }
  for (const [name, [files, expected]] of Object.entries(broken)) {
    const found = rules.filter(({ check }) => check(new Map(Object.entries(files))).length > 0)
    t.ok(
      found.some(({ rule }) => rule.startsWith(expected)),
      name,
    )
  }
})

t.test('and nothing else', async (t) => {
  const fine = new Map(
    Object.entries({
      'bin/a.ts': "import { x } from '../src/cli.ts'\nprocess.argv",
      'src/cli.ts':
        "import { Command } from 'commander'\nimport { y } from './main.ts'\nimport { c } from './config/a.ts'\nprocess.env",
      'src/main.ts': "import { z } from './limit/a.ts'",
      'src/config/a.ts': "import * as z from 'zod'\nexport { c } from '../core/a.ts'",
      'src/limit/a.ts':
        "// import { x } from '../session/a.ts'; process.env\nimport { c } from '../core/a.ts'\nimport { d } from './b.ts'",
      'src/limit/b.ts':
        "/** Not `process.env`, nor\n * import('../session/a.ts') */\nconst text = 'commonly unmanaged'",
      'src/core/a.ts':
        "import { isIP } from 'node:net'\nimport type { IncomingHttpHeaders } from 'node:http'\nimport { hash } from 'node:crypto'",
      'src/authz/uncommon.ts': 'x\n'.repeat(349),
    }),
  )
  for (const { rule, check } of rules) t.same(check(fine), [], rule)
})
