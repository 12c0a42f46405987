import fc from 'fast-check'
import t from 'tap'
import {
  batchVersion,
  isInteractive,
  isLegacyVersion,
  latestLegacyVersion,
  legacyVersions,
  logLevels,
  mayAsk,
  methodLabel,
  understandsPriming,
} from '../../src/core/mcp.ts'
import { holds } from '../support/property.ts'

t.test('the versions of the handshake era are known, newest first', async (t) => {
  t.same(legacyVersions, legacyVersions.toSorted().toReversed())
  t.equal(latestLegacyVersion, '2025-11-25')
  for (const version of legacyVersions) t.ok(isLegacyVersion(version))
  for (const other of [
    '',
    '2026-07-28',
    '2025-03-27',
    '2025-11-25 ',
    '20251125',
    '__proto__',
    '2025-06-18, 2025-06-18',
  ])
    t.notOk(isLegacyVersion(other), other)
  t.ok(isLegacyVersion(batchVersion))
})

t.test('priming is for clients of 2025-11-25 and later', async (t) => {
  t.same(
    legacyVersions.filter((version) => understandsPriming(version)),
    ['2025-11-25'],
  )
  t.notOk(understandsPriming(undefined))
})

t.test('a server may ask during a tool call, a prompt and a read', async (t) => {
  for (const method of ['tools/call', 'prompts/get', 'resources/read']) t.ok(isInteractive(method), method)
  for (const method of ['initialize', 'ping', 'tools/list', 'logging/setLevel', 'notifications/progress', ''])
    t.notOk(isInteractive(method), method)
})

t.test('an extension that is not known here may ask, too', async (t) => {
  for (const method of [
    'tools/call',
    'prompts/get',
    'resources/read',
    'example.com/interview',
    'Tools/List',
    '',
  ])
    t.ok(mayAsk(method), method)
  for (const method of ['initialize', 'ping', 'tools/list', 'logging/setLevel', 'completion/complete'])
    t.notOk(mayAsk(method), method)
})

t.test('method labels are a closed set, whatever clients send', async (t) => {
  const labels = new Set<string>()
  holds(
    t,
    fc.property(
      fc.oneof(
        fc.string(),
        fc.constantFrom('tools/call', 'Tools/Call', 'tools/call ', '__proto__', 'constructor'),
      ),
      (method) => {
        const label = methodLabel(method)
        labels.add(label)
        return label === 'other' || label === method
      },
    ),
  )
  t.ok(labels.size <= 2)
  t.equal(methodLabel('tools/call'), 'tools/call')
  t.equal(methodLabel('notifications/tasks/status'), 'notifications/tasks/status')
  t.equal(methodLabel('other'), 'other')
})

t.test('log levels are those of RFC 5424, least severe first', async (t) => {
  t.same(logLevels.toReversed(), [
    'emergency',
    'alert',
    'critical',
    'error',
    'warning',
    'notice',
    'info',
    'debug',
  ])
})
