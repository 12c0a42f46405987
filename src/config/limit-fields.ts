import type { FieldsOf } from './field.ts'
import { rateLimitList, rateStoreType, timeoutList } from './limit-values.ts'
import { duration, integer, size } from './values.ts'
import { word } from './words.ts'

/** Bounds on what is used at once. */
export const limitFields: FieldsOf<'limits'> = {
  'limits.requestBodyBytes': {
    file: 'limits.requestBody',
    // A message becomes one JavaScript string, whose longest is a little under 512 MiB.
    type: size('1KiB', '256MiB'),
    default: '4MiB',
    doc: 'Largest message a client may send.',
  },
  'limits.serverMessageBytes': {
    file: 'limits.serverMessage',
    type: size('1KiB', '256MiB'),
    default: '64MiB',
    doc: 'Largest message the server may send; a larger one fails the call it answers.',
  },
  'limits.sessions': {
    file: 'limits.sessions',
    type: integer(1, 1_000_000),
    default: 1000,
    doc: 'Most sessions at once, over all callers.',
  },
  'limits.sessionsPerPrincipal': {
    file: 'limits.sessionsPerPrincipal',
    type: integer(1, 1_000_000),
    default: 250,
    doc: 'Most sessions of one caller at once; never more than `limits.sessions`.',
  },
  'limits.processes': {
    file: 'limits.processes',
    type: integer(1, 10_000),
    default: 32,
    doc: 'Most server processes at once, spares included.',
  },
  'limits.processesPerPrincipal': {
    file: 'limits.processesPerPrincipal',
    type: integer(1, 10_000),
    default: 16,
    doc: 'Most processes of a legacy server for the sessions of one caller, and as many again for its modern calls, those that wait for input of its client included. Sessions of anonymous callers are not counted.',
  },
  'limits.inFlight': {
    file: 'limits.inFlight',
    type: integer(1, 1_000_000),
    default: 1000,
    doc: 'Most unanswered requests, over all callers.',
  },
  'limits.inFlightPerPrincipal': {
    file: 'limits.inFlightPerPrincipal',
    type: integer(1, 1_000_000),
    default: 100,
    doc: 'Most unanswered requests of one caller.',
  },
  'limits.subscriptionsPerPrincipal': {
    file: 'limits.subscriptionsPerPrincipal',
    type: integer(1, 1_000_000),
    default: 1000,
    doc: 'Most open subscriptions (`subscriptions/listen`) of one modern caller.',
  },
  'limits.connections': {
    file: 'limits.connections',
    type: integer(1, 1_000_000),
    default: 10_000,
    doc: 'Most open connections.',
  },
  'limits.requestTimeoutMs': {
    file: 'limits.requestTimeout',
    type: duration('100ms', '7d'),
    default: '60s',
    doc: 'Longest time without an answer or progress; then the call fails and is cancelled at the server.',
  },
  'limits.maxRequestTimeoutMs': {
    file: 'limits.maxRequestTimeout',
    type: duration('100ms', '7d'),
    default: '10m',
    doc: 'Longest time for a call in all, whatever progress it reports.',
  },
  'limits.clientInputMs': {
    file: 'limits.clientInput',
    type: duration('100ms', '7d'),
    default: '5m',
    doc: 'Longest time a call waits for its own client to answer a question of the server (sampling, elicitation, roots); the request timeout rests meanwhile.',
  },
  'limits.idleSessionMs': {
    file: 'limits.idleSession',
    type: duration('1s', '7d'),
    default: '30m',
    doc: 'Time after which an unused session ends.',
  },
  'limits.sessionQueueBytes': {
    file: 'limits.sessionQueue',
    type: size('64KiB', '1GiB'),
    default: '4MiB',
    doc: 'Bytes that may wait for one session before its server process is made to wait.',
  },
  'limits.replayBufferBytes': {
    file: 'limits.replayBuffer',
    type: size('4KiB', '1GiB'),
    default: '1MiB',
    doc: 'Bytes of sent events kept for each session, to be repeated to a client that reconnects.',
  },
  'limits.batch': {
    file: 'limits.batch',
    type: integer(1, 10_000),
    default: 100,
    doc: 'Most messages in one JSON-RPC batch (protocol version 2025-03-26).',
  },
  'limits.headerTimeoutMs': {
    file: 'limits.headerTimeout',
    type: duration('100ms', '10m'),
    default: '10s',
    doc: 'Longest time a client may take to send the headers of a request.',
  },
  'limits.bodyTimeoutMs': {
    file: 'limits.bodyTimeout',
    type: duration('100ms', '1h'),
    default: '30s',
    doc: 'Longest time a client may take to send the body of a request.',
  },
}

/** Bounds on what is used over time, and exceptions for some calls. */
export const rateFields: FieldsOf<'rateLimits' | 'rateLimitStore' | 'timeouts' | 'namespace'> = {
  rateLimits: {
    file: 'rateLimits',
    type: rateLimitList,
    absent: undefined,
    means: 'no rate limits',
    doc: 'How many requests are served in a time. Every limit is enforced; who is over one gets 429 with `Retry-After`.',
  },
  rateLimitStore: {
    file: 'rateLimitStore',
    type: rateStoreType,
    absent: undefined,
    means: 'each sidecar counts for itself',
    doc: 'Where requests are counted.',
  },
  timeouts: {
    file: 'timeouts',
    type: timeoutList,
    absent: undefined,
    means: 'those of `limits` for all calls',
    doc: 'Times for some calls that differ from those for all. The first that fits counts.',
  },
  namespace: {
    file: 'namespace',
    type: word('text'),
    absent: undefined,
    means: 'that of the documents, else `default`',
    doc: 'Kubernetes namespace that a rule means by `serviceaccount:NAME`, and of callers that are no service account.',
  },
}
