/** Who may be asked. */
import { lookup } from 'node:dns/promises'
import { isIP, type LookupFunction } from 'node:net'
import { isLoopback } from '../core/net.ts'
import type { Fetching } from '../core/policy.ts'
import { isPublicAddress } from '../core/special-addresses.ts'
import { messageOf, type TokenDeps } from './token-method.ts'

export interface Destinations {
  /** Why a URL must not be asked, as far as it says so itself; undefined when nothing is wrong with it. */
  faultOf(url: string): string | undefined
  /** For `net.connect`: the addresses of a name, when all of them may be asked with this protocol (`https:`). */
  lookup(protocol: string): LookupFunction
}

/**
 * https anywhere, or http to this machine where allowed; public addresses, or any where allowed. A name is resolved
 * once, by whoever dials: what is checked is what is dialled, and no second answer can differ (DNS rebinding).
 *
 * @param resolve all addresses of a name; default: as the system has it
 */
export function createDestinations(
  { allowPrivate, allowHttp }: Pick<Fetching, 'allowPrivate' | 'allowHttp'>,
  resolve: NonNullable<TokenDeps['resolve']> = (name) => lookup(name, { all: true }),
): Destinations {
  const faultOfAddress = (address: string, protocol: string): string | undefined => {
    if (protocol === 'http:' && !isLoopback(address)) {
      return `plain http is for this machine alone, and ${address} is not on it`
    }
    if (allowPrivate || isPublicAddress(address)) return undefined
    return `${address} is not a public address, and private ones are not allowed (allowPrivateAddresses)`
  }
  return {
    faultOf: (text) => {
      if (!URL.canParse(text)) return 'it is not a URL'
      const { protocol, hostname, username, password } = new URL(text)
      if (protocol !== 'https:' && !(protocol === 'http:' && allowHttp)) return 'it must be https'
      if (username !== '' || password !== '') return 'it has credentials in it'
      const host = hostname.replace(/^\[(.*)\]$/, '$1')
      if (protocol === 'http:' && !isLoopback(host))
        return 'it must be https: plain http is for this machine alone'
      const address = host === 'localhost' ? '127.0.0.1' : host
      return isIP(address) === 0 ? undefined : faultOfAddress(address, protocol)
    },
    lookup: (protocol) => (name, options, done) => {
      const fail = (why: string): void => done(new Error(why), '', 0)
      resolve(name).then(
        (found) => {
          const fault = found.map(({ address }) => faultOfAddress(address, protocol)).find((each) => each)
          const [first] = found
          if (fault !== undefined) fail(fault)
          else if (first === undefined) fail('its name has no address')
          else if (options.all === true) done(null, found)
          else done(null, first.address, first.family)
        },
        (cause: unknown) => fail(`its name cannot be resolved: ${messageOf(cause)}`),
      )
    },
  }
}
