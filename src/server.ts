import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import { ConfigError, parseBindAddr } from './config.ts';
import type { EmbeddedOrchestrator } from './embed.ts';
import { createHttpFace } from './http/app.ts';
import { systemClock, type Clock } from './clock.ts';
import { createMetrics } from './observe/metrics.ts';
import { narrate } from './observe/narrate.ts';

export interface RunningServer {
  /** Where it listens, with the port it really has. */
  url: string;
  /** Drains: running tasks finish, streams get their last event, then the port is closed. */
  close(shutdown_ms?: number): Promise<void>;
}

/** The daemon: the HTTP face of an orchestrator, with logs and metrics. @throws Error EADDRINUSE, EACCES … in one line */
export async function startServer(
  orchestrator: EmbeddedOrchestrator,
  logger: Logger,
  clock: Clock = systemClock,
): Promise<RunningServer> {
  const { config, core } = orchestrator;
  const address = parseBindAddr(config.server.bind_addr);
  if (!address) throw new ConfigError(`server.bind_addr: cannot be read: "${config.server.bind_addr}"`);
  const { host, port } = address;
  narrate(core, logger);
  const metrics = createMetrics(core);
  const face = createHttpFace({
    orchestrator: core,
    clock,
    body_limit_bytes: config.server.body_limit_bytes,
    heartbeat_ms: config.sse.heartbeat_ms,
    metrics: metrics.exposition,
    report: (error, ctx) =>
      logger.error({
        actor: 'http',
        action: 'fail',
        target: ctx.path,
        x_correlation_id: ctx.state['correlation_id'],
        err: error,
        human: `A request to ${ctx.path} failed for a reason of ours.`,
      }),
  });
  const server = createServer(face.app.callback());
  await listen(server, host, port);
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${(server.address() as AddressInfo).port}`;
  return {
    url,
    async close(shutdown_ms) {
      await orchestrator.close(shutdown_ms);
      face.close();
      const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
      server.closeIdleConnections();
      // Every log has its terminal event now: a reader that is still connected needs a moment to take it.
      const force = setTimeout(() => server.closeAllConnections(), 1000);
      await closed;
      clearTimeout(force);
    },
  };
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why =
        error.code === 'EADDRINUSE'
          ? 'the port is in use; choose another with --port (0 = any free one)'
          : (error.code ?? error.message);
      reject(new Error(`cannot listen on ${host}:${port}: ${why}`));
    });
    server.listen(port, host, () => resolve());
  });
}
