import type { Logger } from 'pino';
import { loadConfig, parseBindAddr, type Config } from '../config.ts';
import { readHub } from '../config/hub.ts';
import { programEnvironment } from '../config/program-environment.ts';
import { orchestrate } from '../embed.ts';
import { createLogger } from '../observe/logger.ts';
import { fingerprint } from '../observe/redact.ts';
import { startServer } from '../server.ts';
import { StoreError } from '../sqlite/store-error.ts';
import { openStorage, type Storage } from '../storage.ts';

export interface ServeOptions {
  config?: string;
  host?: string;
  port?: number;
  dataDir?: string;
  dryRun?: true;
}

/**
 * Runs the daemon until a signal ends it: the first drains, a second one stops at once.
 * @throws ConfigError; StoreError where its files cannot be had; Error where the address cannot be had
 */
export async function serve(options: ServeOptions): Promise<void> {
  const config = configOf(options);
  if (options.dryRun) return (await import('./print-plan.ts')).printPlan(config);
  const hub = readHub(process.env);
  // Before anything starts: a signal in the first milliseconds drains like any other.
  const signaled = firstSignal();
  const { logger, flush } = await createLogger(config.log);
  const storage = config.store.kind === 'memory' ? {} : await openFolder(config, logger);
  const orchestrator = orchestrate(config, { ...storage, hub, program_env: programEnvironment(process.env) });
  try {
    const server = await startServer(orchestrator, logger);
    logger.info({
      actor: 'daemon',
      action: 'listen',
      target: server.url,
      url: server.url,
      ...callersOf(config),
      human: `taskchart listens on ${server.url}.`,
    });
    const signal = await signaled;
    logger.info({
      actor: 'daemon',
      action: 'drain',
      target: 'tasks',
      signal,
      human: 'The daemon drains: running tasks may finish.',
    });
    const closing = server.close();
    process.once('SIGINT', () => void orchestrator.close(0));
    process.once('SIGTERM', () => void orchestrator.close(0));
    await closing;
    logger.info({ actor: 'daemon', action: 'stop', target: 'daemon', human: 'The daemon has stopped.' });
    process.exitCode = 0;
  } catch (error) {
    await orchestrator.close(0);
    throw error;
  } finally {
    flush();
  }
}

/** Who may call, for the log. */
function callersOf({ auth }: Config): { identity: string } {
  return { identity: auth.token === undefined ? 'localhost' : `token:${fingerprint(auth.token)}` };
}

/** @throws StoreError */
async function openFolder({ runtime, catalog }: Config, logger: Logger): Promise<Storage> {
  const folder = runtime.dir;
  try {
    const storage = await openStorage(folder, {
      ...(catalog.root === undefined ? {} : { catalog_root: catalog.root }),
      onError: (error) =>
        logger.error({
          actor: 'store',
          action: 'fail',
          target: folder,
          err: error,
          human: `Something could not be written to disk: ${error.message}.`,
        }),
    });
    logger.info({
      actor: 'store',
      action: 'open',
      target: folder,
      human: `Accepted tasks and their streams are kept in ${folder}.`,
    });
    return storage;
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    throw new StoreError(
      error.code,
      `${error.message}; --data-dir (runtime.dir) names another folder, catalog.root that of the catalog`,
      {
        cause: error,
      },
    );
  }
}

function configOf({ config: file, host, port, dataDir }: ServeOptions): Config {
  const sources = { file, env: process.env };
  const runtime = dataDir === undefined ? {} : { runtime: { dir: dataDir } };
  if (host === undefined && port === undefined) return loadConfig({ ...sources, overrides: runtime });
  const configured = parseBindAddr(loadConfig(sources).server.bind_addr);
  const name = host ?? configured?.host ?? '127.0.0.1';
  const bind_addr = `${name.includes(':') ? `[${name}]` : name}:${port ?? configured?.port ?? 8080}`;
  return loadConfig({ ...sources, overrides: { ...runtime, server: { bind_addr } } });
}

function firstSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, resolve);
  });
}
