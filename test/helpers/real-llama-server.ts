import { homedir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/clock.ts';
import { programEnvironment } from '../../src/config/program-environment.ts';
import { Engines } from '../../src/provisioning/engines.ts';

/** What programs get in these tests: what a daemon would give them. */
export const PROGRAM_ENV = programEnvironment(process.env);

/**
 * The path of a real llama-server, from the folder that `taskchart engine build` fills; what is not there is built,
 * which takes minutes. Where it cannot be built, whoever asks fails and is told what is missing.
 */
export async function realLlamaServer(): Promise<string> {
  const policy = { offline: true, allowlist: [] };
  const engines = new Engines({ policy, env: PROGRAM_ENV, clock: systemClock });
  const cache_dir = join(homedir(), '.cache', 'taskchart', 'engines');
  const prepared = await engines.ensure(
    { mode: 'source', submodules: false, build: { cmake_flags: [], cache_dir }, for_gpu: false },
    new AbortController().signal,
  );
  if (prepared.mode === 'container') throw new Error('a build is no container');
  return prepared.program;
}
