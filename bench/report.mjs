import { cpus, release, totalmem } from 'node:os'
import { figures, MiB } from './figures.mjs'
import { sandboxFigures, sandboxTargets, ways } from './sandbox.mjs'

const SESSIONS = 'sidecar-per-session'
const MODERN = ['modern-to-legacy', 'modern-to-modern']
const SECURED = { 'secured-shared': 'sidecar-shared', 'secured-per-session': SESSIONS }
const SIDECARS = ['sidecar-shared', SESSIONS, ...Object.keys(SECURED), ...MODERN]

/** `least` and `most` bound a ratio or a value; see "How fast" in the project's plan for where they come from. */
const targets = [
  { text: "at least 0.45 of the floor's calls per second", key: 'rate', to: 'floor', least: 0.45 },
  {
    text: 'stateless: at least 0.9 of the calls per second with sessions',
    key: 'rate',
    to: SESSIONS,
    least: 0.9,
    only: MODERN,
  },
  {
    text: 'JWT, Cedar, a rate limit and audit: at least 0.7 of the calls per second with a static token',
    key: 'rate',
    toOf: SECURED,
    least: 0.7,
  },
  { text: "at least 3 times the best peer's calls per second", key: 'rate', to: 'peer', least: 3 },
  { text: "at most 2.2 times the floor's CPU per call", key: 'cpu', to: 'floor', most: 2.2 },
  { text: "at most 2.2 times the floor's cold start", key: 'start', to: 'floor', most: 2.2 },
  { text: "at most 1.7 times the floor's idle RSS", key: 'idle', to: 'floor', most: 1.7 },
  { text: "at least 0.5 of the floor's rate with 10 MiB", key: 'down10', to: 'floor', least: 0.5 },
  {
    text: 'linear: 64 MiB at 0.6 or more of the MiB/s of 10 MiB',
    key: 'down64',
    linearTo: 'down10',
    least: 0.6,
  },
  { text: 'at most 10 MiB of RSS growth', key: 'growth', most: 10 },
  { text: 'at most 10 MiB of live memory growth', key: 'growthLive', most: 10 },
  { text: 'at most 64 KiB of RSS per idle session', key: 'session', most: 64, only: ['sidecar-shared'] },
  {
    text: 'at most 64 KiB of live memory per idle session',
    key: 'sessionLive',
    most: 64,
    only: ['sidecar-shared'],
  },
]

const cut = (text) =>
  (text.length > 90 ? `${text.slice(0, 90)}…` : text).replaceAll('|', '/').replaceAll('\n', ' ')
const times = (ratio) => (ratio === undefined ? '' : `${ratio.toFixed(2)}×`)

export class Report {
  #results
  #names
  #peers

  constructor(results, contestants) {
    this.#results = results
    this.#names = contestants.map(({ name }) => name)
    this.#peers = contestants.filter(({ peer }) => peer).map(({ name }) => name)
  }

  /** The tables and the targets as Markdown. */
  text({ command, settings, date, seconds }) {
    return [
      '# Benchmark',
      '',
      'How the sidecar compares, in one run on one machine, with the floor (a relay of about 30 lines without',
      'authentication, sessions, limits or log), with its peers, and with a bare HTTP server as the upper bound.',
      'The sidecar runs with bearer authentication, metrics and logging on. Figures of different runs do not compare;',
      'ratios do, more or less: see the notes below the tables.',
      '',
      `- Command: \`${command}\`, ${Math.round(seconds)} s`,
      `- Date: ${date}`,
      `- Machine: ${cpus().length} × ${cpus()[0].model.trim()}, ${Math.round(totalmem() / 1024 / MiB)} GiB, Linux ${release()}`,
      `- Node: ${process.version}`,
      '',
      ...(this.#measured().length ? [...this.#table(), ...this.#ratios(), ...this.#targets()] : []),
      ...this.#sandbox(),
      ...this.#reasons(),
      ...notes(settings),
      '',
    ].join('\n')
  }

  #measured() {
    return Object.keys(figures).filter((key) =>
      this.#names.some((name) => this.#results.value(key, name) !== undefined),
    )
  }

  #cell(key, name) {
    const value = this.#results.value(key, name)
    if (value === undefined) return 'n/a'
    const { digits, scale = 1, bytes } = figures[key]
    const speed = bytes ? ` (${Math.round((value * bytes) / MiB)} MiB/s)` : ''
    return `${(value * scale).toFixed(digits)}${speed}`
  }

  #table() {
    const head = ['', 'unit', ...this.#names]
    const rows = this.#measured().map((key) => {
      const { label, unit } = figures[key]
      return [label, unit, ...this.#names.map((name) => this.#cell(key, name))]
    })
    return ['## Figures', '', ...markdown(head, rows, 2), '']
  }

  #bestPeer(key) {
    const sign = figures[key].better === 'higher' ? -1 : 1
    return this.#peers
      .filter((name) => this.#results.value(key, name) !== undefined)
      .sort((a, b) => sign * (this.#results.value(key, a) - this.#results.value(key, b)))[0]
  }

  #sidecars() {
    return SIDECARS.filter((name) => this.#names.includes(name))
  }

  #ratios() {
    const head = ['']
    for (const name of this.#sidecars()) head.push(`${name} to floor`, `${name} to best peer`)
    const rows = this.#measured()
      .filter((key) => !['session', 'sessionLive', 'growth', 'growthLive'].includes(key))
      .map((key) => {
        const peer = this.#bestPeer(key)
        const cells = this.#sidecars().flatMap((name) => {
          const toPeer = times(peer && this.#results.ratio(key, name, peer))
          return [times(this.#results.ratio(key, name, 'floor')), toPeer && `${toPeer} (${peer})`]
        })
        return [`${figures[key].label} (${figures[key].better} is better)`, ...cells]
      })
      .filter(([, ...cells]) => cells.some(Boolean))
    return rows.length ? ['## Ratios', '', ...markdown(head, rows, 1), ''] : []
  }

  #targets() {
    const head = ['target', ...this.#sidecars()]
    const rows = targets.map((target) => [
      target.text,
      ...this.#sidecars().map((name) => this.#judge(target, name)),
    ])
    return this.#sidecars().length ? ['## Targets', '', ...markdown(head, rows, 1), ''] : []
  }

  #judge(target, name) {
    if (target.only && !target.only.includes(name)) return ''
    if (target.toOf && !target.toOf[name]) return ''
    // The other targets are for what everyone runs.
    if (!target.toOf && SECURED[name]) return ''
    const value = this.#measure(target, name)
    if (value === undefined)
      return this.#results.reason(target.key, name) ? 'FAIL: not measured' : 'not measured'
    const met = target.least === undefined ? value <= target.most : value >= target.least
    return `${met ? 'pass' : 'FAIL'}: ${value.toFixed(2)}`
  }

  #measure({ key, to, toOf, linearTo }, name) {
    if (toOf) return this.#results.ratio(key, name, toOf[name])
    if (to) return this.#results.ratio(key, name, to === 'peer' ? this.#bestPeer(key) : to)
    const value = this.#results.value(key, name)
    if (!linearTo) return value === undefined ? undefined : value * figures[key].scale
    const base = this.#results.value(linearTo, name)
    if (value === undefined || base === undefined) return undefined
    return (value * figures[key].bytes) / (base * figures[linearTo].bytes)
  }

  #sandbox() {
    const results = this.#results
    const measured = Object.entries(sandboxFigures).filter(
      ([key]) => results.value(key, 'plain') !== undefined,
    )
    if (!measured.length) return []
    const rows = measured.map(([key, { label, unit, digits }]) => [
      label,
      unit,
      ...ways.map((way) => results.value(key, way)?.toFixed(digits) ?? 'n/a'),
    ])
    const judged = sandboxTargets.map(({ text, key, way, more, speed }) => {
      const value = speed ? 1 / results.ratio(key, way, 'plain') : results.difference(key, way, 'plain')
      const met = speed ? value >= speed : value <= more
      return [text, `${met ? 'pass' : 'FAIL'}: ${value.toFixed(speed ? 3 : sandboxFigures[key].digits)}`]
    })
    return [
      ...[
        '## Sandbox',
        '',
        'A server started as it is, under the profile `none`, and with an allow-list (broker and proxy). Times beyond the',
        "plain server's are medians of the differences within each round, speeds medians of the ratios.",
        '',
      ],
      ...[...markdown(['', 'unit', ...ways], rows, 2), '', ...markdown(['target', ''], judged, 1), ''],
    ]
  }

  #reasons() {
    const lines = new Map()
    for (const key of Object.keys(figures)) {
      for (const name of this.#names) {
        const reason = this.#results.reason(key, name)
        if (!reason) continue
        const line = `${name}: ${cut(reason)}`
        lines.set(line, [...(lines.get(line) ?? []), figures[key].label])
      }
    }
    if (!lines.size) return []
    return [
      '## n/a, and why',
      '',
      ...[...lines].map(([line, labels]) => `- ${line} (${labels.join('; ')})`),
      '',
    ]
  }
}

function notes({ callRounds, idleSessions, warmCalls, longCalls }) {
  const count = (number) => number.toLocaleString('en')
  return [
    '## How it is measured',
    '',
    '- Contestants take turns in every round, each round starting with another one. A figure is the median of its rounds,',
    `  a ratio the median of the rounds' ratios (${callRounds} rounds of calls).`,
    '- The load generator is one process with node:http and connections kept alive. It opens sessions as a client of',
    '  2025-11-25 does, reads JSON and event streams, and checks the id and the payload of every answer.',
    '- Generator, bridge and server process share the machine, so that calls per second count the work of all three.',
    '- CPU and RSS are those of the bridge process alone, without its server processes.',
    "- Payloads travel one at a time, in text that is JSON-encoded to that size; MiB/s counts one direction. The sidecar's",
    '  default limits are 4 MiB for a request body and 64 MiB for a message of the server; 4 KiB below is what is sent.',
    `- Sessions: memory before and after ${idleSessions} initialized sessions, divided by their number, after calls have`,
    '  warmed the bridge up. A preloaded module collects garbage before each reading, on a signal: what the heap happens',
    '  to hold hides the sessions otherwise. Live is what is left in the heap and outside, which RSS has room for at first.',
    "  No session has a stream open, the generator's connections are closed, and each session answers a call afterwards.",
    `- Growth: RSS after ${count(longCalls)} calls more, less RSS after the first ${count(warmCalls)}, garbage collected`,
    '  before each reading; V8 alone moves RSS by more than 10 MiB otherwise. Live as for sessions.',
    '- All log to a file, at their default level. Peers run with their defaults; supergateway is made to listen on loopback',
    '  by a preloaded module. The floor and echo log nothing.',
  ]
}

function markdown(head, rows, leftColumns) {
  const table = [head, ...rows]
  const widths = head.map((_, column) => Math.max(3, ...table.map((row) => row[column].length)))
  const line = (row) =>
    `| ${row.map((cell, i) => (i < leftColumns ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join(' | ')} |`
  const rule = widths.map((width, i) => (i < leftColumns ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`))
  return [line(head), `| ${rule.join(' | ')} |`, ...rows.map(line)]
}
