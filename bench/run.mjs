/**
 * `node bench/run.mjs [--quick] [--only NAME,NAME] [--parts PART,PART] [--out FILE]`. A run of everything writes
 * results.md beside this file; any other only prints, unless `--out` says where to write. Exits with 1 when a target is missed.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { contestants, stopAll } from './contestants.mjs'
import { Results } from './figures.mjs'
import { full, parts, quick } from './measure.mjs'
import { Report } from './report.mjs'

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    parts: { type: 'string' },
    out: { type: 'string' },
  },
})

function choose(option, known) {
  if (options[option] === undefined) return known
  const chosen = options[option].split(',')
  const unknown = chosen.find((name) => !known.includes(name))
  if (unknown !== undefined) throw new Error(`--${option}: unknown ${unknown}; known are ${known.join(', ')}`)
  return known.filter((name) => chosen.includes(name))
}

const say = (text) => process.stderr.write(`${text}\n`)

function npm(folder, ...args) {
  say(`npm ${args.join(' ')} in ${folder}`)
  execFileSync('npm', args, { cwd: folder, stdio: ['ignore', 'inherit', 'inherit'] })
}

function prepare(chosen) {
  // A peer's dependency asks for a newer Node than it needs here, and `npm run` hands on the project's engine-strict.
  const install = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--engine-strict=false']
  if (chosen.some(({ peer }) => peer) && !existsSync(here('node_modules'))) npm(here('.'), ...install)
  const sidecar = chosen.some(({ name }) => name.startsWith('sidecar'))
  if (sidecar && !existsSync(here('../dist/bin/mcp-sidecar.js'))) npm(here('..'), 'run', 'build')
}

async function measure(chosen, partNames, settings) {
  const results = new Results()
  const folder = mkdtempSync(join(tmpdir(), 'mcp-sidecar-bench-'))
  const end = () => rmSync(folder, { recursive: true, force: true })
  for (const name of ['SIGINT', 'SIGTERM']) {
    process.once(name, async () => {
      await stopAll()
      end()
      process.exit(1)
    })
  }
  try {
    for (const name of partNames) {
      const from = performance.now()
      await parts[name]({ contestants: chosen, settings, results, folder, say })
      say(`${name}: ${Math.round((performance.now() - from) / 1000)} s`)
    }
  } finally {
    await stopAll()
    end()
  }
  return results
}

const names = choose(
  'only',
  contestants.map(({ name }) => name),
)
const chosen = contestants.filter(({ name }) => names.includes(name))
const partNames = choose('parts', Object.keys(parts))
const settings = options.quick ? quick : full
const everything = names.length === contestants.length && partNames.length === Object.keys(parts).length

prepare(chosen)
const from = performance.now()
const results = await measure(chosen, partNames, settings)
const flags = process.argv.slice(2)
const command = ['npm run bench', ...(flags.length ? ['--', ...flags] : [])].join(' ')
const text = new Report(results, chosen).text({
  command,
  settings,
  date: new Date().toISOString().slice(0, 10),
  seconds: (performance.now() - from) / 1000,
})
process.stdout.write(`\n${text}`)
const out = options.out ?? (everything && !options.quick ? here('results.md') : undefined)
if (out) writeFileSync(out, text)
// A target that is missed, or was not measured.
if (text.includes('| FAIL') || / FAIL: /.test(text)) process.exitCode = 1
