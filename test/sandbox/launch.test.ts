import t from 'tap'
import type { EgressChild } from '../../src/core/sandbox.ts'
import { Credential } from '../../src/core/secret.ts'
import { unenforced } from '../../src/sandbox/report.ts'
import { Sandbox } from '../../src/sandbox/sandbox.ts'
import { profile } from '../support/profiles.ts'

t.test('a start that cannot be put into words leaves no stay at the proxy', async (t) => {
  let open = 0
  const admit = (): EgressChild => {
    open++
    const close = (): void => {
      open--
    }
    return { address: '127.0.0.1:1', token: new Credential('x'), proxyUrl: new Credential('http://x'), close }
  }
  const filesystem = { scope: 'granted', read: [], write: [], proc: 'self' } as const
  const network = { mode: 'allowlist', hosts: [], cidrs: [], ports: [], checkSni: false } as const
  const sandbox = (name: string): Sandbox => {
    const options = {
      profile: profile({ name, filesystem, network }),
      launcher: '/launcher',
      hidden: [],
      admit,
    }
    const rest = { graceMs: 1, requireContainerSeccomp: false, onReport: () => {} }
    return new Sandbox({ ...options, ...rest }, undefined, unenforced(undefined))
  }
  const started = sandbox('p').launch(['server'], {})
  t.equal(open, 1)
  started.ended()
  t.throws(() => sandbox('p\0q').launch(['server'], {}), /NUL/)
  t.equal(open, 0)
})
