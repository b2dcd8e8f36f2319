import type { Context, Middleware } from 'koa';
import { failure, TaskchartError, type Failure } from '../errors.ts';
import type { ExchangeState } from './handler.ts';

/** The one exit for failures: whatever is thrown below leaves as one envelope, sent once. */
export function errorExit(report: (error: unknown, ctx: Context) => void): Middleware {
  return async (ctx, next) => {
    try {
      await next();
      if (ctx.status === 404 && ctx.body === undefined && ctx.respond !== false)
        send(ctx, failure('NOT_FOUND', `there is no ${ctx.method} ${ctx.path}`), 404);
    } catch (error) {
      // After the first byte of a stream the status is spent; the connection is all that is left to end.
      if (ctx.headerSent) {
        report(error, ctx);
        ctx.res.destroy();
        return;
      }
      if (error instanceof TaskchartError) send(ctx, error.failure, error.status);
      else {
        report(error, ctx);
        send(ctx, failure('INTERNAL', 'the server failed on this request; its log has the cause'), 500);
      }
    }
  };
}

function send(ctx: Context, cause: Failure, status: number): void {
  ctx.status = status;
  if (cause.retry_after_ms !== undefined && (status === 429 || status === 503)) {
    ctx.set('Retry-After', String(Math.max(1, Math.ceil(cause.retry_after_ms / 1000))));
    if (status === 429) ctx.set('X-Backoff-Ms', String(Math.round(cause.retry_after_ms)));
  }
  ctx.body = { ...(ctx.state as ExchangeState).concerns, ...cause };
}
