/**
 * The load generator, a process of its own: `LoadProcess` is its handle, the end of this file is what it runs.
 */
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Client, connections } from './client.mjs'
import { payload } from './payload.mjs'

const self = fileURLToPath(import.meta.url)

export class LoadProcess {
  #child = fork(self, { env: { ...process.env, BENCH_LOAD: '1' } })

  /** Opens `sessions` sessions under `name`. Their connections are closed afterwards. */
  open(name, target, sessions) {
    return this.#ask({ op: 'open', name, target, sessions })
  }

  /**
   * Calls a tool through the first `sessions` sessions of `name` in turn, `concurrency` at once, for `ms` or up to
   * `calls`; what has begun is finished and counted. `kind` is `echo`, `blob` or `echoPayload`, the latter two with `bytes`.
   */
  run(name, { sessions, concurrency, kind = 'echo', bytes = 0, ms = Infinity, calls = Infinity }) {
    return this.#ask({ op: 'run', name, sessions, concurrency, kind, bytes, ms, calls })
  }

  end() {
    this.#child.kill()
  }

  #ask(question) {
    return new Promise((resolve, reject) => {
      const ended = () => reject(new Error('the load generator ended'))
      this.#child.once('exit', ended)
      this.#child.once('message', ({ error, value }) => {
        this.#child.off('exit', ended)
        if (error) reject(new Error(error))
        else resolve(value)
      })
      // Infinity has no JSON form.
      this.#child.send({ ...question, ms: finite(question.ms), calls: finite(question.calls) })
    })
  }
}

const finite = (value) => (value === Infinity ? undefined : value)

const groups = new Map()

async function open({ name, target, sessions }) {
  const clients = Array.from({ length: sessions }, () => new Client(target))
  const agent = connections(4)
  const next = clients.values()
  try {
    await together(4, async () => {
      for (const client of next) await client.open(agent)
    })
  } finally {
    agent.destroy()
  }
  groups.set(name, clients)
}

// One failed lane stops the others, so that nothing runs on behind the next measurement.
async function together(lanes, work) {
  const outcomes = await Promise.allSettled(Array.from({ length: lanes }, work))
  const failed = outcomes.find(({ status }) => status === 'rejected')
  if (failed) throw failed.reason
}

async function run({ name, sessions, concurrency, kind, bytes, ms = Infinity, calls = Infinity }) {
  const clients = groups.get(name).slice(0, sessions)
  const agent = connections(concurrency)
  const expected = bytes ? payload(bytes) : undefined
  const call = {
    echo: (client) => client.echo(agent),
    blob: (client) => client.blob(agent, bytes, expected),
    echoPayload: (client) => client.echoPayload(agent, expected),
  }[kind]
  const latencies = []
  let begun = 0
  let failed = false
  const start = performance.now()
  const deadline = start + ms
  try {
    await together(concurrency, async () => {
      try {
        while (!failed && begun < calls && performance.now() < deadline) {
          const client = clients[begun++ % clients.length]
          const from = performance.now()
          await call(client)
          latencies.push(performance.now() - from)
        }
      } catch (error) {
        failed = true
        throw error
      }
    })
  } finally {
    agent.destroy()
  }
  const seconds = (performance.now() - start) / 1000
  latencies.sort((a, b) => a - b)
  const at = (share) => latencies[Math.min(latencies.length - 1, Math.floor(share * latencies.length))]
  return { calls: latencies.length, seconds, p50: at(0.5), p99: at(0.99) }
}

if (process.env.BENCH_LOAD && process.argv[1] === self) {
  const operations = { open, run }
  process.on('message', (question) => {
    operations[question.op](question).then(
      (value) => process.send({ value }),
      (error) => process.send({ error: error.message }),
    )
  })
  process.on('disconnect', () => process.exit(0))
}
