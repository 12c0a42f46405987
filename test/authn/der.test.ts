import fc from 'fast-check'
import t from 'tap'
import {
  bitsOf,
  childrenOf,
  DerError,
  type Element,
  integerOf,
  oidOf,
  readElement,
  signatureOf,
  tags,
  timeOf,
} from '../../src/authn/der.ts'
import * as der from '../support/der.ts'
import { authority } from '../support/pki.ts'
import { holds } from '../support/property.ts'

const bytes = (hex: string): Buffer => Buffer.from(hex.replaceAll(' ', ''), 'hex')
/** One element whatever its tag. */
const element = (encoded: Buffer): Element => readElement(encoded, encoded[0] as number)

t.test('what was written is read again, at any length', async (t) => {
  const content = fc.uint8Array({ maxLength: 400 })
  holds(
    t,
    fc.property(fc.array(content, { maxLength: 5 }), (parts) => {
      const whole = der.sequence(...parts.map((part) => der.octets(part)))
      const read = childrenOf(readElement(whole, tags.sequence))
      return (
        read.length === parts.length && read.every((each, i) => each.content.equals(parts[i] as Uint8Array))
      )
    }),
  )
  const long = readElement(der.octets(Buffer.alloc(70_000, 1)), tags.octets)
  t.equal(long.content.length, 70_000)
  t.equal(long.whole.length, 70_005)
})

t.test('what is not DER is refused and never read beyond its end', async (t) => {
  for (const [hex, why] of [
    ['', 'it ends too early'],
    ['30', 'it ends too early'],
    ['30 01', 'it ends too early'],
    ['30 81', 'it ends too early'],
    ['30 82 01', 'it ends too early'],
    ['30 80 00 00', 'indefinite'],
    ['30 85 00 00 00 00 00', 'beyond measure'],
    ['30 84 ff ff ff ff', 'it ends too early'],
    ['30 81 01 00', 'not written as short'],
    ['30 82 00 81', 'not written as short'],
    ['30 00 00', 'bytes follow the end'],
    ['3f 81 00 00', 'a tag of several bytes'],
    ['04 00', 'stands in the place of'],
  ] as const)
    t.throws(() => readElement(bytes(hex), tags.sequence), { name: 'DerError', message: why }, hex)
  t.throws(
    () => childrenOf(element(bytes('30 03 04 02 00'))),
    DerError,
    'a child that is longer than its parent',
  )
})

t.test('a certificate with any byte changed is read or refused, and nothing else happens', async (t) => {
  const raw = authority('Root').x509.raw
  const walk = (each: Element): void => {
    if ((each.tag & 0x20) !== 0) for (const child of childrenOf(each)) walk(child)
    else if (each.tag === tags.oid) oidOf(each)
    else if (each.tag === tags.utcTime || each.tag === tags.generalizedTime) timeOf(each)
    else if (each.tag === tags.bits) bitsOf(each)
    else if (each.tag === tags.integer) integerOf(each)
  }
  walk(readElement(raw, tags.sequence))
  holds(
    t,
    fc.property(fc.nat(raw.length - 1), fc.nat(255), fc.nat(raw.length), (at, byte, cut) => {
      const damaged = Buffer.from(raw)
      damaged[at] = byte
      for (const each of [damaged, damaged.subarray(0, cut)]) {
        try {
          walk(readElement(each, tags.sequence))
        } catch (error) {
          if (!(error instanceof DerError)) throw error
        }
      }
    }),
    500,
  )
})

t.test('object identifiers', async (t) => {
  for (const id of ['2.5.29.17', '1.2.840.113549.1.1.11', '0.9.2342', '2.999.3', '1.3.6.1.4.1.311.20.2.3'])
    t.equal(oidOf(element(der.oid(id))), id)
  for (const hex of [
    '06 00',
    '06 01 80',
    '06 02 80 01',
    '06 02 2a 86',
    '06 09 ff ff ff ff ff ff ff ff 7f',
    '05 00',
  ])
    t.throws(() => oidOf(element(bytes(hex))), DerError, hex)
  t.throws(() => oidOf(undefined), DerError)
})

t.test('numbers and bit strings', async (t) => {
  t.equal(integerOf(element(der.integer(0x80))), '0080')
  t.equal(integerOf(element(der.integer('4fab'))), '4fab')
  t.throws(() => integerOf(element(bytes('02 00'))), DerError)
  t.same(bitsOf(element(der.bits(bytes('a0'), 5))), bytes('a0'))
  t.throws(() => bitsOf(element(bytes('03 00'))), DerError)
  t.throws(() => bitsOf(element(bytes('03 02 08 00'))), DerError)
  t.same(signatureOf(element(der.bits(bytes('a0')))), bytes('a0'))
  t.throws(() => signatureOf(element(der.bits(bytes('a0'), 1))), DerError, 'not of whole bytes')
  t.throws(() => signatureOf(undefined), DerError)
})

t.test('times, of both centuries and kinds', async (t) => {
  const utc = (text: string): number => timeOf(element(der.tlv(tags.utcTime, Buffer.from(text))))
  const general = (text: string): number => timeOf(element(der.tlv(tags.generalizedTime, Buffer.from(text))))
  t.equal(utc('261231235959Z'), Date.UTC(2026, 11, 31, 23, 59, 59))
  t.equal(utc('500101000000Z'), Date.UTC(1950, 0))
  t.equal(utc('491231000000Z'), Date.UTC(2049, 11, 31))
  t.equal(general('20500101000000Z'), Date.UTC(2050, 0))
  t.equal(general('99991231235959Z'), Date.UTC(9999, 11, 31, 23, 59, 59))
  t.equal(general('20280229000000Z'), Date.UTC(2028, 1, 29))
  for (const text of [
    '',
    '2612312359Z',
    '261231235959',
    '261231235959+0100',
    '261331235959Z',
    '261231245959Z',
  ])
    t.throws(() => utc(text), DerError, text)
  for (const text of [
    '20270229000000Z',
    '20260100000000Z',
    '20260101006000Z',
    '20260101000000.5Z',
    '261231235959Z',
  ])
    t.throws(() => general(text), DerError, text)
  t.throws(() => timeOf(undefined), DerError)
  holds(
    t,
    fc.property(
      fc.integer({ min: Date.UTC(1951, 0) / 1000, max: Date.UTC(9999, 0) / 1000 }),
      (seconds) => timeOf(element(der.time(seconds * 1000))) === seconds * 1000,
    ),
  )
})
