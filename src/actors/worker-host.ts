import { failure, TaskchartError } from '../errors.ts';
import type { Pool } from './pool.ts';
import type { WorkerHost } from './workers.ts';

/** Pools give work to engines that were announced for them, beside those that they start themselves. */
export function workerHost(pools: ReadonlyMap<string, Pool>): WorkerHost {
  return {
    attach(worker) {
      const { pool_id, replica_id, engine } = worker;
      const pool = pools.get(pool_id);
      if (pool?.spec.engine !== engine)
        throw new TaskchartError(
          failure(
            'INVALID_PARAMS',
            `engine: pool ${pool_id} has engines of ${pool?.spec.engine}, got ${engine}`,
            {
              engine,
              pool_id,
            },
          ),
        );
      pool.engines.attach(replica_id, worker);
    },

    detach({ pool_id, replica_id }) {
      pools.get(pool_id)?.engines.detach(replica_id);
    },
  };
}
