import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import { systemClock, type Clock } from './clock.ts';
import type { EmbeddedOrchestrator } from './embed.ts';
import { createHttpFace, type HttpFace } from './http/app.ts';
import { createMetrics } from './observe/metrics.ts';

export interface MountOptions {
  /**
   * Path before every route, such as `/llm`: for hosts that hand over the whole path. A host that cuts its own prefix
   * off (Express, koa-mount) needs none. @default ''
   */
  prefix?: string;
  /** Hears of failures that are nobody's fault but the server's. @default none */
  logger?: Pick<Logger, 'error'>;
  /** @default the system's clock */
  clock?: Clock;
}

/** The HTTP face of an orchestrator, for a service that has a server of its own. */
export interface MountedHttp {
  /** For node:http, Express (`app.use('/llm', http.handler)`) and everything else that has Node's pair. */
  handler: (request: IncomingMessage, response: ServerResponse) => void;
  /** For Koa: `mount('/llm', http.app)` of koa-mount, or `app.use` of each of its middleware. */
  app: HttpFace['app'];
  /** Stops the face's timers. The orchestrator and the connections belong to whoever made them. */
  close(): void;
}

/**
 * Makes the HTTP face of an orchestrator: every route of the daemon, for a server that somebody else runs. Whoever
 * mounts it decides who may call it: it asks nobody for a token.
 */
export function mountHttp(orchestrator: EmbeddedOrchestrator, options: MountOptions = {}): MountedHttp {
  const { config, core } = orchestrator;
  const { prefix = '', logger, clock = systemClock } = options;
  const metrics = createMetrics(core);
  const { app, close } = createHttpFace({
    orchestrator: core,
    clock,
    prefix: prefix.replace(/\/+$/, ''),
    body_limit_bytes: config.server.body_limit_bytes,
    heartbeat_ms: config.sse.heartbeat_ms,
    narration_enabled: config.sse.narration_enabled,
    microbatch_window_ms: config.sse.microbatch ? config.sse.microbatch_window_ms : undefined,
    metrics: metrics.exposition,
    report: (error, ctx) =>
      logger?.error({
        actor: 'http',
        action: 'fail',
        target: ctx.path,
        x_correlation_id: ctx.state['correlation_id'],
        err: error,
        human: `A request to ${ctx.path} failed for a reason of ours.`,
      }),
  });
  const handle = app.callback();
  return { handler: (request, response) => void handle(request, response), app, close };
}
