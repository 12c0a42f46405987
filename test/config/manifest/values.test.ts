import t from 'tap'
import { goDuration, objectKey, objectName } from '../../../src/config/manifest/values.ts'
import { good } from '../../../src/config/parsed.ts'

t.test('durations are read as Go writes them, and with days', async (t) => {
  for (const [text, ms] of [
    ['30s', 30_000],
    ['1m30s', 90_000],
    ['1.5h', 5_400_000],
    ['250ms', 250],
    ['2d', 172_800_000],
  ] as const)
    t.same(goDuration.parse(text), good(ms), text)
  for (const text of ['', '30', '30 s', '-1s', '0s', '1y', 's', '25d', 30, null, '1s;'])
    t.notOk(goDuration.parse(text).ok, String(text))
})

t.test('names and keys are never paths', async (t) => {
  for (const text of ['api-keys', 'a.b', 'x1']) t.ok(objectName.parse(text).ok, text)
  for (const text of ['', '..', 'a/b', '../a', '.a', 'a.', 'A', 'a..b', '-a', 'a\0', 'x'.repeat(254)])
    t.notOk(objectName.parse(text).ok, text)
  for (const text of ['token', 'oidc.json', 'Client_Secret', '.dockerconfigjson', '-x'])
    t.ok(objectKey.parse(text).ok, text)
  for (const text of ['', '.', '..', '../x', '..data', 'a/b', 'a\\b']) t.notOk(objectKey.parse(text).ok, text)
})
