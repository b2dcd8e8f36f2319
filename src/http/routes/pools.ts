import type { Pool } from '../../actors/pool.ts';
import { poolHealth, poolSummary } from '../../actors/views.ts';
import { parseDrain, parsePurge, parseReload } from '../../contract/validate.ts';
import { failure, TaskchartError } from '../../errors.ts';
import { readJson } from '../body.ts';
import type { Handler, HttpOptions } from '../handler.ts';
import { queryOf, shorten } from '../query.ts';

/** Looking at pools, and telling them what to do. */
export function poolRoutes({
  orchestrator,
  clock,
  body_limit_bytes,
  purge,
  report,
}: HttpOptions): Record<'listPools' | 'getPoolHealth' | 'drainPool' | 'reloadPool' | 'purgePool', Handler> {
  const known = (id: string): Pool => {
    const pool = orchestrator.pools.get(id);
    if (!pool) throw new TaskchartError(failure('NOT_FOUND', `pool id: there is no pool "${shorten(id)}"`));
    return pool;
  };

  return {
    listPools(ctx) {
      ctx.body = { pools: Array.from(orchestrator.pools.values(), (pool) => poolSummary(pool, clock)) };
    },

    getPoolHealth(ctx) {
      ctx.body = poolHealth(known(ctx['params'].id), clock);
    },

    async drainPool(ctx) {
      const pool = known(ctx['params'].id);
      const { deadline_ms } = parseDrain(await readJson(ctx.req, body_limit_bytes));
      pool.engines.drain(deadline_ms);
      ctx.status = 202;
      ctx.body = { status: 'accepted' };
    },

    async reloadPool(ctx) {
      const pool = known(ctx['params'].id);
      const { new_model_ref, deadline_ms = 60_000 } = parseReload(await readJson(ctx.req, body_limit_bytes));
      const reloaded = pool.engines.reload(new_model_ref, deadline_ms);
      if (queryOf(ctx, 'wait') === 'true') {
        await reloaded;
        ctx.body = { status: 'done' };
        return;
      }
      // The pool's health tells how it went.
      reloaded.catch((error: unknown) => {
        if (!(error instanceof TaskchartError)) report(error, ctx);
      });
      ctx.status = 202;
      ctx.body = { status: 'accepted' };
    },

    async purgePool(ctx) {
      const pool = known(ctx['params'].id);
      void purge.begin(pool, parsePurge(await readJson(ctx.req, body_limit_bytes)));
      ctx.status = 202;
      ctx.body = { status: 'accepted' };
    },
  };
}
