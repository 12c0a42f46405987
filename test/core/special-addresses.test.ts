import { isIP } from 'node:net'
import fc from 'fast-check'
import t from 'tap'
import { isPublicAddress } from '../../src/core/special-addresses.ts'
import { holds } from '../support/property.ts'

t.test('addresses of the public internet are public', async (t) => {
  for (const address of [
    '8.8.8.8',
    '1.1.1.1',
    '100.63.255.255',
    '172.32.0.1',
    '2606:4700:4700::1111',
    '2a00::1',
  ]) {
    t.ok(isPublicAddress(address), address)
  }
})

t.test('addresses of this machine, of private networks and for special purposes are not', async (t) => {
  const local = [
    '127.0.0.1',
    '127.9.9.9',
    '0.0.0.0',
    '::1',
    '::',
    'fe80::1',
    'fe80::1%eth0',
    '169.254.169.254',
  ]
  const own = [
    '10.0.0.1',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '100.64.0.1',
    'fd00::1',
    'fc00:ec2::254',
  ]
  const hidden = [
    '::ffff:10.0.0.1',
    '::ffff:8.8.8.8',
    '::ffff:a00:1',
    '64:ff9b::a00:1',
    '2002:a00:1::',
    '2001:0:1::1',
  ]
  const other = [
    '224.0.0.1',
    '255.255.255.255',
    '240.0.0.1',
    '192.0.2.1',
    '198.18.0.1',
    'ff02::1',
    '2001:db8::1',
  ]
  for (const address of [...local, ...own, ...hidden, ...other]) t.notOk(isPublicAddress(address), address)
})

t.test('what is no address is not a public one', async (t) => {
  for (const text of [
    '',
    'localhost',
    'example.com',
    '0x7f.1',
    '127.1',
    '2130706433',
    '[::1]',
    '8.8.8.8:80',
    ' 8.8.8.8',
  ]) {
    t.notOk(isPublicAddress(text), text)
  }
})

t.test('an IPv4 address inside an IPv6 one is never public', async (t) => {
  holds(
    t,
    fc.property(fc.ipV4(), fc.constantFrom('::ffff:', '64:ff9b::', '::'), (v4, prefix) => {
      return isIP(prefix + v4) === 6 && !isPublicAddress(prefix + v4)
    }),
  )
})
