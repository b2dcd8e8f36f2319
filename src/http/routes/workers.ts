import { parseWorker } from '../../contract/validate.ts';
import { turnAwayWithoutToken } from '../auth.ts';
import { readJson } from '../body.ts';
import type { Handler, HttpOptions } from '../handler.ts';

export function workerRoutes({
  orchestrator,
  body_limit_bytes,
}: HttpOptions): Record<'registerWorker', Handler> {
  return {
    async registerWorker(ctx) {
      const { caller } = ctx.state;
      // An engine is sent every prompt: nobody puts one in place without having shown the token for it.
      if (!caller?.is_worker) return turnAwayWithoutToken(ctx);
      const worker = parseWorker(await readJson(ctx.req, body_limit_bytes));
      ctx.state.concerns = { engine: worker.engine, pool_id: worker.pool_id };
      await orchestrator.workers.bind(worker);
      const { pool_id, replica_id } = worker;
      ctx.body = { ok: true, identity: caller.identity, pool_id, replica_id };
    },
  };
}
