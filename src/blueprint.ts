import type { PoolBlueprint } from './actors/orchestrator.ts';
import type { Clock } from './clock.ts';
import type { Config, PoolConfig } from './config.ts';
import { createEngine, type EngineSpec } from './engines/create-engine.ts';
import type { PreparedModel } from './machines/provisioner.ts';
import { engineOutput } from './observe/engine-output.ts';
import { fileModels, remoteModels } from './models/source.ts';

/** Tokens a synthetic slot holds where the configuration does not say. */
const SYNTHETIC_CTX = 8192;

/** From a pool's configuration to what the orchestrator builds it from. */
export function blueprintOf(pool: PoolConfig, { supervision, runtime }: Config, clock: Clock): PoolBlueprint {
  return {
    spec: {
      id: pool.id,
      engine: pool.engine,
      model: pool.model,
      slots: pool.slots,
      ctx: pool.ctx ?? (pool.engine === 'synthetic' ? SYNTHETIC_CTX : undefined),
      max_tokens_out: pool.max_tokens_out,
      capacity: pool.queue.capacity,
      preload: pool.preload,
    },
    models: isEmbedded(pool) ? fileModels : remoteModels,
    engine: (model, replica_id) => (host) =>
      createEngine(
        engineSpecOf(pool, model),
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

function isEmbedded(pool: PoolConfig): boolean {
  return pool.engine === 'llamacpp' && pool.provisioning.mode === 'embedded';
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
  if (pool.provisioning.mode === 'external')
    return {
      family: 'llamacpp',
      mode: 'external',
      url: pool.provisioning.external?.url ?? '',
      model_id: pool.model,
    };
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
