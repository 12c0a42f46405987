/**
 * What of arguments and results may stand in the audit log: the JSON text without the values of members whose names
 * speak of secrets, and without what looks like a credential wherever it stands. It errs towards hiding; it cannot know
 * a secret that neither its name nor its shape gives away.
 */
import { hidden, type Redacted, redactedJson } from './redact-json.ts'

/** A name that holds one of these, whatever its letter case and separators: `githubToken`, `DB_PASSWORD`. */
const parts = [
  'password|passwd|passphrase|passcode|secret|token|authorization|credential|cookie|apikey|accesskey|privatekey',
  'signingkey|encryptionkey|sharedkey|bearer|jwt|jwk|sessionid|signature|assertion|codeverifier|connectionstring',
  'requeststate',
]
/** Too short to be looked for inside of names. */
const names = ['pwd', 'pass', 'auth', 'sig', 'pin', 'otp', 'totp', 'mfa', 'cvc', 'cvv', 'dsn', 'sid']

const partPattern = new RegExp(parts.join('|'))

/** @param more further names, compared without regard to letter case and separators */
export function sensitiveNames(more: readonly string[]): (name: string) => boolean {
  const whole = new Set([...names, ...more.map(plainName)])
  return (name) => {
    const plain = plainName(name)
    return whole.has(plain) || partPattern.test(plain)
  }
}

/** Compatibility forms count as the letters they look like; what is left of a name without any is itself. */
function plainName(name: string): string {
  const folded = name.normalize('NFKC').toLowerCase()
  return folded.replace(/[^\p{L}\p{N}]/gu, '') || folded
}

type Shape = readonly [RegExp, string]

/** Each takes time proportional to the text. */
const unmistakable: readonly Shape[] = [
  // A JWT or JWE, or the beginning of one: base64url of `{"`.
  [/(?<![\w-])eyJ[\w-]{8,}(?:\.[\w-]*){0,4}/g, hidden],
  [/-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----(?:(?!-----END )[\s\S])*/g, hidden],
  // Keys that say themselves what they are: GitHub, GitLab, Slack, AWS, Google, OpenAI and its kin.
  [/(?<![\w-])(?:gh[oprsu]_|github_pat_|glpat-|xox[a-z]-|AKIA|ASIA|AIza|sk-|npm_)[\w-]{10,}/g, hidden],
  // The password of a URL (RFC 3986 section 3.2.1).
  [/(:\/\/[^\s/?#:@"']{0,256}:)[^\s/?#@"']{1,1024}@/g, `$1${hidden}@`],
]

/** What looks like an Authorization header, and now and then is an ordinary sentence. */
const schemes: readonly Shape[] = [
  [/\b(bearer|dpop|negotiate)\s{1,8}[\w.~+/=-]+/gi, `$1 ${hidden}`],
  [/\b(basic)\s{1,8}[A-Za-z0-9+/]{8,}={0,2}/gi, `$1 ${hidden}`],
]

const pair = /(?<![\w.-])([\w.-]{2,64})\\*["']?\s{0,8}[:=]\s{0,8}/g
const quote = /\\*["']/y
const inQuery = /[^\s"'&,;<>]*/y
const inLine = /[^\r\n]*/y

export interface Redactor {
  /** True for the name of a member whose value is not shown. */
  hides(name: string): boolean
  /** A text that is no JSON itself (a URI), without what looks like a credential. */
  mask(text: string): string
  /** The same for our own sentences, which speak of tokens and hold none: only what cannot be anything else. */
  maskShapes(text: string): string
  /**
   * One JSON value as JSON text again, of at most `maxBytes` bytes of UTF-8. What is no JSON is not shown at all.
   * Looks at no more than four times `maxBytes` and 4 KiB.
   */
  json(bytes: Buffer, maxBytes: number): Redacted
}

/** @param more names of members, beside the built-in ones */
export function redactor(more: readonly string[]): Redactor {
  const hides = sensitiveNames(more)

  function mask(text: string): string {
    return maskPairs(replaced(maskShapes(text), schemes))
  }

  /** `name=value` and `name: value`, as in query strings, headers, settings and JSON inside of strings. */
  function maskPairs(text: string): string {
    let result = ''
    let at = 0
    pair.lastIndex = 0
    for (let found = pair.exec(text); found !== null; found = pair.exec(text)) {
      if (!hides(found[1] as string)) continue
      const start = found.index + found[0].length
      const end = valueEnd(text, start, found[0].includes('='))
      if (end > start) result += text.slice(at, start) + hidden
      else result += text.slice(at, start)
      at = end
      pair.lastIndex = end
    }
    return result + text.slice(at)
  }

  return {
    hides,
    mask,
    maskShapes,
    json(bytes, maxBytes) {
      return redactedJson(bytes, maxBytes, { hides, mask })
    },
  }
}

function maskShapes(text: string): string {
  return replaced(text, unmistakable)
}

function replaced(text: string, shapes: readonly Shape[]): string {
  let result = text
  for (const [shape, instead] of shapes) result = result.replace(shape, instead)
  return result
}

function valueEnd(text: string, start: number, assigned: boolean): number {
  quote.lastIndex = start
  const opening = quote.exec(text)?.[0]
  if (opening !== undefined) {
    return closingQuote(text, start + opening.length, opening) + 1
  }
  const value = assigned ? inQuery : inLine
  value.lastIndex = start
  value.exec(text)
  return value.lastIndex
}

/**
 * The quote that ends what the opening one began: one with as many backslashes before it, which those inside of the value
 * have not; the end of the text where there is none. Text that ends in a backslash runs on to the next: too much is hidden.
 */
function closingQuote(text: string, start: number, opening: string): number {
  const mark = opening.at(-1) as string
  for (let at = text.indexOf(mark, start); at >= 0; at = text.indexOf(mark, at + 1)) {
    let first = at
    while (first > start && text[first - 1] === '\\') first--
    if (at - first === opening.length - 1) return at
  }
  return text.length - 1
}
