import { join } from 'node:path';
import type { PoolBlueprint } from './actors/orchestrator.ts';
import type { PoolSpec } from './actors/pool-options.ts';
import type { ModelSource } from './actors/provisioner.ts';
import type { Clock } from './clock.ts';
import type { Config, PoolConfig } from './config.ts';
import { engineRequestOf, engineSpecOf, SYNTHETIC_CTX, type ProgramEnvironment } from './engine-settings.ts';
import { createEngine } from './engines/create-engine.ts';
import type { Engines } from './provisioning/engines.ts';
import type { PreparedEngine } from './provisioning/step.ts';
import type { TaskRules } from './machines/task-protocol.ts';
import type { QueueRules } from './scheduling/queue.ts';
import { engineOutput } from './observe/engine-output.ts';
import type { ModelLibraryOptions } from './models/library.ts';
import { Models } from './models/models.ts';
import { remoteModels } from './models/source.ts';

export interface BlueprintPorts {
  clock: Clock;
  models: Models;
  engines: Engines;
  /** What programs that are started here get. */
  env: ProgramEnvironment;
}

/** From a pool's configuration to what the orchestrator builds it from. */
export function blueprintOf(
  pool: PoolConfig,
  config: Config,
  { clock, models, engines, env }: BlueprintPorts,
): PoolBlueprint {
  const { supervision, runtime } = config;
  let prepared: PreparedEngine | undefined;
  return {
    spec: {
      id: pool.id,
      engine: pool.engine,
      model: pool.model,
      slots: pool.slots,
      ctx: pool.ctx ?? (pool.engine === 'synthetic' ? SYNTHETIC_CTX : undefined),
      max_tokens_out: pool.max_tokens_out,
      queue: queueRules(pool),
      rate_limit_rps: rateLimits(pool),
      rules: taskRules(pool, config),
      sampler_profile_version: pool.sampler_profile_version,
      preload: pool.preload,
    },
    models: sourceOf(pool, models, engines, (engine) => (prepared = engine)),
    engine: (model, replica_id) => (host) =>
      createEngine(
        engineSpecOf(pool, model, prepared, { config, replica_id, env }),
        { ...host, output: engineOutput(runtime.dir, replica_id) },
        clock,
      ),
    replica: {
      restart: {
        initial_ms: supervision.initial_ms,
        factor: supervision.factor,
        max_ms: supervision.max_ms,
        jitter: supervision.jitter,
        max_restarts: supervision.max_restarts,
        stable_ms: supervision.stable_s * 1000,
      },
      load_timeout_ms: supervision.load_timeout_ms,
      probe_interval_ms: supervision.probe_interval_ms,
      probe_fail: supervision.probe_fail,
    },
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
  engines: Engines,
  hold: (engine: PreparedEngine) => void,
): ModelSource {
  const isExternal = pool.engine === 'synthetic' || pool.provisioning.mode === 'external';
  if (isExternal) return remoteModels;
  const source =
    pool.engine === 'llamacpp'
      ? models.source({ checksum: pool.checksum })
      : models.source({ form: 'folder' });
  const request = engineRequestOf(pool);
  if (request === undefined) return source;
  return {
    ...source,
    ensureEngine: async (signal, progress) => hold(await engines.ensure(request, signal, progress)),
  };
}
