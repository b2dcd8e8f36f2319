import Router from 'koa-router';
import Koa, { type Context } from 'koa';
import { operations } from '../contract/generated/operations.ts';
import { failure, TaskchartError } from '../errors.ts';
import { correlate } from './correlation.ts';
import { errorExit } from './errors.ts';
import type { Handler, HttpOptions } from './handler.ts';
import { controlRoutes } from './routes/control.ts';
import { taskRoutes } from './routes/tasks.ts';
import { Heartbeats } from './sse.ts';

export interface HttpFace {
  app: Koa;
  /** Stops the face's timers; connections belong to whoever listens. */
  close(): void;
}

/** The HTTP face: every operation of the contract is mounted, those that are planned answer 501. */
export function createHttpFace(options: HttpOptions): HttpFace {
  const heartbeats = new Heartbeats(options.clock, options.heartbeat_ms);
  const handlers: Partial<Record<string, Handler>> = {
    ...taskRoutes(options, heartbeats),
    ...controlRoutes(options),
  };
  // A router tries each of its paths; those that only say "planned" are kept out of the others' way.
  const present = new Router();
  const future = new Router();
  for (const { operationId, method, path } of operations) {
    const handle = handlers[operationId];
    if (handle) present.register(path, [method], (ctx) => handle(ctx as never));
    else future.register(path, [method], planned(operationId) as never);
  }
  const app = new Koa();
  app.use(correlate);
  app.use(errorExit(options.report));
  app.use(present.routes());
  app.use(future.routes());
  // What handlers throw leaves by the one exit; what arrives here is a caller that left in the middle.
  app.on('error', (error: unknown, ctx: Context) => {
    if (!ctx.req.socket.destroyed) options.report(error, ctx);
  });
  return { app, close: () => heartbeats.close() };
}

function planned(operationId: string): Handler {
  return () => {
    throw new TaskchartError(
      failure('NOT_IMPLEMENTED', `${operationId} is planned, and not in this version of taskchart`),
    );
  };
}
