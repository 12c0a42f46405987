export const MiB = 1024 * 1024

// A little less than the round size: the line limit of 64 MiB counts what is around the payload too.
const below = (mib) => mib * MiB - 4096
const rate = (mib) => ({ unit: 'calls/s', better: 'higher', digits: mib < 10 ? 1 : 2 })
const ms = { unit: 'ms', better: 'lower', digits: 2 }
const memory = { unit: 'MiB', better: 'lower', digits: 1, scale: 1 / MiB }
const small = { unit: 'KiB', better: 'lower', digits: 1, scale: 1 / 1024 }

/**
 * In the order of the table and of measuring: the largest payloads last, as they end some contestants. `bytes` is the
 * payload of one call, in one direction.
 */
export const figures = {
  start: { ...ms, digits: 0, label: 'Cold start: spawn to the first answered call' },
  idle: { ...memory, label: 'RSS idle, after one call' },
  p50One: { ...ms, label: 'p50, 1 at once' },
  p99One: { ...ms, label: 'p99, 1 at once' },
  p50Many: { ...ms, label: 'p50, 32 at once' },
  p99Many: { ...ms, label: 'p99, 32 at once' },
  rate: {
    unit: 'calls/s',
    better: 'higher',
    digits: 0,
    label: 'Calls per second, 32 at once over 4 sessions',
  },
  cpu: { unit: 's', better: 'lower', digits: 2, label: 'Bridge CPU per 10,000 calls, 32 at once' },
  loaded: { ...memory, label: 'RSS after that load' },
  down1: { ...rate(1), kind: 'blob', bytes: 1 * MiB, label: '1 MiB from the server' },
  both1: { ...rate(1), kind: 'echoPayload', bytes: 1 * MiB, label: '1 MiB to the server and back' },
  both4: { ...rate(4), kind: 'echoPayload', bytes: below(4), label: '4 MiB to the server and back' },
  down10: { ...rate(10), kind: 'blob', bytes: 10 * MiB, label: '10 MiB from the server' },
  down16: { ...rate(16), kind: 'blob', bytes: below(16), large: true, label: '16 MiB from the server' },
  down32: { ...rate(32), kind: 'blob', bytes: below(32), large: true, label: '32 MiB from the server' },
  down64: { ...rate(64), kind: 'blob', bytes: below(64), large: true, label: '64 MiB from the server' },
  session: { ...small, label: 'RSS per idle session' },
  sessionLive: { ...small, label: 'Live memory per idle session' },
  growth: { ...memory, label: 'RSS growth over a long run' },
  growthLive: { ...memory, label: 'Live memory growth over a long run' },
}

export function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** What was measured: by figure and contestant one value per round, or the reason why there is none. */
export class Results {
  #cells = new Map()

  add(key, name, value) {
    const cell = this.#cell(key, name)
    cell.rounds.push(value)
  }

  cannot(key, name, reason) {
    this.#cell(key, name).reason ??= reason
  }

  reason(key, name) {
    return this.#cells.get(`${key} ${name}`)?.reason
  }

  /** The median of the rounds; undefined when there is none, or when a round failed. */
  value(key, name) {
    const cell = this.#cells.get(`${key} ${name}`)
    return cell?.rounds.length && !cell.reason ? median(cell.rounds) : undefined
  }

  /** The median of the ratios of each round, so that what slows the machine for a while slows both sides of a ratio. */
  ratio(key, name, base) {
    if (this.value(key, name) === undefined || this.value(key, base) === undefined) return undefined
    const [over, under] = [name, base].map((one) => this.#cells.get(`${key} ${one}`).rounds)
    return median(over.map((value, round) => value / under[round]))
  }

  /** The median of the differences of each round. */
  difference(key, name, base) {
    if (this.value(key, name) === undefined || this.value(key, base) === undefined) return undefined
    const [more, less] = [name, base].map((one) => this.#cells.get(`${key} ${one}`).rounds)
    return median(more.map((value, round) => value - less[round]))
  }

  #cell(key, name) {
    const id = `${key} ${name}`
    if (!this.#cells.has(id)) this.#cells.set(id, { rounds: [] })
    return this.#cells.get(id)
  }
}
