import { unobtainable } from '../models/failures.ts';
import { CommandError, runCommand } from './run-command.ts';
import type { PreparedEngine } from './step.ts';
import type { Toolbox } from './toolbox.ts';

/** The program, as it is named on PATH and in archives. */
export const LLAMA_SERVER = 'llama-server';

/** What a llama-server says of itself, in one line. @throws CommandError where it does not run */
export async function versionOf(program: string, tools: Toolbox, signal: AbortSignal): Promise<string> {
  let said = '';
  await runCommand([program, '--version'], {
    env: tools.env,
    signal,
    line: (line) => (said = /^version: *(.+)$/.exec(line)?.[1] ?? said),
  });
  return said === '' ? 'unknown' : said;
}

/** One that somebody else has installed. @throws TaskchartError where it does not run; the signal's reason */
export async function installedServer(
  mode: 'binary' | 'package',
  program: string,
  tools: Toolbox,
  signal: AbortSignal,
): Promise<PreparedEngine> {
  try {
    return { mode, program, version: await versionOf(program, tools, signal) };
  } catch (error) {
    if (error instanceof CommandError)
      throw unobtainable(`${program} does not tell its version: ${error.message}`);
    throw error;
  }
}
