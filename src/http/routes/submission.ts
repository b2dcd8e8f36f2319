import type { Context } from 'koa';
import type { Sessions } from '../../actors/sessions.ts';
import type { TaskRequest } from '../../contract/generated/types.ts';
import { hashAhead } from '../../contract/request-digest.ts';
import { parseTaskRequest, unknownFields } from '../../contract/validate.ts';
import { failure, TaskchartError } from '../../errors.ts';
import { decimal } from '../../scheduling/budget.ts';
import { readJson, SMALL_BYTES } from '../body.ts';
import { gather, spread } from '../gather.ts';
import { mountPoint, type Handler, type HttpOptions } from '../handler.ts';

const LONGEST_KEY = 128;

export function submissionRoutes({
  orchestrator,
  body_limit_bytes,
}: HttpOptions): Record<'submitTask' | 'previewTask', Handler> {
  const readSubmission = async (
    ctx: Context,
  ): Promise<{ request: TaskRequest; idempotency_key: string | undefined }> => {
    const body = await readJson(ctx.req, body_limit_bytes);
    await gather();
    const request = parseTaskRequest(body);
    if ((request.prompt?.length ?? 0) > SMALL_BYTES) {
      await spread();
      hashAhead(request);
    }
    const fields = unknownFields(body, request);
    if (fields.length > 0)
      orchestrator.observers.tell({
        type: 'request.trimmed',
        fields,
        correlation_id: ctx.state['correlation_id'] as string,
      });
    return { request, idempotency_key: idempotencyKey(ctx.get('Idempotency-Key'), request.engine) };
  };

  return {
    async submitTask(ctx) {
      const { correlation_id } = ctx.state;
      const { request, idempotency_key } = await readSubmission(ctx).catch((error: unknown) => {
        // Who asks for work and is refused is counted and logged, also where nobody can tell what it was.
        if (error instanceof TaskchartError)
          orchestrator.observers.tell({
            type: 'task.refused',
            failure: error.failure,
            engine: error.failure.engine ?? '',
            correlation_id,
            identity: ctx.state.caller?.identity,
          });
        throw error;
      });
      ctx.state.concerns = { engine: request.engine };
      const admission = await orchestrator.submit(request, {
        correlation_id,
        idempotency_key,
        identity: ctx.state.caller?.identity,
      });
      const self = `${mountPoint(ctx)}/v1/tasks/${admission.task_id}`;
      ctx.status = 202;
      ctx.set('Location', self);
      if (admission.session_id !== undefined)
        ctx.set(budgetHeaders(orchestrator.sessions, admission.session_id));
      ctx.body = {
        ...admission,
        streams: { sse: `${self}/stream`, sse_verbose: `${self}/stream?verbose=true` },
      };
    },

    async previewTask(ctx) {
      const request = parseTaskRequest(await readJson(ctx.req, body_limit_bytes));
      ctx.state.concerns = { engine: request.engine };
      ctx.body = await orchestrator.preview(request);
    },
  };
}

/** What is left of the budgets that are configured. */
export function budgetHeaders(sessions: Sessions, session_id: string): Record<string, string> {
  const { tokens, time_ms, cost } = sessions.remaining(session_id);
  return {
    ...(tokens === undefined ? {} : { 'X-Budget-Tokens-Remaining': String(tokens) }),
    ...(time_ms === undefined ? {} : { 'X-Budget-Time-Remaining-Ms': String(time_ms) }),
    ...(cost === undefined ? {} : { 'X-Budget-Cost-Remaining': decimal(cost) }),
  };
}

function idempotencyKey(header: string, engine: string): string | undefined {
  if (header === '') return undefined;
  if (header.length <= LONGEST_KEY) return header;
  throw new TaskchartError(
    failure(
      'INVALID_PARAMS',
      `Idempotency-Key: must have at most ${LONGEST_KEY} characters, got ${header.length}`,
      { engine },
    ),
  );
}
