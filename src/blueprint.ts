import { join } from 'node:path';
import type { Catalog } from './actors/catalog.ts';
import { catalogedSource, gatedSource } from './actors/cataloged-source.ts';
import type { OrchestratorSettings, PoolBlueprint } from './actors/orchestrator-options.ts';
import type { PoolSpec } from './actors/pool-options.ts';
import type { ModelSource } from './actors/provisioner.ts';
import type { Clock } from './clock.ts';
import { isElsewhere, type Config, type PoolConfig } from './config.ts';
import { sharesOf } from './config/shares.ts';
import {
  announcedSpecOf,
  engineRequestOf,
  engineSpecOf,
  SYNTHETIC_CTX,
  type ProgramEnvironment,
} from './engine-settings.ts';
import { createEngine } from './engines/create-engine.ts';
import { cacheScale } from './engines/llamacpp/cache-types.ts';
import type { Engines } from './provisioning/engines.ts';
import type { PreparedEngine } from './provisioning/step.ts';
import type { TaskRules } from './machines/task-protocol.ts';
import { DEFAULT_SWAP_RULES } from './scheduling/swap-view.ts';
import type { QueueRules } from './scheduling/queue.ts';
import { engineOutput } from './observe/engine-output.ts';
import type { ModelLibraryOptions } from './models/library.ts';
import { Models } from './models/models.ts';
import { remoteModels } from './models/source.ts';

export interface BlueprintPorts {
  clock: Clock;
  models: Models;
  catalog: Catalog;
  engines: Engines;
  /** What programs that are started here get. */
  env: ProgramEnvironment;
}

/** From a pool's configuration to what the orchestrator builds it from. */
export function blueprintOf(
  pool: PoolConfig,
  config: Config,
  { clock, models, catalog, engines, env }: BlueprintPorts,
): PoolBlueprint {
  const { supervision, runtime } = config;
  let prepared: PreparedEngine | undefined;
  return {
    spec: {
      id: pool.id,
      engine: pool.engine,
      model: pool.model,
      model_ref: modelRefOf(pool),
      ...placeOf(pool),
      kv_scale: pool.engine === 'llamacpp' ? cacheScale(pool.provisioning.flags) : 1,
      slots: pool.slots,
      ctx: pool.ctx ?? (pool.engine === 'synthetic' ? SYNTHETIC_CTX : undefined),
      max_tokens_out: pool.max_tokens_out,
      queue: queueRules(pool),
      rate_limit_rps: rateLimits(pool),
      rules: taskRules(pool, config),
      sampler_profile_version: pool.sampler_profile_version,
      preload: pool.preload,
      reloadable: pool.engine === 'synthetic' || !isElsewhere(pool.provisioning.mode),
    },
    models: sourceOf(pool, models, catalog, engines, (engine) => (prepared = engine)),
    engine: (model, replica_id) => (host) =>
      createEngine(
        engineSpecOf(pool, model, prepared, { config, replica_id, env }),
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
  return pool.engine === 'synthetic' ? undefined : pool.provisioning.model?.ref;
}

/** Where it runs, and what it takes there; the memory of a server that runs already is not ours to give. */
function placeOf(
  pool: PoolConfig,
): Pick<PoolSpec, 'replicas' | 'devices' | 'shares' | 'memory_bytes' | 'pinned' | 'idle_ttl_ms'> {
  const { replicas, devices, memory_bytes, pinned, idle_ttl_ms } = pool;
  const mode = pool.engine === 'synthetic' ? 'synthetic' : pool.provisioning.mode;
  const shares = sharesOf(pool);
  if (!isElsewhere(mode)) return { replicas, devices, shares, memory_bytes, pinned, idle_ttl_ms };
  const own = mode === 'announced' ? 0 : 1;
  return { replicas: own, devices: [], shares: [1], memory_bytes: 0, pinned: true, idle_ttl_ms: undefined };
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

/** Where a pool's model comes from, and its engine where that has to be brought here as well. */
function sourceOf(
  pool: PoolConfig,
  models: Models,
  catalog: Catalog,
  engines: Engines,
  hold: (engine: PreparedEngine) => void,
): ModelSource {
  if (pool.engine === 'synthetic' || isElsewhere(pool.provisioning.mode))
    return gatedSource(catalog, remoteModels);
  const source =
    pool.engine === 'llamacpp'
      ? catalogedSource(catalog, (checksum) => models.source({ checksum }), pool.checksum)
      : gatedSource(catalog, models.source({ form: 'folder' }));
  const request = engineRequestOf(pool);
  if (request === undefined) return source;
  return {
    ...source,
    ensureEngine: async (signal, progress) => hold(await engines.ensure(request, signal, progress)),
  };
}
