import t from 'tap'
import { good, kindOf, type Parsed, quote } from '../../src/config/parsed.ts'
import { choice, duration, flag, integer, list, path, size, text } from '../../src/config/values.ts'

function message(parsed: Parsed<unknown>): string | undefined {
  return parsed.ok
    ? undefined
    : parsed.faults.map((fault) => [...fault.path, fault.message].join(' ')).join('; ')
}

t.test('a word must be one of the choices, exactly', async (t) => {
  const era = choice('auto', 'legacy')
  t.same(era.parse('legacy'), good('legacy'))
  t.same(era.parseText('auto'), good('auto'))
  t.equal(message(era.parse('Legacy')), '"Legacy" is not one of auto, legacy')
  t.equal(message(era.parse(null)), 'nothing is not one of auto, legacy')
  t.equal(message(era.parseText('')), '"" is not one of auto, legacy')
  t.equal(era.show('auto'), 'auto')
})

t.test('true and false are not guessed from other words', async (t) => {
  t.same(flag.parse(true), good(true))
  t.same(flag.parseText('false'), good(false))
  t.equal(message(flag.parse('true')), 'is text: write true without quotes')
  t.equal(message(flag.parse('yes')), '"yes" is neither true nor false')
  t.equal(message(flag.parseText('1')), '"1" is neither true nor false')
  t.equal(message(flag.parse(1)), '1 is neither true nor false')
})

t.test('a whole number stays within its range, both ends included', async (t) => {
  const port = integer(0, 65_535)
  t.same(port.parse(0), good(0))
  t.same(port.parseText('65535'), good(65_535))
  t.equal(message(port.parse(65_536)), '65536 is out of range: 0 to 65535')
  t.equal(message(port.parse(-1)), '-1 is out of range: 0 to 65535')
  t.equal(message(port.parse(1.5)), '1.5 is not a whole number')
  t.equal(message(port.parse('8080')), 'is text: write 8080 without quotes')
  t.equal(message(port.parse(null)), 'nothing is not a whole number')
  t.equal(message(port.parseText('80a')), '"80a" is not a whole number')
  t.equal(message(port.parseText('0x50')), '"0x50" is not a whole number')
  t.equal(message(port.parseText('')), '"" is not a whole number')
})

t.test('durations and sizes stay within their range and are shown as written', async (t) => {
  const grace = duration('0s', '1h')
  t.same(grace.parse('0s'), good(0))
  t.same(grace.parseText('1h'), good(3_600_000))
  t.equal(message(grace.parse('61m')), '"61m" is out of range: 0s to 1h')
  t.equal(grace.show(60_000), '1m')
  const body = size('1KiB', '256MiB')
  t.equal(message(body.parse('1023B')), '"1023B" is out of range: 1KiB to 256MiB')
  t.equal(body.show(4_194_304), '4MiB')
  t.throws(() => duration('1', '2h'), { message: '1 is not a duration' })
})

t.test('text is not empty, not another type and has no NUL', async (t) => {
  const name = text('name', {}, good)
  t.same(name.parse('x'), good('x'))
  t.equal(message(name.parse('')), 'is empty: give it a value or leave it out')
  t.equal(message(name.parse(null)), 'is empty: give it a value or leave it out')
  t.equal(message(name.parse(5)), 'must be text, not a number')
  t.equal(message(name.parse('a\0b')), 'must not contain a NUL character')
})

t.test('every wrong item of a list is reported at its own place', async (t) => {
  const ports = list(integer(1, 9))
  t.same(ports.parse([1, 2]), good([1, 2]))
  t.same(ports.parse([]), good([]))
  t.equal(message(ports.parse([0, 5, 'x'])), '0 0 is out of range: 1 to 9; 2 "x" is not a whole number')
  t.equal(message(ports.parse('x')), 'must be a list, not text: put it in square brackets')
  t.equal(message(ports.parse({})), 'must be a list, not a section')
  t.equal(message(ports.parse(null)), 'must be a list, not nothing')
  t.equal(ports.show([1, 2]), '1, 2')
  t.equal(ports.show([]), 'none')
})

t.test('one text becomes a list at its commas', async (t) => {
  const names = list(text('name', {}, good))
  t.same(names.parseText('a, b ,c'), good(['a', 'b', 'c']))
  t.equal(message(names.parseText('a,,b')), '1 is empty: give it a value or leave it out')
})

t.test('a path says what has to be there', async (t) => {
  const visit = (value: string, use: string): string => `${use}:${value}`
  t.equal(path('folder').mapPaths?.('x', visit, []), 'folder:x')
  t.same(path('file').parse('./x'), good('./x'))
})

t.test('messages repeat a value only when it cannot be a secret in the wrong place', async (t) => {
  t.equal(quote('8O80'), '"8O80"')
  t.equal(quote(60), '60')
  t.equal(quote('API_KEY=hunter2'), 'this text')
  t.equal(quote('https://me:hunter2@example.com'), 'this text')
  t.equal(quote('x'.repeat(49)), 'this text')
  t.equal(quote('a\u001b[2Jb'), 'this text')
  t.equal(quote({ a: 1 }), 'a section')
})

t.test('kinds are named in the words of a YAML file', async (t) => {
  const kinds = [null, undefined, [], {}, 1, true, 'a'].map(kindOf)
  t.same(kinds, ['nothing', 'nothing', 'a list', 'a section', 'a number', 'true or false', 'text'])
})
