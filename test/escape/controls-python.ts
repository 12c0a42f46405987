/** What works of it for a server in Python. */
import { join } from 'node:path'
import { type Control, control, evaluated } from './controls.ts'

const quoted = (text: string): string => JSON.stringify(text)

export const pythonControls: readonly Control[] = [
  control(
    'reads in a read path',
    evaluated(({ world }) => `outcome = open(${quoted(join(world.shown, 'file'))}).read().strip()`),
    'shown',
    ['python'],
  ),
  control(
    'fetches by name through TLS',
    evaluated(
      ({ world }) => `import urllib.request, ssl
context = ssl.create_default_context(cafile=${quoted(world.ca)})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
outcome = opener.open("https://allowed.test:${world.listeners.tlsPort}/", timeout=10).read().decode()`,
    ),
    'over TLS',
    ['python'],
  ),
  control(
    'fetches through the proxy of its variables',
    evaluated(
      ({ world }) => `import urllib.request
outcome = urllib.request.urlopen("https://allowed.test:${world.listeners.tlsPort}/", timeout=10).read().decode()`,
    ),
    'over TLS',
    ['python'],
  ),
  control(
    'opens raw TCP by name',
    evaluated(
      ({ world }) => `import socket
with socket.create_connection(("allowed.test", ${world.listeners.tcpPort}), timeout=10) as s: outcome = s.recv(64).decode().strip()`,
    ),
    'allowed',
    ['python'],
  ),
  control(
    'opens TCP with asyncio',
    evaluated(
      ({ world }) => `import asyncio
async def main():
    reader, writer = await asyncio.open_connection("allowed.test", ${world.listeners.tcpPort})
    text = (await reader.read(64)).decode().strip()
    writer.close()
    return text
outcome = asyncio.run(main())`,
    ),
    'allowed',
    ['python'],
  ),
  control(
    'runs subprocesses and threads',
    evaluated(
      () => `import subprocess, threading
seen = []
thread = threading.Thread(target=lambda: seen.append(subprocess.check_output(["/bin/echo", "fine"]).decode().strip()))
thread.start(); thread.join()
outcome = seen[0]`,
    ),
    'fine',
    ['python'],
  ),
  control(
    'forks',
    evaluated(
      () => `import os
pid = os.fork()
if pid == 0: os._exit(7)
outcome = str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))`,
    ),
    '7',
    ['python'],
  ),
]
