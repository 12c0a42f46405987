import { isUtf8 } from 'node:buffer'
import fc from 'fast-check'
import t from 'tap'
import { maxDepth, Names, ScanError, Scanner } from '../../src/core/scan.ts'
import { cpuMs } from '../support/cost.ts'
import { damaged, holds, jsonText, objectText, shown, stringText } from '../support/property.ts'

/** Whether the scanner takes the text; what is no ScanError is a bug and is thrown on. */
function accepts(bytes: Buffer, start?: number, end?: number): boolean {
  const scanner = new Scanner(bytes, start, end)
  try {
    scanner.skip()
    scanner.finish()
    return true
  } catch (thrown) {
    if (thrown instanceof ScanError) return false
    throw thrown
  }
}

function parses(bytes: Buffer): boolean {
  if (!isUtf8(bytes)) return false
  try {
    JSON.parse(bytes.toString())
    return true
  } catch {
    return false
  }
}

/** The text's value, found with the scanner alone but for scalars; a repeated key counts the last time. */
function build(scanner: Scanner): unknown {
  switch (scanner.peek()) {
    case 0x7b: {
      const entries = new Map<string, unknown>()
      scanner.object((key) => entries.set(key, build(scanner)))
      return Object.fromEntries(entries)
    }
    case 0x5b: {
      const elements: unknown[] = []
      scanner.array(() => elements.push(build(scanner)))
      return elements
    }
  }
  const { start, end } = scanner.span()
  return JSON.parse(scanner.bytes.toString('utf8', start, end))
}

t.test('it accepts every JSON text, whatever its white space and spellings', async (t) => {
  holds(
    t,
    fc.property(jsonText, (text) => accepts(Buffer.from(text))),
    1000,
  )
  holds(
    t,
    fc.property(fc.json(), (text) => accepts(Buffer.from(text))),
    300,
  )
})

t.test('of damaged texts it accepts those that JSON.parse accepts, and no others', async (t) => {
  holds(
    t,
    fc.property(damaged(jsonText), (bytes) => {
      fc.pre(isUtf8(bytes))
      return accepts(bytes) === parses(bytes)
    }),
    3000,
  )
})

t.test('of short texts over the alphabet of JSON it accepts those that JSON.parse accepts', async (t) => {
  const alphabet = [
    ...'{}[],:"\\/ue01-+.Eatrlsn \t',
    '\n',
    '\r',
    '\0',
    '\f',
    '\v',
    '\u00a0',
    '\ufeff',
    '\u2028',
  ]
  const piece = fc.constantFrom(...alphabet, 'true', 'null', 'false', '"a":', '\\u00', '1e', '""')
  holds(
    t,
    fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
      const bytes = Buffer.from(pieces.join(''))
      return accepts(bytes) === parses(bytes)
    }),
    5000,
  )
})

t.test('every prefix of a text is judged as JSON.parse judges it', async (t) => {
  const text = Buffer.from(
    ' {"a\\u00e9":[1.5e+3,-0,"\u{1f600}\\\\\\"",true,false,null],"":{"x":[]},"b":[{}]} ',
  )
  for (let end = 0; end <= text.length; end++) {
    const prefix = text.subarray(0, end)
    t.equal(accepts(prefix), parses(prefix), shown(prefix.toString()))
  }
})

t.test('what JSON does not know is refused', async (t) => {
  const texts = [
    ...[
      '',
      ' ',
      '\ufeff1',
      '1 2',
      '[1,]',
      '[,1]',
      '[',
      ']',
      '{',
      '}',
      '{"a":1,}',
      '{,"a":1}',
      '{"a"}',
      '{"a":}',
    ],
    ...[
      "{'a':1}",
      '{a:1}',
      '{1:1}',
      '{"a" 1}',
      '[1 2]',
      '{"a":1 "b":2}',
      '// c\n1',
      '/* c */ 1',
      '[1}',
      '{"a":1]',
    ],
    ...[
      '01',
      '-01',
      '00',
      '.5',
      '5.',
      '5.e1',
      '1e',
      '1e+',
      '+1',
      '-',
      '--1',
      '0x10',
      '1_0',
      'NaN',
      'Infinity',
    ],
    ...[
      'tru',
      'truee',
      'True',
      'nul',
      'undefined',
      '"',
      '"a',
      '"\\',
      '"\\x41"',
      '"\\u12"',
      '"\\u123g"',
      '"\\U0041"',
    ],
    ...['"a\nb"', '"a\tb"', '"\0"', '"\u001f"', '1\0', '\f1', '\u00a01', '1\u2028', '"a""b"', '[]]', '{}{}'],
  ]
  for (const text of texts) {
    t.notOk(accepts(Buffer.from(text)), shown(text))
    t.notOk(parses(Buffer.from(text)), `JSON.parse refuses ${shown(text)} too`)
  }
})

t.test('the members and elements it walks are those that JSON.parse finds', async (t) => {
  holds(
    t,
    fc.property(jsonText, (text) => {
      const scanner = new Scanner(Buffer.from(text))
      const value = build(scanner)
      scanner.finish()
      // The same order and the same -0 on both sides; __proto__ is a key like the others on both sides, too.
      return fc.stringify(value) === fc.stringify(JSON.parse(text))
    }),
    1000,
  )
})

t.test('a key in an escaped spelling is the same key', async (t) => {
  const keys: string[] = []
  const scanner = new Scanner(
    Buffer.from('{"m\\u0065thod":1,"\\u006D\\u0065thod":2,"a\\/b":3,"\\ud83d\\ude00":4}'),
  )
  scanner.object((key) => {
    keys.push(key)
    scanner.skip()
  })
  t.same(keys, ['method', 'method', 'a/b', '\u{1f600}'])
})

t.test('names that are looked for are found, and change nothing about the others', async (t) => {
  const names = new Names('method', 'id', 'params', '', '\u00e9')
  const key = fc.oneof(
    fc.constantFrom(
      '"method"',
      '"id"',
      '"metho\\u0064"',
      '"Method"',
      '"methods"',
      '"ids"',
      '"di"',
      '""',
      '"\u00e9"',
    ),
    stringText,
  )
  const members = fc.array(fc.record({ key, value: jsonText }), { maxLength: 6 })
  holds(
    t,
    fc.property(members.chain(objectText), (text) => {
      const keys = (known?: Names): string[] => {
        const found: string[] = []
        const scanner = new Scanner(Buffer.from(text))
        scanner.object((key) => {
          found.push(key)
          scanner.skip()
        }, known)
        scanner.finish()
        return found
      }
      return fc.stringify(keys(names)) === fc.stringify(keys())
    }),
    500,
  )
})

t.test('a span is the value without the white space around it', async (t) => {
  holds(
    t,
    fc.property(jsonText, (text) => {
      const bytes = Buffer.from(`[0, ${text} \n]`)
      const scanner = new Scanner(bytes)
      const spans: string[] = []
      scanner.array(() => {
        const { start, end } = scanner.span()
        spans.push(bytes.toString('utf8', start, end))
      })
      scanner.finish()
      return spans[1] === text.replace(/^[ \t\r\n]+|[ \t\r\n]+$/g, '')
    }),
  )
})

t.test('a part of a buffer is judged as if nothing stood around it', async (t) => {
  const around = fc.constantFrom('', '"', '\\"', '1', 'e5', 'e', ' ', ']', '}', ',1', ':1}', '34"', '\n')
  holds(
    t,
    fc.property(around, damaged(jsonText), around, (before, bytes, after) => {
      fc.pre(isUtf8(bytes))
      const whole = Buffer.concat([Buffer.from(before), bytes, Buffer.from(after)])
      const start = Buffer.byteLength(before)
      return accepts(whole, start, start + bytes.length) === accepts(bytes)
    }),
    2000,
  )
  for (const [inside, after] of [
    ['tru', 'e'],
    ['"\\u12', '34"'],
    ['"\\', '""'],
    ['"a', '"'],
    ['[1', ']'],
    ['{"a":1', '}'],
    ['-', '1'],
    ['1e', '5'],
    ['1.', '5'],
    ['', '1'],
  ] as const) {
    t.notOk(accepts(Buffer.from(inside + after), 0, inside.length), `${inside} before ${after}`)
  }
  t.ok(accepts(Buffer.from('12'), 0, 1))
  t.ok(accepts(Buffer.from('1 x'), 0, 2))
})

t.test(`nesting of ${maxDepth} levels is accepted and one more is refused, in every mixture`, async (t) => {
  const level = fc.constantFrom(['[', ']'], ['{"a":', '}'], ['[1,', ',"]"]'], ['{"b":2,"a":', ',"c":null}'])
  holds(
    t,
    fc.property(
      fc.array(level, { minLength: maxDepth, maxLength: maxDepth }),
      fc.constantFrom('1', '"["', 'null'),
      (levels, leaf) => {
        const nested = (around: typeof levels): Buffer =>
          Buffer.from(
            around.map(([open]) => open).join('') +
              leaf +
              around
                .toReversed()
                .map(([, close]) => close)
                .join(''),
          )
        return (
          accepts(nested(levels)) &&
          !accepts(nested([...levels, ['[', ']']])) &&
          !accepts(nested([['{"a":', '}'], ...levels]))
        )
      },
    ),
    30,
  )
  t.ok(accepts(Buffer.from('['.repeat(maxDepth) + ']'.repeat(maxDepth))))
  t.notOk(accepts(Buffer.from('['.repeat(maxDepth + 1) + ']'.repeat(maxDepth + 1))))
  t.notOk(accepts(Buffer.from('['.repeat(1_000_000))), 'a million brackets do not exhaust the stack')
})

t.test('levels that were left do not count', async (t) => {
  t.ok(accepts(Buffer.from(`[${'[[]],'.repeat(10_000)}{}]`)))
  const deep = '['.repeat(200) + ']'.repeat(200)
  const scanner = new Scanner(Buffer.from(`{"a":${deep},"b":${deep}}`))
  scanner.object(() => scanner.skip())
  scanner.finish()
  t.ok(accepts(Buffer.from(`{"a":${deep},"b":[${deep},${deep}]}`)))
})

t.test('nesting counts from the outermost value, walked or skipped', async (t) => {
  const walk = (levels: number): void => {
    const scanner = new Scanner(Buffer.from(`{"a":[${'['.repeat(levels)}${']'.repeat(levels)}]}`))
    scanner.object(() => scanner.array(() => scanner.skip()))
    scanner.finish()
  }
  walk(maxDepth - 2)
  t.throws(() => walk(maxDepth - 1), ScanError)
})

t.test('two scanners at once do not disturb each other', async (t) => {
  const text = Buffer.from('{"a":[{"b":[1,{"c":[]}]},2],"d":{"e":{}}}')
  const outer = new Scanner(text)
  let walked = 0
  outer.object(() => {
    walked++
    t.ok(accepts(Buffer.from('[[[[{"x":[[[1]]]}]]]]')))
    outer.skip()
    t.notOk(accepts(Buffer.from('{"x":[}')))
  })
  outer.finish()
  t.equal(walked, 2)
})

t.test('a refusal says what was expected, and where', async (t) => {
  const refusal = (text: string): ScanError => {
    const scanner = new Scanner(Buffer.from(text))
    try {
      scanner.skip()
      scanner.finish()
    } catch (thrown) {
      return thrown as ScanError
    }
    throw new Error('it was accepted')
  }
  const table: [string, number, string][] = [
    ['[1 2]', 3, "expected ',' or ']' at byte 3"],
    ['{"a":1 2}', 7, "expected ',' or '}' at byte 7"],
    ['{"a" 1}', 5, "expected ':' at byte 5"],
    ['{1:2}', 1, 'expected a string at byte 1'],
    ['1 x', 2, 'expected the end of the text at byte 2'],
    ['"\u00e9\n"', 3, 'expected no control character in a string at byte 3'],
    ['"\\q"', 1, 'expected an escape at byte 1'],
    ['"\\u00g0"', 5, 'expected four hex digits at byte 5'],
    ['"abc', 4, 'expected the end of a string at byte 4'],
    ['1.x', 2, 'expected a digit at byte 2'],
    ['  @', 2, 'expected a value at byte 2'],
  ]
  for (const [text, at, message] of table) t.match(refusal(text), { name: 'ScanError', at, message })
  const scanner = new Scanner(Buffer.from('1'))
  t.throws(() => scanner.object(() => {}), { message: 'expected an object at byte 0' })
  t.throws(() => scanner.array(() => {}), { message: 'expected an array at byte 0' })
})

t.test('the time grows with the length, not faster, whatever fills the text', async (t) => {
  const fillings: Record<string, (bytes: number) => string> = {
    'one string': (n) => `"${'x'.repeat(n)}"`,
    escapes: (n) => `"${'\\n'.repeat(n / 2)}"`,
    'white space': (n) => `${' '.repeat(n)}1`,
    'a number': (n) => '1'.repeat(n),
    'small elements': (n) => `[${'1,'.repeat(n / 2)}1]`,
    'small objects': (n) => `[${'{"a":1},'.repeat(n / 8)}1]`,
  }
  for (const [name, fill] of Object.entries(fillings)) {
    const small = Buffer.from(fill(2 ** 17))
    const large = Buffer.from(fill(2 ** 21))
    const time = (bytes: Buffer): number => cpuMs(() => accepts(bytes))
    time(small)
    const ratio = time(large) / time(small)
    t.ok(ratio < 80, `${name}: 16 times the length took ${ratio.toFixed(1)} times as long`)
  }
})
