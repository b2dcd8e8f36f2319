import { loadConfig, type Config, type PoolConfig } from '../config.ts';
import { programEnvironment } from '../config/program-environment.ts';
import { systemClock } from '../clock.ts';
import { engineRequestOf } from '../engine-settings.ts';
import { TaskchartError } from '../errors.ts';
import { Engines, type EngineRequest } from '../provisioning/engines.ts';
import type { EngineProgress } from '../provisioning/step.ts';
import { complain } from './complain.ts';
import { printSteps } from './print-steps.ts';

export interface EngineOptions {
  config?: string;
}

export interface BuildOptions extends EngineOptions {
  pool?: string;
  dryRun?: true;
}

/**
 * Brings the engines of a configuration here; without one that needs any, builds the llama.cpp of this package.
 * @returns the exit code: 1 where an engine cannot be had
 */
export function buildEngines({ config: file, pool: pool_id, dryRun }: BuildOptions): Promise<number> {
  return guarded(async () => {
    const config = configOf(file);
    const engines = enginesOf(config);
    for (const { name, request } of requestsOf(config, pool_id)) {
      if (dryRun) {
        process.stdout.write(`${name}:\n`);
        printSteps(engines.plan(request));
        continue;
      }
      const stop = new AbortController();
      const giveUp = (): void => stop.abort(new Error('given up'));
      process.once('SIGINT', giveUp);
      process.once('SIGTERM', giveUp);
      const tell = progressPrinter(name);
      try {
        const prepared = await engines.ensure(request, stop.signal, tell);
        process.stdout.write(
          prepared.mode === 'container'
            ? `${name}: ${prepared.image}\n`
            : `${name}: ${prepared.program} (${prepared.version})\n`,
        );
      } finally {
        process.off('SIGINT', giveUp);
        process.off('SIGTERM', giveUp);
      }
    }
  });
}

/** Lists what was built or downloaded. */
export function listEngines({ config: file }: EngineOptions): Promise<number> {
  return guarded(async () => {
    const config = configOf(file);
    for (const folder of foldersOf(config))
      for (const { id, engine, version, created_ms, build_flags } of await enginesOf(config).list(folder)) {
        const when = new Date(created_ms).toISOString().replace(/\.\d+/, '');
        process.stdout.write(`${id}  ${engine}  ${version}  ${when}  ${build_flags.join(' ')}\n`);
      }
  });
}

/** Removes what was built or downloaded. @returns the exit code: 1 where there is no such engine, or its files are left */
export function removeEngine(id: string, { config: file }: EngineOptions): Promise<number> {
  return guarded(async () => {
    const config = configOf(file);
    for (const folder of foldersOf(config)) {
      const removed = await enginesOf(config).remove(folder, id);
      if (!removed) continue;
      if (removed.problem !== undefined)
        throw new Error(`engine ${id} is forgotten, but its files could not be removed: ${removed.problem}`);
      return void process.stdout.write(
        `${id} is removed (${removed.entry.engine} ${removed.entry.version})\n`,
      );
    }
    throw new Error(`there is no engine ${id}; taskchart engine list shows those that there are`);
  });
}

function configOf(file: string | undefined): Config {
  return loadConfig({ file, env: process.env });
}

function enginesOf({ policy }: Config): Engines {
  return new Engines({ policy, env: programEnvironment(process.env), clock: systemClock });
}

function requestsOf(config: Config, pool_id: string | undefined): { name: string; request: EngineRequest }[] {
  const pools = config.pools.filter(({ id }) => pool_id === undefined || id === pool_id);
  if (pools.length === 0)
    throw new Error(`--pool: there is no pool "${pool_id ?? ''}"; there are ${poolNames(config.pools)}`);
  const requests = pools.flatMap((pool) => {
    const request = engineRequestOf(pool);
    return request === undefined ? [] : [{ name: `pool ${pool.id}`, request }];
  });
  if (requests.length > 0 || pool_id !== undefined) return requests;
  const { cache_dir } = config.engines;
  const build = { cmake_flags: [], cache_dir };
  return [{ name: 'llama-server', request: { mode: 'source', submodules: false, build, for_gpu: false } }];
}

function poolNames(pools: readonly PoolConfig[]): string {
  return pools.map(({ id }) => id).join(', ');
}

function foldersOf({ engines, pools }: Config): Set<string> {
  const own = pools.flatMap((pool) => {
    if (pool.engine !== 'llamacpp') return [];
    const { source, binary } = pool.provisioning;
    return [source?.build.cache_dir, binary?.install_dir].filter((folder) => folder !== undefined);
  });
  return new Set([engines.cache_dir, ...own]);
}

/** One line that changes where somebody looks on, else a line for each step. */
function progressPrinter(name: string): (progress: EngineProgress) => void {
  const isTerminal = process.stderr.isTTY;
  let phase: string | undefined;
  return ({ phase: now, fraction, note }) => {
    const text = `${name}: ${now}${fraction === undefined ? '' : ` ${Math.floor(100 * fraction)} %`}`;
    if (isTerminal) process.stderr.write(`\r\x1b[K${text}${now === 'prepared' ? '\n' : ''}`);
    else if (now !== phase) process.stderr.write(`${name}: ${now}\n`);
    if (note !== undefined) process.stderr.write(`${isTerminal ? '\n' : ''}taskchart: ${note}\n`);
    phase = now;
  };
}

async function guarded(work: () => Promise<void>): Promise<number> {
  try {
    await work();
    return 0;
  } catch (error) {
    if (!(error instanceof TaskchartError)) throw error;
    complain(error.failure);
    return 1;
  }
}
