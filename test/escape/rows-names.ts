/** Rows 53, 54, 57, 80, 82: names, and the addresses that stand for them. */
import { type Attempt, inside, type Options, type Place, steps } from './attempt.ts'
import { lookedUp } from './world.ts'

const onlyBehind: Options = { never: 'the proxy and the names are those of the sidecar' }
const quoted = (text: string): string => JSON.stringify(text)

export const nameRows: readonly Attempt[] = [
  steps(53, 'has a name that is not allowed looked up', lookupForbidden, 'not asked', onlyBehind),
  steps(53, 'has an allowed name looked up without connecting', lookupAllowed, 'not asked', onlyBehind),
  inside(
    54,
    'sends much by a name below a wildcard',
    () =>
      `const { code } = await probe.lookup(Array(6).fill('x'.repeat(60)).join('.') + '.wild.test'); return code === 0 ? 'ok' : 'refused'`,
    ['refused', 'closed'],
    onlyBehind,
  ),
  inside(
    54,
    'sends a little by a name below a wildcard, which is what the profile allows',
    () =>
      `const { code } = await probe.lookup('a1b2c3.wild.test'); return code === 0 ? 'resolves' : 'refused'`,
    'resolves',
    onlyBehind,
  ),
  steps(57, 'reaches two addresses by one name that changes', rebinding, '200 403 403 403', {
    ...onlyBehind,
    seen: true,
  }),
  steps(57, 'reaches the forbidden one of two addresses', mixedAddresses, 'the allowed one', {
    ...onlyBehind,
    seen: true,
  }),
  steps(
    80,
    'uses an address that a sibling was given for a name',
    siblingAddress,
    ['EACCES', 'ECONNREFUSED'],
    onlyBehind,
  ),
  steps(
    80,
    'uses a made-up address of the range for names',
    ({ session, world }) =>
      session
        .attempt(80, ['connect', '198.18.77.77', world.listeners.tcpPort])
        .then(({ outcome }) => outcome),
    ['EACCES', 'ECONNREFUSED'],
    onlyBehind,
  ),
  ...['0x00fc', '0x0010', '0x000f', '0x00ff', '0x001c'].map((type) =>
    inside(
      82,
      `asks the stub for type ${type}`,
      () =>
        `const answer = await probe.lookup('allowed.test', ${type}); return answer === 'closed' || answer.answers === 0 ? 'empty' : 'ok'`,
      'empty',
      onlyBehind,
    ),
  ),
  inside(
    82,
    'asks the stub many questions at once',
    () =>
      `const answer = await probe.lookup('allowed.test', 1, 40); return answer === 'closed' || answer.code !== 0 ? 'refused' : 'ok'`,
    'refused',
    onlyBehind,
  ),
  inside(
    82,
    'sends the stub a loop of pointers',
    () =>
      `const answer = await probe.ask(Buffer.from('123401000001000000000000c00cc00c00010001', 'hex')); return answer === 'closed' || answer.code !== 0 ? 'refused' : 'ok'`,
    'refused',
    onlyBehind,
  ),
  inside(
    82,
    'sends the stub less than it announces',
    () =>
      `const answer = await probe.ask(Buffer.alloc(10), 65535); return answer === 'closed' ? 'refused' : 'ok'`,
    'refused',
    onlyBehind,
  ),
  inside(
    82,
    'sends the stub as much as there can be',
    () =>
      `const answer = await probe.ask(Buffer.alloc(65535, 0x3f)); return answer === 'closed' || answer.code !== 0 ? 'refused' : 'ok'`,
    'refused',
    onlyBehind,
  ),
  inside(
    82,
    'asks the stub after all that',
    () =>
      `const { code, addresses } = await probe.lookup('allowed.test'); return code === 0 && addresses[0].startsWith('198.1') ? 'it lives' : 'dead'`,
    'it lives',
    onlyBehind,
  ),
]

async function lookupForbidden({ session, world }: Place): Promise<string> {
  const name = `secret-data-${world.uid}.other.test`
  const { value } = await session.eval(`return (await probe.lookup(${quoted(name)})).code`)
  const NXDOMAIN = 3
  await session.eval(
    `return new Promise((resolve) => require('dns').lookup(${quoted(`x-${name}`)}, (error) => resolve(error?.code)))`,
  )
  const leaked = lookedUp(world).filter((each) => each.includes('secret-data'))
  if (leaked.length > 0) return `asked for ${leaked.join(', ')}`
  return value === NXDOMAIN ? 'not asked' : `answer ${value}`
}

async function lookupAllowed({ session, world }: Place): Promise<string> {
  const { value } = await session.eval(`return (await probe.lookup('quiet.test')).addresses[0]`)
  if (!/^198\.1[89]\./.test(String(value))) return `answer ${value}`
  return lookedUp(world).includes('quiet.test') ? 'asked' : 'not asked'
}

async function rebinding({ session, world }: Place): Promise<string> {
  const statuses: string[] = []
  for (let i = 0; i < 4; i++) {
    statuses.push(await session.outcome(`return probe.tunnel('rebind.test:${world.listeners.tcpPort}')`))
  }
  return statuses.join(' ')
}

async function mixedAddresses({ session, world }: Place): Promise<string> {
  const said = await session.outcome(`return probe.through('mixed.test:${world.listeners.tcpPort}', '')`)
  return said.trim() === 'allowed' ? 'the allowed one' : said
}

async function siblingAddress({ session, sidecar, world }: Place): Promise<string> {
  if (sidecar === undefined) return 'no sidecar'
  const sibling = await sidecar.open()
  try {
    // So many that no address of them is one of this server's own.
    const { value } = await sibling.eval(
      `const all = []; for (let i = 0; i < 100; i++) all.push((await probe.lookup('s' + i + '.wild.test')).addresses[0]); return all.at(-1)`,
    )
    return (await session.attempt(80, ['connect', String(value), world.listeners.tcpPort])).outcome
  } finally {
    await sibling.close()
  }
}
