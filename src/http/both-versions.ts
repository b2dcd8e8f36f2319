import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer as createHttp2Server, type Http2Session } from 'node:http2';
import { createServer as createNetServer, type Server as NetServer, type Socket } from 'node:net';

/** How a connection of HTTP/2 begins (RFC 9113, 3.4); no method of HTTP/1.1 does. */
const PREFACE = Buffer.from('PRI');

/** How long a connection may stay without a first byte. */
const SILENT_MS = 60_000;

export interface BothVersions {
  /** To listen with. */
  server: NetServer;
  /** Lets streams of HTTP/2 end, and takes no more on their connections. */
  closeIdle(): void;
  closeAll(): void;
}

/**
 * One port for both: HTTP/2 for clients that begin with it (in clear, with prior knowledge), HTTP/1.1 for all others.
 * TLS, and with it the choice by ALPN, is the business of a proxy.
 */
export function bothVersions(
  http1: Server,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): BothVersions {
  const sessions = new Set<Http2Session>();
  const unknown = new Set<Socket>();
  // Its compatibility face has the shape of HTTP/1.1's, but for what HTTP/2 has not.
  const http2 = createHttp2Server((request, response) => handle(request as never, response as never));
  http2.on('session', (session) => {
    sessions.add(session);
    session.once('close', () => sessions.delete(session));
  });
  http2.on('sessionError', () => undefined);
  const server = createNetServer((socket) => {
    unknown.add(socket);
    const gone = (): void => void unknown.delete(socket);
    const drop = (): void => void socket.destroy();
    socket.once('close', gone).once('error', drop);
    socket.setTimeout(SILENT_MS, drop);
    let first = Buffer.alloc(0);
    const look = (chunk: Buffer): void => {
      first = Buffer.concat([first, chunk]);
      const isHttp2 = first.subarray(0, PREFACE.length).equals(PREFACE);
      if (first.length < PREFACE.length && PREFACE.subarray(0, first.length).equals(first)) return;
      socket.off('data', look).off('close', gone).off('error', drop);
      socket.setTimeout(0);
      socket.pause();
      gone();
      socket.unshift(first);
      (isHttp2 ? http2 : http1).emit('connection', socket);
      process.nextTick(() => socket.resume());
    };
    socket.on('data', look);
  });
  const all = (end: (session: Http2Session) => void): void => {
    for (const session of sessions) end(session);
    for (const socket of unknown) socket.destroy();
  };
  return {
    server,
    closeIdle: () => all((session) => session.close()),
    closeAll: () => all((session) => session.destroy()),
  };
}
