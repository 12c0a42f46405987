import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { methodLabel } from '../core/mcp.ts'
import type { Metrics } from '../core/types.ts'

/** Values that are read when somebody asks for the metrics. */
export interface Gauges {
  sessions(): number
  processes(): number
  /** Bytes waiting for clients, and for server processes. */
  queuedBytes(): { readonly client: number; readonly server: number }
  inFlight(): number
  subscriptions(): number
  /** Calls of modern clients that wait for input of their client. */
  parked(): number
}

export interface MetricsRegistry extends Metrics {
  exposition(): Promise<{ readonly text: string; readonly type: string }>
}

/** Seconds, as OpenTelemetry's conventions for MCP have them. */
const buckets = [0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300]

/** Prometheus metrics. Labels come from closed sets: never ids, names or URIs that a peer chooses. */
export function createMetrics(gauges: Gauges): MetricsRegistry {
  const registry = new Registry()
  const registers = [registry]
  const calls = new Counter({
    name: 'mcp_sidecar_calls_total',
    help: 'Requests of clients by MCP method and outcome (ok, error, cancelled or the code of a refusal).',
    labelNames: ['method', 'outcome'],
    registers,
  })
  const durations = new Histogram({
    name: 'mcp_sidecar_call_duration_seconds',
    help: 'From the arrival of a request to its answer.',
    labelNames: ['method'],
    buckets,
    registers,
  })
  const refusals = counter(
    'mcp_sidecar_refusals_total',
    'Requests refused, by error code.',
    'code',
    registers,
  )
  const drops = counter(
    'mcp_sidecar_dropped_messages_total',
    'Messages delivered to nobody, by reason.',
    'reason',
    registers,
  )
  const asked = counter(
    'mcp_sidecar_server_requests_total',
    'Requests of the server that were passed on to a client, by MCP method.',
    'method',
    registers,
  )
  const opened = counter('mcp_sidecar_sessions_opened_total', 'Sessions opened.', 'transport', registers)
  const closed = counter('mcp_sidecar_sessions_closed_total', 'Sessions ended.', 'transport', registers)
  const exits = counter(
    'mcp_sidecar_process_exits_total',
    'Server processes that ended.',
    'reason',
    registers,
  )
  const starts = new Counter({
    name: 'mcp_sidecar_process_starts_total',
    help: 'Server processes started.',
    registers,
  })
  const restarts = new Counter({
    name: 'mcp_sidecar_process_restarts_total',
    help: 'Restarts of the shared server process.',
    registers,
  })
  const authentications = new Counter({
    name: 'mcp_sidecar_authentications_total',
    help: 'Requests by the method that proved who is calling; none when nobody was asked.',
    labelNames: ['method'],
    registers,
  })
  const egress = new Counter({
    name: 'mcp_sidecar_egress_total',
    help: 'Connections and lookups that the server asked for, by protocol and verdict (allowed, denied); one that is allowed may fail.',
    labelNames: ['protocol', 'verdict'],
    registers,
  })
  const egressBytes = counter(
    'mcp_sidecar_egress_bytes_total',
    'Bytes of connections of the server that have ended, by direction (sent, received).',
    'direction',
    registers,
  )
  const auditFailures = new Counter({
    name: 'mcp_sidecar_audit_write_failures_total',
    help: 'Writes to the audit log that failed; they are tried again.',
    registers,
  })
  const auditLosses = new Counter({
    name: 'mcp_sidecar_audit_events_lost_total',
    help: 'Events that are missing in the audit log.',
    registers,
  })
  let storeReachable = 1
  gauge(
    'mcp_sidecar_rate_limit_store_up',
    'Whether the shared store of the rate limits can be reached; 1 without one.',
    registers,
    () => storeReachable,
  )
  gauge('mcp_sidecar_sessions', 'Open sessions.', registers, gauges.sessions)
  gauge('mcp_sidecar_processes', 'Running server processes.', registers, gauges.processes)
  gauge('mcp_sidecar_calls_in_flight', 'Requests without an answer yet.', registers, gauges.inFlight)
  gauge('mcp_sidecar_subscriptions', 'Open subscriptions of modern clients.', registers, gauges.subscriptions)
  gauge(
    'mcp_sidecar_parked_calls',
    'Calls on a legacy server that wait for a retry of their modern client.',
    registers,
    gauges.parked,
  )
  new Gauge({
    name: 'mcp_sidecar_queue_bytes',
    help: 'Bytes waiting to be read, by who has to read them.',
    labelNames: ['reader'],
    registers,
    collect() {
      const { client, server } = gauges.queuedBytes()
      this.set({ reader: 'client' }, client)
      this.set({ reader: 'server' }, server)
    },
  })
  collectDefaultMetrics({ register: registry })

  // Looking a labelled child up costs more than the observation.
  const callChildren = new Map<string, Counter.Internal>()
  const authenticationChildren = new Map<string, Counter.Internal>()
  const durationChildren = new Map<string, Histogram.Internal<string>>()
  return {
    call(method, outcome, seconds) {
      const label = methodLabel(method)
      const key = `${label} ${outcome}`
      let child = callChildren.get(key)
      if (child === undefined) {
        child = calls.labels(label, outcome)
        callChildren.set(key, child)
      }
      child.inc()
      let duration = durationChildren.get(label)
      if (duration === undefined) {
        duration = durations.labels(label)
        durationChildren.set(label, duration)
      }
      duration.observe(seconds)
    },
    refused: (code) => refusals.inc({ code }),
    dropped: (reason) => drops.inc({ reason }),
    asked: (method) => asked.inc({ method: methodLabel(method) }),
    sessionOpened: (transport) => opened.inc({ transport }),
    sessionClosed: (transport) => closed.inc({ transport }),
    authenticated: (method) => {
      let child = authenticationChildren.get(method)
      if (child === undefined) {
        child = authentications.labels(method)
        authenticationChildren.set(method, child)
      }
      child.inc()
    },
    rateStore: (reachable) => {
      storeReachable = reachable ? 1 : 0
    },
    auditFailed: () => auditFailures.inc(),
    auditLost: () => auditLosses.inc(),
    egress: (allowed, protocol) => egress.inc({ protocol, verdict: allowed ? 'allowed' : 'denied' }),
    egressBytes: (sent, received) => {
      egressBytes.inc({ direction: 'sent' }, sent)
      egressBytes.inc({ direction: 'received' }, received)
    },
    processStarted: () => starts.inc(),
    processExited: (reason) => exits.inc({ reason }),
    processRestarted: () => restarts.inc(),
    exposition: async () => ({ text: await registry.metrics(), type: registry.contentType }),
  }
}

function counter<L extends string>(name: string, help: string, label: L, registers: Registry[]): Counter<L> {
  return new Counter({ name, help, labelNames: [label], registers })
}

function gauge(name: string, help: string, registers: Registry[], read: () => number): void {
  new Gauge({
    name,
    help,
    registers,
    collect() {
      this.set(read())
    },
  })
}
