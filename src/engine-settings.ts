import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { parseBindAddr, type Config, type PoolConfig } from './config.ts';
import { containerCommand, type ContainerSettings } from './engines/container-command.ts';
import type { EngineSpec } from './engines/create-engine.ts';
import { serverArguments } from './engines/llamacpp/server-flags.ts';
import type { PreparedModel } from './machines/provisioner.ts';
import type { EngineRequest } from './provisioning/engines.ts';
import type { PreparedEngine, Step } from './provisioning/step.ts';

/** A pool whose engine is more than words of this program. */
type RealPool = Exclude<PoolConfig, { engine: 'synthetic' }>;

/** Tokens a synthetic slot holds where the configuration does not say. */
export const SYNTHETIC_CTX = 8192;

/** The environment of programs that are started here. */
export type ProgramEnvironment = Readonly<Record<string, string>>;

/** What has to be brought here for a pool's engine; undefined where it is a part of this package, or runs somewhere. */
export function engineRequestOf(pool: PoolConfig): EngineRequest | undefined {
  if (pool.engine === 'synthetic') return undefined;
  const { mode, container } = pool.provisioning;
  if (mode === 'container' && container !== undefined) return { mode, ...container };
  if (pool.engine !== 'llamacpp') return undefined;
  const {
    binary,
    source,
    package: named,
    allow_binary_downloads,
    allow_package_installs,
  } = pool.provisioning;
  if (mode === 'binary') {
    const { path, url, checksum, install_dir } = binary ?? {};
    if (url === undefined || checksum === undefined || install_dir === undefined)
      return { mode, ...(path === undefined ? {} : { path }) };
    return { mode: 'download', url, checksum, cache_dir: install_dir, is_allowed: allow_binary_downloads };
  }
  if (mode === 'package' && named !== undefined)
    return { mode, ...named, is_allowed: allow_package_installs };
  if (mode !== 'source' || source === undefined) return undefined;
  return { mode, ...source, for_gpu: pool.devices.length > 0 };
}

/** Where an engine that was brought here runs. */
interface Place {
  config: Config;
  replica_id: string;
  env: ProgramEnvironment;
}

/** From settings, a model and an engine that are here, to what the adapter is made of. */
export function engineSpecOf(
  pool: PoolConfig,
  model: PreparedModel,
  prepared: PreparedEngine | undefined,
  place: Place,
): EngineSpec {
  if (pool.engine === 'synthetic')
    return {
      family: 'synthetic',
      model_id: pool.model,
      slots: pool.slots,
      ctx: pool.ctx ?? SYNTHETIC_CTX,
      settings: pool.synthetic,
    };
  if (prepared !== undefined) return startedSpec(pool, model, prepared, place);
  const { slots } = pool;
  const ctx = pool.ctx === undefined ? {} : { ctx: pool.ctx };
  if (pool.provisioning.mode === 'external') {
    const { url = '', api_key } = pool.provisioning.external ?? {};
    const key = api_key === undefined ? {} : { api_key };
    if (pool.engine === 'llamacpp')
      return { family: 'llamacpp', mode: 'external', url, model_id: pool.model, ...key };
    const name = pool.provisioning.external?.model;
    return {
      family: pool.engine,
      url,
      model_id: pool.model,
      slots,
      ...(name === undefined ? {} : { model: name }),
      ...key,
      ...ctx,
    };
  }
  return {
    family: 'llamacpp',
    mode: 'embedded',
    model_path: model.path,
    model_id: pool.model,
    slots,
    threads: threadsOf(pool),
    ...ctx,
  };
}

/** A server that announced itself: what the pool says of its engines holds for it as well. */
export function announcedSpecOf(
  pool: PoolConfig,
  { url, slots_total }: { url: string; slots_total?: number },
): EngineSpec {
  if (pool.engine === 'synthetic') throw new Error('synthetic engines are started here');
  const { api_key } = pool.provisioning.external ?? {};
  const common = { url, model_id: pool.model, ...(api_key === undefined ? {} : { api_key }) };
  if (pool.engine === 'llamacpp') return { family: 'llamacpp', mode: 'external', ...common };
  const name = pool.provisioning.external?.model;
  return {
    family: pool.engine,
    ...common,
    slots: slots_total ?? pool.slots,
    ...(name === undefined ? {} : { model: name }),
    ...(pool.ctx === undefined ? {} : { ctx: pool.ctx }),
  };
}

/** How a pool's engine would be run once it is here, on the port that it prefers. */
export function runStepOf(
  pool: RealPool,
  model: PreparedModel,
  prepared: PreparedEngine,
  place: Place,
): Step {
  const human = `Start the engine of pool ${pool.id}.`;
  const [port = 0] = pool.provisioning.ports;
  if (prepared.mode === 'container') {
    const { program, args } = containerCommand(containerSettings(pool, model, prepared, place), port);
    return { kind: 'run', human, command: [program, ...args] };
  }
  const args = serverArguments({
    model_path: model.path,
    host: '127.0.0.1',
    port,
    slots: pool.slots,
    ctx: ctxOf(pool, model),
    threads: threadsOf(pool),
    flags: flagsOf(pool),
  });
  return { kind: 'run', human, command: [prepared.program, ...args] };
}

function startedSpec(
  pool: RealPool,
  model: PreparedModel,
  prepared: PreparedEngine,
  place: Place,
): EngineSpec {
  const { ports, env } = pool.provisioning;
  const common = {
    folder: folderOf(place.config),
    pool_id: pool.id,
    replica_id: place.replica_id,
    model_id: pool.model,
    ports,
    // Somebody comes to this one: the daemon itself, which may listen later than its engines.
    avoid_ports: [parseBindAddr(place.config.server.bind_addr)?.port ?? 0],
    ...(model.digest === undefined ? {} : { model_digest: model.digest }),
  };
  if (prepared.mode === 'container')
    return { mode: 'container', ...common, ...containerSettings(pool, model, prepared, place) };
  const ctx = ctxOf(pool, model);
  return {
    family: 'llamacpp',
    ...common,
    mode: prepared.mode,
    program: prepared.program,
    model_path: model.path,
    slots: pool.slots,
    threads: threadsOf(pool),
    devices: pool.devices,
    flags: flagsOf(pool),
    env: { ...place.env, ...env },
    ...(ctx === undefined ? {} : { ctx }),
  };
}

function containerSettings(
  pool: RealPool,
  model: PreparedModel,
  prepared: Extract<PreparedEngine, { mode: 'container' }>,
  { config, replica_id, env }: Place,
): ContainerSettings {
  // Another daemon may have a replica of the same name, in a folder of its own.
  const owner = createHash('sha256').update(folderOf(config)).digest('hex').slice(0, 8);
  const ctx = pool.engine === 'llamacpp' ? ctxOf(pool, model) : pool.ctx;
  return {
    family: pool.engine as ContainerSettings['family'],
    tool: prepared.tool,
    kind: prepared.kind,
    image: prepared.image,
    name: `taskchart-${owner}-${replica_id.replaceAll(/[^A-Za-z0-9_.-]/g, '-')}`,
    model_path: model.path,
    model: pool.model,
    slots: pool.slots,
    threads: threadsOf(pool),
    devices: pool.devices,
    flags: flagsOf(pool),
    variables: pool.provisioning.env,
    env,
    ...(ctx === undefined ? {} : { ctx }),
  };
}

function folderOf({ runtime }: Config): string {
  return join(runtime.dir, 'engines');
}

/** The server has to be told: what it finds in the file it would share among the slots. */
function ctxOf(pool: RealPool, model: PreparedModel): number | undefined {
  return pool.ctx ?? model.context_length;
}

/** What the user adds, and how the model is split where that was said. */
function flagsOf(pool: RealPool): readonly string[] {
  const { flags } = pool.provisioning;
  if (pool.engine !== 'llamacpp' || pool.tensor_split.length === 0) return flags;
  return [...flags, '--tensor-split', pool.tensor_split.join(',')];
}

function threadsOf(pool: RealPool): number {
  return pool.engine === 'llamacpp' ? pool.threads : 1;
}
