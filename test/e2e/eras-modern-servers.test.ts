/** Clients of the modern era in front of further legacy servers as they are published. */
import { mkdir, mkdtemp, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Test, test } from 'tap'
import { getDefaultEnvironment, play, type Route } from '../support/clients.ts'
import { about, comparable, watching } from '../support/either-era.ts'
import { official } from '../support/everything.ts'
import { startTestSidecar } from '../support/sidecar.ts'
import { Recorder } from '../support/transcript.ts'

const environment = getDefaultEnvironment()
const direct: Route = { sdk: 'v2', over: 'stdio' }
const pinned: Route = { sdk: 'v2', over: 'Streamable HTTP', pinned: true }
const pinnedSocket: Route = { sdk: 'v2', over: 'WebSocket', pinned: true }

async function folder(t: Test): Promise<string> {
  const path = await mkdtemp(join(await realpath(tmpdir()), 'eras-'))
  t.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

test('a modern client does with server-filesystem what it does over stdio', async (t) => {
  const base = await folder(t)
  const command = official('server-filesystem', base)
  const sidecar = await startTestSidecar(t, { command, env: environment, flags: { webSocket: true } })
  const run = async (route: Route, name: string) => {
    const dir = join(base, name)
    await mkdir(dir)
    return play(
      route,
      { command, base: sidecar.base },
      async (peer) => {
        const recorder = new Recorder(peer, { [dir]: '<folder>' })
        const at = (...parts: string[]): string => join(dir, ...parts)
        const calls: readonly [string, object][] = [
          ['list_allowed_directories', {}],
          ['create_directory', { path: at('a') }],
          ['write_file', { path: at('a', 'text.txt'), content: 'first\n"second" \u2028 é 日本 🙂\nthird\n' }],
          ['read_text_file', { path: at('a', 'text.txt'), head: 2 }],
          ['read_file', { path: at('a', 'text.txt') }],
          ['read_media_file', { path: at('a', 'text.txt') }],
          ['read_multiple_files', { paths: [at('a', 'text.txt'), at('missing')] }],
          ['edit_file', { path: at('a', 'text.txt'), edits: [{ oldText: 'third', newText: 'fourth' }] }],
          ['list_directory', { path: at('a') }],
          ['list_directory_with_sizes', { path: at('a') }],
          ['directory_tree', { path: dir }],
          ['search_files', { path: dir, pattern: '**/*.txt' }],
          ['move_file', { source: at('a', 'text.txt'), destination: at('moved.txt') }],
          ['get_file_info', { path: at('moved.txt') }],
        ]
        await recorder.step('server', () => peer.server)
        const listed = await recorder.step('tools/list', () => peer.listTools())
        for (const [tool, args] of calls) await recorder.step(tool, () => peer.call(tool, args))
        await recorder.step('outside', () => peer.call('read_text_file', { path: '/etc/hostname' }))
        await recorder.step('a tool that does not exist', () => peer.call('format_disk'))
        await recorder.step('arguments that do not fit', () => peer.call('read_text_file', { path: 7 }))
        const called = new Set(calls.map(([tool]) => tool))
        t.strictSame(
          listed?.tools.map(({ name }) => name).filter((name) => !called.has(name)),
          [],
        )
        return comparable(recorder.transcript())
      },
      { roots: false },
    )
  }
  const expected = await run(direct, 'over-stdio')
  t.strictSame(await run(pinned, 'over-http'), expected)
  t.strictSame(await run(pinnedSocket, 'over-a-socket'), expected)
})

test('a modern client does with server-memory what it does over stdio', async (t) => {
  const base = await folder(t)
  const command = official('server-memory')
  const fileOf = (name: string) => ({ MEMORY_FILE_PATH: join(base, name) })
  const sidecar = await startTestSidecar(t, {
    command,
    env: environment,
    flags: { webSocket: true },
    config: { server: { envSet: fileOf('bridged') } },
  })
  const graph = 'memory://knowledge-graph'
  const run = (route: Route) => {
    const target = { command, env: { ...environment, ...fileOf('direct') }, base: sidecar.base }
    return play(route, target, async (peer) => {
      const recorder = new Recorder(peer)
      const step = recorder.step.bind(recorder)
      const entities = [
        { name: 'Ada', entityType: 'person', observations: ['wrote "notes"\n', 'é 日本 🙂'] },
        { name: 'Engine', entityType: 'machine', observations: [] },
      ]
      const relations = [{ from: 'Ada', to: 'Engine', relationType: 'describes' }]
      const changes: readonly [string, object][] = [
        ['create_entities', { entities }],
        ['create_relations', { relations }],
        ['add_observations', { observations: [{ entityName: 'Engine', contents: ['unfinished'] }] }],
        ['delete_observations', { deletions: [{ entityName: 'Engine', observations: ['unfinished'] }] }],
        ['delete_relations', { relations }],
      ]
      const looks: readonly [string, object][] = [
        ['read_graph', {}],
        ['search_nodes', { query: 'ADA' }],
        ['open_nodes', { names: ['Ada', 'Engine'] }],
      ]
      await step('server', () => peer.server)
      const listed = await step('tools/list', () => peer.listTools())
      await step('resources/list', () => peer.listResources())
      await watching(peer, { uris: [graph] }, async () => {
        for (const [at, [tool, args]] of changes.entries()) {
          await step(tool, () => peer.call(tool, args))
          await peer.wire.until(`an update after ${tool}`, about('notifications/resources/updated'), at + 1)
          await step(`read after ${tool}`, () => peer.readResource(graph))
        }
      })
      for (const [tool, args] of looks) await step(tool, () => peer.call(tool, args))
      await step('read what does not exist', () => peer.readResource('memory://nothing'))
      // The file is as empty as it was.
      await step('delete_entities', () => peer.call('delete_entities', { entityNames: ['Ada', 'Engine'] }))
      const called = new Set([...changes, ...looks, ['delete_entities'] as const].map(([tool]) => tool))
      t.strictSame(
        listed?.tools.map(({ name }) => name).filter((name) => !called.has(name)),
        [],
      )
      return comparable(recorder.transcript())
    })
  }
  const expected = await run(direct)
  t.strictSame(await run(pinned), expected)
  t.strictSame(await run(pinnedSocket), expected)
})
