/** Bytes that no client would send: the proxy answers or closes, and lives. */
import fc from 'fast-check'
import t from 'tap'
import type { EgressChild } from '../../src/core/sandbox.ts'
import { until } from '../support/launcher.ts'
import {
  allow,
  basic,
  connectHead,
  echo,
  startEgress,
  startTcp,
  statusOf,
  type TestEgress,
  toLoopback,
  Wire,
} from './support.ts'

const piece = (token: string, port: number): fc.Arbitrary<Buffer> =>
  fc.oneof(
    fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
    fc
      .constantFrom(
        ...[
          'GET ',
          'CONNECT ',
          'POST ',
          'http://',
          `127.0.0.1:${port}`,
          `http://127.0.0.1:${port}/`,
          'dns:53',
          ' HTTP/1.1',
          '\r\n',
        ],
        ...[
          '\r\n\r\n',
          '\n',
          '\r',
          'Host: a',
          'Content-Length: 5',
          'Transfer-Encoding: chunked',
          '0\r\n\r\n',
          '5\r\nhello\r\n',
        ],
        ...[
          `Proxy-Authorization: ${token}`,
          'Mcp-Sidecar-Broker: early',
          '\x05\x01\x02',
          '\x01\x05child',
          '\x05\x01\x00\x01',
          '\x16\x03\x01',
        ],
        ...[':', ' ', '\0', '\xff', 'x'.repeat(300)],
      )
      .map((text) => Buffer.from(text, 'latin1')),
  )

/** Sends it, in one or many pieces, ends, and waits until the proxy has ended, too. */
async function survives({ egress }: TestEgress, pieces: readonly Buffer[], apart: boolean): Promise<string> {
  const wire = new Wire(egress.port)
  for (const each of pieces) {
    wire.write(each)
    if (apart) await new Promise((resolve) => setImmediate(resolve))
  }
  wire.socket.end()
  await wire.end()
  wire.close()
  return wire.text
}

async function setup(): Promise<{
  proxy: TestEgress
  child: EgressChild
  port: number
  dialled: () => number
}> {
  let dialled = 0
  const port = await startTcp(t, (socket) => {
    dialled++
    echo(socket)
  })
  const proxy = await startEgress(t)
  const child = proxy.egress.admit(allow({ cidrs: toLoopback, ports: [port] }), { name: 'p' })
  return { proxy, child, port, dialled: () => dialled }
}

t.test('random bytes and pieces of requests', async (t) => {
  const { proxy, child, port } = await setup()
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece(basic(child), port), { minLength: 1, maxLength: 12 }),
      fc.boolean(),
      async (pieces, apart) => {
        const text = await survives(proxy, pieces, apart)
        return text === '' || text.startsWith('HTTP/1.1 ') || text.startsWith('\x05')
      },
    ),
    { numRuns: 400 },
  )
  t.equal(await statusOf(proxy, child, `127.0.0.1:${port}`), 200, 'it still serves')
  t.same(proxy.warnings, [])
})

t.test('good requests with a few bytes changed', async (t) => {
  const { proxy, child, port } = await setup()
  const token = child.token.reveal()
  const requests = [
    connectHead(child, `127.0.0.1:${port}`),
    connectHead(child, `127.0.0.1:${port}`, 'early'),
    `GET http://127.0.0.1:${port}/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: ${basic(child)}\r\n\r\n`,
    `POST http://127.0.0.1:${port}/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: ${basic(child)}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
    `\x05\x01\x02\x01\x05child${String.fromCharCode(token.length)}${token}\x05\x01\x00\x01\x7f\x00\x00\x01${String.fromCharCode(port >> 8, port & 255)}`,
    `${connectHead(child, 'dns:53')}\0\x1d\0\0\x01\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01`,
  ].map((text) => Buffer.from(text, 'latin1'))
  const change = fc.record({
    at: fc.nat(),
    byte: fc.nat(255),
    kind: fc.constantFrom('set', 'cut', 'drop', 'add'),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...requests),
      fc.array(change, { minLength: 1, maxLength: 4 }),
      fc.boolean(),
      async (request, changes, apart) => {
        let bytes: number[] = [...request]
        for (const { at, byte, kind } of changes) {
          const i = at % (bytes.length + 1)
          if (kind === 'set') bytes[i] = byte
          else if (kind === 'cut') bytes = bytes.slice(0, i)
          else if (kind === 'drop') bytes.splice(i, 1)
          else bytes.splice(i, 0, byte)
        }
        await survives(proxy, [Buffer.from(bytes)], apart)
        return true
      },
    ),
    { numRuns: 400 },
  )
  t.equal(await statusOf(proxy, child, `127.0.0.1:${port}`), 200, 'it still serves')
  t.ok(
    proxy.verdicts.every(
      ({ allowed, host, port: at, protocol }) =>
        !allowed || protocol === 'dns' || (host === '127.0.0.1' && at === port),
    ),
    'and nothing but the one target was let through',
  )
  t.same(proxy.warnings, [])
})

t.test('without a token, nothing is ever dialled', async (t) => {
  const { proxy, port, dialled } = await setup()
  await fc.assert(
    fc.asyncProperty(
      fc.array(piece('Basic Y2hpbGQ6', port), { minLength: 1, maxLength: 12 }),
      async (pieces) => {
        await survives(
          proxy,
          [Buffer.from(`CONNECT 127.0.0.1:${port} HTTP/1.1\r\nHost: a\r\n`), ...pieces],
          false,
        )
        return dialled() === 0
      },
    ),
    { numRuns: 200 },
  )
  t.ok(proxy.verdicts.every(({ allowed }) => !allowed))
})

t.test('connections that come and go leave nothing behind', async (t) => {
  const { readdirSync } = await import('node:fs')
  const { proxy, child, port } = await setup()
  const descriptors = (): number => (process.platform === 'linux' ? readdirSync('/proc/self/fd').length : 0)
  const round = async (): Promise<void> => {
    await Promise.all(
      Array.from({ length: 50 }, async (_, i) => {
        const wire = new Wire(proxy.egress.port).write(
          connectHead(child, i % 5 === 0 ? '127.0.0.2:1' : `127.0.0.1:${port}`),
        )
        await wire.status()
        if (i % 2 === 0) wire.socket.resetAndDestroy()
        else wire.socket.end()
        await wire.end()
        wire.close()
      }),
    )
  }
  await round()
  const settled = async (): Promise<number> => {
    let count = descriptors()
    for (let same = 0; same < 3; ) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      const now = descriptors()
      same = now === count ? same + 1 : 0
      count = now
    }
    return count
  }
  const before = await settled()
  for (let i = 0; i < 10; i++) await round()
  await until(() => descriptors() <= before + 5, `no more descriptors than the ${before} before`)
  t.pass('500 connections left none behind')
})
