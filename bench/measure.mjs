import { setTimeout as sleep } from 'node:timers/promises'
import { start } from './contestants.mjs'
import { figures } from './figures.mjs'
import { LoadProcess } from './load.mjs'
import { collectedMemory, cpuSeconds, residentBytes } from './proc.mjs'
import { measureSandbox } from './sandbox.mjs'

const SESSIONS = 4
const MANY = 32
const SETTLE_MS = 2000

export const full = {
  startRounds: 7,
  idleRounds: 3,
  callRounds: 9,
  warmMs: 1500,
  oneMs: 400,
  manyMs: 1000,
  payloadRounds: 3,
  payloadMs: 700,
  largeRounds: 3,
  idleSessions: 200,
  sessionWarmMs: 2500,
  warmCalls: 20_000,
  longCalls: 100_000,
  launchRounds: 60,
  messageStarts: 24,
  messageRounds: 4,
  messages: 500,
  warmConnects: 1000,
  connectRounds: 45,
  connects: 100,
}

/** Ratios of so short a run are rough; what it is for is to see that everything works. */
export const quick = {
  startRounds: 2,
  idleRounds: 1,
  callRounds: 2,
  warmMs: 300,
  oneMs: 200,
  manyMs: 500,
  payloadRounds: 1,
  payloadMs: 100,
  largeRounds: 1,
  idleSessions: 200,
  sessionWarmMs: 700,
  warmCalls: 3000,
  longCalls: 12_000,
  launchRounds: 10,
  messageStarts: 1,
  messageRounds: 2,
  messages: 500,
  warmConnects: 50,
  connectRounds: 2,
  connects: 50,
}

// Each round goes through all contestants, starting with another one, so that drift of the machine hits all alike.
async function inRounds(rounds, contestants, work) {
  for (let round = 0; round < rounds; round++) {
    const first = round % contestants.length
    for (const one of [...contestants.slice(first), ...contestants.slice(0, first)]) await work(one, round)
  }
}

/** `measure` is for those of `keys` that have no reason against them yet; what fails is their reason. */
async function attempt({ results, say }, keys, name, measure) {
  const open = keys.filter((key) => !results.reason(key, name))
  if (!open.length) return
  try {
    await measure()
  } catch (error) {
    say(`${name}: ${error.message}`)
    for (const key of open) results.cannot(key, name, error.message)
  }
}

async function measureStarts(run) {
  const { contestants, settings, results, folder } = run
  await inRounds(settings.startRounds, contestants, async (contestant) => {
    await attempt(run, ['start'], contestant.name, async () => {
      const bridge = await start(contestant, folder)
      results.add('start', contestant.name, bridge.startMs)
      await bridge.stop()
    })
  })
}

async function startAll(run, keys, contestants) {
  const bridges = []
  for (const contestant of contestants) {
    await attempt(run, keys, contestant.name, async () => bridges.push(await start(contestant, run.folder)))
  }
  return bridges
}

async function addResident(run, key, bridges) {
  await sleep(SETTLE_MS)
  for (const { contestant, pid } of bridges) {
    await attempt(run, [key], contestant.name, () =>
      run.results.add(key, contestant.name, residentBytes(pid)),
    )
  }
}

async function measureIdle(run) {
  for (let round = 0; round < run.settings.idleRounds; round++) {
    const bridges = await startAll(run, ['idle'], run.contestants)
    await addResident(run, 'idle', bridges)
    await Promise.all(bridges.map((bridge) => bridge.stop()))
  }
}

const callKeys = ['p50One', 'p99One', 'p50Many', 'p99Many', 'rate', 'cpu', 'loaded']

/** Starts the contestants and opens their sessions; the load generator and the bridges end after `work`. */
async function withSessions(run, keys, contestants, work) {
  const load = new LoadProcess()
  const started = await startAll(run, keys, contestants)
  const bridges = []
  try {
    for (const bridge of started) {
      await attempt(run, keys, bridge.contestant.name, async () => {
        await load.open(bridge.contestant.name, bridge.target, SESSIONS)
        bridges.push(bridge)
      })
    }
    await work(load, bridges)
  } finally {
    load.end()
    await Promise.all(started.map((bridge) => bridge.stop()))
  }
}

async function measureCalls(run) {
  const { settings, results } = run
  await withSessions(run, callKeys, run.contestants, async (load, bridges) => {
    for (const { contestant } of bridges) {
      const warm = { sessions: SESSIONS, concurrency: MANY, ms: settings.warmMs }
      await attempt(run, callKeys, contestant.name, () => load.run(contestant.name, warm))
    }
    await inRounds(settings.callRounds, bridges, async ({ contestant: { name }, pid }) => {
      await attempt(run, callKeys, name, async () => {
        const one = await load.run(name, { sessions: 1, concurrency: 1, ms: settings.oneMs })
        const before = cpuSeconds(pid)
        const many = await load.run(name, { sessions: SESSIONS, concurrency: MANY, ms: settings.manyMs })
        const cpu = cpuSeconds(pid) - before
        results.add('p50One', name, one.p50)
        results.add('p99One', name, one.p99)
        results.add('p50Many', name, many.p50)
        results.add('p99Many', name, many.p99)
        results.add('rate', name, many.calls / many.seconds)
        results.add('cpu', name, (cpu / many.calls) * 10_000)
      })
    })
    await addResident(run, 'loaded', bridges)
  })
}

const keysOfPayloads = (large) =>
  Object.keys(figures).filter((key) => figures[key].bytes && Boolean(figures[key].large) === large)

function excuse({ results }, keys, contestant) {
  for (const key of keys) {
    const { kind, large } = figures[key]
    const { cannot, peer } = contestant
    if (large && peer) results.cannot(key, contestant.name, 'measured for the sidecar and the floor only')
    if (kind === 'echoPayload' && cannot.upload) results.cannot(key, contestant.name, cannot.upload)
    if (cannot.payload) results.cannot(key, contestant.name, cannot.payload)
  }
}

function measurePayloads(large) {
  return async (run) => {
    const { settings, results } = run
    const keys = keysOfPayloads(large)
    for (const contestant of run.contestants) excuse(run, keys, contestant)
    const able = run.contestants.filter(({ name }) => !keys.every((key) => results.reason(key, name)))
    await withSessions(run, keys, able, async (load, bridges) => {
      for (const key of keys) {
        const { kind, bytes } = figures[key]
        const window = { sessions: 1, concurrency: 1, kind, bytes, ms: settings.payloadMs }
        for (const { contestant } of bridges) {
          await attempt(run, [key], contestant.name, () => load.run(contestant.name, window))
        }
        const rounds = large ? settings.largeRounds : settings.payloadRounds
        await inRounds(rounds, bridges, async ({ contestant: { name } }) => {
          await attempt(run, [key], name, async () => {
            const { calls, seconds } = await load.run(name, window)
            results.add(key, name, calls / seconds)
          })
        })
      }
    })
  }
}

/**
 * The heap is brought to its working size first, with calls and not with sessions: sessions that had ended would leave
 * room that hides what the next ones need. The generator's connections are closed before the second reading, after
 * which a call through every session shows that all are still there.
 */
async function memoryPerSession({ settings, folder }, contestant) {
  const { idleSessions, sessionWarmMs } = settings
  const load = new LoadProcess()
  const bridge = await start(contestant, folder, { collectable: true })
  try {
    await load.open('warm', bridge.target, SESSIONS)
    for (let times = 0; times < 3; times++) {
      await load.run('warm', { sessions: SESSIONS, concurrency: MANY, ms: sessionWarmMs })
      await collectedMemory(bridge)
    }
    const before = await collectedMemory(bridge)
    await load.open('idle', bridge.target, idleSessions)
    const after = await collectedMemory(bridge)
    await load.run('idle', { sessions: idleSessions, concurrency: SESSIONS, calls: idleSessions })
    return {
      resident: (after.resident - before.resident) / idleSessions,
      live: (after.live - before.live) / idleSessions,
    }
  } finally {
    load.end()
    await bridge.stop()
  }
}

const sessionKeys = ['session', 'sessionLive']

async function measureSessions(run) {
  const { results } = run
  for (const contestant of run.contestants) {
    const { name, cannot } = contestant
    if (cannot.sessions) for (const key of sessionKeys) results.cannot(key, name, cannot.sessions)
    await attempt(run, sessionKeys, name, async () => {
      const { resident, live } = await memoryPerSession(run, contestant)
      results.add('session', name, resident)
      results.add('sessionLive', name, live)
    })
  }
}

const growthKeys = ['growth', 'growthLive']

async function measureGrowth(run) {
  const { settings, results, folder } = run
  for (const contestant of run.contestants) {
    const { name, peer } = contestant
    if (peer || contestant.fixed) {
      for (const key of growthKeys) results.cannot(key, name, 'measured for the sidecar and the floor only')
      continue
    }
    await attempt(run, growthKeys, name, async () => {
      const load = new LoadProcess()
      const bridge = await start(contestant, folder, { collectable: true })
      try {
        const window = { sessions: SESSIONS, concurrency: MANY }
        await load.open(name, bridge.target, SESSIONS)
        await load.run(name, { ...window, calls: settings.warmCalls })
        const before = await collectedMemory(bridge)
        await load.run(name, { ...window, calls: settings.longCalls })
        const after = await collectedMemory(bridge)
        results.add('growth', name, after.resident - before.resident)
        results.add('growthLive', name, after.live - before.live)
      } finally {
        load.end()
        await bridge.stop()
      }
    })
  }
}

/** Each can be run alone; `run` is { contestants, settings, results, folder, say }. */
export const parts = {
  start: measureStarts,
  idle: measureIdle,
  calls: measureCalls,
  payloads: measurePayloads(false),
  large: measurePayloads(true),
  sessions: measureSessions,
  growth: measureGrowth,
  sandbox: measureSandbox,
}
