import type { Failure } from '../errors.ts';

/** One line on stderr that says what went wrong. */
export function complain({ code, message, retriable }: Failure): void {
  process.stderr.write(`taskchart: ${code}: ${message}${retriable ? ' (trying again may help)' : ''}\n`);
}
