import fc from 'fast-check'
import t from 'tap'
import {
  cleanedPath,
  grantPath,
  grants,
  readGrant,
  writeGrant,
} from '../../../src/config/permissions/paths.ts'

t.test('an absolute path in its plain spelling is granted', async (t) => {
  for (const path of ['/app', '/etc/pg_service.conf', '/a b/ü', '/...', '/.hidden', '/a\n'])
    t.same(grantPath.parse(path), { ok: true, value: path })
})

t.test('any other path is refused, with the right spelling', async (t) => {
  const cases: [written: unknown, wanted: string][] = [
    ['app', '"app" is not an absolute path: paths start with / here, as the server sees them'],
    ['./app', '"./app" is not an absolute path: paths start with / here, as the server sees them'],
    ['~/data', '"~/data" is not an absolute path: write the home folder out'],
    ['/app/', '"/app/" is not the plain spelling of a path: write /app'],
    ['/app//data', '"/app//data" is not the plain spelling of a path: write /app/data'],
    ['/app/./data', '"/app/./data" is not the plain spelling of a path: write /app/data'],
    ['/app/../etc', '"/app/../etc" is not the plain spelling of a path: write /etc'],
    ['/..', '"/.." is not the plain spelling of a path: write /'],
    ['//', '"//" is not the plain spelling of a path: write /'],
    ['/', 'is the whole file system: name folders, or use the builtin profile full-access'],
    ['/proc', 'is granted by filesystem.proc (self or all), not as a path'],
    ['/proc/self/root', 'is granted by filesystem.proc (self or all), not as a path'],
    ['/dev', 'holds every device there is: name what is needed of it, such as /dev/shm'],
    ['/a\0b', 'must not contain a NUL character'],
    [`/${'a'.repeat(4095)}`, 'is longer than 4095 bytes'],
    ['', 'is empty: give it a value or leave it out'],
    [7, 'must be text, not a number'],
    [['/a'], 'must be text, not a list'],
  ]
  for (const [written, message] of cases)
    t.same(grantPath.parse(written), { ok: false, faults: [{ path: [], message }] }, String(written))
})

t.test('a path alone is a section with nothing but it', async (t) => {
  t.same(readGrant.parse('/app'), { ok: true, value: { path: '/app', optional: false, execute: true } })
  t.same(readGrant.parse({ path: '/app', execute: false, optional: true }), {
    ok: true,
    value: { path: '/app', optional: true, execute: false },
  })
  t.same(writeGrant.parse('/data'), { ok: true, value: { path: '/data', optional: false } })
  t.match(writeGrant.parse({ path: '/data', execute: true }), {
    faults: [{ path: ['execute'], message: 'unknown key: there are path, optional', key: true }],
  })
  t.match(readGrant.parse({ path: 'app' }), { faults: [{ path: ['path'], message: /not an absolute path/ }] })
  t.match(readGrant.parse({ paht: '/app' }), {
    faults: [{ path: ['paht'], message: 'unknown key: did you mean path?' }],
  })
  t.equal(readGrant.show({ path: '/a', optional: true, execute: false }), '/a (no execute, optional)')
})

t.test('no path stands twice in one list', async (t) => {
  t.same(grants(readGrant).parse(['/a', '/b', { path: '/a', execute: false }]), {
    ok: false,
    faults: [{ path: [2], message: '"/a" stands here twice' }],
  })
})

t.test('property: what is advised is taken, and what is taken needs no cleaning', async () => {
  const path = fc
    .array(fc.constantFrom('a', 'b.c', '.', '..', '', 'ü'), { maxLength: 8 })
    .map((parts) => `/${parts.join('/')}`)
  fc.assert(
    fc.property(path, (written) => {
      const parsed = grantPath.parse(written)
      const cleaned = cleanedPath.parse(written)
      if (parsed.ok) return cleaned.ok && cleaned.value === parsed.value && parsed.value === written
      const advised = / write (.*)$/.exec(parsed.faults[0]?.message ?? '')?.[1]
      return !cleaned.ok || cleaned.value === advised
    }),
    { numRuns: 2000 },
  )
})
