import type { Pool } from '../../actors/pool.ts';
import { capabilities, poolHealth, poolSummary } from '../../actors/views.ts';
import { failure, TaskchartError } from '../../errors.ts';
import type { Handler, HttpOptions } from '../handler.ts';

export function controlRoutes({
  orchestrator,
  clock,
  metrics,
}: HttpOptions): Record<
  'getCapabilities' | 'listPools' | 'getPoolHealth' | 'getHealth' | 'getMetrics',
  Handler
> {
  const known = (id: string): Pool => {
    const pool = orchestrator.pools.get(id);
    if (!pool)
      throw new TaskchartError(failure('NOT_FOUND', `pool id: there is no pool "${id.slice(0, 64)}"`));
    return pool;
  };

  return {
    getCapabilities(ctx) {
      ctx.body = capabilities(orchestrator);
    },

    listPools(ctx) {
      ctx.body = { pools: Array.from(orchestrator.pools.values(), (pool) => poolSummary(pool, clock)) };
    },

    getPoolHealth(ctx) {
      ctx.body = poolHealth(known(ctx['params'].id), clock);
    },

    getHealth(ctx) {
      ctx.status = orchestrator.isAccepting ? 200 : 503;
      ctx.body = { status: orchestrator.isAccepting ? 'ok' : 'stopping' };
    },

    async getMetrics(ctx) {
      ctx.type = 'text/plain; version=0.0.4; charset=utf-8';
      ctx.body = await metrics();
    },
  };
}
