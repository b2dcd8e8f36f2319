import { isDeepStrictEqual } from 'node:util';
import type { PurgeRequest } from '../contract/generated/types.ts';
import { failure, TaskchartError } from '../errors.ts';
import type { Observers } from './observation.ts';
import type { Pool } from './pool.ts';

export interface PurgeOptions {
  pools: ReadonlyMap<string, Pool>;
  observers: Observers;
  /** How long what runs may take, in milliseconds. */
  drain_ms: number;
  /** Deletes the fetched files of a model that nobody here needs any more. */
  removeModel: (model_ref: string) => Promise<unknown>;
  /** What was built for a pool's engine, as plain data; undefined where nothing was. */
  buildOf: (pool_id: string) => object | undefined;
  /** Deletes it. */
  removeBuild: (pool_id: string) => Promise<unknown>;
}

/** Takes a pool out of service and deletes what was stored for it. */
export class Purge {
  readonly #options: PurgeOptions;

  constructor(options: PurgeOptions) {
    this.#options = options;
  }

  /**
   * Begins; the observation `pool.purged` tells how it went. The pool is drained afterwards, and a reload of its model
   * brings everything back.
   * @returns when it is over
   * @throws TaskchartError INVALID_PARAMS for what is no model; POOL_UNREADY (409) where another pool needs it, too
   */
  begin(pool: Pool, wishes: PurgeRequest): Promise<void> {
    const { purge_models = [], delete_cache_dirs = false, drain_first = true, force = false } = wishes;
    const models = purge_models.map((model_ref) => pool.engines.nameOf(model_ref));
    if (delete_cache_dirs) models.push(pool.engines.model.ref);
    const purge_engine = delete_cache_dirs || wishes.purge_engine === true;
    if (!force) this.#refuseShared(pool, models, purge_engine);
    pool.engines.drain(drain_first ? this.#options.drain_ms : 0);
    return this.#delete(pool, models, purge_engine);
  }

  #refuseShared(pool: Pool, models: readonly string[], purge_engine: boolean): void {
    const { pools, buildOf } = this.#options;
    const pool_id = pool.spec.id;
    const build = buildOf(pool_id);
    const refuse = (what: string, other: string): never => {
      throw new TaskchartError(
        failure(
          'POOL_UNREADY',
          `${what} is used by pool ${other}, too; set force to delete it all the same`,
          { pool_id },
        ),
        409,
      );
    };
    for (const other of pools.values()) {
      if (other === pool) continue;
      const model = models.find((model_ref) => model_ref === other.engines.model.ref);
      if (model !== undefined) refuse(`purge_models: ${model}`, other.spec.id);
      if (purge_engine && build && isDeepStrictEqual(build, buildOf(other.spec.id)))
        refuse('purge_engine: the engine', other.spec.id);
    }
  }

  async #delete(pool: Pool, models: readonly string[], purge_engine: boolean): Promise<void> {
    const { observers, removeModel, removeBuild } = this.#options;
    const pool_id = pool.spec.id;
    try {
      await pool.engines.drained();
      for (const model_ref of models) await removeModel(model_ref);
      if (purge_engine) await removeBuild(pool_id);
      observers.tell({ type: 'pool.purged', pool_id, failure: undefined });
    } catch (error) {
      const message = `not everything could be deleted: ${(error as Error).message}`;
      observers.tell({ type: 'pool.purged', pool_id, failure: failure('INTERNAL', message, { pool_id }) });
    }
  }
}
