/** What a password is read from: a terminal, or a pipe. */
export interface PasswordInput extends AsyncIterable<Buffer | string> {
  readonly isTTY?: boolean | undefined
  setRawMode?(raw: boolean): unknown
}

const maxLength = 4096

/**
 * Reads a password: without showing it from a terminal, to the end of the input from anything else, where one line break
 * at the end is not part of it. It is never an argument: those are visible to every user of the machine.
 *
 * @throws Error when it was given up (Ctrl-C), or is too long to be one
 */
export async function readPassword(input: PasswordInput, prompt: (text: string) => unknown): Promise<string> {
  if (input.isTTY !== true) {
    let text = ''
    for await (const piece of input) {
      text += piece.toString()
      if (text.length > maxLength) throw new Error(`a password has at most ${maxLength} characters`)
    }
    return text.replace(/\r?\n$/, '')
  }
  prompt('Password: ')
  input.setRawMode?.(true)
  let text = ''
  try {
    for await (const piece of input) {
      for (const key of piece.toString()) {
        if (key === '\r' || key === '\n' || key === '\u0004') return text
        if (key === '\u0003') throw new Error('given up')
        if (key === '\u007f' || key === '\b') text = [...text].slice(0, -1).join('')
        else text += key
      }
      if (text.length > maxLength) throw new Error(`a password has at most ${maxLength} characters`)
    }
    return text
  } finally {
    input.setRawMode?.(false)
    prompt('\n')
  }
}
