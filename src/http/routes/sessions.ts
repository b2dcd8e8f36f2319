import { failure, TaskchartError } from '../../errors.ts';
import type { Handler, HttpOptions } from '../handler.ts';
import { uuid } from '../query.ts';

export function sessionRoutes({
  orchestrator,
}: HttpOptions): Record<'getSession' | 'touchSession' | 'deleteSession', Handler> {
  return {
    getSession(ctx) {
      ctx.body = orchestrator.sessions.info(uuid('session_id', ctx['params'].id));
    },

    touchSession(ctx) {
      const id = uuid('session_id', ctx['params'].id as string);
      if (!orchestrator.touchSession(id))
        throw new TaskchartError(failure('NOT_FOUND', `session_id: there is no session "${id}"`));
      ctx.status = 204;
    },

    async deleteSession(ctx) {
      await orchestrator.deleteSession(uuid('session_id', ctx['params'].id as string));
      ctx.status = 204;
    },
  };
}
