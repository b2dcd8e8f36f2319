import Router from 'koa-router';
import Koa, { type Context } from 'koa';
import { operations } from '../contract/generated/operations.ts';
import { failure, TaskchartError } from '../errors.ts';
import { authenticate } from './auth.ts';
import { correlate } from './correlation.ts';
import { errorExit } from './errors.ts';
import type { Handler, HttpOptions } from './handler.ts';
import { artifactRoutes } from './routes/artifacts.ts';
import { catalogRoutes } from './routes/catalog.ts';
import { controlRoutes } from './routes/control.ts';
import { poolRoutes } from './routes/pools.ts';
import { sessionRoutes } from './routes/sessions.ts';
import { streamRoutes } from './routes/stream.ts';
import { submissionRoutes } from './routes/submission.ts';
import { taskRoutes } from './routes/tasks.ts';
import { tokenizeRoutes } from './routes/tokenize.ts';
import { workerRoutes } from './routes/workers.ts';
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
    ...submissionRoutes(options),
    ...taskRoutes(options),
    ...streamRoutes(options, heartbeats),
    ...sessionRoutes(options),
    ...tokenizeRoutes(options),
    ...controlRoutes(options),
    ...poolRoutes(options),
    ...artifactRoutes(options),
    ...catalogRoutes(options),
    ...workerRoutes(options),
  };
  // A router tries each of its paths: what comes most often has one of its own, and those that only say "planned" are
  // kept out of the others' way.
  const busy = new Router();
  const present = new Router();
  const future = new Router();
  for (const { operationId, method, path } of operations) {
    const handle = handlers[operationId];
    const full = options.prefix + path;
    const router = operationId === 'submitTask' ? busy : present;
    if (handle) router.register(full, [method], (ctx) => handle(ctx as never));
    else future.register(full, [method], planned(operationId) as never);
  }
  const app = new Koa();
  app.use(correlate);
  app.use(errorExit(options.report));
  if (options.auth) app.use(authenticate(options.auth, options.prefix, options.refused));
  app.use(async (ctx, next) => {
    ctx.state['prefix'] = options.prefix;
    // Who asks for a task of an earlier process must not be told that there is none.
    if (options.orchestrator.isRecovering) await options.orchestrator.recovered;
    if (!options.orchestrator.isReadable)
      throw new TaskchartError(failure('POOL_UNREADY', 'this server has stopped', { retry_after_ms: 1000 }));
    return next();
  });
  app.use(busy.routes());
  app.use(present.routes());
  app.use(future.routes());
  app.use(otherMethods(options.prefix));
  // What handlers throw leaves by the one exit; what arrives here is a caller that left in the middle.
  app.on('error', (error: unknown, ctx: Context) => {
    if (!ctx.req.socket.destroyed) options.report(error, ctx);
  });
  return { app, close: () => heartbeats.close() };
}

/** A path of ours under another method: says which ones there are. */
function otherMethods(prefix: string): Koa.Middleware {
  const known = operations.map(({ method, path }) => ({
    method: method.toUpperCase(),
    pattern: new RegExp(`^${prefix}${path.replaceAll(/:\w+/g, '[^/]+')}/?$`),
  }));
  return (ctx) => {
    const methods = known
      .filter(({ pattern }) => pattern.test(ctx.path))
      // The router answers HEAD where there is GET.
      .flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method]));
    if (methods.length === 0) return;
    ctx.set('Allow', methods.join(', '));
    if (ctx.method === 'OPTIONS') {
      ctx.status = 204;
      return;
    }
    throw new TaskchartError(
      failure('NOT_FOUND', `there is no ${ctx.method} ${ctx.path}; it has ${methods.join(', ')}`),
      405,
    );
  };
}

function planned(operationId: string): Handler {
  return () => {
    throw new TaskchartError(
      failure('NOT_IMPLEMENTED', `${operationId} is planned, and not in this version of taskchart`),
    );
  };
}
