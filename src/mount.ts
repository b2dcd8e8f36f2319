/**
 * taskchart's HTTP face, for a service that has a server of its own. An entry of the package, so that whoever embeds
 * taskchart without HTTP loads none.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import { systemClock, type Clock } from './clock.ts';
import { ConfigError } from './config/error.ts';
import type { EmbeddedOrchestrator } from './embed.ts';
import { createHttpFace } from './http/app.ts';
import type { AuthOptions } from './http/caller.ts';
import { shorten } from './http/query.ts';
import { createMetrics } from './observe/metrics.ts';

export type { AuthOptions };

export interface MountOptions {
  /**
   * Path before every route, such as `/llm`, where requests come with their whole path. A host that cuts its own
   * prefix off and says so in `baseUrl`, as Express does, needs none.
   * @default '' (none)
   */
  prefix?: string;
  /**
   * Who may call, as the daemon decides it. An empty object serves connections from this machine only; behind a proxy,
   * or on a Unix socket, that is nobody without a token.
   * @default none: the host decides, and nobody is asked for a token
   */
  auth?: AuthOptions;
  /** Hears of failures that are the server's own, and of callers that `auth` turns away. @default none */
  logger?: Pick<Logger, 'error' | 'warn'>;
  /** @default the system's clock */
  clock?: Clock;
}

/** The HTTP face of an orchestrator. */
export interface MountedHttp {
  /**
   * Answers a request; for `node:http`, Express and everything else that has Node's pair. Never rejects, and resolves
   * when the answer was given, which for a stream is its end. A request outside the prefix goes to `next` where there
   * is one, and else gets a 404.
   */
  readonly handler: (request: IncomingMessage, response: ServerResponse, next?: () => void) => Promise<void>;
  /**
   * Stops the face's own timers: to be called once the orchestrator is closed. The server and its connections belong
   * to whoever made them. Safe to repeat.
   */
  close(): void;
}

/**
 * Makes the HTTP face of an orchestrator: every route of the daemon, for a server that somebody else runs. The host
 * decides who may call it, unless it leaves that to `auth`. `server.bind_addr`, `auth`, `handoff` and `log` of the
 * configuration mean nothing here.
 * @throws ConfigError where the prefix is no path
 */
export function mountHttp(orchestrator: EmbeddedOrchestrator, options: MountOptions = {}): MountedHttp {
  const { config, core } = orchestrator;
  const { logger, clock = systemClock, auth } = options;
  const prefix = readPrefix(options.prefix ?? '');
  const metrics = createMetrics(core);
  const { app, close } = createHttpFace({
    orchestrator: core,
    artifacts: orchestrator.artifacts,
    catalog: orchestrator.catalog,
    purge: orchestrator.purge,
    clock,
    prefix,
    body_limit_bytes: config.server.body_limit_bytes,
    heartbeat_ms: config.sse.heartbeat_ms,
    narration_enabled: config.sse.narration_enabled,
    narration_period_ms: config.sse.narration_period_ms,
    microbatch_window_ms: config.sse.microbatch ? config.sse.microbatch_window_ms : undefined,
    metrics: metrics.exposition,
    auth,
    refused: (ctx, { message, hint }) =>
      logger?.warn({
        actor: 'http',
        action: 'refuse',
        target: shorten(ctx.path),
        peer: ctx.req.socket.remoteAddress,
        x_correlation_id: ctx.state['correlation_id'],
        error_kind: message,
        human: `A caller is turned away: ${hint}.`,
      }),
    dropped: metrics.dropped,
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
  const isClosing = (): boolean => !core.isAccepting && !core.isRecovering;
  return {
    handler(request, response, next) {
      if (next && !isUnder(prefix, request.url ?? '')) {
        next();
        return Promise.resolve();
      }
      if (request.httpVersionMajor < 2) {
        if (isClosing()) response.setHeader('Connection', 'close');
        // A connection kept for more requests would hold up the host's server, which is about to close as well.
        else response.once('finish', () => void (isClosing() && request.socket.destroySoon()));
      }
      return handle(request, response);
    },
    close,
  };
}

/** @returns it without a slash at its end */
function readPrefix(text: string): string {
  const prefix = text.replace(/\/+$/, '');
  if (/^(\/[\w.~-]+)*$/.test(prefix)) return prefix;
  throw new ConfigError(
    `prefix: must be a path that begins with a slash, such as /llm, got ${JSON.stringify(text)}`,
  );
}

function isUnder(prefix: string, url: string): boolean {
  if (!url.startsWith(prefix)) return false;
  const after = url.charAt(prefix.length);
  return prefix === '' || after === '/' || after === '?' || after === '';
}
