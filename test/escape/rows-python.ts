/** The same from a server in Python, whose libraries make other system calls. */
import { join } from 'node:path'
import { type Attempt, inside, type Options, type Place } from './attempt.ts'

const options: Options = { profiles: ['python'], never: 'it was tried in C and JavaScript' }
const quoted = (text: string): string => JSON.stringify(text)

const python = (
  row: number,
  title: string,
  code: (place: Place) => string,
  held: string | readonly string[] = 'EACCES',
  more: Options = {},
): Attempt =>
  inside(
    row,
    `${title} with Python`,
    (place) => `${code(place)}\noutcome = globals().get("outcome", "ok")`,
    held,
    { ...options, ...more },
  )

const forbidden = ({ world }: Place): number => world.listeners.forbiddenPort

export const pythonRows: readonly Attempt[] = [
  python(1, 'reads a secret', ({ world }) => `open(${quoted(world.secret)}).read()`),
  python(1, 'lists a folder of secrets', ({ world }) => `import os\nos.listdir(${quoted(world.secrets)})`),
  python(2, 'appends in a read path', ({ world }) => `open(${quoted(join(world.shown, 'file'))}, "a")`),
  python(
    3,
    'reads through a symlink that it made',
    ({ world }) => `import os
path = ${quoted(join(world.data, 'python-link'))}
os.path.lexists(path) and os.unlink(path)
os.symlink(${quoted(world.secret)}, path)
open(path).read()`,
  ),
  python(
    6,
    'reads through /proc/self/root',
    ({ world }) => `open("/proc/self/root" + ${quoted(world.secret)}).read()`,
  ),
  python(
    13,
    'reads in a child',
    ({ world }) => `import os
reader, writer = os.pipe()
if os.fork() == 0:
    try: open(${quoted(world.secret)}).read(); os.write(writer, b"ok")
    except OSError as error: os.write(writer, b"EACCES" if error.errno == 13 else b"other")
    os._exit(0)
os.wait()
outcome = os.read(reader, 16).decode()`,
  ),
  python(
    14,
    'reads in a thread',
    ({ world }) => `import threading
seen = []
def read():
    try: open(${quoted(world.secret)}).read(); seen.append("ok")
    except PermissionError: seen.append("EACCES")
thread = threading.Thread(target=read); thread.start(); thread.join()
outcome = seen[0]`,
  ),
  python(25, 'signals the sidecar', ({ pids }) => `import os, signal\nos.kill(${pids.sidecar}, 0)`, 'EPERM'),
  python(25, 'signals the victim', ({ pids }) => `import os\nos.kill(${pids.victim}, 10)`, 'EPERM', {
    seen: true,
  }),
  python(
    29,
    'slows the victim',
    ({ pids }) => `import os\nos.setpriority(os.PRIO_PROCESS, ${pids.victim}, 7)`,
    'EPERM',
  ),
  python(
    42,
    'connects to a socket by its path',
    ({ victim }) => `import socket\nsocket.socket(socket.AF_UNIX).connect(${quoted(victim.path)})`,
    'EACCES',
    { seen: true },
  ),
  python(
    43,
    'connects to a port of this machine',
    (p) => `import socket\nsocket.create_connection(("127.0.0.1", ${forbidden(p)}), timeout=5)`,
    ['EACCES', 'ECONNREFUSED'],
    { seen: true },
  ),
  python(
    43,
    'connects to it with asyncio',
    (p) =>
      `import asyncio\nasyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", ${forbidden(p)}), 5))`,
    ['EACCES', 'ECONNREFUSED', 'ECONNRESET'],
    { seen: true },
  ),
  python(46, 'opens UDP', () => `import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)`),
  python(46, 'opens a raw socket', () => `import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)`, [
    'EACCES',
    'EPERM',
  ]),
  python(48, 'listens', () => `import socket\nsocket.create_server(("127.0.0.1", 0))`),
  python(
    48,
    'starts a server with multiprocessing',
    () => `from multiprocessing.connection import Listener\nListener(("127.0.0.1", 0))`,
  ),
  python(
    57,
    'fetches a name that leads to loopback',
    ({ world }) =>
      `import socket\nsocket.create_connection(("loop.test", ${world.listeners.tcpPort}), timeout=5).recv(1)`,
    ['EACCES', 'ECONNREFUSED', 'ECONNRESET'],
  ),
  python(
    59,
    'connects to a name that is not allowed',
    ({ world }) => `import socket
try: socket.create_connection(("other.test", ${world.listeners.tcpPort}), timeout=5)
except socket.gaierror: outcome = "no such name"`,
    'no such name',
  ),
  python(
    77,
    'makes a datagram pair',
    () => `import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)`,
  ),
  python(
    72,
    'finds secrets of the sidecar in its environment',
    () => `import os\noutcome = "ok" if any("canary" in value for value in os.environ.values()) else "none"`,
    'none',
  ),
]
