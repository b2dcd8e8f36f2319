import { capabilities } from '../../actors/views.ts';
import type { Handler, HttpOptions } from '../handler.ts';

export function controlRoutes({
  orchestrator,
  metrics,
}: HttpOptions): Record<'getCapabilities' | 'getHealth' | 'getMetrics', Handler> {
  return {
    getCapabilities(ctx) {
      ctx.body = capabilities(orchestrator);
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
