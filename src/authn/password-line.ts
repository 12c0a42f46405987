import { hashPassword } from './password-hash.ts'
import { type PasswordInput, readPassword } from './password-prompt.ts'
import { namePattern } from './secret-lines.ts'

/**
 * A line of `auth.basic.passwordFile`, for a password that is read.
 *
 * @throws Error when the name is none, or as {@link readPassword} does
 */
export async function passwordLine(
  name: string,
  input: PasswordInput,
  prompt: (text: string) => unknown,
): Promise<string> {
  if (!namePattern.test(name)) throw new Error('a NAME is 1 to 64 letters, digits, dots, dashes, @ or _')
  return `${name}:${await hashPassword(await readPassword(input, prompt))}\n`
}
