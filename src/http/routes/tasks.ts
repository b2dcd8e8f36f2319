import type { TaskRecord } from '../../actors/task-record.ts';
import { taskInfo, taskSummary } from '../../actors/views.ts';
import { failure, TaskchartError } from '../../errors.ts';
import type { Handler, HttpOptions } from '../handler.ts';
import { oneOf, queryOf, shorten, uuid, wholeNumber } from '../query.ts';

const STATES = ['admitted', 'provisioning', 'placed', 'streaming', 'ended', 'error'] as const;
const PAGE = 100;
const LARGEST_PAGE = 1000;

export function taskRoutes({
  orchestrator,
}: HttpOptions): Record<'getTask' | 'listTasks' | 'deleteTask' | 'cancelTask', Handler> {
  return {
    async getTask(ctx) {
      ctx.body = await taskInfo(orchestrator, knownTask(orchestrator, ctx['params'].id));
    },

    listTasks(ctx) {
      const filter = {
        state: oneOf('state', queryOf(ctx, 'state'), STATES),
        pool_id: queryOf(ctx, 'pool_id'),
        session_id: uuid('session_id', queryOf(ctx, 'session_id')),
      };
      const limit = wholeNumber('limit', queryOf(ctx, 'limit'), { from: 1, to: LARGEST_PAGE }) ?? PAGE;
      const before = wholeNumber('cursor', queryOf(ctx, 'cursor'), {
        right: 'the next_cursor of an earlier page',
      });
      const { tasks, isMore } = orchestrator.registry.page(filter, limit, before);
      const last = tasks.at(-1);
      ctx.body = {
        tasks: tasks.map((record) => taskSummary(orchestrator, record)),
        ...(isMore && last ? { next_cursor: String(last.sequence) } : {}),
      };
    },

    async deleteTask(ctx) {
      await orchestrator.remove(ctx['params'].id);
      ctx.status = 204;
    },

    async cancelTask(ctx) {
      await orchestrator.cancel(ctx['params'].id);
      ctx.status = 204;
    },
  };
}

/** @throws TaskchartError NOT_FOUND */
export function knownTask(orchestrator: HttpOptions['orchestrator'], id: string): TaskRecord {
  const record = orchestrator.record(id);
  if (!record) throw new TaskchartError(failure('NOT_FOUND', `task_id: there is no task "${shorten(id)}"`));
  return record;
}
