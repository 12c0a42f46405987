/** A stand-in for the base image of the Dockerfile, made of Debian packages and of node and npm from npm. */
import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { arch } from 'node:process'
import { fileURLToPath } from 'node:url'
import { must, mustPodman, podman, scratch } from './podman.mjs'

const name = 'localhost/node:24-bookworm-slim'

/** @returns {Promise<string>} the image's name, made if there is none or if this file has changed since */
export async function baseImage() {
  const recipe = createHash('sha256')
    .update(readFileSync(fileURLToPath(import.meta.url)))
    .digest('hex')
  const existing = await podman(['image', 'inspect', '--format', '{{index .Labels "recipe"}}', name])
  if (existing.code === 0 && existing.stdout.trim() === recipe) return name

  console.log('# making the base image')
  const directory = mkdtempSync(join(scratch, 'base-'))
  try {
    const root = join(directory, 'root')
    await debian(root)
    await node(root, directory)
    const changes = [
      'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      `LABEL recipe=${recipe}`,
    ]
    const archive = join(directory, 'root.tar')
    await must('tar', ['-C', root, '-cf', archive, '.'], { timeoutMs: 120_000 })
    await mustPodman(['import', ...changes.flatMap((change) => ['--change', change]), archive, name], {
      timeoutMs: 300_000,
    })
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  return name
}

async function debian(root) {
  const args = ['--variant=minbase', '--include=ca-certificates', 'bookworm', root, await debianMirror()]
  await must('debootstrap', args, { timeoutMs: 600_000 })
  for (const cache of ['var/cache/apt', 'var/lib/apt/lists'])
    rmSync(join(root, cache), { recursive: true, force: true })
}

/** The mirror this machine installs its own packages from. */
async function debianMirror() {
  if (process.env.DEBIAN_MIRROR) return process.env.DEBIAN_MIRROR
  const codename = /^VERSION_CODENAME=(.*)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  const sources = await must('apt-get', ['indextargets', '--format', '$(CODENAME) $(COMPONENT) $(REPO_URI)'])
  const line = sources.split('\n').find((source) => source.startsWith(`${codename} main `))
  if (!line) throw new Error('apt names no mirror for the main part of Debian; set DEBIAN_MIRROR')
  return line.split(' ')[2]
}

async function node(root, directory) {
  const prefix = join(directory, 'npm')
  const binary = `node-linux-${arch}`
  const flags = ['--no-save', '--no-package-lock', '--ignore-scripts', '--prefix', prefix]
  await must('npm', ['install', ...flags, `${binary}@24`, 'npm@11'], { cwd: directory, timeoutMs: 300_000 })

  const local = join(root, 'usr/local')
  const modules = join(local, 'lib/node_modules')
  mkdirSync(modules, { recursive: true })
  cpSync(join(prefix, 'node_modules', binary, 'bin/node'), join(local, 'bin/node'))
  cpSync(join(prefix, 'node_modules/npm'), join(modules, 'npm'), { recursive: true })
  for (const program of ['npm', 'npx']) {
    symlinkSync(`../lib/node_modules/npm/bin/${program}-cli.js`, join(local, 'bin', program))
  }

  // npm in the image reaches the registry this machine uses, and trusts what this machine trusts: a build machine
  // may sit behind a proxy with a certificate of its own.
  const settings = [`registry=${await must('npm', ['config', 'get', 'registry'])}`]
  const certificates = '/etc/ssl/certs/ca-certificates.crt'
  if (existsSync(certificates)) {
    cpSync(certificates, join(local, 'etc/host-certificates.crt'))
    settings.push('cafile=/usr/local/etc/host-certificates.crt')
  }
  writeFileSync(join(local, 'etc/npmrc'), `${settings.join('\n')}\n`)
  // The umask of this process must not decide whether another user in the image can run node.
  await must('chmod', ['-R', 'go+rX', local])
}
