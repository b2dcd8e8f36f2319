import { taskInfo } from '../../actors/views.ts';
import type { TaskRecord } from '../../actors/task-record.ts';
import { parseTaskRequest } from '../../contract/validate.ts';
import { failure, TaskchartError } from '../../errors.ts';
import type { Handler, HttpOptions } from '../handler.ts';
import { readJson } from '../body.ts';
import { gather } from '../gather.ts';
import { SSE_HEADERS, writeEvents, type Heartbeats } from '../sse.ts';

export function taskRoutes(
  { orchestrator, body_limit_bytes }: HttpOptions,
  heartbeats: Heartbeats,
): Record<'submitTask' | 'getTask' | 'streamTask' | 'cancelTask', Handler> {
  const known = (id: string): TaskRecord => {
    const record = orchestrator.record(id);
    if (!record) throw new TaskchartError(failure('NOT_FOUND', `task_id: there is no task "${shorten(id)}"`));
    return record;
  };

  return {
    async submitTask(ctx) {
      const body = await readJson(ctx.req, body_limit_bytes);
      await gather();
      const request = parseTaskRequest(body);
      const admission = await orchestrator.submit(request, ctx.state.correlation_id);
      ctx.status = 202;
      ctx.set('Location', `/v1/tasks/${admission.task_id}`);
      ctx.body = admission;
    },

    async getTask(ctx) {
      ctx.body = await taskInfo(orchestrator, known(ctx['params'].id));
    },

    async streamTask(ctx) {
      const record = known(ctx['params'].id);
      const after = resumePoint(ctx.get('Last-Event-ID'), ctx.query['after']);
      // The headers are all there is to say; the log may go on for minutes.
      if (ctx.method === 'HEAD') {
        ctx.status = 200;
        ctx.set(SSE_HEADERS);
        return;
      }
      const gone = new AbortController();
      ctx.respond = false;
      ctx.res.once('close', () => gone.abort());
      ctx.res.writeHead(200, SSE_HEADERS);
      ctx.res.flushHeaders();
      heartbeats.add(ctx.res);
      await writeEvents(ctx.res, orchestrator.read(record.id, after, gone.signal), gone.signal);
    },

    async cancelTask(ctx) {
      await orchestrator.cancel(ctx['params'].id);
      ctx.status = 204;
    },
  };
}

/** @returns the last event the reader has, or undefined to start at the first */
function resumePoint(header: string, query: string | string[] | undefined): number | undefined {
  const [name, value] = header === '' ? ['after', query] : ['Last-Event-ID', header];
  if (value === undefined) return undefined;
  if (typeof value === 'string' && /^\d{1,15}$/.test(value)) return Number(value);
  throw new TaskchartError(
    failure(
      'INVALID_PARAMS',
      `${name}: must be the id of an event (a whole number from 0), got "${shorten(String(value))}"`,
    ),
  );
}

function shorten(text: string): string {
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}
