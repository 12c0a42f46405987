import t from 'tap'
import { type Certificate, readCertificate } from '../../src/authn/certificate.ts'
import { type Trust, verifyChain } from '../../src/authn/certificate-chain.ts'
import { revocationListsOf } from '../../src/authn/revocation.ts'
import * as der from '../support/der.ts'
import { authority, type CertificateOptions, extension, type Issued, selfSigned } from '../support/pki.ts'

const now = Date.now()
const day = 86_400_000
const root = authority('Root')
const middle = root.subordinate('Middle')

const of = (...issued: readonly Issued[]): Certificate[] => issued.map(({ x509 }) => readCertificate(x509))
const trusting = (...issued: readonly Issued[]): Trust => ({ anchors: of(...issued), revocations: undefined })

interface Case {
  readonly trust?: Trust
  readonly thorough?: boolean
  readonly now?: number
}

/** The names from the client's certificate to the anchor, or why there is no such path. */
function path(leaf: Issued, given: readonly Issued[] = [], options: Case = {}): string {
  const { trust = trusting(root), thorough = true } = options
  try {
    const found = verifyChain(of(leaf)[0] as Certificate, of(...given), trust, {
      now: options.now ?? now,
      thorough,
    })
    return [...found.certificates, found.anchor]
      .map(({ x509 }) => x509.subject.replace('CN=', ''))
      .join(' < ')
  } catch (error) {
    if ((error as Error).name !== 'ChainError') throw error
    return (error as Error).message
  }
}

t.test(
  'a certificate leads to a trust anchor, directly or through authorities that came along',
  async (t) => {
    const below = middle.subordinate('Below')
    t.equal(path(root.issue({ cn: 'a' })), 'a < Root')
    t.equal(path(middle.issue({ cn: 'a' }), [middle]), 'a < Middle < Root')
    t.equal(
      path(below.issue({ cn: 'a' }), [root, middle, below]),
      'a < Below < Middle < Root',
      'in any order',
    )
    t.equal(
      path(below.issue({ cn: 'a' }), [below], { trust: trusting(middle) }),
      'a < Below < Middle',
      'the anchor is no root',
    )
    for (const keyType of ['rsa', 'ed25519'] as const) {
      const other = authority('Other', { keyType })
      t.equal(path(other.issue({ cn: 'a', keyType }), [], { trust: trusting(other) }), 'a < Other', keyType)
    }
  },
)

t.test('what leads nowhere is refused', async (t) => {
  const nowhere = /^UNABLE_TO_GET_ISSUER_CERT_LOCALLY: CN=a leads to none of the authorities/
  t.match(path(authority('Other').issue({ cn: 'a' })), nowhere)
  t.match(path(authority('Root').issue({ cn: 'a' })), nowhere, 'an authority of the same name')
  t.match(path(middle.issue({ cn: 'a' })), nowhere, 'the authority between is missing')
  const other = authority('Other')
  t.match(path(other.issue({ cn: 'a' }), [other]), nowhere, 'an authority that came along is not trusted')
  t.match(path(selfSigned({ cn: 'a' })), /^DEPTH_ZERO_SELF_SIGNED_CERT: CN=a/)
  t.match(path(root.issue({ cn: 'a' }), [], { trust: trusting() }), nowhere)
})

t.test('a client cannot issue certificates, whatever its own says of names', async (t) => {
  const alice = root.issue({ cn: 'alice' })
  const forged = authority('alice')
  t.match(path(forged.issue({ cn: 'admin' }), [alice, forged]), /^UNABLE_TO_GET_ISSUER_CERT_LOCALLY/)
  for (const options of [
    { ca: false, keyUsage: 0x84 },
    { ca: false, keyUsage: 0x84, usage: 'both' },
  ] as const) {
    const noAuthority = root.subordinate('No authority', options)
    t.match(
      path(noAuthority.issue({ cn: 'admin' }), [noAuthority]),
      /^INVALID_CA: CN=No authority may not issue/,
    )
  }
})

t.test('times of every certificate of the path count', async (t) => {
  t.match(path(root.issue({ cn: 'a', notAfter: now - 1000 })), /^CERT_HAS_EXPIRED: CN=a, at 20/)
  t.match(path(root.issue({ cn: 'a', notBefore: now + day })), /^CERT_NOT_YET_VALID: CN=a, before 20/)
  const old = root.subordinate('Old', { notAfter: now - 1000 })
  t.match(path(old.issue({ cn: 'a' }), [old]), /^CERT_HAS_EXPIRED: CN=Old/)
  const ended = authority('Ended', { notAfter: now - 1000 })
  t.match(path(ended.issue({ cn: 'a' }), [], { trust: trusting(ended) }), /^CERT_HAS_EXPIRED: CN=Ended/)
  t.equal(path(root.issue({ cn: 'a', notAfter: now - 1000 }), [], { now: now - day / 2 }), 'a < Root')
})

t.test('another way up is taken when one is closed', async (t) => {
  const expired = root.subordinate('Middle', { notAfter: now - 1000 })
  const alice = middle.issue({ cn: 'a' })
  t.equal(path(alice, [expired, middle]), 'a < Middle < Root')
})

t.test('an authority has its limits: constraints, key usage, path length, purpose', async (t) => {
  const only = root.subordinate('Only', { keyUsage: 0x02 })
  t.match(
    path(only.issue({ cn: 'a' }), [only]),
    /^(INVALID_CA|UNABLE_TO_GET_ISSUER)/,
    'it may sign lists alone',
  )
  const last = root.subordinate('Last', { pathLength: 0 })
  const beyond = last.subordinate('Beyond')
  t.equal(path(last.issue({ cn: 'a' }), [last]), 'a < Last < Root')
  t.match(path(beyond.issue({ cn: 'a' }), [beyond, last]), /^PATH_LENGTH_EXCEEDED: CN=Last allows 0/)
  const short = authority('Short', { pathLength: 0 })
  const under = short.subordinate('Under')
  t.match(
    path(under.issue({ cn: 'a' }), [under], { trust: trusting(short) }),
    /^PATH_LENGTH_EXCEEDED: CN=Short/,
  )
  const web = root.subordinate('Web', { usage: 'server' })
  t.match(path(web.issue({ cn: 'a' }), [web]), /^INVALID_PURPOSE: CN=Web is not for clients/)
})

t.test('the certificate is one of a client', async (t) => {
  t.match(path(root.issue({ cn: 'a', usage: 'server' })), /^INVALID_PURPOSE: CN=a is not for clients/)
  t.equal(path(root.issue({ cn: 'a', usage: 'both' })), 'a < Root')
  t.equal(path(root.issue({ cn: 'a', usage: 'none' })), 'a < Root', 'not restricted')
  t.match(path(root.issue({ cn: 'a', keyUsage: 0x20 })), /^INVALID_PURPOSE: its key is not for signatures/)
  t.match(path(middle), /^INVALID_PURPOSE: it is the certificate of an authority/)
  t.match(path(root), /^INVALID_PURPOSE: it is the certificate of an authority/)
})

t.test('revoked at any height is refused; so is what no valid list covers', async (t) => {
  const alice = middle.issue({ cn: 'a' })
  const look = (...lists: readonly string[]): string =>
    path(alice, [middle], { trust: { ...trusting(root), revocations: revocationListsOf(lists.join('')) } })
  t.equal(look(root.revocationList(), middle.revocationList()), 'a < Middle < Root')
  t.match(
    look(root.revocationList(), middle.revocationList({ revoked: [alice] })),
    /^CERT_REVOKED: CN=a, serial number/,
  )
  t.match(
    look(root.revocationList({ revoked: [middle] }), middle.revocationList()),
    /^CERT_REVOKED: CN=Middle/,
  )
  t.match(look(root.revocationList()), /^UNABLE_TO_GET_CRL: crlFile has no revocation list of CN=Middle/)
  t.match(look(middle.revocationList()), /^UNABLE_TO_GET_CRL: crlFile has no revocation list of CN=Root/)
  t.match(look(), /^UNABLE_TO_GET_CRL/)
  const forged = authority('Middle').revocationList()
  t.match(look(root.revocationList(), forged), /^UNABLE_TO_GET_CRL/, 'signed by another key')
  const old = middle.revocationList({ nextUpdate: now - 1000 })
  t.match(
    look(root.revocationList(), old),
    /^CRL_HAS_EXPIRED: the revocation list of CN=Middle is not valid now/,
  )
  t.match(look(root.revocationList(), middle.revocationList({ thisUpdate: now + day })), /^CRL_HAS_EXPIRED/)
  t.equal(
    look(root.revocationList(), old, middle.revocationList()),
    'a < Middle < Root',
    'an older list beside it',
  )
  const oldWithEntry = middle.revocationList({ nextUpdate: now - 1000, revoked: [alice] })
  t.match(
    look(root.revocationList(), oldWithEntry, middle.revocationList()),
    /^CERT_REVOKED/,
    'nobody is readmitted',
  )
})

t.test('a result holds until the path ends, or a list has to be looked at anew', async (t) => {
  const at = (ms: number): number => Math.floor((now + ms) / 1000) * 1000
  const short = root.subordinate('Short', { notAfter: at(20_000) })
  const leaf = of(short.issue({ notAfter: at(30_000) }))[0] as Certificate
  const lists = revocationListsOf(root.revocationList() + short.revocationList({ nextUpdate: at(10_000) }))
  const verify = (trust: Trust): object => verifyChain(leaf, of(short), trust, { now, thorough: true })
  t.match(verify(trusting(root)), { notAfter: at(20_000), until: at(20_000) })
  t.match(verify({ ...trusting(root), revocations: lists }), { notAfter: at(20_000), until: at(10_000) })
})

t.test('where nobody else has looked, what is not evaluated here is refused', async (t) => {
  const odd = extension('1.2.3.4', der.nothing(), true)
  const constraints = extension('2.5.29.30', der.sequence())
  const constrained = root.subordinate('Constrained', { extensions: [constraints] })
  const cases: [string, Issued, Issued[], RegExp][] = [
    [
      'an unknown critical extension',
      root.issue({ cn: 'a', extensions: [odd] }),
      [],
      /^UNHANDLED_CRITICAL_EXTENSION: CN=a has 1\.2\.3\.4/,
    ],
    [
      'name constraints',
      constrained.issue({ cn: 'a' }),
      [constrained],
      /^UNHANDLED_CRITICAL_EXTENSION: CN=Constrained has 2\.5\.29\.30/,
    ],
  ]
  for (const [name, leaf, given, why] of cases) {
    t.match(path(leaf, given), why, name)
    t.match(path(leaf, given, { thorough: false }), /^a < /, `${name}, where OpenSSL has looked`)
  }
  const harmless = extension('1.2.3.4', der.nothing())
  t.equal(path(root.issue({ cn: 'a', extensions: [harmless] })), 'a < Root')
  const rsa = authority('Rsa', { keyType: 'rsa' })
  const weak: CertificateOptions = { cn: 'a', digest: 'sha1' }
  t.match(
    path(rsa.issue(weak), [], { trust: trusting(rsa) }),
    /^CA_MD_TOO_WEAK: CN=a is signed with 1\.2\.840\.113549\.1\.1\.5/,
  )
  t.match(
    path(root.issue({ cn: 'a', keyType: 'rsa-1024' })),
    /^EE_KEY_TOO_SMALL: CN=a has an RSA key of fewer/,
  )
  const anchor = authority('Anchor', { extensions: [constraints] })
  const below = anchor.issue({ cn: 'a' })
  t.match(path(below, [], { trust: trusting(anchor) }), /^UNHANDLED_CRITICAL_EXTENSION: CN=Anchor/)
  t.equal(path(below, [], { trust: trusting(anchor), thorough: false }), 'a < Anchor')
})

t.test('however certificates are interwoven, only so many signatures are verified', async (t) => {
  const deep = [root]
  for (let i = 0; i < 8; i++) deep.push((deep.at(-1) as typeof root).subordinate(`A${i}`))
  const last = deep.at(-1) as typeof root
  t.match(path(last.issue({ cn: 'a' }), deep.slice(1)), /^UNABLE_TO_GET_ISSUER/, 'too long')
  t.match(path((deep[6] as typeof root).issue({ cn: 'a' }), deep.slice(1)), /< Root$/, 'as long as may be')
  // Thirty of one name, none of which has signed it.
  const options = { keyIdentifiers: false }
  const crowd = Array.from({ length: 30 }, () => authority('Crowd', options))
  t.match(path(authority('Crowd').issue({ cn: 'a', ...options }), crowd), /^CERT_CHAIN_TOO_LONG/)
  t.match(
    path(authority('Crowd').issue({ cn: 'a', ...options }), crowd.slice(0, 20)),
    /^UNABLE_TO_GET_ISSUER/,
  )
})
