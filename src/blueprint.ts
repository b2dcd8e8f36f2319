import { join } from 'node:path';
import type { Catalog } from './actors/catalog.ts';
import { catalogedSource, gatedSource } from './actors/cataloged-source.ts';
import type { OrchestratorSettings, PoolBlueprint } from './actors/orchestrator.ts';
import type { PoolSpec } from './actors/pool-options.ts';
import type { WorkerDescription } from './actors/workers.ts';
import type { Clock } from './clock.ts';
import type { Config, PoolConfig } from './config.ts';
import { createEngine, type EngineSpec } from './engines/create-engine.ts';
import type { PreparedModel } from './machines/provisioner.ts';
import type { TaskRules } from './machines/task-protocol.ts';
import { DEFAULT_SWAP_RULES } from './scheduling/swap-view.ts';
import type { QueueRules } from './scheduling/queue.ts';
import { engineOutput } from './observe/engine-output.ts';
import type { ModelLibraryOptions } from './models/library.ts';
import { Models } from './models/models.ts';
import { remoteModels } from './models/source.ts';

/** Tokens a synthetic slot holds where the configuration does not say. */
const SYNTHETIC_CTX = 8192;

/** From a pool's configuration to what the orchestrator builds it from. */
export function blueprintOf(
  pool: PoolConfig,
  config: Config,
  clock: Clock,
  models: Models,
  catalog: Catalog,
): PoolBlueprint {
  const { supervision, runtime } = config;
  return {
    spec: {
      id: pool.id,
      engine: pool.engine,
      model: pool.model,
      model_ref: modelRefOf(pool),
      ...placeOf(pool),
      slots: pool.slots,
      ctx: pool.ctx ?? (pool.engine === 'synthetic' ? SYNTHETIC_CTX : undefined),
      max_tokens_out: pool.max_tokens_out,
      queue: queueRules(pool),
      rate_limit_rps: rateLimits(pool),
      rules: taskRules(pool, config),
      sampler_profile_version: pool.sampler_profile_version,
      preload: pool.preload,
      reloadable: pool.engine === 'synthetic' || isEmbedded(pool),
    },
    models: isEmbedded(pool)
      ? catalogedSource(catalog, (checksum) => models.source({ checksum }), pool.checksum)
      : gatedSource(catalog, remoteModels),
    engine: (model, replica_id) => (host) =>
      createEngine(
        engineSpecOf(pool, model),
        { ...host, output: engineOutput(runtime.dir, replica_id) },
        clock,
      ),
    announced: (worker) => (host) => createEngine(announcedSpecOf(pool, worker), host, clock),
    replica: {
      restart: {
        initial_ms: supervision.initial_ms,
        factor: supervision.factor,
        max_ms: supervision.max_ms,
        jitter: supervision.jitter,
        min_ms: Math.min(500, supervision.initial_ms),
        device_factor: 2,
        stable_ms: supervision.stable_s * 1000,
        breaker_threshold: supervision.breaker_threshold,
        breaker_open_ms: supervision.breaker_open_s * 1000,
        trial_stable_ms: supervision.trial_stable_s * 1000,
        max_restarts: supervision.max_restarts,
        window_ms: supervision.window_s * 1000,
      },
      load_timeout_ms: supervision.load_timeout_ms,
      probe_interval_ms: supervision.probe_interval_ms,
      probe_fail: supervision.probe_fail,
    },
  };
}

/** What pools may take together. */
export function memoryOf({ memory }: Config): OrchestratorSettings['memory'] {
  const { host_bytes, devices, min_residency_ms, max_overtaken_ms, max_parallel_loads } = memory;
  return {
    budget: { host_bytes, devices },
    rules: { ...DEFAULT_SWAP_RULES, min_residency_ms, max_overtaken_ms, max_parallel_loads },
  };
}

/** The models of all pools. */
export function modelsOf(
  config: Config,
  ports: Pick<ModelLibraryOptions, 'clock' | 'random' | 'hub'>,
): Models {
  const { cache_dir, max_bytes } = config.models;
  return new Models({
    ...ports,
    cache_dir,
    max_bytes,
    policy: config.policy,
    provenance_file: join(config.runtime.dir, 'provenance', 'models.jsonl'),
  });
}

/** Where its model comes from, where its name does not say so. */
function modelRefOf(pool: PoolConfig): string | undefined {
  return pool.engine === 'llamacpp' ? pool.provisioning.model?.ref : undefined;
}

/** Where it runs, and what it takes there; the memory of a server that runs already is not ours to give. */
function placeOf(
  pool: PoolConfig,
): Pick<PoolSpec, 'replicas' | 'devices' | 'memory_bytes' | 'pinned' | 'idle_ttl_ms'> {
  if (!('replicas' in pool))
    return { replicas: 1, devices: [], memory_bytes: 0, pinned: true, idle_ttl_ms: undefined };
  const { replicas, devices, memory_bytes, pinned, idle_ttl_ms } = pool;
  return { replicas, devices, memory_bytes, pinned, idle_ttl_ms };
}

function queueRules({ queue, admission }: PoolConfig): QueueRules {
  const classes = admission.priorities.map(
    ({ name, queue_capacity, weight }) =>
      [
        name,
        {
          ...(queue_capacity === undefined ? {} : { capacity: queue_capacity }),
          ...(weight === undefined ? {} : { weight }),
        },
      ] as const,
  );
  return { capacity: queue.capacity, policy: queue.full_policy, classes: Object.fromEntries(classes) };
}

function rateLimits({ admission }: PoolConfig): PoolSpec['rate_limit_rps'] {
  return Object.fromEntries(
    admission.priorities.flatMap(({ name, rate_limit_rps }) =>
      rate_limit_rps === undefined ? [] : [[name, rate_limit_rps]],
    ),
  );
}

function taskRules({ timeouts }: PoolConfig, { retry, sse }: Config): TaskRules {
  return {
    max_attempts: retry.max_attempts,
    max_continuations: retry.continuations,
    metrics_period_ms: sse.metrics_period_ms,
    first_token_ms: timeouts.first_token_ms,
    idle_ms: timeouts.idle_ms,
    wall_ms: timeouts.wall_ms,
  };
}

function isEmbedded(pool: PoolConfig): pool is Extract<PoolConfig, { engine: 'llamacpp' }> {
  return pool.engine === 'llamacpp' && pool.provisioning.mode === 'embedded';
}

/** A server that announced itself: what the pool says of its engines holds for it as well. */
function announcedSpecOf(pool: PoolConfig, { url, slots_total }: WorkerDescription): EngineSpec {
  const model_id = pool.model;
  if (pool.engine === 'synthetic')
    return engineSpecOf(pool, { id: model_id, path: '', size_bytes: 0, verification: 'warn' });
  if (pool.engine === 'llamacpp') {
    const key = pool.provisioning.external?.api_key;
    return {
      family: 'llamacpp',
      mode: 'external',
      url,
      model_id,
      ...(key === undefined ? {} : { api_key: key }),
    };
  }
  const { model, api_key } = pool.provisioning.external;
  return {
    family: pool.engine,
    url,
    model_id,
    slots: slots_total ?? pool.slots,
    ...(api_key === undefined ? {} : { api_key }),
    ...(model === undefined ? {} : { model }),
    ...(pool.ctx === undefined ? {} : { ctx: pool.ctx }),
  };
}

function engineSpecOf(pool: PoolConfig, model: PreparedModel): EngineSpec {
  if (pool.engine === 'synthetic')
    return {
      family: 'synthetic',
      model_id: pool.model,
      slots: pool.slots,
      ctx: pool.ctx ?? SYNTHETIC_CTX,
      settings: pool.synthetic,
    };
  if (pool.engine !== 'llamacpp') {
    const { url, model: name, api_key } = pool.provisioning.external;
    return {
      family: pool.engine,
      url,
      model_id: pool.model,
      slots: pool.slots,
      ...(name === undefined ? {} : { model: name }),
      ...(api_key === undefined ? {} : { api_key }),
      ...(pool.ctx === undefined ? {} : { ctx: pool.ctx }),
    };
  }
  if (pool.provisioning.mode === 'external') {
    const { url = '', api_key } = pool.provisioning.external ?? {};
    return {
      family: 'llamacpp',
      mode: 'external',
      url,
      model_id: pool.model,
      ...(api_key === undefined ? {} : { api_key }),
    };
  }
  return {
    family: 'llamacpp',
    mode: 'embedded',
    model_path: model.path,
    model_id: pool.model,
    slots: pool.slots,
    threads: pool.threads,
    ...(pool.ctx === undefined ? {} : { ctx: pool.ctx }),
  };
}
