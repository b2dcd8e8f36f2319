import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Server as NetServer } from 'node:net';
import type { Logger } from 'pino';
import { HandoffWatcher } from './actors/handoff-watcher.ts';
import { ConfigError, parseBindAddr } from './config.ts';
import type { EmbeddedOrchestrator } from './embed.ts';
import { FolderOfHandoffs, isElsewhere } from './engines/handoff-folder.ts';
import { bothVersions } from './http/both-versions.ts';
import { answerMalformed } from './http/malformed.ts';
import { mountHttp } from './mount.ts';
import { systemClock, type Clock } from './clock.ts';
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
  const handoff = new HandoffWatcher({
    clock,
    poll_ms: config.handoff.poll_ms,
    folder: new FolderOfHandoffs(config.handoff.dir),
    isElsewhere,
    workers: core.workers,
    observers: core.observers,
  });
  const http = mountHttp(orchestrator, { logger, clock, auth: config.auth });
  // Nobody may be told that there is no such task before it is known what there is.
  await core.recovered;
  const server = createServer({ requireHostHeader: false });
  const handle = (request: IncomingMessage, response: ServerResponse): void =>
    void http.handler(request, response);
  answerMalformed(server, handle);
  const both = config.server.prefer_h2 ? bothVersions(server, handle) : undefined;
  const door = both?.server ?? server;
  await listen(door, host, port);
  handoff.start();
  const url = `http://${host.includes(':') ? `[${host}]` : host}:${(door.address() as AddressInfo).port}`;
  return {
    url,
    async close(shutdown_ms) {
      // What it is in the middle of ends with the pools.
      const watched = handoff.stop();
      await orchestrator.close(shutdown_ms);
      await watched;
      http.close();
      const closed = new Promise<void>((resolve) => void door.close(() => resolve()));
      server.closeIdleConnections();
      both?.closeIdle();
      // Every log is closed now: a reader that is still connected needs a moment to take it.
      const force = setTimeout(() => {
        server.closeAllConnections();
        both?.closeAll();
      }, 1000);
      await closed;
      clearTimeout(force);
    },
  };
}

function listen(server: Server | NetServer, host: string, port: number): Promise<void> {
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
