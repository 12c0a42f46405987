import fc from 'fast-check'
import t from 'tap'
import { createMetrics, type Gauges } from '../../src/observe/metrics.ts'
import { holds } from '../support/property.ts'

const idle: Gauges = {
  sessions: () => 0,
  processes: () => 0,
  queuedBytes: () => ({ client: 0, server: 0 }),
  inFlight: () => 0,
  subscriptions: () => 0,
  parked: () => 0,
}

/** The samples of an exposition: `name{labels}` to value. */
function samplesOf(text: string): Map<string, number> {
  const samples = new Map<string, number>()
  for (const line of text.split('\n')) {
    if (line === '' || line.startsWith('#')) continue
    const end = line.lastIndexOf(' ')
    samples.set(line.slice(0, end), Number(line.slice(end + 1)))
  }
  return samples
}

t.test('calls are counted by method and outcome, with their durations', async (t) => {
  const metrics = createMetrics(idle)
  metrics.call('tools/call', 'ok', 0.003)
  metrics.call('tools/call', 'ok', 0.3)
  metrics.call('tools/call', 'ERR_TIMEOUT', 60)
  metrics.call('ping', 'cancelled', 1000)
  const samples = samplesOf((await metrics.exposition()).text)
  t.equal(samples.get('mcp_sidecar_calls_total{method="tools/call",outcome="ok"}'), 2)
  t.equal(samples.get('mcp_sidecar_calls_total{method="tools/call",outcome="ERR_TIMEOUT"}'), 1)
  t.equal(samples.get('mcp_sidecar_calls_total{method="ping",outcome="cancelled"}'), 1)
  t.equal(samples.get('mcp_sidecar_call_duration_seconds_count{method="tools/call"}'), 3)
  t.equal(samples.get('mcp_sidecar_call_duration_seconds_sum{method="tools/call"}'), 60.303)
  t.equal(samples.get('mcp_sidecar_call_duration_seconds_bucket{le="0.005",method="tools/call"}'), 1)
  t.equal(samples.get('mcp_sidecar_call_duration_seconds_bucket{le="300",method="ping"}'), 0)
  t.equal(samples.get('mcp_sidecar_call_duration_seconds_bucket{le="+Inf",method="ping"}'), 1)
})

t.test('everything else that happens is counted', async (t) => {
  const metrics = createMetrics(idle)
  metrics.refused('ERR_HOST')
  metrics.refused('ERR_HOST')
  metrics.dropped('late_answer')
  metrics.sessionOpened('websocket')
  metrics.sessionClosed('websocket')
  metrics.processStarted()
  metrics.processExited('stopped')
  metrics.processRestarted()
  const samples = samplesOf((await metrics.exposition()).text)
  t.equal(samples.get('mcp_sidecar_refusals_total{code="ERR_HOST"}'), 2)
  t.equal(samples.get('mcp_sidecar_dropped_messages_total{reason="late_answer"}'), 1)
  t.equal(samples.get('mcp_sidecar_sessions_opened_total{transport="websocket"}'), 1)
  t.equal(samples.get('mcp_sidecar_sessions_closed_total{transport="websocket"}'), 1)
  t.equal(samples.get('mcp_sidecar_process_starts_total'), 1)
  t.equal(samples.get('mcp_sidecar_process_exits_total{reason="stopped"}'), 1)
  t.equal(samples.get('mcp_sidecar_process_restarts_total'), 1)
})

t.test('what stands at the moment is read when somebody asks', async (t) => {
  let n = 1
  const metrics = createMetrics({
    sessions: () => n,
    processes: () => n + 1,
    queuedBytes: () => ({ client: n + 2, server: n + 3 }),
    inFlight: () => n + 4,
    subscriptions: () => n + 5,
    parked: () => n + 6,
  })
  for (n of [1, 10]) {
    const samples = samplesOf((await metrics.exposition()).text)
    t.equal(samples.get('mcp_sidecar_sessions'), n)
    t.equal(samples.get('mcp_sidecar_processes'), n + 1)
    t.equal(samples.get('mcp_sidecar_queue_bytes{reader="client"}'), n + 2)
    t.equal(samples.get('mcp_sidecar_queue_bytes{reader="server"}'), n + 3)
    t.equal(samples.get('mcp_sidecar_calls_in_flight'), n + 4)
  }
})

t.test(
  'method names that clients make up share one label, so that the number of series is bounded',
  async (t) => {
    const metrics = createMetrics(idle)
    holds(
      t,
      fc.property(
        fc.oneof(fc.string(), fc.constantFrom('tools/call"} 1\nfake 1', '__proto__', 'TOOLS/CALL')),
        (method) => {
          metrics.call(method, 'ok', 0)
          return true
        },
      ),
      300,
    )
    const samples = samplesOf((await metrics.exposition()).text)
    const series = [...samples.keys()].filter((name) => name.startsWith('mcp_sidecar_calls_total'))
    t.same(series, ['mcp_sidecar_calls_total{method="other",outcome="ok"}'])
    t.equal(samples.get('fake'), undefined)
  },
)

t.test('it is the text format of Prometheus, each metric with its help', async (t) => {
  const { text, type } = await createMetrics(idle).exposition()
  t.match(type, /^text\/plain; version=0\.0\.4/)
  const named = [...text.matchAll(/^# TYPE (mcp_sidecar_\S+)/gm)].map(([, name]) => name)
  t.equal(new Set(named).size, named.length)
  t.ok(named.length >= 13)
  for (const name of named) t.match(text, new RegExp(`^# HELP ${name} \\S.*\\.$`, 'm'))
  t.match(text, /^process_resident_memory_bytes /m, 'and those of the process')
})

t.test('two registries do not meet', async (t) => {
  const [one, two] = [createMetrics(idle), createMetrics(idle)]
  one.processStarted()
  t.equal(samplesOf((await two.exposition()).text).get('mcp_sidecar_process_starts_total'), 0)
})
